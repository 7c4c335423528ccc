"""A litgpt configuration in YAML.

Source of names and meanings: Lightning-AI/litgpt:litgpt/args.py, litgpt/finetune/*.py, litgpt/pretrain.py, 0.5.13.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from vramfit.training_files.key import Found, NotModelled, Reader, count, is_open, ratio, text, to, truth, word
from vramfit.training_files.table import keys, understand
from vramfit.training_files.trainer import OPTIMIZER, SHARDED
from vramfit.training_files.training_file import GLOBAL_BATCH, NODES, PER_NODE, Document, TrainingFile

KIND = "litgpt YAML"
PRECISIONS: Mapping[str, Iterable[tuple[str, object]]] = {
    said: (("workload.precision", ours),)
    for said, ours in {
        "bf16-true": "bf16", "16-true": "fp16", "32-true": "fp32", "bf16-mixed": "bf16-mixed",
        "16-mixed": "fp16-mixed",
    }.items()
}  # fmt: skip
QUANTIZED: Mapping[str, str] = {
    "bnb.nf4": "nf4", "bnb.nf4-dq": "nf4-dq", "bnb.fp4": "fp4", "bnb.int8-training": "int8",
}  # fmt: skip
OPTIMIZERS: Mapping[str, Iterable[tuple[str, object]]] = {
    **dict.fromkeys(("AdamW", "torch.optim.AdamW"), ((OPTIMIZER, "adamw"),)),
    **dict.fromkeys(("Adam", "torch.optim.Adam"), ((OPTIMIZER, "adam"),)),
    **dict.fromkeys(("SGD", "torch.optim.SGD"), ((OPTIMIZER, "sgd"),)),
    "bitsandbytes.optim.PagedAdamW": ((OPTIMIZER, "paged-adamw"),),
    "bitsandbytes.optim.AdamW8bit": ((OPTIMIZER, "adamw-8bit"),),
}
TARGETS: Mapping[str, tuple[str, ...]] = {
    "lora_query": ("q_proj",), "lora_key": ("k_proj",), "lora_value": ("v_proj",), "lora_projection": ("o_proj",),
    "lora_mlp": ("gate_proj", "up_proj", "down_proj"), "lora_head": ("lm_head",),
}  # fmt: skip
"""Switches -> Hugging Face's names of what they mean in a gated model."""
USUAL = {"lora_query": True, "lora_value": True}


def _checkpoint(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read ``checkpoints/organisation/model``."""
    said = text(name, value)
    if said is None:
        return ()
    parts = PurePath(said).parts
    model = "/".join(parts[-2:]) if len(parts) > 1 and parts[0] in {"checkpoints", ".", "~", "/"} else said
    return (("model", model),)


def _method(name: str, value: object, given: Mapping[str, Any]) -> Found:
    """Say how it trains, from which switches there are: each recipe has its own."""
    del name, value
    if "lora_r" in given:
        return (("workload.method", "qlora" if not is_open(given.get("quantize")) else "lora"),)
    if "quantize" in given:
        return (("workload.method", "adapter"),)
    return (("workload.method", "full"),)


def _quantize(name: str, value: object, given: Mapping[str, Any]) -> Found:
    if is_open(value):
        return ()
    if "lora_r" not in given:
        return NotModelled(why="a quantised base below adapters other than LoRA", path="workload.method", expected="none")
    if value not in QUANTIZED:
        return NotModelled(why=f"{value}: not modelled", path="workload.base_format", expected=", ".join(QUANTIZED))
    return (("workload.base_format", QUANTIZED[str(value)]),)


def _targets(name: str, value: object, given: Mapping[str, Any]) -> Found:
    """Read all the switches at the first of them."""
    del value
    on = [each for switch, targets in TARGETS.items() if truth(name, given.get(switch, USUAL.get(switch))) for each in targets]
    return (("workload.adapter.targets", tuple(on)),)


def _devices(name: str, value: object, _: Mapping[str, Any]) -> Found:
    return () if is_open(value) else ((PER_NODE, count(name, value)),)


TAKEN: dict[str, Reader] = {
    "checkpoint_dir": _checkpoint,
    "model_name": to("model", text),
    "precision": word(PRECISIONS, "workload.precision"),
    "quantize": _quantize,
    "devices": _devices,
    "num_nodes": to(NODES),
    "lora_r": to("workload.adapter.rank"),
    "lora_alpha": to("workload.adapter.alpha", ratio),
    "lora_dropout": to("workload.adapter.dropout", ratio),
    "train.micro_batch_size": to("workload.micro_batch"),
    "train.global_batch_size": to(GLOBAL_BATCH),
    "train.max_seq_length": to("workload.sequence_tokens"),
    "optimizer": word(OPTIMIZERS, OPTIMIZER),
    "optimizer.class_path": word(OPTIMIZERS, OPTIMIZER),
}


def read(document: Document, values: Mapping[str, Any]) -> TrainingFile:
    """Return what such a file says: method and targets follow from which switches it has."""
    first = next((name for name in values if name in TARGETS), "lora_r")
    known = {**TAKEN, "recipe": _method, "ranks": lambda *_: (SHARDED,), **{name: _nothing for name in TARGETS}}
    if "lora_r" in values:
        known[first] = _with(_targets, known.get(first) if first == "lora_r" else None)
    return understand(KIND, document.where, {**values, "recipe": None, "ranks": None}, known, keys("litgpt"), framework="litgpt")


def _nothing(*_: object) -> Found:
    return ()


def _with(reader: Reader, other: Reader | None) -> Reader:
    """Return a reader that finds what both find."""

    def read_both(name: str, value: object, given: Mapping[str, Any]) -> Found:
        found = [reader(name, value, given), () if other is None else other(name, value, given)]
        return tuple(pair for each in found if not isinstance(each, NotModelled) for pair in each)

    return read_both
