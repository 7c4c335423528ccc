"""LFM2, LFM2 MoE and LFM3: gated short convolutions, with grouped-query attention in some layers.

Source: huggingface/transformers:src/transformers/models/lfm2/, lfm2_moe/ and lfm3/, 5.23.0; names as in the
published files.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import FP32, Role
from vramfit.layer_kind import Attention, Dense, Experts, FeedForward, GroupedQuery, ShortConvolution
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    grouped_query,
    linear,
    norm,
    routed_experts,
    router,
    window_tokens,
)
from vramfit.readers.families.state_space import LARGEST_KERNEL, convolution
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor
from vramfit.units import ceil_div

KEY_VALUE_HEADS = 8
WIDTH = {"lfm2": 12288, "lfm2_moe": 7168, "lfm3": 7680}
KERNEL = {"lfm2": 3, "lfm2_moe": 3, "lfm3": 7}
LFM3_KV_HEADS, LFM3_HEAD_DIM, LFM3_WINDOW = 4, 128, 256
"""Class defaults in transformers."""
NORMS = ("operator_norm", "ffn_norm")
BEHIND = ("post_operator_norm", "post_ffn_norm")
"""Norms that LFM3 has behind mixer and network."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an LFM2 or LFM3 configuration."""
    if fields.text("model_type") == "lfm3":
        return _third(fields, named)
    hidden, mixture = fields.integer("hidden_size"), fields.text("model_type") == "lfm2_moe"
    attends = _attends(fields)
    dense = fields.integer("num_dense_layers", 2, largest=LARGEST_LAYERS, smallest=0) if mixture else len(attends)
    keys = tuple((full, i >= dense) for i, full in enumerate(attends))
    kinds: dict[tuple[bool, bool], Layer] = {}
    for full, sparse in dict.fromkeys(keys):
        mixer, mixing = _attention(fields, hidden) if full else _convolution(fields, hidden)
        feed_forward, network = _experts(fields, hidden) if sparse else _network(fields, hidden, mixture=mixture)
        norms = block_norms(hidden, NORMS)
        kinds[full, sparse] = Layer(attention=mixer, feed_forward=feed_forward, tensors=(*norms, *mixing, *network))
    layers = tuple(kinds[key] for key in keys)
    return causal_model(fields, named, layers, hidden_size=hidden, tied=_is_tied(fields), final_norm="embedding_norm")


def _is_tied(fields: Fields) -> bool:
    """Say whether the output projection is the embedding; ``tie_embedding`` is the older name, and decides."""
    older = "tie_embedding"
    name = older if fields.has(older) else "tie_word_embeddings"
    return fields.flag(name, default=True, recorded=True)


def _attends(fields: Fields) -> tuple[bool, ...]:
    """Say which layers have attention: ``layer_types``, else ``full_attn_idxs``."""
    num = fields.num_layers
    told = fields.layers_with("full_attention", "conv")
    if told is not None:
        return told
    if not fields.has("full_attn_idxs"):
        raise InvalidValueError(fields.at("layer_types"), None, f"{num} words (conv, full_attention) or full_attn_idxs")
    chosen = fields.integers("full_attn_idxs", LARGEST_LAYERS)
    return tuple(i in chosen for i in range(num))


def _attention(fields: Fields, hidden: int) -> tuple[GroupedQuery, Tensors]:
    facts = grouped_query(fields, hidden, default_kv=KEY_VALUE_HEADS)
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    return facts, (
        *linear("self_attn.q_proj", q, hidden, Cut.OUTPUTS),
        *linear("self_attn.k_proj", kv, hidden, Cut.KEY_VALUE_HEADS),
        *linear("self_attn.v_proj", kv, hidden, Cut.KEY_VALUE_HEADS),
        *linear("self_attn.out_proj", hidden, q, Cut.INPUTS),
        *norm("self_attn.q_layernorm", facts.head_dim),
        *norm("self_attn.k_layernorm", facts.head_dim),
    )


