"""Qwen3 and Qwen3-MoE: norms on queries and keys; experts in all layers but those named.

Source: huggingface/transformers:src/transformers/models/qwen3/ and models/qwen3_moe/.
"""

from __future__ import annotations

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
    routed_experts,
    router,
)
from vramfit.readers.families.qwen2 import KV_HEADS, layer_windows, used_window
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

HEAD_DIM = 128
"""Class default of ``head_dim`` in Qwen3; Qwen3-MoE has none and divides."""
MOE_KV_HEADS = 4
"""Class default of ``num_key_value_heads`` in Qwen3-MoE; Qwen3's is Qwen2's."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Qwen3 or Qwen3-MoE configuration."""
    hidden = fields.integer("hidden_size")
    moe = "moe" in (fields.text("model_type") or "")
    bias = fields.flag("attention_bias", default=False)
    default_dim, default_kv = (None, MOE_KV_HEADS) if moe else (HEAD_DIM, KV_HEADS)
    per_layer = (used_window(fields),) * fields.num_layers if moe else layer_windows(fields)  # MoE: all slide, or none
    kinds: dict[object, Layer] = {}
    layers = []
    for i, window in enumerate(per_layer):
        sparse = moe and is_sparse(fields, i)
        if (window, sparse) not in kinds:
            facts = grouped_query(fields, hidden, window=window, default_dim=default_dim, default_kv=default_kv)
            feed_forward, tensors = experts(fields, hidden) if sparse else dense(fields, hidden)
            kinds[window, sparse] = Layer(
                attention=facts,
                feed_forward=feed_forward,
                tensors=(
                    *block_norms(hidden),
                    *attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias, qk_norm=True),
                    *tensors,
                ),
            )
        layers.append(kinds[window, sparse])
    return causal_model(fields, named, tuple(layers), hidden_size=hidden, tied=is_tied(fields))


def is_sparse(fields: Fields, layer: int) -> bool:
    """Say whether a layer has experts: every ``decoder_sparse_step``-th one that ``mlp_only_layers`` does not name."""
    step = fields.integer("decoder_sparse_step", largest=LARGEST_LAYERS) if fields.has("decoder_sparse_step") else 1
    return layer not in fields.integers("mlp_only_layers", LARGEST_LAYERS) and (layer + 1) % step == 0


def dense(fields: Fields, hidden_size: int) -> tuple[FeedForward, Tensors]:
    """Return the dense network of a layer."""
    width = fields.integer("intermediate_size")
    return Dense(intermediate_size=width), gated_mlp(hidden_size, width)


def experts(fields: Fields, hidden_size: int) -> tuple[FeedForward, Tensors]:
    """Return the router and the experts of a layer."""
    name = "num_experts" if fields.has("num_experts") else "num_local_experts"
    count = fields.integer(name, largest=LARGEST_EXPERTS)
    width = fields.integer("moe_intermediate_size")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
    )
    fused = fields.text("model_type") == "qwen3_vl_moe_text"
    networks = _fused(count, hidden_size, width) if fused else routed_experts(count, hidden_size, width)
    return facts, (router("mlp.gate", count, hidden_size), *networks)


def _fused(count: int, hidden: int, width: int) -> Tensors:
    """Return the experts as published Qwen3-VL mixtures have them: two tensors, inputs before outputs."""
    into, back = (count, hidden, 2 * width), (count, width, hidden)
    return (
        Tensor(name="mlp.experts.gate_up_proj", shape=into, role=Role.EXPERT, cut=Cut.INPUTS, experts=count),
        Tensor(name="mlp.experts.down_proj", shape=back, role=Role.EXPERT, cut=Cut.SECOND, experts=count),
    )
