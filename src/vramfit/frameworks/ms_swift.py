"""ms-swift: the Trainer over weights in 16 bit, autocast on, checkpointing on, adapters by PEFT."""

from __future__ import annotations

from dataclasses import replace

from vramfit.framework import AdapterDefaults
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
    counts=Quantity.RESERVED_PEAK,
)
PROFILES = (FIRST, replace(FIRST, version="3.0", month="2025-01", style=STYLE))
"""modelscope/ms-swift@v2.0.5:swift/llm/utils/argument.py, select_dtype: bf16 loads the model in bf16 and passes
``bf16=True`` to the Trainer, which runs under autocast."""
