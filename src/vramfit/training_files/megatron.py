"""Megatron-LM's argument lists: flags in a script, a command line, or a file of them.

Source of names and meanings: NVIDIA/Megatron-LM:megatron/training/arguments.py, training/config/*.py,
core/transformer/transformer_config.py, core/model_parallel_config.py, core/optimizer/optimizer_config.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from vramfit.errors import InvalidValueError
from vramfit.training_files.key import Found, NotModelled, Reader, beside, count, named, names, stage, to, truth, word
from vramfit.training_files.megatron_model import MODEL_FLAGS, config_of
from vramfit.training_files.table import Dialect, understand
from vramfit.training_files.trainer import ATTENTION, COPIED, FORMATS, OPTIMIZER, SHARDED
from vramfit.training_files.training_file import GLOBAL_BATCH, REST, Document, TrainingFile

DIALECT = Dialect(kind="Megatron-LM arguments", framework="megatron-lm", table="megatron", model=MODEL_FLAGS)
OPTIMIZERS: Mapping[str, Iterable[tuple[str, object]]] = {
    "adam": ((OPTIMIZER, "adam"),), "sgd": ((OPTIMIZER, "sgd-momentum"),), "muon": ((OPTIMIZER, "muon"),),
    "dist_muon": ((OPTIMIZER, "muon"), ("plan.distributed_optimizer", True)), "lion": ((OPTIMIZER, "lion"),),
    "soap": ((OPTIMIZER, "soap"),),
}  # fmt: skip
ATTENTIONS: Mapping[str, object] = {
    "flash": "flash", "fused": "cudnn", "unfused": "eager", "local": "eager", "auto": None,
}  # fmt: skip
SHARDINGS: Mapping[str, Iterable[tuple[str, object]]] = {
    "no_shard": (COPIED,), "optim": (SHARDED, ("plan.zero_stage", 1)), "optim_grads": (SHARDED, ("plan.zero_stage", 2)),
    "optim_grads_params": (SHARDED, ("plan.zero_stage", 3)),
}  # fmt: skip


def on(*fields: tuple[str, object]) -> Reader:
    """Return the reader of a flag that stands for some fields when it is there."""

    def read(name: str, value: object, _: Mapping[str, Any]) -> Found:
        return fields if value is True or truth(name, value) else ()

    return read


def _granularity(name: str, value: object, given: Mapping[str, Any]) -> Found:
    if value == "full":
        return (("workload.recompute", "full"),)
    if value != "selective":
        raise InvalidValueError(name, value, "full or selective")
    modules = names(name, given.get("recompute-modules"))
    found = (("workload.recompute", "selective"),)
    return found if modules is None else (*found, ("workload.recompute_modules", modules))


def _virtual(name: str, value: object, given: Mapping[str, Any]) -> Found:
    """Read ``--num-layers-per-virtual-pipeline-stage``."""
    each, layers = count(name, value) or 1, count("num-layers", given.get("num-layers"))
    stages = count(name, given.get("pipeline-model-parallel-size")) or 1
    if layers is None or layers % (stages * each):
        raise InvalidValueError(name, value, f"layers of a stage to divide by: {layers} layers over {stages} stages")
    return (("plan.virtual_stages", layers // stages // each), ("plan.pp_schedule", "interleaved-1f1b"))


def _pieces(name: str, value: object, _: Mapping[str, Any]) -> Found:
    return (("plan.virtual_stages", count(name, value)), ("plan.pp_schedule", "interleaved-1f1b"))


def _sharded(name: str, value: object, given: Mapping[str, Any]) -> Found:
    """Read the switch of Megatron-FSDP, whose strategy stands beside it."""
    strategy = str(given.get("data-parallel-sharding-strategy", "optim_grads_params"))
    if value is not True or strategy not in SHARDINGS:
        raise InvalidValueError(name, strategy, f"one of {', '.join(SHARDINGS)}")
    return SHARDINGS[strategy]


def _format(path: str) -> Reader:
    return named(path, FORMATS)


def _tensor(name: str, value: object, given: Mapping[str, Any]) -> Found:
    degree = count(name, value) or 1
    return (("plan.tp", degree), *((("plan.sequence_parallel", "sequence-parallel" in given),) if degree > 1 else ()))


def _eight(name: str, value: object, _: Mapping[str, Any]) -> Found:
    if value is not True and str(value) not in {"hybrid", "e4m3"}:
        raise InvalidValueError(name, value, "hybrid or e4m3")
    return (("workload.precision", "fp8-mixed"),)


def _sixteen(kind: str) -> Reader:
    """Return the reader of ``--bf16`` and ``--fp16``; fp8 beside it says more."""

    def read(name: str, value: object, given: Mapping[str, Any]) -> Found:
        del name, value
        return () if given.keys() & {"fp8-format", "fp8"} else (("workload.precision", f"{kind}-mixed"),)

    return read


def _activations_offloaded(name: str, value: object, given: Mapping[str, Any]) -> Found:
    del name, value
    if "cpu-offloading-weights" in given:
        return NotModelled(why="weights that wait on the host between layers are not modelled")
    return (("workload.offload.activations", "cpu"),)


TAKEN: dict[str, Reader] = {
    "micro-batch-size": to("workload.micro_batch"),
    "global-batch-size": to(GLOBAL_BATCH),
    **dict.fromkeys(("seq-length", "encoder-seq-length"), to("workload.sequence_tokens")),
    "tensor-model-parallel-size": _tensor,
    "sequence-parallel": beside,
    "pipeline-model-parallel-size": to("plan.pp"),
    "context-parallel-size": to("plan.cp"),
    "expert-model-parallel-size": to("plan.ep"),
    "expert-tensor-parallel-size": to("plan.etp"),
    "num-layers-per-virtual-pipeline-stage": _virtual,
    "num-virtual-stages-per-pipeline-rank": _pieces,
    "use-distributed-optimizer": on(("plan.distributed_optimizer", True)),
    "use-torch-fsdp2": on(SHARDED),
    **dict.fromkeys(("use-megatron-fsdp", "use-custom-fsdp"), _sharded),
    "data-parallel-sharding-strategy": beside,
    "zero-stage": stage("plan.zero_stage"),
    "bf16": _sixteen("bf16"),
    "fp16": _sixteen("fp16"),
    **dict.fromkeys(("fp8-format", "fp8"), _eight),
    "grad-reduce-in-bf16": on(("workload.gradient_format", "bf16")),
    "main-grads-dtype": _format("workload.gradient_format"),
    "main-params-dtype": _format("workload.master_format"),
    "exp-avg-dtype": _format("workload.optimizer_state_format"),
    "optimizer": word(OPTIMIZERS, OPTIMIZER),
    "recompute-granularity": _granularity,
    "recompute-modules": beside,
    "recompute-activations": on(("workload.recompute", "selective")),
    "checkpoint-activations": on(("workload.recompute", "full")),
    "attention-backend": named(ATTENTION, ATTENTIONS),
    "use-flash-attn": on((ATTENTION, "flash")),
    "cross-entropy-loss-fusion": on(("workload.loss", "fused")),
    "optimizer-cpu-offload": on(("workload.offload.optimizer", "cpu")),
    "cpu-offloading": _activations_offloaded,
}  # fmt: skip


def read(document: Document, flags: Mapping[str, Any]) -> TrainingFile:
    """Return what such an argument list says, and the model that it describes."""
    values = {_spelt(name): value for name, value in flags.items()}
    found = understand(DIALECT, document.where, values, TAKEN, implied=_implied(values))
    return replace(found, config=config_of(values, document.where))


def _spelt(name: str) -> str:
    """Return a flag as the table has it: hyphens, no negation in front of what has no effect either way.

    >>> _spelt("tensor_model_parallel_size"), _spelt("no-load-optim")
    ('tensor-model-parallel-size', 'load-optim')
    """
    spelt = name.replace("_", "-")
    for negation in ("no-", "disable-"):
        if spelt.startswith(negation) and spelt not in MODEL_FLAGS:
            return spelt.removeprefix(negation)
    return spelt


SIXTEEN = frozenset({"bf16", "fp16", "fp8", "fp8-format"})
FSDP = frozenset({"use-torch-fsdp2", "use-megatron-fsdp", "use-custom-fsdp"})


def _implied(given: Mapping[str, Any]) -> tuple[tuple[str, object, str], ...]:
    """Say what follows from flags that are absent: formats, and what data-parallel ranks do."""
    found: list[tuple[str, object, str]] = []
    if not given.keys() & SIXTEEN:
        found.append(("workload.precision", "fp32", "neither --bf16 nor --fp16"))
    if not given.keys() & FSDP:
        sharded = "zero-stage" in given
        found.append((REST, "dp_shard" if sharded else "dp_replicate", "data-parallel ranks"))
        if not sharded and "use-distributed-optimizer" not in given:
            found.append(("plan.distributed_optimizer", False, "no --use-distributed-optimizer"))
    return tuple(found)
