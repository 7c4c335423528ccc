"""Llama 4: experts in every or every second layer, attention in chunks in three layers of four.

Source: huggingface/transformers:src/transformers/models/llama4/.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, Experts, FeedForward
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    is_tied,
    router,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

CHUNK = 8192
"""Class default of ``attention_chunk_size`` [tokens]: a query sees its own chunk only, never more than that."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read the language model of a Llama 4 configuration."""
    hidden = fields.integer("hidden_size")
    bias = fields.flag("attention_bias", default=False)
    per_layer = tuple(zip(_chunked(fields), _sparse(fields), strict=True))
    absent = fields.absent("attention_chunk_size")
    chunk = (
        fields.integer("attention_chunk_size", CHUNK)
        if absent
        else fields.optional("attention_chunk_size", largest=LARGEST_CONTEXT)
    )
    kinds: dict[tuple[bool, bool], Layer] = {}
    for chunked, sparse in dict.fromkeys(per_layer):
        facts = grouped_query(fields, hidden, window=chunk if chunked else None, default_kv=8, default_dim=128)
        feed_forward, network = _experts(fields, hidden) if sparse else _dense(fields, hidden)
        attention = attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias)
        tensors = (*block_norms(hidden), *attention, *network)
        kinds[chunked, sparse] = Layer(attention=facts, feed_forward=feed_forward, tensors=tensors)
    return causal_model(fields, named, tuple(kinds[key] for key in per_layer), hidden_size=hidden, tied=is_tied(fields))


def _chunked(fields: Fields) -> tuple[bool, ...]:
    """Say which layers attend in chunks: those with rotary positions."""
    num = fields.num_layers
    told = fields.layers_with("chunked_attention", "full_attention")
    if told is not None:
        return told
    rotary = fields.values.get("no_rope_layers")
    if isinstance(rotary, list) and rotary:
        if len(rotary) != num or any(flag not in {0, 1} for flag in rotary):
            raise InvalidValueError(fields.at("no_rope_layers"), rotary, f"a list of {num} zeros and ones")
        return tuple(flag == 1 for flag in rotary)
    every = fields.optional("no_rope_layer_interval", largest=LARGEST_LAYERS) or 4
    return tuple((i + 1) % every != 0 for i in range(num))


def _sparse(fields: Fields) -> tuple[bool, ...]:
    """Say which layers have experts: those named, else every so-manieth."""
    num = fields.num_layers
    if fields.has("moe_layers"):
        named = fields.integers("moe_layers", num)
        return tuple(i in named for i in range(num))
    step = fields.integer("interleave_moe_layer_step", 1, largest=LARGEST_LAYERS)
    return tuple((i + 1) % step == 0 for i in range(num))


def _dense(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size_mlp", 16384)
    return Dense(intermediate_size=width), gated_mlp(hidden, width, prefix="feed_forward")


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    """Return all experts in two tensors, inputs before outputs, and one shared expert of the same width."""
    count, width = fields.integer("num_local_experts", 16, largest=LARGEST_EXPERTS), fields.integer("intermediate_size")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", 1, largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=width,
    )
    name = "feed_forward.experts"
    into = (count, hidden, 2 * width)
    return facts, (
        Tensor(name=f"{name}.gate_up_proj", shape=into, role=Role.EXPERT, cut=Cut.INPUTS, experts=count),
        Tensor(name=f"{name}.down_proj", shape=(count, width, hidden), role=Role.EXPERT, cut=Cut.SECOND, experts=count),
        router("feed_forward.router", count, hidden),
        *gated_mlp(hidden, width, prefix="feed_forward.shared_expert"),
    )