def _convolution(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return a short convolution between two gates: one projection leads into both and into what is convolved."""
    default = KERNEL[fields.text("model_type") or ""]
    facts = ShortConvolution(width=hidden, conv_kernel=fields.integer("conv_L_cache", default, largest=LARGEST_KERNEL))
    bias = fields.flag("conv_bias", default=False)
    return facts, (
        *convolution("conv.conv", hidden, facts.conv_kernel, bias=bias),
        *linear("conv.in_proj", 3 * hidden, hidden, Cut.OUTPUTS, bias=bias),
        *linear("conv.out_proj", hidden, hidden, Cut.INPUTS, bias=bias),
    )


def _network(fields: Fields, hidden: int, *, mixture: bool) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size", WIDTH["lfm2_moe"]) if mixture else _width(fields)
    return _gated(hidden, width)


def _gated(hidden: int, width: int) -> tuple[FeedForward, Tensors]:
    return Dense(intermediate_size=width), (
        *linear("feed_forward.w1", width, hidden, Cut.OUTPUTS),
        *linear("feed_forward.w3", width, hidden, Cut.OUTPUTS),
        *linear("feed_forward.w2", hidden, width, Cut.INPUTS),
    )


def _width(fields: Fields) -> int:
    """Return the width of LFM2's network: two thirds of the field's, times a factor, in whole multiples."""
    older = "block_ff_dim"
    width = fields.integer(older) if fields.has(older) else fields.integer("intermediate_size", WIDTH["lfm2"])
    if not fields.flag("block_auto_adjust_ff_dim", default=True, recorded=True):
        return width
    width = 2 * width // 3
    factor = fields.values.get("block_ffn_dim_multiplier", 1.0)
    if factor is None:
        return width
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 64:
        raise InvalidValueError(fields.at("block_ffn_dim_multiplier"), factor, "a number above 0 and at most 64")
    multiple = fields.integer("block_multiple_of", 256)
    return multiple * ceil_div(int(factor * width), multiple)


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    count = fields.integer("num_experts", 32, largest=LARGEST_EXPERTS)
    width = fields.integer("moe_intermediate_size", 1792)
    chosen = fields.integer("num_experts_per_tok", 4, largest=count)
    bias = Tensor(name="feed_forward.expert_bias", shape=(count,), role=Role.BIAS, stored=FP32, buffer=True)
    facts = Experts(num_experts=count, num_experts_per_tok=chosen, moe_intermediate_size=width)
    return facts, (
        router("feed_forward.gate", count, hidden),
        *((bias,) if fields.flag("use_expert_bias", default=True) else ()),
        *routed_experts(count, hidden, width, prefix="feed_forward", names=("w1", "w3", "w2")),
    )


def _third(fields: Fields, named: Named) -> ModelSpec:
    """Read LFM3: windows in some attending layers, a gate per head, norms behind mixer and network too."""
    hidden, num = fields.integer("hidden_size"), fields.num_layers
    words = ("conv", "full_attention", "sliding_attention")
    types = fields.words("layer_types", words, num)
    if types is None:
        types = tuple("full_attention" if i % 4 == 2 else words[2] if i % 4 == 0 and i else "conv" for i in range(num))
        fields.assume("layer_types", "conv, with full and windowed attention in turns in every second layer")
    norms = (*NORMS, *(BEHIND if fields.flag("use_sandwich_norm", default=True, recorded=True) else ()))
    feed_forward, network = _gated(hidden, fields.integer("intermediate_size", WIDTH["lfm3"]))
    kinds: dict[str, Layer] = {}
    for kind in dict.fromkeys(types):
        mixer, mixing = _convolution(fields, hidden) if kind == "conv" else _gated_attention(fields, hidden, kind)
        tensors = (*block_norms(hidden, norms), *mixing, *network)
        kinds[kind] = Layer(attention=mixer, feed_forward=feed_forward, tensors=tensors)
    layers = tuple(kinds[kind] for kind in types)
    return causal_model(fields, named, layers, hidden_size=hidden, tied=_is_tied(fields), final_norm="embedding_norm")


def _gated_attention(fields: Fields, hidden: int, kind: str) -> tuple[GroupedQuery, Tensors]:
    slides = kind == "sliding_attention"
    window = window_tokens(fields, LFM3_WINDOW) if slides else None
    if slides and window is None:
        raise InvalidValueError(fields.at("sliding_window"), None, "the number of tokens of sliding_attention layers")
    facts = grouped_query(fields, hidden, window=window, default_dim=LFM3_HEAD_DIM, default_kv=LFM3_KV_HEADS)
    bias = fields.flag("attention_bias", default=False)
    gate = linear("self_attn.gate_proj", facts.num_attention_heads, hidden, Cut.OUTPUTS)
    gated = fields.flag("use_attention_gate", default=True, recorded=True)
    tensors = attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias, qk_norm=True)
    return facts, (*tensors, *(gate if gated else ()))
