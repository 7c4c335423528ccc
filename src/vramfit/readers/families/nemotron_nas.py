"""Llama-Nemotron found by architecture search (DeciLM): every block has its own KV heads and width, or lacks a half.

Sources: ggml-org/llama.cpp:convert_hf_to_gguf.py, DeciModel (widths, halves left out);
NVIDIA-NeMo/Automodel's DeciLM ``Block`` (names of the linear replacements); nvidia/Llama-3_3-Nemotron-Super-49B-v1.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.layer_kind import Dense, FeedForward, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    causal_model,
    gated_mlp,
    head_dim,
    is_tied,
    linear,
    norm,
)
from vramfit.readers.fields import LARGEST_WIDTH, PUBLISHED_CODE, Fields
from vramfit.spec import Cut, Layer, ModelSpec
from vramfit.units import ceil_div

WIDTH_STEP = 256
"""Widths are rounded up to a multiple of it."""
LARGEST_RATIO = 64.0
SPARSE = ("sparsify", "num_sink_tokens", "window_length")
"""Fields of a half that no published model uses."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Nemotron-NAS configuration: ``block_configs`` says of each block what its halves are."""
    fields = replace(fields, code=PUBLISHED_CODE)
    hidden, blocks = fields.integer("hidden_size"), fields.values.get("block_configs")
    if not isinstance(blocks, list) or len(blocks) != fields.num_layers:
        raise InvalidValueError(
            fields.at("block_configs"), blocks, f"a list of {fields.num_layers} objects, one per layer"
        )
    kinds: dict[str, Layer] = {}
    layers = []
    for i, block in enumerate(blocks):
        kind = repr(block)
        if kind not in kinds:
            kinds[kind] = _layer(fields, Fields({"block": block}, f"block_configs[{i}]", fields.assumed), hidden)
        layers.append(kinds[kind])
    return causal_model(fields, named, tuple(layers), hidden_size=hidden, tied=is_tied(fields))


def _layer(fields: Fields, at: Fields, hidden: int) -> Layer:
    block = Fields(at.section("block").values, at.path, at.assumed)
    attention, mixing = _attention(fields, block.section("attention"), hidden)
    feed_forward, network = _network(fields, block.section("ffn"), hidden)
    return Layer(attention=attention, feed_forward=feed_forward, tensors=(*mixing, *network))


def _attention(fields: Fields, half: Fields, hidden: int) -> tuple[GroupedQuery | None, Tensors]:
    """Return attention with as many KV heads as the block says, one matrix in its place, or nothing."""
    for name in SPARSE:
        half.refuse(name, "attention to a part of the context")
    if half.flag("no_op", default=False):
        return None, ()
    before = norm("input_layernorm", hidden)
    if half.flag("replace_with_linear", default=False):
        return None, (*before, *linear("self_attn.linear_attn", hidden, hidden, Cut.WHOLE))
    heads = fields.integer("num_attention_heads")
    group = half.integer("n_heads_in_group", largest=heads)
    if heads % group:
        raise InvalidValueError(half.at("n_heads_in_group"), group, f"a divisor of num_attention_heads ({heads})")
    facts = GroupedQuery(
        num_attention_heads=heads, num_key_value_heads=heads // group, head_dim=head_dim(fields, hidden, heads)
    )
    bias = fields.flag("attention_bias", default=False)
    return facts, (*before, *attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias))


def _network(fields: Fields, half: Fields, hidden: int) -> tuple[FeedForward | None, Tensors]:
    """Return a gated network of the block's own width, one matrix in its place, or nothing."""
    half.refuse("sparsify", "a network with holes")
    if half.flag("no_op", default=False):
        return None, ()
    before = norm("post_attention_layernorm", hidden)
    if half.flag("replace_with_linear", default=False):
        return None, (*before, *linear("mlp.linear_mlp", hidden, hidden, Cut.WHOLE))
    width = _width(half, hidden)
    bias = fields.flag("mlp_bias", default=False)
    return Dense(intermediate_size=width), (*before, *gated_mlp(hidden, width, bias=bias))


def _width(half: Fields, hidden: int) -> int:
    """Return the width of a network, rounded down, then up.

    ceil(floor(2 * ffn_mult * hidden / 3) / 256) * 256
    """
    ratio = half.values.get("ffn_mult")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= LARGEST_RATIO:
        raise InvalidValueError(half.at("ffn_mult"), ratio, f"a number above 0 and at most {LARGEST_RATIO:g}")
    width = ceil_div(int(2 * ratio * hidden / 3), WIDTH_STEP) * WIDTH_STEP
    if width > LARGEST_WIDTH:
        raise InvalidValueError(half.at("ffn_mult"), ratio, f"a width of at most {LARGEST_WIDTH:,}")
    return width
