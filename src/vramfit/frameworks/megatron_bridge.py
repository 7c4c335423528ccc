"""Megatron-Bridge: Megatron-LM with the distributed optimizer and sequence parallelism switched on."""

from __future__ import annotations

from dataclasses import replace

from vramfit.frameworks.megatron_lm import PROFILES as MEGATRON
from vramfit.frameworks.megatron_lm import STYLE

PROFILES = (
    replace(
        MEGATRON[-1],
        name="megatron-bridge",
        checked="NVIDIA-NeMo/Megatron-Bridge of 2026-08",
        loss="fused",
        style=replace(STYLE, dropout=False, fused_loss_overwrites=True),
        distributed_optimizer=True,
        sequence_parallel=True,
    ),
)
"""NVIDIA-NeMo/Megatron-Bridge:src/megatron/bridge/recipes: use_distributed_optimizer, cross_entropy_loss_fusion with
cross_entropy_fusion_impl "te"."""
