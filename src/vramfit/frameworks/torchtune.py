"""torchtune: everything in one format (bf16 by default), blocks checkpointed, its own modules."""

from __future__ import annotations

from dataclasses import replace

from vramfit.block_style import BlockStyle
from vramfit.framework import AdapterDefaults, Band, Framework, Sharding
from vramfit.frameworks.pytorch import FP32, mixed, pure
from vramfit.result import Quantity

ADAPTER = AdapterDefaults(
    rank=8,
    alpha=16.0,
    targets=("q_proj", "v_proj", "o_proj"),
    format="parameters",
    dropout=0.0,
    source="pytorch/torchtune:recipes/configs/llama3_1/8B_lora_single_device.yaml (lora_attn_modules, rank, alpha); "
    "modules/peft/lora.py: A and B have the model's dtype",
)

FRAGMENTATION = Band(
    low_ratio=0.0,
    expected_ratio=0.1,
    high_ratio=0.4,
    source="steps replayed through a simulated allocator: next to nothing without recomputation, 0.36 where full "
    "recomputation and whole logits take turns",
)

FIRST = Framework(
    name="torchtune",
    version="0.1",
    checked="torchtune 0.1.1",
    recipes=(FP32, pure("bf16"), pure("fp16"), mixed("bf16-mixed", "bf16")),
    precision="bf16",
    optimizer="adamw",
    optimizer_implementation="foreach",
    loss="fp32",
    recompute="full",
    adapter=replace(ADAPTER, targets=("q_proj", "v_proj")),
    style=BlockStyle(repeats_key_values=True, returns_fp32=True, shifts_logits=True, dropout=False),
    sharding=Sharding.FSDP1,
    fragmentation=FRAGMENTATION,
    counts=Quantity.RESERVED_PEAK,
)
"""pytorch/torchtune@v0.1.1:recipes/configs/llama2/7B_lora_single_device.yaml: torch.optim.AdamW without ``fused``,
enable_activation_checkpointing, dtype bf16; modules/attention.py copies keys and values for every query head;
modules/transformer.py returns fp32 logits."""

PROFILES = (
    FIRST,
    replace(
        FIRST,
        version="0.3",
        checked="torchtune 0.4.0",
        optimizer_implementation="fused",
        loss="chunked",
        adapter=ADAPTER,
        sharding=Sharding.FSDP2,
        whole_ends=False,
        style=BlockStyle(repeats_key_values=True, holds_logits=False, dropout=False),
    ),
)
"""0.3 brings CEWithChunkedOutputLoss (8 pieces), fused AdamW in its configurations, and fully_shard
with embedding and output projection as units of their own (custom_sharded_layers)."""
