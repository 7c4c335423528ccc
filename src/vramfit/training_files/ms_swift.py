"""Command lines of ms-swift: ``swift sft``, ``swift pt``, ``swift rlhf``, and their YAML.

Source of names and meanings: modelscope/ms-swift:swift/arguments/**/*.py, swift/trainers/arguments.py, 4.6.0 and
names of versions 1 to 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vramfit.training_files.key import (
    Found,
    NotModelled,
    Reader,
    beside,
    is_open,
    named,
    names,
    ratio,
    text,
    to,
    truth,
    when,
)
from vramfit.training_files.table import Dialect, understand
from vramfit.training_files.trainer import (
    ARGUMENTS,
    ATTENTION,
    ATTENTIONS,
    BY_DEEPSPEED,
    DDP,
    FORMATS,
    FUSED_LINEAR,
    OPTIMIZER,
    SHARDED,
    lora_method,
    targets,
)
from vramfit.training_files.training_file import Document, TrainingFile

DIALECT = Dialect(kind="ms-swift arguments", framework="ms-swift", table="ms_swift")
MARKS = frozenset({"train_type", "tuner_type", "sft_type", "split_dataset_ratio"})
OBJECTIVES: Mapping[str, object] = {
    "dpo": "dpo", "kto": "dpo", "orpo": "orpo", "simpo": "orpo", "cpo": "orpo", "rm": "reward", "ppo": "ppo",
    "grpo": "grpo",
}  # fmt: skip
ZERO = {"zero0": 0, "zero1": 1, "zero2": 2, "zero3": 3, "zero2_offload": 2, "zero3_offload": 3}
"""Names that stand for DeepSpeed configurations of ms-swift's own."""
STORED = {"4": "nf4-dq", "8": "int8"}


def _method(_: str, value: object, given: Mapping[str, Any]) -> Found:
    said = str(value)
    if said == "full":
        return (("workload.method", "full"),)
    if said in {"lora", "longlora", "rslora"}:
        quantised = not is_open(given.get("quant_bits", given.get("quantization_bit")))
        return (("workload.method", "qlora" if quantised else lora_method(given)),)
    if said == "adapter":
        return (("workload.method", "adapter"),)
    return NotModelled(why=f"{said[:40]}: not modelled", path="workload.method", expected="full, lora or adapter")


def _bits(_: str, value: object, given: Mapping[str, Any]) -> Found:
    if is_open(value) or str(value) == "0":
        return ()
    how = str(given.get("quant_method", "bnb"))
    if how != "bnb" or str(value) not in STORED:
        return NotModelled(
            why=f"{value} bit by {how}: not modelled", path="workload.base_format", expected="4 or 8, by bnb"
        )
    return (("workload.base_format", STORED[str(value)]),)


def _zero(_: str, value: object, __: Mapping[str, Any]) -> Found:
    said = str(value)
    if said not in ZERO:
        return NotModelled(why=f"{said[:60]}: its content is not read from here: give that file with --from too")
    found: list[tuple[str, object]] = [SHARDED, BY_DEEPSPEED, ("plan.zero_stage", ZERO[said])]
    if said.endswith("offload"):
        found.append(("workload.offload.optimizer", "cpu"))
        if ZERO[said] == 3:
            found.append(("workload.offload.parameters", "cpu"))
    return tuple(found)


def _dtype(_: str, value: object, __: Mapping[str, Any]) -> Found:
    """Read ``torch_dtype``, which also decides in which format it trains."""
    found = FORMATS.get(str(value))
    if found is None:
        return NotModelled(
            why=f"{value}: not modelled", path="workload.precision", expected="bfloat16, float16, float32"
        )
    return (("workload.precision", found),)


TAKEN: dict[str, Reader] = {
    **{name: reader for name, reader in ARGUMENTS.items() if not name.startswith("model_name")},
    **dict.fromkeys(("model", "model_id_or_path"), to("model", text)),
    **dict.fromkeys(("max_length", "packing_length"), to("workload.sequence_tokens")),
    **dict.fromkeys(("train_type", "tuner_type", "sft_type"), _method),
    **dict.fromkeys(("torch_dtype", "dtype"), _dtype),
    **dict.fromkeys(("quant_bits", "quantization_bit"), _bits),
    "batch_size": to("workload.micro_batch"),
    "attn_impl": named(ATTENTION, ATTENTIONS),
    "use_flash_attn": when(((ATTENTION, "flash"),)),
    "use_liger_kernel": when((FUSED_LINEAR,)),
    "deepspeed": _zero,
    "sequence_parallel_size": to("plan.cp"),
    "deepspeed_autotp_size": to("plan.tp"),
    **dict.fromkeys(("quant_method", "use_dora", "use_rslora"), beside),
    "lora_rank": to("workload.adapter.rank"),
    "lora_alpha": to("workload.adapter.alpha", ratio),
    "lora_dropout": to("workload.adapter.dropout", ratio),
    **dict.fromkeys(("target_modules", "lora_target_modules"), targets),
    "modules_to_save": to("workload.adapter.modules_to_save", names),
    "rlhf_type": named("workload.objective", OBJECTIVES),
    "use_galore": when(((OPTIMIZER, "galore"),)),
}
_ADAPTER_ONLY = frozenset(
    {"lora_rank", "lora_alpha", "lora_dropout", "target_modules", "lora_target_modules", "modules_to_save"}
)


def read(document: Document, values: Mapping[str, Any], verb: str = "") -> TrainingFile:
    """Return what such a command says; ``swift pt`` trains everything, the others an adapter."""
    spelt = next((name for name in ("train_type", "tuner_type", "sft_type") if name in values), "tuner_type")
    full = {**values, spelt: values.get(spelt, "full" if verb == "pt" else "lora")}
    adapters = str(full[spelt]) != "full"
    taken = {name: reader for name, reader in TAKEN.items() if adapters or name not in _ADAPTER_ONLY}
    if "torch_dtype" in full or "dtype" in full:
        taken = {name: reader for name, reader in taken.items() if name not in {"bf16", "fp16"}}
    if truth("use_galore", full.get("use_galore")):
        taken.pop("optim", None)
    return understand(DIALECT, document.where, full, taken, implied=(DDP,))
