"""Axolotl: the Trainer over weights in 16 bit; adapters by PEFT."""

from __future__ import annotations

from dataclasses import replace

from vramfit.framework import AdapterDefaults
from vramfit.frameworks.ms_swift import PROFILES as SWIFT
from vramfit.frameworks.transformers import FRAGMENTATION
from vramfit.result import Quantity

ADAPTER = AdapterDefaults(
    rank=8,
    alpha=16.0,
    targets=("all-linear",),
    format="fp32",
    dropout=0.0,
    source="axolotl-ai-cloud/axolotl:src/axolotl/utils/schemas/peft.py; PEFT keeps adapters in fp32",
)

PROFILES = (
    replace(
        SWIFT[-1],
        name="axolotl",
        version="0.1",
        month="",
        checked="axolotl 0.19.0",
        recompute="none",
        optimizer_implementation="fused",
        adapter=ADAPTER,
        fragmentation=FRAGMENTATION,
        counts=Quantity.RESERVED_PEAK,
    ),
)
"""axolotl-ai-cloud/axolotl:src/axolotl/core/builders/base.py: ``bf16`` goes to the Trainer (autocast), the model is
loaded in bf16 (loaders/model.py, torch_dtype); gradient_checkpointing is off unless asked for."""
