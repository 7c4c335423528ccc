"""Arguments of the Hugging Face Trainer, of TRL and of the scripts around them, as JSON, YAML or a command line.

Source of names and meanings: huggingface/transformers:src/transformers/training_args.py;
huggingface/trl:trl/trainer/*_config.py, trl/trainer/model_config.py; what they do with models: peft and bitsandbytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from vramfit.errors import InvalidValueError
from vramfit.training_files.key import (
    Found,
    NotModelled,
    Reader,
    beside,
    count,
    named,
    names,
    ratio,
    switch,
    text,
    to,
    truth,
    when,
    word,
)
from vramfit.training_files.table import Dialect, understand
from vramfit.training_files.training_file import DIVIDED_BY, REST, UNLESS, Document, TrainingFile

DIALECT = Dialect(kind="arguments of the Hugging Face Trainer", framework="transformers", table="trainer")
OPTIMIZER, IMPLEMENTATION = "workload.optimizer", "workload.optimizer_implementation"
SHARDED, COPIED = (REST, "dp_shard"), (REST, "dp_replicate")
DDP = (REST, "dp_replicate", "several devices hold copies unless FSDP or DeepSpeed divides")
BY_FSDP, BY_DEEPSPEED = (DIVIDED_BY, "FSDP"), (DIVIDED_BY, "DeepSpeed")
ATTENTION = "workload.attention"
FUSED_LINEAR = ("workload.loss", "fused-linear")
RECOMPUTED = ("workload.recompute", "full")
ALL_OFFLOADED = tuple((f"workload.offload.{part}", "cpu") for part in ("parameters", "gradients", "optimizer"))

OPTIMIZERS: Mapping[str, Iterable[tuple[str, object]]] = {
    **dict.fromkeys(("adamw_torch", "adamw_hf", "adamw"), ((OPTIMIZER, "adamw"),)),
    **dict.fromkeys(("adamw_torch_fused", "adamw_apex_fused"), ((OPTIMIZER, "adamw"), (IMPLEMENTATION, "fused"))),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "adamw_torch_8bit"), ((OPTIMIZER, "adamw-8bit"),)),
    **dict.fromkeys(("paged_adamw_32bit", "paged_adamw"), ((OPTIMIZER, "paged-adamw"),)),
    "paged_adamw_8bit": ((OPTIMIZER, "paged-adamw-8bit"),),
    "sgd": ((OPTIMIZER, "sgd"),),
    "adafactor": ((OPTIMIZER, "adafactor"),),
    **dict.fromkeys(("lion_32bit", "lion"), ((OPTIMIZER, "lion"),)),
    "galore_adamw": ((OPTIMIZER, "galore"),),
    "apollo_adamw": ((OPTIMIZER, "apollo"),),
    "muon": ((OPTIMIZER, "muon"),),
    "came_pytorch": ((OPTIMIZER, "came"),),
}
"""Names of optimizers; ``sgd`` of transformers has no momentum unless ``optim_args`` says so."""
ATTENTIONS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "flash_attention_2", "flash_attention_3", "flash_attention_4", "flash_attn", "fa2", "fa3",
            "kernels-community/flash-attn", "kernels-community/flash-attn2", "kernels-community/flash-attn3",
            "kernels-community/vllm-flash-attn3",
        ),
        "flash",
    ),
    "sdpa": "sdpa", "eager": "eager", "flex_attention": "flex", "xformers": "efficient",
}  # fmt: skip
FORMATS: Mapping[str, str] = {
    "bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "fp16": "fp16", "half": "fp16", "float32": "fp32",
    "fp32": "fp32", "float": "fp32",
}  # fmt: skip


def formatted(path: str) -> Reader:
    """Return the reader of a key that names a number format as torch does."""
    return named(path, FORMATS)


def mixed(name: str) -> Reader:
    """Return the reader of ``bf16: true`` and ``fp16: true``."""
    return when(((("workload.precision"), f"{name}-mixed"),))


def bits(given: Mapping[str, Any]) -> str | None:
    """Return the storage of a base that is quantised while loading; None = it is not."""
    if truth("load_in_4bit", given.get("load_in_4bit")):
        kind = str(given.get("bnb_4bit_quant_type") or "nf4")
        nested = truth("use_bnb_nested_quant", given.get("use_bnb_nested_quant"))
        return "nf4-dq" if nested and kind == "nf4" else kind
    return "int8" if truth("load_in_8bit", given.get("load_in_8bit")) else None


def lora_method(given: Mapping[str, Any], *, dora: str = "use_dora", rslora: str = "use_rslora") -> str:
    """Return which kind of LoRA the switches beside it make."""
    if truth(dora, given.get(dora)):
        return "dora"
    return "rslora" if truth(rslora, given.get(rslora)) else "lora"


def _peft(name: str, value: object, given: Mapping[str, Any]) -> Found:
    if not truth(name, value):
        return ()
    return (("workload.method", "qlora" if bits(given) else lora_method(given)),)


def _quantised(name: str, value: object, given: Mapping[str, Any]) -> Found:
    if not truth(name, value):
        return ()
    return (("workload.base_format", bits(given)),)


def targets(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read names of modules; ``all`` and ``all-linear`` are every linear layer."""
    found = names(name, value)
    if found is None:
        return ()
    return (("workload.adapter.targets", ("all-linear",) if found in {("all",), ("all-linear",)} else found),)


