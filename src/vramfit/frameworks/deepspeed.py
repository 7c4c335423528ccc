"""DeepSpeed: 16-bit weights and gradients, fp32 masters and states divided by ZeRO, buffers of fixed size."""

from __future__ import annotations

from dataclasses import replace

from vramfit.framework import ZERO_FRAGMENTATION, Buckets, Framework, Recipe, Sharding
from vramfit.frameworks.pytorch import FP32
from vramfit.result import Quantity


def mastered(precision: str, word: str) -> Recipe:
    """Return the recipe of 16-bit weights and gradients with an fp32 master and fp32 moments."""
    return Recipe(
        precision=precision,
        parameter_format=word,
        compute_format=word,
        gradient_format=word,
        master_format="fp32",
        optimizer_state_format="fp32",
        reduce_format=word,
    )


FIRST = Framework(
    name="deepspeed",
    version="0.1",
    checked="deepspeed 0.16.4",
    recipes=(
        FP32,
        mastered("bf16-mixed", "bf16"),
        mastered("fp16-mixed", "fp16"),
        replace(mastered("bf16-mixed", "bf16"), precision="bf16"),
        replace(mastered("fp16-mixed", "fp16"), precision="fp16"),
    ),
    precision="bf16-mixed",
    optimizer="adamw",
    optimizer_implementation="fused",
    loss="fp32",
    sharding=Sharding.ZERO,
    zero_stage=2,
    buckets=Buckets(overlap=False),
    clips_gradients=True,
    fragmentation=ZERO_FRAGMENTATION,
    counts=Quantity.ALLOCATED_PEAK,
)
"""deepspeedai/DeepSpeed@v0.16.4:deepspeed/runtime/zero/config.py (bucket sizes 5e8, prefetch 5e7, persistence 1e5,
contiguous_gradients; overlap_comm is on for stage 3 only); ops/adam/fused_adam.py."""

PROFILES = (FIRST,)
