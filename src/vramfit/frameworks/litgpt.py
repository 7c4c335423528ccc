"""LitGPT through Lightning Fabric: ``bf16-true`` (one format), no checkpointing on one GPU, logits in chunks."""

from __future__ import annotations

from dataclasses import replace

from vramfit.block_style import BlockStyle
from vramfit.framework import AdapterDefaults, Band, Framework, Sharding
from vramfit.frameworks.pytorch import FP32, mixed, pure
from vramfit.result import Quantity

ADAPTER = AdapterDefaults(
    rank=8,
    alpha=16.0,
    targets=("q_proj", "v_proj"),
    format="parameters",
    dropout=0.05,
    source="Lightning-AI/litgpt:litgpt/finetune/lora.py (lora_r 8, lora_alpha 16, lora_dropout 0.05, query and value)",
)

FRAGMENTATION = Band(
    low_ratio=0.0,
    expected_ratio=0.05,
    high_ratio=0.4,
    source="steps replayed through a simulated allocator: next to nothing without recomputation",
)

FIRST = Framework(
    name="litgpt",
    version="0.1",
    checked="litgpt 0.5.3",
    recipes=(FP32, pure("bf16"), pure("fp16"), mixed("bf16-mixed", "bf16"), mixed("fp16-mixed", "fp16")),
    precision="bf16",
    optimizer="adamw",
    optimizer_implementation="foreach",
    loss="chunked",
    adapter=ADAPTER,
    base_format="nf4",
    global_batch=16,
    style=BlockStyle(
        repeats_key_values=True,
        fused_query_key_value=True,
        fused_gate_up=False,
        casts_chunks=False,
        packed_keeps_input=True,
        unpacks_twice=True,
        graph_outlives=True,
        pads_adapters=True,
        dropout=False,
        wide_norm=True,
        joins_queries=True,
    ),
    packs_head=True,
    sharding=Sharding.FSDP1,
    adds_up_whole=True,
    mixes_frozen=True,
    fragmentation=FRAGMENTATION,
    counts=Quantity.ALLOCATED_PEAK,
)
"""Lightning-AI/litgpt@v0.5.3:litgpt/finetune/lora.py: optimizer "AdamW" without ``fused``; FSDPStrategy with
auto_wrap_policy and activation_checkpointing_policy {Block}; litgpt/utils.py: chunked_cross_entropy, 128 tokens;
litgpt/model.py: queries, keys and values of one matrix; pyproject.toml: bitsandbytes 0.42.0;
Lightning-AI/pytorch-lightning:src/lightning/fabric/plugins/precision/bitsandbytes.py: every torch.nn.Linear is
replaced, and quantised from torch.half. Lightning's no_backward_sync is FSDP's no_sync, under which gradients add up
whole; with its use_orig_params a block's weights are one flat parameter, which gets a gradient if any of them does
(pytorch/pytorch:torch/distributed/fsdp/_flat_param.py): four runs of two and four ranks, -0.2 to +4.4 %."""

PROFILES = (
    replace(
        FIRST,
        checked="litgpt of 2023-10 (8641822)",
        style=replace(FIRST.style, graph_outlives=False),
    ),
    replace(FIRST, version="0.3", month="2024-03"),
)
"""2023: the script puts the longest sample into the first micro-batch, so that none of its length is there before it
(finetune/lora.py, longest_seq_ix)."""
