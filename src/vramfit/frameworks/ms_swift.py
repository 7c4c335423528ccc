"""ms-swift: the Trainer over weights in 16 bit, autocast on, checkpointing on, adapters by PEFT."""

from __future__ import annotations

from dataclasses import replace

from vramfit.framework import AdapterDefaults, Band
from vramfit.frameworks.pytorch import FP32, mixed, pure
from vramfit.frameworks.transformers import FIRST as TRAINER
from vramfit.frameworks.transformers import STYLE
from vramfit.result import Quantity

ADAPTER = AdapterDefaults(
    rank=8,
    alpha=32.0,
    targets=("all-linear",),
    format="fp32",
    dropout=0.05,
    source="modelscope/ms-swift@v2.0.5:swift/llm/utils/argument.py (lora_rank, lora_alpha, lora_dropout_p)",
)

FRAGMENTATION = Band(
    low_ratio=0.0,
    expected_ratio=1.0,
    high_ratio=1.9,
    source="60 steps of lengths drawn as in the documentation's data set (mean 3,234, deviation 8,152, cut at the "
    "longest allowed), replayed through a simulated allocator: 0.8 to 1.5 where lengths differ, 0.36 where not: "
    "a longer batch needs new memory for its logits, and what shorter ones left stays cached",
    of_lengths=True,
)
"""Batches are padded to their own longest sample, so that hardly two are alike."""

FIRST = replace(
    TRAINER,
    name="ms-swift",
    version="1.0",
    checked="ms-swift 2.0.5",
    recipes=(
        FP32,
        replace(pure("bf16"), autocast=True),
        replace(pure("fp16"), autocast=True),
        mixed("bf16-mixed", "bf16"),
        mixed("fp16-mixed", "fp16"),
    ),
    precision="bf16",
    recompute="full",
    adapter=ADAPTER,
    fragmentation=FRAGMENTATION,
    counts=Quantity.RESERVED_PEAK,
)
PROFILES = (FIRST, replace(FIRST, version="3.0", month="2025-01", style=STYLE))
"""modelscope/ms-swift@v2.0.5:swift/llm/utils/argument.py, select_dtype: bf16 loads the model in bf16 and passes
``bf16=True`` to the Trainer, which runs under autocast."""
