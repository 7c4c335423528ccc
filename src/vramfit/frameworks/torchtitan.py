"""torchtitan: fp32 weights sharded by FSDP2 and cast as they are gathered, selective checkpointing, fused AdamW."""

from __future__ import annotations

from dataclasses import replace

from vramfit.block_style import BlockStyle
from vramfit.framework import FSDP2_FRAGMENTATION, Framework, Sharding
from vramfit.frameworks.pytorch import FP32, mixed, pure
from vramfit.result import Quantity

STYLE = BlockStyle(
    selects_operators=True,
    repeats_key_values=True,
    holds_logits=False,
    divided_loss=True,
    dropout=False,
    weighs_inputs=True,
)
"""pytorch/torchtitan:torchtitan/models/llama3/model/model.py (repeat_kv), train.py (del pred before backward),
models/moe/moe.py (score_before_experts)."""

FIRST = Framework(
    name="torchtitan",
    version="0.0",
    checked="torchtitan of 2024-03 to 2025-09",
    recipes=(
        FP32,
        pure("bf16"),
        mixed("bf16-mixed", "bf16", autocast=False),
        mixed("fp16-mixed", "fp16", autocast=False),
        mixed("fp8-mixed", "bf16", autocast=False),
    ),
    precision="bf16-mixed",
    optimizer="adamw",
    optimizer_implementation="fused",
    loss="fp32",
    recompute="selective",
    style=STYLE,
    sharding=Sharding.FSDP2,
    whole_ends=False,
    clips_gradients=True,
    fragmentation=FSDP2_FRAGMENTATION,
    counts=Quantity.RESERVED_PEAK,
)
"""pytorch/torchtitan:torchtitan/config/job_config.py (activation_checkpoint.mode selective, optimizer.implementation
fused, max_norm 1.0, mixed_precision_param bf16, mixed_precision_reduce fp32); components/metrics.py prints
reserved_bytes.all.peak; distributed/activation_checkpoint.py saves every second matrix product."""

PROFILES = (
    replace(
        FIRST,
        checked="torchtitan of 2024-03",
        optimizer_implementation="foreach",
        style=replace(STYLE, returns_fp32=True, holds_logits=True),
    ),
    replace(FIRST, version="0.0.2", month="2024-06", checked="torchtitan of 2024-06 to 2025-01"),
    replace(
        FIRST,
        version="0.1",
        month="2025-02",
        checked="torchtitan of 2025-02 to 2025-09",
        style=replace(STYLE, compiles_loss=True),
    ),
    replace(
        FIRST,
        version="0.2",
        month="2025-10",
        checked="torchtitan 0.2.0",
        style=replace(STYLE, compiles_loss=True, fused_norm=True),
    ),
)
"""2024-03: train.py names foreach=True. 0.1: torchtitan/components/loss.py compiles the loss with the model, and alone
where compile.components names it (the recipes of deepseek_v3 of 2025-08). 0.2 runs on torch 2.8 and later, where
nn.RMSNorm is one kernel that keeps its input and a statistic."""
