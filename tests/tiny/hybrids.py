"""Decoders whose layers keep a state."""

from __future__ import annotations

from tiny.case import Tiny
from tiny.mixtures import EXPERTS

DELTA = {"head_dim": 12, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
         "linear_value_head_dim": 8, "num_hidden_layers": 4}  # fmt: skip
SHARED = {"num_experts": 4, **EXPERTS, "shared_expert_intermediate_size": 40}
CASES = (
    Tiny("qwen3_5_text", DELTA),
    Tiny("qwen3_5_text", {**DELTA, "attention_bias": True, "layer_types": ["full_attention", "linear_attention"] * 2}),
    Tiny("qwen3_5_moe_text", {**DELTA, **SHARED}),
)
