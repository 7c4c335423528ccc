"""What ``accelerate config`` writes: YAML that says how many processes there are and how they divide the work.

Source of names and meanings: huggingface/accelerate:src/accelerate/commands/config/cluster.py,
src/accelerate/utils/dataclasses.py (FullyShardedDataParallelPlugin, DeepSpeedPlugin, MegatronLMPlugin).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vramfit.training_files.key import Found, NotModelled, Reader, count, to, truth, when, word
from vramfit.training_files.table import keys, understand
from vramfit.training_files.trainer import COPIED, SHARDED, fsdp_keys
from vramfit.training_files.training_file import Document, TrainingFile

KIND = "accelerate YAML"
PRECISIONS: Mapping[str, Iterable[tuple[str, object]]] = {
    "bf16": (("workload.precision", "bf16-mixed"),),
    "fp16": (("workload.precision", "fp16-mixed"),),
    "fp8": (("workload.precision", "fp8-mixed"),),
    "no": (),
}
PLACES: Mapping[str, Iterable[tuple[str, object]]] = {"none": (), "cpu": ("cpu",), "nvme": ("nvme",)}
MARKS = frozenset({"distributed_type", "compute_environment", "num_processes", "main_training_function"})


def _distributed(name: str, value: object, given: Mapping[str, Any]) -> Found:
    said = str(value).upper()
    match said:
        case "MULTI_GPU" | "MULTI_CPU":
            sharded = given.get("parallelism_config.parallelism_config_dp_shard_size")
            return () if (count(name, sharded) or 1) > 1 else (COPIED,)
        case "FSDP":
            return (SHARDED,)
        case "DEEPSPEED":
            return (SHARDED,)
        case "MEGATRON_LM":
            return (("workload.framework", "megatron-lm"), COPIED)
        case "NO":
            return ()
    return NotModelled(
        why=f"{said[:40]}: not a GPU", path="plan", expected="MULTI_GPU, FSDP, DEEPSPEED, MEGATRON_LM or NO"
    )


def _stage(name: str, value: object, _: Mapping[str, Any]) -> Found:
    return (("plan.zero_stage", 0 if str(value) == "0" else count(name, value)),)


def placed(part: str) -> Reader:
    """Return the reader of a key that says where something waits."""
    return word({said: tuple((f"workload.offload.{part}", each) for each in to_) for said, to_ in PLACES.items()}, f"workload.offload.{part}")


def _dynamo(_: str, value: object, __: Mapping[str, Any]) -> Found:
    return (("workload.compile", str(value).upper() != "NO"),)


def _degree(path: str) -> Reader:
    def read(name: str, value: object, _: Mapping[str, Any]) -> Found:
        found = count(name, value)
        return () if found is None else ((path, found),)

    return read


def _recomputed(name: str, value: object, _: Mapping[str, Any]) -> Found:
    return (("workload.recompute", "selective"),) if truth(name, value) else ()


TAKEN: dict[str, Reader] = {
    "num_processes": to("device_count"),
    "mixed_precision": word(PRECISIONS, "workload.precision"),
    "distributed_type": _distributed,
    **fsdp_keys(),
    "deepspeed_config.zero_stage": _stage,
    "deepspeed_config.gradient_accumulation_steps": to("workload.gradient_accumulation_steps"),
    "deepspeed_config.offload_optimizer_device": placed("optimizer"),
    "deepspeed_config.offload_param_device": placed("parameters"),
    "dynamo_config.dynamo_backend": _dynamo,
    "parallelism_config.parallelism_config_dp_replicate_size": _degree("plan.dp_replicate"),
    "parallelism_config.parallelism_config_dp_shard_size": _degree("plan.dp_shard"),
    "parallelism_config.parallelism_config_tp_size": _degree("plan.tp"),
    "parallelism_config.parallelism_config_cp_size": _degree("plan.cp"),
    "megatron_lm_config.megatron_lm_tp_degree": _degree("plan.tp"),
    "megatron_lm_config.megatron_lm_pp_degree": _degree("plan.pp"),
    "megatron_lm_config.megatron_lm_num_micro_batches": _degree("plan.micro_batches"),
    "megatron_lm_config.megatron_lm_sequence_parallelism": when((("plan.sequence_parallel", True),), (("plan.sequence_parallel", False),)),
    "megatron_lm_config.megatron_lm_recompute_activations": _recomputed,
    "megatron_lm_config.megatron_lm_use_distributed_optimizer": when((("plan.distributed_optimizer", True),), (("plan.distributed_optimizer", False),)),
}  # fmt: skip


def read(document: Document, values: Mapping[str, Any]) -> TrainingFile:
    """Return what such a file says."""
    return understand(KIND, document.where, values, TAKEN, keys("accelerate"))
