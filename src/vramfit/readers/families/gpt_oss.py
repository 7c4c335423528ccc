"""gpt-oss: sliding and full layers by turns, attention sinks, biases everywhere, fused experts.

The published files store the experts in MXFP4, two tensors for one of ours: ``gate_up_proj`` ([experts, inputs,
outputs]) as ``gate_up_proj_blocks`` ([experts, outputs, inputs / 32, 16], bytes of two elements each) and
``gate_up_proj_scales`` ([experts, outputs, inputs / 32], one byte per 32 elements); ``down_proj`` likewise, biases as
they are. Blocks lie along the inputs there and along the last axis here: the same bytes as long as both are
multiples of 32. Source: huggingface/transformers:src/transformers/models/gpt_oss/ and integrations/mxfp4.py.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Experts
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    grouped_query,
    is_tied,
    window_tokens,
    windows,
)
from vramfit.readers.fields import LARGEST_EXPERTS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

WINDOW_TOKENS = 128
HEAD_DIM = 64
KEY_VALUE_HEADS = 8
"""Class defaults in transformers."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a gpt-oss configuration."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    count = fields.integer("num_local_experts", largest=LARGEST_EXPERTS)
    feed_forward = Experts(
        num_experts=count, num_experts_per_tok=_num_chosen(fields, count), moe_intermediate_size=width
    )
    window = window_tokens(fields, WINDOW_TOKENS)
    per_layer = windows(fields, window, tuple((i + 1) % 2 == 1 for i in range(fields.num_layers)))
    bias = fields.flag("attention_bias", default=True)
    kinds = {}
    for each in dict.fromkeys(per_layer):
        facts = grouped_query(fields, hidden, window=each, default_dim=HEAD_DIM, default_kv=KEY_VALUE_HEADS)
        sinks = Tensor(name="self_attn.sinks", shape=(facts.num_attention_heads,), role=Role.BIAS, cut=Cut.OUTPUTS)
        attention = attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias)
        tensors = (*block_norms(hidden), sinks, *attention, *_experts(count, hidden, width))
        kinds[each] = Layer(attention=facts, feed_forward=feed_forward, tensors=tensors)
    layers = tuple(kinds[each] for each in per_layer)
    return causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields))


def _num_chosen(fields: Fields, count: int) -> int:
    """Return the experts per token, which published files name twice."""
    name, other = "num_experts_per_tok", "experts_per_token"
    chosen = fields.integer(name if fields.has(name) else other, largest=count)
    if fields.has(other) and fields.values[other] != chosen:
        raise InvalidValueError(fields.at(other), fields.values[other], f"the same as {name} ({chosen})")
    return chosen


def _experts(count: int, hidden: int, width: int) -> Tensors:
    """Return router and experts, all of a kind in one tensor: [experts, inputs, outputs]."""

    def fused(name: str, shape: tuple[int, ...], role: Role, cut: Cut) -> Tensor:
        return Tensor(name=f"mlp.experts.{name}", shape=shape, role=role, cut=cut, experts=count)

    # Cut.INPUTS divides the last axis, which holds the outputs here; gate and up lie by turns, so it halves both.
    return (
        Tensor(name="mlp.router.weight", shape=(count, hidden), role=Role.ROUTER),
        Tensor(name="mlp.router.bias", shape=(count,), role=Role.BIAS),
        fused("gate_up_proj", (count, hidden, 2 * width), Role.EXPERT, Cut.INPUTS),
        fused("gate_up_proj_bias", (count, 2 * width), Role.BIAS, Cut.INPUTS),
        fused("down_proj", (count, width, hidden), Role.EXPERT, Cut.SECOND),
        fused("down_proj_bias", (count, hidden), Role.BIAS, Cut.WHOLE),
    )
