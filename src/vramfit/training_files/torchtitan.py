"""torchtitan's settings: TOML files of versions before 0.3, and ``--section.field value`` of all.

Source of names and meanings: pytorch/torchtitan:torchtitan/config/job_config.py (2026-02) and
torchtitan/config/configs.py (0.3); models: torchtitan/models/*/__init__.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vramfit.commands.command_line import Effect, Word
from vramfit.errors import InvalidValueError
from vramfit.training_files.key import (
    Found,
    NotModelled,
    Reader,
    beside,
    count,
    is_open,
    named,
    names,
    switch,
    text,
    to,
    truth,
    when,
)
from vramfit.training_files.table import Dialect, understand
from vramfit.training_files.trainer import ALL_OFFLOADED, IMPLEMENTATION, OPTIMIZER, SHARDED
from vramfit.training_files.training_file import GLOBAL_BATCH, Document, TrainingFile

DIALECT = Dialect(kind="torchtitan settings", framework="torchtitan", table="torchtitan")
SECTIONS = frozenset({"training", "parallelism", "activation_checkpoint", "job", "metrics", "optimizer", "model"})
MODELS: Mapping[tuple[str, str], str] = {
    ("llama3", "8b"): "meta-llama/Llama-3.1-8B",
    ("llama3", "70b"): "meta-llama/Llama-3.1-70B",
    ("llama3", "405b"): "meta-llama/Llama-3.1-405B",
    ("llama4", "17bx16e"): "meta-llama/Llama-4-Scout-17B-16E",
    ("llama4", "17bx128e"): "meta-llama/Llama-4-Maverick-17B-128E",
    ("deepseek_v3", "16b"): "deepseek-ai/DeepSeek-V2-Lite",
    ("deepseek_v3", "236b"): "deepseek-ai/DeepSeek-V2",
    ("deepseek_v3", "671b"): "deepseek-ai/DeepSeek-V3",
    **{("qwen3", size.lower()): f"Qwen/Qwen3-{size}" for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B")},
    ("qwen3", "30b-a3b"): "Qwen/Qwen3-30B-A3B",
    ("qwen3", "235b-a22b"): "Qwen/Qwen3-235B-A22B",
    ("gpt_oss", "20b"): "openai/gpt-oss-20b",
    ("gpt_oss", "120b"): "openai/gpt-oss-120b",
}
"""Name and flavor -> a published model of the same shape; 16B has the sizes of DeepSeek-V2-Lite."""
SCHEDULES: Mapping[str, object] = {
    "1f1b": "1f1b", "interleaved1f1b": "interleaved-1f1b", "gpipe": "gpipe", "zbvzerobubble": "zb-v",
    "interleavedzerobubble": "zb-h1", "dualpipev": "dualpipe-v",
}  # fmt: skip
"""torchtitan compares names in lower case."""
FLEX = ("_flex_attn", "_flex")


def _flavor(name: str, value: object, given: Mapping[str, Any]) -> Found:
    """Return the model that name and flavor stand for."""
    family, flavor = str(given.get("model.name", "")).removesuffix("_ft"), (text(name, value) or "").lower()
    flex = next((end for end in FLEX if flavor.endswith(end)), "")
    found = MODELS.get((family, flavor.removesuffix(flex).removesuffix("_irope")))
    if found is None:
        return NotModelled(
            why=f"{family} {flavor}: no model that is known here", path="model", expected="a known flavor"
        )
    return (("model", found), *((("workload.attention", "flex"),) if flex else ()))


def _registered(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Return the model that a registered configuration such as ``qwen3_0_6b`` trains."""
    said = (text(name, value) or "").lower()
    for (family, flavor), model in MODELS.items():
        spelt = f"{family}_{flavor.replace('.', '_').replace('-', '_')}"
        if said == spelt or said.startswith(f"{spelt}_"):
            return (("model", model),)
    return NotModelled(why=f"{said[:60]}: no model that is known here", path="model", expected="a known configuration")


def _rest(name: str, value: object, _: Mapping[str, Any]) -> Found:
    """Read ``data_parallel_shard_degree``; -1 takes the devices that are left."""
    return (SHARDED,) if is_open(value) else (("plan.dp_shard", count(name, value)),)


def _compiled(name: str, value: object, given: Mapping[str, Any]) -> Found:
    components = names(name, given.get("compile.components", ["model", "loss"])) or ()
    on = truth(name, value)
    return () if on is None else (("workload.compile", on and any("model" in each for each in components)),)


