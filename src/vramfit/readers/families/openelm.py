"""OpenELM: every layer has its own number of heads and width of the network.

Source: the code published with apple/OpenELM-270M, and ggml-org/llama.cpp:convert_hf_to_gguf.py, OpenELMModel.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Named, block_norms, causal_model, linear, norm
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_WIDTH, PUBLISHED_CODE, Fields
from vramfit.spec import Cut, Layer, ModelSpec

WIDTH_STEP = 256
"""Default of ``ffn_dim_divisor``."""
LEAST_PART = 0.9
"""Rounding to a multiple never leaves less than this part."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an OpenELM configuration, whose lists have one entry per layer."""
    fields = replace(fields, code=PUBLISHED_CODE)
    hidden = fields.integer("model_dim")
    num = fields.integer("num_transformer_layers", largest=LARGEST_LAYERS)
    if not fields.flag("ffn_with_glu", default=True):
        raise InvalidValueError(fields.at("ffn_with_glu"), False, "true, as in all published OpenELM models")
    heads, kv = _integers(fields, "num_query_heads", num), _integers(fields, "num_kv_heads", num)
    layers = tuple(
        _layer(fields, hidden, (q, k, width), i)
        for i, (q, k, width) in enumerate(zip(heads, kv, _widths(fields, hidden, num), strict=True))
    )
    tied = fields.flag("share_input_output_layers", default=True, recorded=True)
    spec = causal_model(
        fields, named, layers, hidden_size=hidden, tied=tied, prefix="transformer.", embedding="token_embeddings"
    )
    return replace(spec, max_position_embeddings=fields.optional("max_context_length"))


def _integers(fields: Fields, name: str, count: int) -> tuple[int, ...]:
    value = fields.values.get(name)
    if not isinstance(value, list) or len(value) != count:
        raise InvalidValueError(fields.at(name), value, f"a list of {count} integers, one per layer")
    return tuple(Fields({f"{name}[{i}]": v}, fields.path).integer(f"{name}[{i}]") for i, v in enumerate(value))


def _widths(fields: Fields, hidden: int, count: int) -> tuple[int, ...]:
    """Return the width of each layer's network: a ratio of the hidden size, to the nearest multiple of 256."""
    name, step = "ffn_multipliers", fields.integer("ffn_dim_divisor", WIDTH_STEP)
    ratios = fields.values.get(name)
    if not isinstance(ratios, list) or len(ratios) != count:
        raise InvalidValueError(fields.at(name), ratios, f"a list of {count} numbers, one per layer")
    widths = []
    for i, ratio in enumerate(ratios):
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio * hidden <= LARGEST_WIDTH:
            raise InvalidValueError(f"{fields.at(name)}[{i}]", ratio, "a number above 0")
        wide = ratio * hidden
        near = max(step, int(wide + step / 2) // step * step)
        widths.append(near + step if near < LEAST_PART * wide else near)
    return tuple(widths)


def _layer(fields: Fields, hidden: int, sizes: tuple[int, int, int], number: int) -> Layer:
    """Return one layer; ``sizes``: heads, KV heads, width of the network."""
    heads, kv, width = sizes
    if heads % kv:
        raise InvalidValueError(f"{fields.at('num_kv_heads')}[{number}]", kv, f"a divisor of the layer's {heads} heads")
    side = fields.integer("head_dim", 128)
    norms = fields.flag("normalize_qk_projections", default=True)
    return Layer(
        attention=GroupedQuery(num_attention_heads=heads, num_key_value_heads=kv, head_dim=side),
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *block_norms(hidden, ("attn_norm", "ffn_norm")),
            *linear("attn.qkv_proj", (heads + 2 * kv) * side, hidden, Cut.QUERY_KEY_VALUE),
            *linear("attn.out_proj", hidden, heads * side, Cut.INPUTS),
            *((*norm("attn.q_norm", side), *norm("attn.k_norm", side)) if norms else ()),
            *linear("ffn.proj_1", 2 * width, hidden, Cut.OUTPUTS),
            *linear("ffn.proj_2", hidden, width, Cut.INPUTS),
        ),
    )