def fsdp(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read ``fsdp: "full_shard auto_wrap offload"``, a list of such words, or a switch."""
    if isinstance(value, bool | None):
        return (SHARDED, BY_FSDP) if value else ()
    said = set(names(name, value) or ())
    if said <= {"true", "True", "false", "False"}:
        return (SHARDED, BY_FSDP) if said & {"true", "True"} else ()
    known = {"full_shard", "shard_grad_op", "no_shard", "hybrid_shard", "hybrid_shard_zero2", "offload", "auto_wrap"}
    if not said <= known:
        raise InvalidValueError(name, value, f"words of {', '.join(sorted(known))}")
    if said & {"hybrid_shard", "hybrid_shard_zero2"}:
        return NotModelled(
            why="how many copies there are is not read from here: give --plan dp_replicate=N,dp_shard=M",
            path="plan.dp_replicate",
            expected="full_shard, shard_grad_op or no_shard",
        )
    found: list[tuple[str, object]] = [COPIED if "no_shard" in said else SHARDED, BY_FSDP]
    if "shard_grad_op" in said:
        found.append(("plan.reshard_after_forward", False))
    return (*found, *(ALL_OFFLOADED if "offload" in said else ()))


def reshard(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read ``reshard_after_forward``: a switch, or in FSDP1 the name of a way to shard."""
    said = str(value).lower()
    by_name: dict[str, Found] = {
        "full_shard": (SHARDED,), "1": (SHARDED,), "shard_grad_op": (SHARDED, ("plan.reshard_after_forward", False)),
        "2": (SHARDED, ("plan.reshard_after_forward", False)), "no_shard": (COPIED,), "3": (COPIED,),
    }  # fmt: skip
    if said in by_name and not isinstance(value, bool):
        return by_name[said]
    if said in {"hybrid_shard", "hybrid_shard_zero2", "4", "5"}:
        return NotModelled(
            why="how many copies there are is not read from here: give --plan dp_replicate=N,dp_shard=M",
            path="plan.dp_replicate",
            expected="FULL_SHARD, SHARD_GRAD_OP or NO_SHARD",
        )
    found = truth(name, value)
    return () if found is None else (("plan.reshard_after_forward", found),)


def other_file(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read a key that names another file, whose content says more."""
    if value in (None, "", False):
        return ()
    return NotModelled(why=f"{text(name, value)}: its content is not read from here: give that file with --from too")


def _objective(objective: str) -> Reader:
    return lambda *_: (("workload.objective", objective),)


def _both_lengths(name: str, value: object, given: Mapping[str, Any]) -> Found:
    """Return prompt and completion together, where both are bounded."""
    prompt = count(name, given.get("max_prompt_length"))
    completion = count(name, value)
    if prompt is None or completion is None:
        return NotModelled(why="of a sequence only the completion is bounded: give --sequence")
    return (("workload.sequence_tokens", prompt + completion),)


def fsdp_version(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read which FSDP it is; the profile of the framework decides what is counted."""
    if count(name, value) == 1:
        return NotModelled(why="FSDP1: units and their buffers are counted as the framework's own version has them")
    return ()


FSDP_CONFIG: Mapping[str, Reader] = {
    "version": fsdp_version,
    "reshard_after_forward": reshard,
    "sharding_strategy": reshard,
    "offload_params": when(ALL_OFFLOADED),
    "cpu_offload": when(ALL_OFFLOADED),
    "activation_checkpointing": when((RECOMPUTED,)),
}
"""Keys below ``fsdp_config``, which may also begin with ``fsdp_``."""


def fsdp_keys(prefix: str = "fsdp_config.") -> dict[str, Reader]:
    """Return the readers of what stands in ``fsdp_config``, in both spellings."""
    both = ((name, reader) for name, reader in FSDP_CONFIG.items())
    return {f"{prefix}{start}{name}": reader for name, reader in both for start in ("", "fsdp_")}


ARGUMENTS: dict[str, Reader] = {
    "model_name_or_path": to("model", text),
    **dict.fromkeys(("per_device_train_batch_size", "per_gpu_train_batch_size"), to("workload.micro_batch")),
    "gradient_accumulation_steps": to("workload.gradient_accumulation_steps"),
    "bf16": mixed("bf16"),
    "fp16": mixed("fp16"),
    "optim": word(OPTIMIZERS, OPTIMIZER),
    "gradient_checkpointing": switch("workload.recompute", "full", "none"),
    "activation_checkpointing": switch("workload.recompute", "full", "none"),
    "torch_compile": switch("workload.compile"),
    "use_liger_kernel": when((FUSED_LINEAR,)),
    "deepspeed": other_file,
    "fsdp": fsdp,
    **fsdp_keys(),
}  # fmt: skip
"""What Trainer itself takes; programs built on it take these too."""
LENGTHS = ("max_length", "max_seq_length", "model_max_length", "max_seq_len")
TRL: dict[str, Reader] = {
    **ARGUMENTS,
    **dict.fromkeys(LENGTHS, to("workload.sequence_tokens")),
    "max_completion_length": _both_lengths,
    **dict.fromkeys(("attn_implementation", "attn_impl"), named(ATTENTION, ATTENTIONS)),
    **dict.fromkeys(("dtype", "torch_dtype"), formatted("workload.parameter_format")),
    "use_peft": _peft,
    "load_in_4bit": _quantised,
    "load_in_8bit": _quantised,
    "lora_r": to("workload.adapter.rank"),
    "lora_alpha": to("workload.adapter.alpha", ratio),
    "lora_dropout": to("workload.adapter.dropout", ratio),
    "lora_target_modules": targets,
    "lora_modules_to_save": to("workload.adapter.modules_to_save", names),
    "activation_offloading": when((("workload.offload.activations", "cpu"),)),
    **dict.fromkeys(
        ("bnb_4bit_quant_type", "use_bnb_nested_quant", "use_rslora", "use_dora", "max_prompt_length"), beside
    ),
    "precompute_ref_log_probs": _objective("dpo"),
    "num_generations": _objective("grpo"),
}  # fmt: skip
MARKS = frozenset(
    {
        "per_device_train_batch_size", "output_dir", "learning_rate", "num_train_epochs", "gradient_checkpointing",
        "lr_scheduler_type", "model_name_or_path", "save_strategy", "logging_steps",
    }
)  # fmt: skip


OF_TRL = replace(DIALECT, kind="arguments of TRL", framework="trl")
TRL_ONLY = frozenset(
    {
        "packing", "max_length", "max_seq_length", "use_peft", "dataset_text_field", "completion_only_loss",
        "assistant_only_loss", "padding_free", "num_generations", "precompute_ref_log_probs", "dataset_mixture",
        "rpo_alpha", "max_completion_length", "max_prompt_length", "activation_offloading", "dataset_num_proc",
    }
)  # fmt: skip
"""Keys that TRL's trainers have and the Trainer itself has not."""
_ADAPTER_ONLY = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save")


def read(document: Document, values: Mapping[str, Any]) -> TrainingFile:
    """Return what such a file says; what it says of adapters counts only where PEFT is used."""
    unused = () if truth("use_peft", values.get("use_peft")) else _ADAPTER_ONLY
    taken = {name: reader for name, reader in TRL.items() if name not in unused}
    if values.keys() & TRL_ONLY:
        return understand(OF_TRL, document.where, values, taken, implied=(DDP,))
    plain = FORMATS.get(str(values.get("dtype", values.get("torch_dtype"))), "fp32")
    unless = (UNLESS, plain, "neither bf16 nor fp16: no autocast")
    return understand(DIALECT, document.where, values, taken, implied=(DDP, unless))