def _reshard(name: str, value: object, _: Mapping[str, Any]) -> Found:
    said = str(value).lower()
    if said == "default":
        return ()
    if said not in {"always", "never"}:
        raise InvalidValueError(name, value, "default, always or never")
    return (("plan.reshard_after_forward", said == "always"),)


def _selective(name: str, value: object, given: Mapping[str, Any]) -> Found:
    """Read ``selective_ac_option``: operators of a list, or every nth layer."""
    if str(given.get("activation_checkpoint.mode", "selective")) != "selective" or str(value) == "op":
        return ()
    count(name, value)
    return NotModelled(why="every nth layer is counted as the operators of torchtitan's own list")


def _float8(name: str, value: object, _: Mapping[str, Any]) -> Found:
    said = names(name, value) or ()
    return (("workload.precision", "fp8-mixed"),) if any("float8" in each for each in said) else ()


DEGREES: Mapping[str, str] = {
    "data_parallel_replicate_degree": "plan.dp_replicate", "tensor_parallel_degree": "plan.tp",
    "pipeline_parallel_degree": "plan.pp", "context_parallel_degree": "plan.cp", "expert_parallel_degree": "plan.ep",
    "expert_tensor_parallel_degree": "plan.etp",
}  # fmt: skip
TAKEN: dict[str, Reader] = {
    "model.flavor": _flavor,
    "model.name": beside,
    "config": _registered,
    "model.converters": _float8,
    **dict.fromkeys(("training.local_batch_size", "training.batch_size"), to("workload.micro_batch")),
    "training.global_batch_size": to(GLOBAL_BATCH),
    "training.seq_len": to("workload.sequence_tokens"),
    "training.enable_cpu_offload": when(ALL_OFFLOADED),
    "training.compile": switch("workload.compile"),
    "training.mixed_precision_reduce": named("workload.reduce_format", {"float32": "fp32", "bfloat16": "bf16"}),
    "training.mixed_precision_param": named("workload.precision", {"bfloat16": "bf16-mixed", "float32": "fp32"}),
    "training.dtype": named("workload.parameter_format", {"float32": None, "bfloat16": "bf16"}),
    "parallelism.data_parallel_shard_degree": _rest,
    **{f"parallelism.{name}": to(path) for name, path in DEGREES.items()},
    "parallelism.pipeline_parallel_schedule": named("plan.pp_schedule", SCHEDULES),
    "parallelism.fsdp_reshard_after_forward": _reshard,
    "parallelism.enable_sequence_parallel": switch("plan.sequence_parallel"),
    "parallelism.disable_loss_parallel": when((("plan.vocab_tp", False),)),
    "activation_checkpoint.mode": named("workload.recompute", {each: each for each in ("none", "full", "selective")}),
    "activation_checkpoint.selective_ac_option": _selective,
    "compile.enable": _compiled,
    "optimizer.name": named(OPTIMIZER, {"adamw": "adamw", "adam": "adam", "muon": "muon"}),
    "optimizer.implementation": named(IMPLEMENTATION, {each: each for each in ("fused", "foreach", "for-loop")}),
    "optimizer.fused": when(((IMPLEMENTATION, "fused"),)),
    "optimizer.early_step_in_backward": when((("workload.optimizer_in_backward", True),)),
}
REST_KEY = "parallelism.data_parallel_shard_degree"
OLD_SECTIONS = ("training", "experimental")
"""Where degrees stood in versions before 0.1."""


def read(document: Document, values: Mapping[str, Any]) -> TrainingFile:
    """Return what such a file or command says; devices that no degree takes shard, as -1 says."""
    values = {_section(name): value for name, value in values.items()}
    full = {**values, REST_KEY: values.get(REST_KEY, -1)}
    found = understand(DIALECT, document.where, full, TAKEN)
    if "config" not in values:
        return found
    why = "settings that the registered configuration brings itself are not read: give them with our own options"
    own = Word(flag="config", values=(), effect=Effect.NOT_COUNTED, why=why)
    return replace(found, words=(*found.words, own))


def _section(name: str) -> str:
    """Return a key under the section that it has now.

    >>> _section("training.tensor_parallel_degree"), _section("training.seq_len")
    ('parallelism.tensor_parallel_degree', 'training.seq_len')
    """
    section, _, key = name.partition(".")
    moved = section in OLD_SECTIONS and f"parallelism.{key}" in {*TAKEN, REST_KEY}
    return f"parallelism.{key}" if moved else name
