"""What LLaMA-Factory takes: YAML, JSON or a command line.

Source of names and meanings: hiyouga/LLaMA-Factory:src/llamafactory/hparams/*.py, model/adapter.py, model/patcher.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vramfit.training_files.key import Found, NotModelled, Reader, beside, is_open, named, names, ratio, to, truth, when
from vramfit.training_files.table import Dialect, understand
from vramfit.training_files.trainer import ARGUMENTS, ATTENTION, DDP, FUSED_LINEAR, OPTIMIZER, lora_method, targets
from vramfit.training_files.training_file import Document, TrainingFile

DIALECT = Dialect(kind="LLaMA-Factory YAML", framework="llama-factory", table="llama_factory")
MARKS = frozenset({"finetuning_type", "stage", "cutoff_len", "dataset_dir", "template"})
STAGES: Mapping[str, object] = {
    "sft": None, "pt": None, "dpo": "dpo", "rm": "reward", "ppo": "ppo", "kto": "dpo",
}  # fmt: skip
"""KTO holds a reference model beside the trained one, as DPO does."""
ATTENTIONS: Mapping[str, object] = {
    "auto": None, "disabled": "eager", "sdpa": "sdpa", "fa2": "flash", "fa3": "flash",
}  # fmt: skip


def _method(_: str, value: object, given: Mapping[str, Any]) -> Found:
    match str(value):
        case "full":
            return (("workload.method", "full"),)
        case "lora" if not is_open(given.get("quantization_bit")):
            return (("workload.method", "qlora"),)
        case "lora":
            return (("workload.method", lora_method(given)),)
    return NotModelled(why=f"{value}: not modelled", path="workload.method", expected="full or lora")


def _bits(name: str, value: object, given: Mapping[str, Any]) -> Found:
    if is_open(value):
        return ()
    how = str(given.get("quantization_method") or given.get("quant_method") or "bnb").lower()
    if how not in {"bnb", "bitsandbytes"} or str(value) not in {"4", "8"}:
        return NotModelled(
            why=f"{value} bit by {how}: not modelled", path="workload.base_format", expected="4 or 8, by bnb"
        )
    if str(value) == "8":
        return (("workload.base_format", "int8"),)
    nested = truth(name, given.get("double_quantization", True)) is not False
    kind = str(given.get("quantization_type") or "nf4")
    return (("workload.base_format", "nf4-dq" if nested and kind == "nf4" else kind),)


LOOKED_AT = (
    "quantization_method", "double_quantization", "quantization_type", "use_dora", "use_rslora", "pref_loss",
)  # fmt: skip
TAKEN: dict[str, Reader] = {
    **ARGUMENTS,
    "cutoff_len": to("workload.sequence_tokens"),
    "stage": named("workload.objective", STAGES),
    "finetuning_type": _method,
    "quantization_bit": _bits,
    "flash_attn": named(ATTENTION, ATTENTIONS),
    "enable_liger_kernel": when((FUSED_LINEAR,)),
    "disable_gradient_checkpointing": when((("workload.recompute", "none"),)),
    "pure_bf16": when((("workload.precision", "bf16"),)),
    "use_unsloth": when((("workload.framework", "unsloth"),)),
    "use_galore": when(((OPTIMIZER, "galore"),)),
    "use_apollo": when(((OPTIMIZER, "apollo"),)),
    "use_muon": when(((OPTIMIZER, "muon"),)),
    **dict.fromkeys(
        ("quantization_method", "double_quantization", "quantization_type", "use_dora", "use_rslora", "pref_loss"),
        beside,
    ),
    "lora_rank": to("workload.adapter.rank"),
    "lora_alpha": to("workload.adapter.alpha", ratio),
    "lora_dropout": to("workload.adapter.dropout", ratio),
    "lora_target": targets,
    "additional_target": to("workload.adapter.modules_to_save", names),
}
_ADAPTER_ONLY = frozenset({"lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target"})


def _pref(given: Mapping[str, Any]) -> dict[str, Reader]:
    """Return the reader of ``stage`` when the loss needs no reference model: ORPO and SimPO."""
    if str(given.get("pref_loss")).lower() in {"orpo", "simpo"} and str(given.get("stage")).lower() == "dpo":
        return {"stage": lambda *_: (("workload.objective", "orpo"),)}
    return {}


def read(document: Document, values: Mapping[str, Any]) -> TrainingFile:
    """Return what such a file says; what it says of adapters counts only where one is trained."""
    adapters = str(values.get("finetuning_type", "lora")) == "lora"
    taken = {name: reader for name, reader in TAKEN.items() if adapters or name not in _ADAPTER_ONLY}
    if truth("pure_bf16", values.get("pure_bf16")):
        taken.pop("bf16")
    for switch in ("use_galore", "use_apollo", "use_muon"):
        if truth(switch, values.get(switch)):
            taken.pop("optim", None)
    values = {**values, "finetuning_type": values.get("finetuning_type", "lora")}
    return understand(DIALECT, document.where, values, {**taken, **_pref(values)}, implied=(DDP,))
