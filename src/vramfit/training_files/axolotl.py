"""An Axolotl configuration in YAML.

Source of names and meanings: axolotl-ai-cloud/axolotl:src/axolotl/utils/schemas/*.py, loaders/model.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vramfit.training_files.key import (
    Found,
    NotModelled,
    Reader,
    beside,
    named,
    names,
    ratio,
    text,
    to,
    truth,
    when,
    word,
)
from vramfit.training_files.table import Dialect, understand
from vramfit.training_files.trainer import (
    ATTENTION,
    ATTENTIONS,
    DDP,
    FUSED_LINEAR,
    OPTIMIZER,
    OPTIMIZERS,
    RECOMPUTED,
    fsdp,
    fsdp_keys,
    fsdp_version,
    lora_method,
    other_file,
    targets,
)
from vramfit.training_files.training_file import Document, TrainingFile

DIALECT = Dialect(kind="Axolotl YAML", framework="axolotl", table="axolotl")
MARKS = frozenset({"base_model", "sequence_len", "micro_batch_size", "dataset_prepared_path", "lora_target_linear"})
OBJECTIVES: Mapping[str, object] = {
    "dpo": "dpo", "ipo": "dpo", "kto": "dpo", "orpo": "orpo", "simpo": "orpo", "grpo": "grpo", "gdpo": "grpo",
}  # fmt: skip
"""IPO and KTO hold a reference model as DPO does; SimPO holds none, as ORPO."""
AXOLOTL_OPTIMIZERS: Mapping[str, Iterable[tuple[str, object]]] = {
    **OPTIMIZERS,
    "ao_adamw_8bit": ((OPTIMIZER, "adamw-8bit"),),
    "optimi_adamw": ((OPTIMIZER, "adamw"),),
}


def _method(name: str, value: object, given: Mapping[str, Any]) -> Found:  # noqa: PLR0911 - one for each way
    said = text(name, value)
    if said is None:
        return (("workload.method", "full"),)
    if said == "qlora" and truth(name, given.get("load_in_8bit")):
        return (("workload.method", "qlora"), ("workload.base_format", "int8"))
    if said == "qlora":
        return (("workload.method", "qlora"),)
    if said == "lora" and truth(name, given.get("load_in_4bit")):
        return (("workload.method", "qlora"),)
    if said == "lora" and truth(name, given.get("load_in_8bit")):
        return (("workload.method", "qlora"), ("workload.base_format", "int8"))
    if said == "lora" and truth(name, given.get("gptq")):
        return (("workload.method", "gptq-lora"),)
    if said == "lora":
        return (("workload.method", lora_method(given, dora="peft_use_dora", rslora="peft_use_rslora")),)
    return NotModelled(why=f"{said[:40]}: not modelled", path="workload.method", expected="lora or qlora")


def _bf16(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read ``bf16``: weights are loaded in it, whether it says auto, true or full."""
    on = str(value).lower() in {"auto", "full"} or truth(name, value)
    return (("workload.precision", "bf16"),) if on else ()


def _fp8(name: str, value: object, _: Mapping[str, Any]) -> Found:
    if not truth(name, value):
        return ()
    return NotModelled(why="fp8 is not modelled", path="workload.precision", expected="bf16 alone")


def _recompute(name: str, value: object, _: Mapping[str, Any]) -> Found:
    said = str(value).lower()
    if said in {"offload", "unsloth"}:
        return (("workload.recompute", "offload"),)
    if said == "offload_disk":
        return (("workload.recompute", "offload"), ("workload.offload.activations", "nvme"))
    found = truth(name, value)
    return () if found is None else (RECOMPUTED if found else ("workload.recompute", "none"),)


def _fsdp(name: str, value: object, given: Mapping[str, Any]) -> Found:
    found = fsdp(name, value, given)
    if isinstance(found, NotModelled):
        return found
    explicit = {"fsdp_config.offload_params", "fsdp_config.fsdp_offload_params"} & set(given)
    return tuple(each for each in found if not (explicit and each[0].startswith("workload.offload")))


def _plugins(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read ``plugins``: that of cut cross-entropy is on once it is named."""
    said = names(name, value) or ()
    return (FUSED_LINEAR,) if any("cut_cross_entropy" in each for each in said) else ()


def _offloaded(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read ``activation_offloading``: a switch, or the name of a way."""
    if str(value).lower() in {"legacy", "disk", "hidden_states"} or truth(name, value):
        return (("workload.offload.activations", "nvme" if str(value).lower() == "disk" else "cpu"),)
    return ()


def _attention(ours: str) -> Reader:
    return when(((ATTENTION, ours),))


TAKEN: dict[str, Reader] = {
    "base_model": to("model", text),
    "micro_batch_size": to("workload.micro_batch"),
    "gradient_accumulation_steps": to("workload.gradient_accumulation_steps"),
    "sequence_len": to("workload.sequence_tokens"),
    "adapter": _method,
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "gptq", "peft_use_dora", "peft_use_rslora"), beside),
    "lora_r": to("workload.adapter.rank"),
    "lora_alpha": to("workload.adapter.alpha", ratio),
    "lora_dropout": to("workload.adapter.dropout", ratio),
    "lora_target_modules": targets,
    "lora_target_linear": when((("workload.adapter.targets", ("all-linear",)),)),
    "lora_modules_to_save": to("workload.adapter.modules_to_save", names),
    "optimizer": word(AXOLOTL_OPTIMIZERS, OPTIMIZER),
    **dict.fromkeys(("bf16", "bfloat16"), _bf16),
    "fp16": when((("workload.precision", "fp16-mixed"),)),
    "float16": when((("workload.precision", "fp16"),)),
    "fp8": _fp8,
    "gradient_checkpointing": _recompute,
    "activation_offloading": _offloaded,
    "flash_attention": _attention("flash"),
    "sdp_attention": _attention("sdpa"),
    "flex_attention": _attention("flex"),
    "xformers_attention": _attention("efficient"),
    "eager_attention": _attention("eager"),
    "attn_implementation": named(ATTENTION, ATTENTIONS),
    "liger_fused_linear_cross_entropy": when((FUSED_LINEAR,)),
    "cut_cross_entropy": when((FUSED_LINEAR,)),
    "chunked_cross_entropy": when((("workload.loss", "chunked"),)),
    "plugins": _plugins,
    "torch_compile": when((("workload.compile", True),)),
    "rl": named("workload.objective", OBJECTIVES),
    "reward_model": when((("workload.objective", "reward"),)),
    "deepspeed": other_file,
    "fsdp": _fsdp,
    "fsdp_version": fsdp_version,
    **fsdp_keys(),
    "dp_shard_size": to("plan.dp_shard"),
    "dp_replicate_size": to("plan.dp_replicate"),
    "tensor_parallel_size": to("plan.tp"),
    **dict.fromkeys(("context_parallel_size", "sequence_parallel_degree"), to("plan.cp")),
    "world_size": to("device_count"),
}  # fmt: skip
_ADAPTER_ONLY = frozenset(name for name in TAKEN if name.startswith("lora_"))


def read(document: Document, values: Mapping[str, Any]) -> TrainingFile:
    """Return what such a file says; what it says of adapters counts only where one is trained."""
    adapters = bool(values.get("adapter"))
    taken = {name: reader for name, reader in TAKEN.items() if adapters or name not in _ADAPTER_ONLY}
    if values.get("lora_target_linear"):
        taken.pop("lora_target_modules", None)
    full = {**values, "adapter": values.get("adapter")}
    return understand(DIALECT, document.where, full, taken, implied=(DDP,))
