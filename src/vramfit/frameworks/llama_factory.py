"""LLaMA-Factory: the Trainer with checkpointing on, trained weights in fp32 unless ``pure_bf16``."""

from __future__ import annotations

from dataclasses import replace

from vramfit.framework import AdapterDefaults
from vramfit.frameworks.transformers import FIRST as TRAINER
from vramfit.frameworks.transformers import STYLE

ADAPTER = AdapterDefaults(
    rank=8,
    alpha=16.0,
    targets=("all-linear",),
    format="fp32",
    dropout=0.0,
    source="hiyouga/LLaMA-Factory:src/llamafactory/hparams/finetuning_args.py: lora_rank 8, twice that, all",
)

PROFILES = (
    replace(
        TRAINER,
        name="llama-factory",
        version="0.1",
        checked="llamafactory 0.9.5",
        recompute="full",
        style=STYLE,
        adapter=ADAPTER,
    ),
)
"""hiyouga/LLaMA-Factory:src/llamafactory/model/adapter.py: trained weights are upcast to fp32 unless pure_bf16 or
ZeRO-3; model/model_utils/checkpointing.py: checkpointing unless disable_gradient_checkpointing."""
