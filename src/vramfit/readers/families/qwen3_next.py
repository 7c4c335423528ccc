"""Qwen3-Next: three layers of gated delta networks to one of gated attention, 512 experts and a shared one.

Source: huggingface/transformers:src/transformers/models/qwen3_next/.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    linear,
    norm,
    routed_experts,
    router,
)
from vramfit.readers.families.qwen3 import dense, is_sparse
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Attention, Cut, Experts, FeedForward, GroupedQuery, Layer, LinearAttention, ModelSpec, Tensor

HEAD_DIM = 256
FULL_EVERY = 4
"""Class defaults in transformers."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Qwen3-Next configuration."""
    hidden, num = fields.integer("hidden_size"), fields.num_layers
    types = fields.words("layer_types", ("linear_attention", "full_attention"), num)
    every = fields.optional("full_attention_interval", largest=LARGEST_LAYERS) or FULL_EVERY
    full = tuple((i + 1) % every == 0 for i in range(num)) if types is None else tuple("full" in t for t in types)
    kinds: dict[tuple[bool, bool], Layer] = {}
    keys = tuple((is_full, is_sparse(fields, i)) for i, is_full in enumerate(full))
    for key in dict.fromkeys(keys):
        attention, mixing = _full(fields, hidden) if key[0] else _linear(fields, hidden)
        feed_forward, transforming = _experts(fields, hidden) if key[1] else dense(fields, hidden)
        tensors = (*block_norms(hidden), *mixing, *transforming)
        kinds[key] = Layer(attention=attention, feed_forward=feed_forward, tensors=tensors)
    tied = fields.flag("tie_word_embeddings", default=False)
    return causal_model(fields, named, tuple(kinds[k] for k in keys), hidden_size=hidden, tied=tied)


def _full(fields: Fields, hidden: int) -> tuple[GroupedQuery, Tensors]:
    """Return gated attention: the query projection is twice as wide, its second half gates the output."""
    facts = grouped_query(fields, hidden, default_dim=HEAD_DIM)
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    bias = fields.flag("attention_bias", default=False)
    return facts, (
        *linear("self_attn.q_proj", 2 * q, hidden, Cut.OUTPUTS, bias=bias),
        *linear("self_attn.k_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear("self_attn.v_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear("self_attn.o_proj", hidden, q, Cut.INPUTS, bias=bias),
        *norm("self_attn.q_norm", facts.head_dim),
        *norm("self_attn.k_norm", facts.head_dim),
    )


def _linear(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return a gated delta network."""
    facts = LinearAttention(
        num_key_heads=fields.integer("linear_num_key_heads", 16),
        num_value_heads=fields.integer("linear_num_value_heads", 32),
        key_head_dim=fields.integer("linear_key_head_dim", 128),
        value_head_dim=fields.integer("linear_value_head_dim", 128),
        conv_kernel=fields.integer("linear_conv_kernel_dim", 4, largest=1024),
    )
    heads = facts.num_value_heads
    if heads % facts.num_key_heads:
        raise InvalidValueError(
            "linear_num_value_heads", heads, f"a multiple of linear_num_key_heads ({facts.num_key_heads})"
        )
    keys, values = facts.num_key_heads * facts.key_head_dim, heads * facts.value_head_dim
    mixed = 2 * keys + values
    return facts, (
        Tensor(name="linear_attn.dt_bias", shape=(heads,), role=Role.STATE, cut=Cut.OUTPUTS),
        Tensor(name="linear_attn.A_log", shape=(heads,), role=Role.STATE, cut=Cut.OUTPUTS),
        Tensor(
            name="linear_attn.conv1d.weight",
            shape=(mixed, 1, facts.conv_kernel),
            role=Role.CONVOLUTION,
            cut=Cut.OUTPUTS,
        ),
        *linear("linear_attn.in_proj_qkvz", mixed + values, hidden, Cut.OUTPUTS),
        *linear("linear_attn.in_proj_ba", 2 * heads, hidden, Cut.OUTPUTS),
        *norm("linear_attn.norm", facts.value_head_dim),
        *linear("linear_attn.out_proj", hidden, values, Cut.INPUTS),
    )


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    """Return routed experts and the shared one with its gate."""
    count = fields.integer("num_experts", largest=LARGEST_EXPERTS)
    width, shared = fields.integer("moe_intermediate_size"), fields.integer("shared_expert_intermediate_size")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    return facts, (
        router("mlp.gate", count, hidden),
        *routed_experts(count, hidden, width),
        *gated_mlp(hidden, shared, prefix="mlp.shared_expert"),
        router("mlp.shared_expert_gate", 1, hidden),
    )
