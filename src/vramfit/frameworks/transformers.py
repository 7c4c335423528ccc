"""Hugging Face's Trainer, and TRL's and PEFT's on top of it: autocast over the weights as they were loaded.

``bf16=True`` means autocast (accelerate); weights keep the format in which they were loaded, fp32 by default before
transformers 5 and that of the checkpoint since. ``bf16`` alone (no autocast) is a model loaded in 16 bit.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.block_style import BlockStyle
from vramfit.framework import KERNELS_AT_ONCE, Band, Framework, Sharding
from vramfit.frameworks.pytorch import RECIPES as TORCH
from vramfit.result import Quantity

RECIPES = tuple(recipe for recipe in TORCH if recipe.precision != "fp8-mixed")
"""huggingface/transformers:src/transformers/training_args.py (bf16, fp16); huggingface/accelerate:accelerator.py."""

FRAGMENTATION = Band(
    low_ratio=0.0,
    expected_ratio=0.1,
    high_ratio=0.5,
    source="steps replayed through a simulated allocator: next to nothing without recomputation, 0.36 where full "
    "recomputation and whole logits take turns; more where the lengths of batches differ",
)

STYLE = BlockStyle(holds_logits=False)
"""Trainer.compute_loss returns the loss alone, so that the outputs with their logits are let go before backward
(huggingface/transformers:src/transformers/trainer.py)."""
OLD = replace(STYLE, returns_fp32=True, shifts_logits=True)
"""Before 4.45 every model cast its logits and copied them without the last position (modeling_llama.py, forward)."""

FIRST = Framework(
    name="transformers",
    version="4.0",
    checked="transformers 4.49.0, 4.55.0 and 5.23.0, peft 0.17.1",
    recipes=RECIPES,
    precision="bf16-mixed",
    optimizer="adamw",
    optimizer_implementation="foreach",
    loss="fp32",
    sharding=Sharding.FSDP1,
    adds_up_whole=True,
    deepspeed=True,
    clips_gradients=True,
    style=OLD,
    fragmentation=FRAGMENTATION,
    counts=Quantity.PROCESS_PEAK,
)
"""``max_grad_norm`` is 1.0; the optimizer is torch's AdamW, which takes its foreach path on CUDA. All micro-batches of
a step but the last run under ``Accelerator.no_sync`` unless ``sync_each_batch`` is set (trainer.py)."""

BEFORE_TORCH_2 = replace(
    FIRST,
    checked="transformers 4.17",
    optimizer_implementation="for-loop",
    set_to_none=False,
    kernel_bytes=KERNELS_AT_ONCE,
)
"""``optim`` is ``adamw_hf``, one tensor at a time; torch 1 zeroes gradients and leaves them allocated."""

PROFILES = (
    BEFORE_TORCH_2,
    replace(FIRST, version="4.28", month="2023-03"),
    replace(FIRST, version="4.45", month="2024-09", style=STYLE),
    replace(FIRST, version="4.55", month="2025-08", style=STYLE, optimizer_implementation="fused"),
    replace(
        FIRST, version="5.0", month="2026-01", style=STYLE, optimizer_implementation="fused", sharding=Sharding.FSDP2
    ),
)
"""4.55: ``optim`` is ``adamw_torch_fused`` with torch 2.8 and later (training_args.py; 4.49 has ``adamw_torch``)."""
