"""TRL's trainers: the Trainer with checkpointing and bf16 autocast switched on."""

from __future__ import annotations

from dataclasses import replace

from vramfit.framework import Sharding
from vramfit.frameworks.transformers import FIRST, STYLE

EARLY = replace(FIRST, name="trl", version="0.1", checked="trl 1.16.0, transformers 4.49.0")
LATER = replace(
    EARLY,
    version="0.20",
    checked="trl 1.16.0",
    optimizer_implementation="fused",
    recompute="full",
    style=STYLE,
    sharding=Sharding.FSDP2,
)
"""huggingface/trl:trl/trainer/base_config.py: gradient_checkpointing and bf16 are on by default."""

PROFILES = (
    EARLY,
    LATER,
    replace(LATER, version="1.0", loss="chunked"),
)
"""1.0: loss_type "nll" never holds all logits (huggingface/trl:trl/trainer/sft_config.py, seen in 1.16.0)."""
