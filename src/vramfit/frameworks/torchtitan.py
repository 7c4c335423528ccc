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
    weighs_wide=True,
    pads_groups=True,
)
"""pytorch/torchtitan:torchtitan/models/llama3/model/model.py (repeat_kv), train.py (del pred before backward),
models/moe/moe.py (score_before_experts: False in every recipe but Llama 4's) and distributed/expert_parallel.py."""

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

EARLY = replace(
    FIRST,
    version="0.0.1",
    month="2024-04-10",
    checked="torchtitan of 2024-04 and 2024-05",
    optimizer_implementation="foreach",
    style=replace(STYLE, returns_fp32=True, holds_logits=True),
)
COMPILED_LOSS = (("deepseek_v3", "fused"),)
"""torchtitan/models/deepseek_v3/train_configs/*.toml: compile.components = ["loss"], from 08b8b244f on."""
LATE = replace(FIRST, version="0.1", month="2025-02", style=replace(STYLE, compiles_loss=True))

PROFILES = (
    replace(EARLY, version="0.0", month="", checked="torchtitan of 2024-03", records_streams=True),
    EARLY,
    replace(FIRST, version="0.0.2", month="2024-06", checked="torchtitan of 2024-06 to 2025-01"),
    replace(LATE, checked="torchtitan of 2025-02 to 2025-08-12", stacks_shared_experts=True),
    replace(LATE, version="0.1.1", month="2025-08-13", checked="torchtitan of 2025-08-13 to 2025-08-19"),
    replace(
        LATE,
        version="0.1.2",
        month="2025-08-20",
        checked="torchtitan of 2025-08-20 to 2025-09",
        loss_of_families=COMPILED_LOSS,
    ),
    replace(
        LATE,
        version="0.2",
        month="2025-10",
        checked="torchtitan 0.2.0",
        style=replace(STYLE, compiles_loss=True, fused_norm=True),
        loss_of_families=COMPILED_LOSS,
    ),
)
"""2024-03: train.py names foreach=True; commit e62573d4c of 2024-04-10 sets TORCH_NCCL_AVOID_RECORD_STREAMS.
0.1: torchtitan/components/loss.py compiles the loss with the model, and alone where compile.components names it.
2025-08-13: commit 7354848df makes shared experts plain matrices; till then GroupedExperts(num_experts=1).
0.2 runs on torch 2.8 and later, where nn.RMSNorm is one kernel that keeps its input and a statistic."""
