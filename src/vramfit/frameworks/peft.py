"""PEFT in a loop of one's own (its method_comparison): a base in 16 bit, adapters in fp32, no autocast."""

from __future__ import annotations

from dataclasses import replace

from vramfit.frameworks.pytorch import PROFILES as PYTORCH
from vramfit.result import Quantity

PROFILES = (
    replace(
        PYTORCH[-1],
        name="peft",
        version="0.1",
        checked="peft 0.17.1 and 0.21.2",
        precision="bf16",
        method="lora",
        counts=Quantity.RESERVED_PEAK,
    ),
)
"""huggingface/peft:method_comparison/MetaMathQA/run.py: reserved peak less what was reserved at the start."""
