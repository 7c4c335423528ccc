"""OLMo Hybrid: three layers of gated delta networks to one of attention.

Source: huggingface/transformers:src/transformers/models/olmo_hybrid/, 5.23.0; names as in the published file
(src/transformers/conversion_mapping.py).
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.layer_kind import Attention, Dense, LinearAttention
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    is_tied,
    linear,
    norm,
)
from vramfit.readers.families.state_space import LARGEST_KERNEL, convolution, states
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, Layer, ModelSpec

FULL_EVERY = 4
KEY_SHARE = (3, 4)
"""Class defaults in transformers: the last of four layers attends; all keys fill three quarters of the hidden size."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an OLMo Hybrid configuration."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    attends = _attends(fields)
    kinds: dict[bool, Layer] = {}
    for full in dict.fromkeys(attends):
        mixer, mixing = _full(fields, hidden) if full else _delta(fields, hidden)
        names = (
            ("post_attention_layernorm", "post_feedforward_layernorm")
            if full
            else ("attention_layer_norm", "feedforward_layer_norm")
        )
        tensors = (*block_norms(hidden, names), *mixing, *gated_mlp(hidden, width))
        kinds[full] = Layer(attention=mixer, feed_forward=Dense(intermediate_size=width), tensors=tensors)
    layers = tuple(kinds[full] for full in attends)
    return causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields))


def _attends(fields: Fields) -> tuple[bool, ...]:
    """Say of each layer whether it attends: ``layer_types``, else every fourth and always one."""
    num = fields.num_layers
    told = fields.layers_with("full_attention", "linear_attention")
    if told is not None:
        return told
    fields.assume("layer_types", f"full_attention in every layer number {FULL_EVERY}")
    pattern = tuple((i + 1) % FULL_EVERY == 0 for i in range(num))
    return pattern if any(pattern) else (*pattern[:-1], True)


def _full(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return attention with norms over all queries and over all keys."""
    facts, bias = grouped_query(fields, hidden), fields.flag("attention_bias", default=False)
    return facts, (
        *attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias),
        *norm("self_attn.q_norm", facts.num_attention_heads * facts.head_dim),
        *norm("self_attn.k_norm", facts.num_key_value_heads * facts.head_dim),
    )


def _delta(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return a gated delta network whose projections are all apart."""
    heads = fields.integer("num_attention_heads")
    key_heads = fields.integer("linear_num_key_heads", heads)
    value_heads = fields.integer("linear_num_value_heads", heads)
    head = fields.integer("linear_key_head_dim", KEY_SHARE[0] * hidden // (KEY_SHARE[1] * key_heads))
    facts = LinearAttention(
        num_key_heads=key_heads,
        num_value_heads=value_heads,
        key_head_dim=head,
        value_head_dim=fields.integer("linear_value_head_dim", 2 * head),
        conv_kernel=fields.integer("linear_conv_kernel_dim", 4, largest=LARGEST_KERNEL),
    )
    if value_heads % key_heads:
        raise InvalidValueError(
            fields.at("linear_num_value_heads"), value_heads, f"a multiple of linear_num_key_heads ({key_heads})"
        )
    keys, values, at = key_heads * head, value_heads * facts.value_head_dim, "linear_attn"
    widths = {"q": keys, "k": keys, "v": values}
    return facts, (
        *(t for x, width in widths.items() for t in linear(f"{at}.{x}_proj", width, hidden, Cut.OUTPUTS)),
        *(t for x, w in widths.items() for t in convolution(f"{at}.{x}_conv1d", w, facts.conv_kernel, bias=False)),
        *linear(f"{at}.a_proj", value_heads, hidden, Cut.OUTPUTS),
        *linear(f"{at}.b_proj", value_heads, hidden, Cut.OUTPUTS),
        *linear(f"{at}.g_proj", values, hidden, Cut.OUTPUTS),
        *linear(f"{at}.o_proj", hidden, values, Cut.INPUTS),
        *states(at, ("A_log", "dt_bias"), value_heads),
        *norm(f"{at}.o_norm", facts.value_head_dim),
    )
