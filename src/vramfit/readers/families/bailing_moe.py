"""Ling and Ring (bailing_moe, bailing_moe_v2): many small experts, queries, keys and values in one matrix.

Source: vllm-project/vllm@0056661:vllm/model_executor/models/bailing_moe.py and, for version 2 (norms on queries and
keys, a correction bias, dense layers at the bottom), inclusionAI/Ling-V2:models/modeling_bailing_moe_v2.py.
"""

from __future__ import annotations

from vramfit.formats import FP32, Role
from vramfit.layer_kind import Dense, Experts, FeedForward, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    is_tied,
    linear,
    norm,
    routed_experts,
    router,
)
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

SECOND = "bailing_moe_v2"


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Ling or Ring configuration."""
    hidden, second = fields.integer("hidden_size"), fields.text("model_type") == SECOND
    facts = grouped_query(fields, hidden)
    first = fields.integer("first_k_dense_replace", 0, largest=LARGEST_LAYERS, smallest=0)
    kinds = {}
    for sparse in (False, True):
        feed_forward, network = _experts(fields, hidden, second=second) if sparse else _dense(fields, hidden)
        tensors = (*block_norms(hidden), *_attention(fields, facts, hidden, second=second), *network)
        kinds[sparse] = Layer(attention=facts, feed_forward=feed_forward, tensors=tensors)
    layers = tuple(kinds[i >= first] for i in range(fields.num_layers))
    return causal_model(
        fields, named, layers, hidden_size=hidden, tied=is_tied(fields), embedding="word_embeddings",
    )  # fmt: skip


def _attention(fields: Fields, facts: GroupedQuery, hidden: int, *, second: bool) -> Tensors:
    bias = fields.flag("use_bias", default=False)
    into = bias or fields.flag("use_qkv_bias", default=False)
    wide = facts.num_attention_heads * facts.head_dim
    rows = wide + 2 * facts.num_key_value_heads * facts.head_dim
    normed = fields.flag("use_qk_norm", default=second)
    return (
        *linear("attention.query_key_value", rows, hidden, Cut.QUERY_KEY_VALUE, bias=into),
        *linear("attention.dense", hidden, wide, Cut.INPUTS, bias=bias),
        *(norm("attention.query_layernorm", facts.head_dim) if normed else ()),
        *(norm("attention.key_layernorm", facts.head_dim) if normed else ()),
    )


def _dense(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    return Dense(intermediate_size=width), gated_mlp(hidden, width, bias=fields.flag("use_bias", default=False))


def _experts(fields: Fields, hidden: int, *, second: bool) -> tuple[FeedForward, Tensors]:
    count, width = fields.integer("num_experts", largest=LARGEST_EXPERTS), fields.integer("moe_intermediate_size")
    shared = width * fields.integer("num_shared_experts", smallest=0, largest=64)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    corrected = fields.flag("moe_router_enable_expert_bias", default=second)
    bias = Tensor(name="mlp.gate.expert_bias", shape=(count,), role=Role.BIAS, stored=FP32, buffer=True)
    return facts, (
        router("mlp.gate", count, hidden),
        *((bias,) if corrected else ()),
        *routed_experts(count, hidden, width),
        *(gated_mlp(hidden, shared, prefix="mlp.shared_experts") if shared else ()),
    )
