"""A DeepSpeed configuration: JSON that says what is divided, what waits on the host, and in which formats.

Source of names and meanings: deepspeedai/DeepSpeed:deepspeed/runtime/config.py, constants.py,
precision_config.py, zero/config.py, zero/offload_config.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vramfit.training_files.accelerate import placed
from vramfit.training_files.key import Found, Reader, count, is_open, named, stage, to, truth, when
from vramfit.training_files.table import Dialect, understand
from vramfit.training_files.trainer import BY_DEEPSPEED, OPTIMIZER, SHARDED, formatted
from vramfit.training_files.training_file import GLOBAL_BATCH, Document, TrainingFile

DIALECT = Dialect(kind="DeepSpeed JSON", framework="deepspeed", table="deepspeed")
OPTIMIZERS: Mapping[str, object] = {
    "adamw": "adamw", "adam": "adam", "sgd": "sgd", "lion": "lion", "muon": "muon", "adam8bit": "adamw-8bit",
}  # fmt: skip
"""DeepSpeed compares names in lower case."""
MARKS = frozenset(
    {"zero_optimization", "train_micro_batch_size_per_gpu", "train_batch_size", "zero_allow_untested_optimizer"}
)
SIZES: Mapping[str, float] = {"allgather_bucket_size": 5e8, "stage3_max_reuse_distance": 1e9, "sub_group_size": 1e9}
"""What DeepSpeed takes when these are not given: such a value changes nothing. Source: zero/config.py."""
ZERO = "zero_optimization."


def _size(field: str) -> Reader:
    """Return the reader of a size in elements; ``auto`` follows the hidden size, as Hugging Face fills it in."""

    def read_size(name: str, value: object, _: Mapping[str, Any]) -> Found:
        if str(value).lower() == "auto":
            return (("workload.buckets.by_hidden_size", True),)
        found = 0 if str(value) in {"0", "0.0"} else count(name, value)
        return () if found is None else ((f"workload.buckets.{field}", found),)

    return read_size


def _states(name: str, value: object, given: Mapping[str, Any]) -> Found:
    """Read 16-bit master weights and states: ``bf16_master_weights_and_grads``, ``bf16_optimizer_states``."""
    del given
    if not truth(name, value):
        return ()
    return (("workload.master_format", "bf16"), ("workload.gradient_format", "bf16"))


TAKEN: dict[str, Reader] = {
    "train_micro_batch_size_per_gpu": to("workload.micro_batch"),
    "gradient_accumulation_steps": to("workload.gradient_accumulation_steps"),
    "train_batch_size": to(GLOBAL_BATCH),
    "bf16.enabled": when((("workload.precision", "bf16-mixed"),)),
    "bfloat16.enabled": when((("workload.precision", "bf16-mixed"),)),
    "fp16.enabled": when((("workload.precision", "fp16-mixed"),)),
    "bf16.bf16_master_weights_and_grads": _states,
    "bf16.bf16_optimizer_states": when((("workload.optimizer_state_format", "bf16"),)),
    "data_types.grad_accum_dtype": formatted("workload.gradient_format"),
    "communication_data_type": formatted("workload.reduce_format"),
    "optimizer.type": named(OPTIMIZER, OPTIMIZERS),
    "zero_optimization.stage": stage("plan.zero_stage", SHARDED, BY_DEEPSPEED),
    "zero_optimization.offload_optimizer.device": placed("optimizer"),
    "zero_optimization.offload_param.device": placed("parameters"),
    f"{ZERO}reduce_bucket_size": _size("reduce"),
    **dict.fromkeys((f"{ZERO}stage3_prefetch_bucket_size", f"{ZERO}prefetch_bucket_size"), _size("prefetch")),
    **dict.fromkeys(
        (f"{ZERO}stage3_param_persistence_threshold", f"{ZERO}param_persistence_threshold"), _size("persistence")
    ),
    **dict.fromkeys((f"{ZERO}stage3_max_live_parameters", f"{ZERO}max_live_parameters"), _size("max_live")),
    f"{ZERO}overlap_comm": to("workload.buckets.overlap", truth),
    "zero_optimization.cpu_offload": when((("workload.offload.optimizer", "cpu"),)),
    "activation_checkpointing.cpu_checkpointing": when((("workload.recompute", "offload"),)),
    "tensor_parallel.autotp_size": to("plan.tp"),
}


def read(document: Document, values: Mapping[str, Any]) -> TrainingFile:
    """Return what such a file says; sizes that are DeepSpeed's own change nothing."""
    usual = {name: value for name, value in values.items() if not _is_usual(name, value)}
    return understand(DIALECT, document.where, usual, TAKEN)


def _is_usual(name: str, value: object) -> bool:
    """Say whether a size is the one that DeepSpeed takes anyway, or left to the program."""
    usual = SIZES.get(name.removeprefix("zero_optimization."))
    return usual is not None and (is_open(value) or value == usual)
