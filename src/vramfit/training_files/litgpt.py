"""A litgpt configuration in YAML.

Source of names and meanings: Lightning-AI/litgpt:litgpt/args.py, litgpt/finetune/*.py, litgpt/pretrain.py, 0.5.13.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from vramfit.training_files.key import Found, NotModelled, Reader, beside, count, is_open, named, ratio, text, to, truth
from vramfit.training_files.table import Dialect, understand
from vramfit.training_files.trainer import OPTIMIZER
from vramfit.training_files.training_file import GLOBAL_BATCH, NODES, PER_NODE, REST, Document, TrainingFile

DIALECT = Dialect(kind="litgpt YAML", framework="litgpt", table="litgpt")
PRECISIONS: Mapping[str, object] = {
    "bf16-true": "bf16", "16-true": "fp16", "32-true": "fp32", "bf16-mixed": "bf16-mixed", "16-mixed": "fp16-mixed",
}  # fmt: skip
QUANTIZED: Mapping[str, str] = {
    "bnb.nf4": "nf4", "bnb.nf4-dq": "nf4-dq", "bnb.fp4": "fp4", "bnb.int8-training": "int8",
}  # fmt: skip
OPTIMIZERS: Mapping[str, object] = {
    "AdamW": "adamw", "torch.optim.AdamW": "adamw", "Adam": "adam", "torch.optim.Adam": "adam", "SGD": "sgd",
    "torch.optim.SGD": "sgd", "bitsandbytes.optim.PagedAdamW": "paged-adamw",
    "bitsandbytes.optim.AdamW8bit": "adamw-8bit",
}  # fmt: skip
TARGETS: Mapping[str, tuple[str, ...]] = {
    "lora_query": ("q_proj",), "lora_key": ("k_proj",), "lora_value": ("v_proj",), "lora_projection": ("o_proj",),
    "lora_mlp": ("gate_proj", "up_proj", "down_proj"), "lora_head": ("lm_head",),
}  # fmt: skip
"""Switches -> Hugging Face's names of what they mean in a gated model."""
USUAL = {"lora_query": True, "lora_value": True}


BY_VERB: Mapping[str, str] = {
    "finetune": "lora_r", "finetune_lora": "lora_r", "finetune_adapter": "quantize", "finetune_adapter_v2": "quantize",
}  # fmt: skip
"""Command -> the key by which its recipe is known, given or not."""


def _checkpoint(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read ``checkpoints/organisation/model``."""
    said = text(name, value)
    if said is None:
        return ()
    parts = PurePath(said).parts
    model = "/".join(parts[-2:]) if len(parts) > 1 and parts[0] in {"checkpoints", ".", "~", "/"} else said
    return (("model", model),)


def _method(given: Mapping[str, Any]) -> tuple[str, object, str]:
    """Say how it trains, from which switches there are: each recipe has its own."""
    if "lora_r" in given:
        return ("workload.method", "qlora" if not is_open(given.get("quantize")) else "lora", "a recipe with lora_r")
    if "quantize" in given:
        return ("workload.method", "adapter", "a recipe with quantize and without lora_r")
    return ("workload.method", "full", "a recipe without quantize and lora_r")


def _quantize(_: str, value: object, given: Mapping[str, Any]) -> Found:
    if is_open(value):
        return ()
    if "lora_r" not in given:
        return NotModelled(
            why="a quantised base below adapters other than LoRA", path="workload.method", expected="none"
        )
    if str(value) not in QUANTIZED:
        return NotModelled(why=f"{value}: not modelled", path="workload.base_format", expected=", ".join(QUANTIZED))
    return (("workload.base_format", QUANTIZED[str(value)]),)


def _targets(name: str, value: object, given: Mapping[str, Any]) -> Found:
    """Read all the switches at the first of them."""
    del value
    on = [
        each
        for switch, targets in TARGETS.items()
        if truth(name, given.get(switch, USUAL.get(switch)))
        for each in targets
    ]
    return (("workload.adapter.targets", tuple(on)),)


def _devices(name: str, value: object, _: Mapping[str, Any]) -> Found:
    return () if is_open(value) else ((PER_NODE, count(name, value)),)


TAKEN: dict[str, Reader] = {
    "checkpoint_dir": _checkpoint,
    "model_name": to("model", text),
    "precision": named("workload.precision", PRECISIONS),
    "quantize": _quantize,
    "devices": _devices,
    "num_nodes": to(NODES),
    "lora_r": to("workload.adapter.rank"),
    "lora_alpha": to("workload.adapter.alpha", ratio),
    "lora_dropout": to("workload.adapter.dropout", ratio),
    "train.micro_batch_size": to("workload.micro_batch"),
    "train.global_batch_size": to(GLOBAL_BATCH),
    "train.max_seq_length": to("workload.sequence_tokens"),
    "optimizer": named(OPTIMIZER, OPTIMIZERS),
    "optimizer.class_path": named(OPTIMIZER, OPTIMIZERS),
}


def read(document: Document, values: Mapping[str, Any]) -> TrainingFile:
    """Return what such a file says: method and targets follow from which switches it has."""
    first = next((name for name in values if name in TARGETS), "lora_r")
    known = {**TAKEN, **dict.fromkeys(TARGETS, beside)}
    if "lora_r" in values:
        known[first] = _with(_targets, known.get(first) if first == "lora_r" else None)
    implied = (_method(values), (REST, "dp_shard", "several devices use FSDP"))
    return understand(DIALECT, document.where, values, known, implied=implied)


def _with(reader: Reader, other: Reader | None) -> Reader:
    """Return a reader that finds what both find."""

    def read_both(name: str, value: object, given: Mapping[str, Any]) -> Found:
        found = [reader(name, value, given), () if other is None else other(name, value, given)]
        return tuple(pair for each in found if not isinstance(each, NotModelled) for pair in each)

    return read_both
