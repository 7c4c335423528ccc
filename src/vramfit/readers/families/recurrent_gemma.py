"""RecurrentGemma (Griffin): gated linear recurrences, and local attention in every third block.

Source: huggingface/transformers:src/transformers/models/recurrent_gemma/, 5.23.0; De et al. 2024, arXiv:2402.19427.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Attention, Dense, GroupedQuery, StateSpace
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    is_tied,
    kv_heads,
    linear,
)
from vramfit.readers.families.state_space import LARGEST_KERNEL, convolution, states
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

PATTERN = ("recurrent", "recurrent", "attention")
"""Class default of ``block_types``, which repeats over the layers."""
WINDOW = 2048
"""Class default of ``attention_window_size``."""
REPEATS = 100
"""transformers repeats the pattern so often."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a RecurrentGemma configuration."""
    hidden, total = fields.integer("hidden_size"), fields.integer("intermediate_size")
    if total % 2:
        raise InvalidValueError(
            fields.at("intermediate_size"), total, "an even width: gate and up have half of it each"
        )
    width = total // 2
    network = (
        *block_norms(hidden, ("temporal_pre_norm", "channel_pre_norm")),
        *gated_mlp(hidden, width, prefix="mlp_block", bias=True),
    )
    blocks = _blocks(fields)
    kinds: dict[str, Layer] = {}
    for kind in set(blocks):
        mixer, tensors = _attention(fields, hidden) if kind == "attention" else _recurrent(fields, hidden)
        feed_forward = Dense(intermediate_size=width)
        kinds[kind] = Layer(attention=mixer, feed_forward=feed_forward, tensors=(*network, *tensors))
    layers = tuple(kinds[kind] for kind in blocks)
    tied = is_tied(fields, default=True)
    return causal_model(fields, named, layers, hidden_size=hidden, tied=tied, final_norm="final_norm")


def _blocks(fields: Fields) -> tuple[str, ...]:
    """Return the kind of each block: a pattern that repeats."""
    name, num = "block_types", fields.num_layers
    listed = fields.values.get(name)
    if listed is None:
        fields.assume(name, ", ".join(PATTERN))
    words = fields.words(
        name, ("recurrent", "attention"), min(len(listed) if isinstance(listed, list) else 1, LARGEST_LAYERS)
    )
    pattern = words or PATTERN
    if num > REPEATS * len(pattern):
        raise InvalidValueError(fields.at("num_hidden_layers"), num, f"at most {REPEATS} repeats of {name}")
    return (pattern * REPEATS)[:num]


def _heads(fields: Fields, width: int) -> int:
    heads = fields.integer("num_attention_heads")
    if width % heads:
        raise InvalidValueError(fields.at("num_attention_heads"), heads, f"a divisor of {width}")
    return heads


def _attention(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return local attention; the output projection always has a bias."""
    heads, at = _heads(fields, hidden), "temporal_block"
    facts = GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=kv_heads(fields, heads),
        head_dim=hidden // heads,
        window_tokens=fields.integer("attention_window_size", WINDOW, largest=LARGEST_CONTEXT),
    )
    kv, bias = facts.num_key_value_heads * facts.head_dim, fields.flag("attention_bias", default=False)
    return facts, (
        *linear(f"{at}.q_proj", hidden, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{at}.k_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear(f"{at}.v_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear(f"{at}.o_proj", hidden, hidden, Cut.INPUTS, bias=True),
    )


def _recurrent(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return RG-LRU behind a convolution, and the branch that gates it; its gates have one block per head."""
    width, at = fields.optional("lru_width") or hidden, "temporal_block"
    heads, kernel = _heads(fields, width), fields.integer("conv1d_width", 4, largest=LARGEST_KERNEL)
    facts = StateSpace(num_heads=width, head_dim=1, state_size=1, conv_kernel=kernel, num_groups=0)
    block = width // heads

    def gate(name: str) -> Tensors:
        where = f"{at}.rg_lru.{name}"
        return (
            Tensor(name=f"{where}_weight", shape=(heads, block, block), role=Role.LINEAR, cut=Cut.OUTPUTS),
            Tensor(name=f"{where}_bias", shape=(heads, block), role=Role.BIAS, cut=Cut.OUTPUTS),
        )

    return facts, (
        *linear(f"{at}.linear_y", width, hidden, Cut.OUTPUTS, bias=True),
        *linear(f"{at}.linear_x", width, hidden, Cut.OUTPUTS, bias=True),
        *linear(f"{at}.linear_out", hidden, width, Cut.INPUTS, bias=True),
        *convolution(f"{at}.conv_1d", width, kernel),
        *states(f"{at}.rg_lru", ("recurrent_param",), width),
        *gate("input_gate"),
        *gate("recurrent_gate"),
    )
