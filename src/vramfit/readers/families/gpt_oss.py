"""gpt-oss: sliding and full layers by turns, attention sinks, biases everywhere, fused experts.

The published files store the experts in MXFP4: ``gate_up_proj`` as ``gate_up_proj_blocks`` and
``gate_up_proj_scales``. Source: huggingface/transformers:src/transformers/models/gpt_oss/.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    grouped_query,
    windows,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, Fields
from vramfit.spec import Cut, Experts, Layer, ModelSpec, Tensor

WINDOW_TOKENS = 128
HEAD_DIM = 64
"""Class defaults in transformers."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a gpt-oss configuration."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    count = fields.integer("num_local_experts", largest=LARGEST_EXPERTS)
    chosen = "num_experts_per_tok" if fields.has("num_experts_per_tok") else "experts_per_token"
    feed_forward = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer(chosen, largest=count),
        moe_intermediate_size=width,
    )
    window = fields.integer("sliding_window", WINDOW_TOKENS, largest=LARGEST_CONTEXT)
    per_layer = windows(fields, window, tuple((i + 1) % 2 == 1 for i in range(fields.num_layers)))
    bias = fields.flag("attention_bias", default=True)
    kinds = {}
    for each in dict.fromkeys(per_layer):
        facts = grouped_query(fields, hidden, window=each, default_dim=HEAD_DIM)
        sinks = Tensor(name="self_attn.sinks", shape=(facts.num_attention_heads,), role=Role.BIAS, cut=Cut.OUTPUTS)
        attention = attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias)
        tensors = (*block_norms(hidden), sinks, *attention, *_experts(count, hidden, width))
        kinds[each] = Layer(attention=facts, feed_forward=feed_forward, tensors=tensors)
    tied = fields.flag("tie_word_embeddings", default=False)
    return causal_model(fields, named, tuple(kinds[w] for w in per_layer), hidden_size=hidden, tied=tied)


def _experts(count: int, hidden: int, width: int) -> Tensors:
    """Return router and experts, all of a kind in one tensor: [experts, inputs, outputs]."""

    def fused(name: str, shape: tuple[int, ...], role: Role, cut: Cut) -> Tensor:
        return Tensor(name=f"mlp.experts.{name}", shape=shape, role=role, cut=cut, experts=count)

    return (
        Tensor(name="mlp.router.weight", shape=(count, hidden), role=Role.ROUTER),
        Tensor(name="mlp.router.bias", shape=(count,), role=Role.BIAS),
        fused("gate_up_proj", (count, hidden, 2 * width), Role.EXPERT, Cut.INPUTS),
        fused("gate_up_proj_bias", (count, 2 * width), Role.BIAS, Cut.INPUTS),
        fused("down_proj", (count, width, hidden), Role.EXPERT, Cut.SECOND),
        fused("down_proj_bias", (count, hidden), Role.BIAS, Cut.WHOLE),
    )
