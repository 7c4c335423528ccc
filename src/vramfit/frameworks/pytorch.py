"""PyTorch itself: a plain loop around a transformers model, with FSDP where ranks divide weights."""

from __future__ import annotations

from dataclasses import replace

from vramfit.framework import Band, Framework, Recipe, Sharding

FP32 = Recipe(
    precision="fp32",
    parameter_format="fp32",
    compute_format="fp32",
    gradient_format="fp32",
    optimizer_state_format="fp32",
    reduce_format="fp32",
)


def pure(precision: str) -> Recipe:
    """Return the recipe in which everything has one 16-bit format, Adam's moments too."""
    return Recipe(
        precision=precision,
        parameter_format=precision,
        compute_format=precision,
        gradient_format=precision,
        optimizer_state_format=precision,
        reduce_format=precision,
    )


def mixed(precision: str, compute: str, reduce: str = "fp32", *, autocast: bool = True) -> Recipe:
    """Return the recipe of fp32 weights that are cast for matrices, by autocast or as FSDP gathers them."""
    return Recipe(
        precision=precision,
        parameter_format="fp32",
        compute_format=compute,
        gradient_format="fp32",
        optimizer_state_format="fp32",
        reduce_format=reduce,
        autocast=autocast,
    )


RECIPES = (
    FP32,
    pure("bf16"),
    pure("fp16"),
    mixed("bf16-mixed", "bf16"),
    mixed("fp16-mixed", "fp16"),
    mixed("fp8-mixed", "bf16"),
)
"""Moments of torch.optim have the parameter's format (torch/optim/adamw.py: zeros_like). fp8-mixed: torchao's
float8 linear layers keep weights and what autograd saves in the wider format (pytorch/ao:torchao/float8)."""

FRAGMENTATION = Band(
    low_ratio=0.0,
    expected_ratio=0.05,
    high_ratio=0.4,
    source="steps replayed through a simulated allocator: next to nothing without recomputation, 0.36 where full "
    "recomputation and whole logits take turns; 19 Megatron runs have 0.03 to 0.09 of the total (MooreThreads/SimuMax)",
)

FIRST = Framework(
    name="pytorch",
    version="2.0",
    checked="torch 2.13.0, transformers 5.23.0",
    recipes=RECIPES,
    precision="bf16-mixed",
    optimizer="adamw",
    optimizer_implementation="foreach",
    loss="fp32",
    sharding=Sharding.FSDP1,
    fragmentation=FRAGMENTATION,
)

PROFILES = (FIRST, replace(FIRST, version="2.6", month="2025-01", sharding=Sharding.FSDP2))
"""2.6 made ``torch.distributed.fsdp.fully_shard`` public (pytorch/pytorch:torch/distributed/fsdp/__init__.py)."""
