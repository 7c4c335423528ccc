"""What ``accelerate config`` writes: YAML that says how many processes there are and how they divide the work.

Source of names and meanings: huggingface/accelerate:src/accelerate/commands/config/cluster.py,
src/accelerate/utils/dataclasses.py (FullyShardedDataParallelPlugin, DeepSpeedPlugin, MegatronLMPlugin).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vramfit.training_files.key import Found, NotModelled, Reader, count, named, stage, switch, to, truth
from vramfit.training_files.table import Dialect, understand
from vramfit.training_files.trainer import BY_DEEPSPEED, BY_FSDP, COPIED, SHARDED, fsdp_keys
from vramfit.training_files.training_file import Document, TrainingFile

DIALECT = Dialect(kind="accelerate YAML", framework=None, table="accelerate")
PRECISIONS: Mapping[str, object] = {"bf16": "bf16-mixed", "fp16": "fp16-mixed", "no": None}
PLACES: Mapping[str, object] = {"none": None, "cpu": "cpu", "nvme": "nvme"}
MARKS = frozenset({"distributed_type", "compute_environment", "num_processes", "main_training_function"})


def _distributed(name: str, value: object, given: Mapping[str, Any]) -> Found:
    said = str(value).upper()
    match said:
        case "MULTI_GPU" | "MULTI_CPU":
            sharded = given.get("parallelism_config.parallelism_config_dp_shard_size")
            return () if (count(name, sharded) or 1) > 1 else (COPIED,)
        case "FSDP":
            return (SHARDED, BY_FSDP)
        case "DEEPSPEED":
            return (SHARDED, BY_DEEPSPEED)
        case "MEGATRON_LM":
            return (("workload.framework", "megatron-lm"), COPIED)
        case "NO":
            return ()
    return NotModelled(
        why=f"{said[:40]}: not a GPU", path="plan", expected="MULTI_GPU, FSDP, DEEPSPEED, MEGATRON_LM or NO"
    )


def placed(part: str) -> Reader:
    """Return the reader of a key that says where something waits."""
    return named(f"workload.offload.{part}", PLACES)


def _dynamo(_: str, value: object, __: Mapping[str, Any]) -> Found:
    return (("workload.compile", str(value).upper() != "NO"),)


def _recomputed(name: str, value: object, _: Mapping[str, Any]) -> Found:
    return (("workload.recompute", "selective"),) if truth(name, value) else ()


TAKEN: dict[str, Reader] = {
    "num_processes": to("device_count"),
    "mixed_precision": named("workload.precision", PRECISIONS),
    "distributed_type": _distributed,
    **fsdp_keys(),
    "deepspeed_config.zero_stage": stage("plan.zero_stage"),
    "deepspeed_config.gradient_accumulation_steps": to("workload.gradient_accumulation_steps"),
    "deepspeed_config.offload_optimizer_device": placed("optimizer"),
    "deepspeed_config.offload_param_device": placed("parameters"),
    "dynamo_config.dynamo_backend": _dynamo,
    "parallelism_config.parallelism_config_dp_replicate_size": to("plan.dp_replicate"),
    "parallelism_config.parallelism_config_dp_shard_size": to("plan.dp_shard"),
    "parallelism_config.parallelism_config_tp_size": to("plan.tp"),
    "parallelism_config.parallelism_config_cp_size": to("plan.cp"),
    "megatron_lm_config.megatron_lm_tp_degree": to("plan.tp"),
    "megatron_lm_config.megatron_lm_pp_degree": to("plan.pp"),
    "megatron_lm_config.megatron_lm_num_micro_batches": to("plan.micro_batches"),
    "megatron_lm_config.megatron_lm_sequence_parallelism": switch("plan.sequence_parallel"),
    "megatron_lm_config.megatron_lm_recompute_activations": _recomputed,
    "megatron_lm_config.megatron_lm_use_distributed_optimizer": switch("plan.distributed_optimizer"),
}  # fmt: skip


def read(document: Document, values: Mapping[str, Any]) -> TrainingFile:
    """Return what such a file says."""
    return understand(DIALECT, document.where, values, TAKEN)


LAUNCHED: Mapping[str, tuple[str, object]] = {
    "use_deepspeed": ("distributed_type", "DEEPSPEED"), "use_fsdp": ("distributed_type", "FSDP"),
    "multi_gpu": ("distributed_type", "MULTI_GPU"),
}  # fmt: skip
"""Switches of ``accelerate launch`` -> key and value of its YAML."""
SECTIONS = ("deepspeed_config", "fsdp_config", "parallelism_config", "megatron_lm_config")


def of_flags(flags: Mapping[str, object]) -> dict[str, object]:
    """Return flags of ``accelerate launch`` as the keys of its YAML; the number of processes is read elsewhere.

    >>> of_flags({"use_deepspeed": True, "zero_stage": "2", "num_processes": "8", "main_process_port": "0"})
    {'distributed_type': 'DEEPSPEED', 'deepspeed_config.zero_stage': '2'}
    """
    found: dict[str, object] = {}
    for name, value in flags.items():
        places = [name, *(f"{section}.{name}" for section in SECTIONS)]
        place = next((each for each in places if each in TAKEN and each != "num_processes"), None)
        if name in LAUNCHED:
            key, said = LAUNCHED[name]
            found[key] = said
        elif place is not None:
            found[place] = value
    return found
