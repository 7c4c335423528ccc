"""Unsloth: 4-bit base with double quantisation, its own kernels, checkpoints on the host, 8-bit AdamW."""

from __future__ import annotations

from dataclasses import replace

from vramfit.block_style import BlockStyle
from vramfit.framework import AdapterDefaults
from vramfit.frameworks.pytorch import FP32, mixed, pure
from vramfit.frameworks.transformers import FIRST as TRAINER
from vramfit.result import Quantity

ADAPTER = AdapterDefaults(
    rank=16,
    alpha=16.0,
    targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    format="fp32",
    dropout=0.0,
    source="unslothai/unsloth:unsloth/models/llama.py (get_peft_model: r 16, lora_alpha 16, seven targets)",
)

PROFILES = (
    replace(
        TRAINER,
        name="unsloth",
        version="2024.1",
        checked="unslothai/notebooks of 2026-08",
        recipes=(
            FP32,
            replace(pure("bf16"), autocast=True),
            replace(mixed("bf16-mixed", "bf16"), parameter_format="bf16"),
            replace(mixed("fp16-mixed", "fp16"), parameter_format="fp16"),
        ),
        precision="bf16-mixed",
        optimizer="adamw-8bit",
        method="qlora",
        loss="fused-linear",
        recompute="offload",
        adapter=ADAPTER,
        style=BlockStyle(
            fused_norm=True, fused_activation=True, fused_rotary=True, fused_adapter=True, holds_logits=False
        ),
        counts=Quantity.RESERVED_PEAK,
    ),
)
"""unslothai/unsloth:unsloth/models/llama.py; use_gradient_checkpointing="unsloth" keeps each block's input in host
memory (unsloth_zoo/gradient_checkpointing.py); notebooks use optim "adamw_8bit"."""
