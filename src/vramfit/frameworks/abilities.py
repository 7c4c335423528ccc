"""What each framework can carry out: which degrees, schedules, ways to divide states and recomputation it has."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.framework import Framework, Sharding


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a framework does out of the box; what it could be taught is not in it."""

    degrees: frozenset[str]
    """Fields of a plan that may be above 1."""
    schedules: tuple[str, ...] = ()
    """Orders of micro-batches over a pipeline; empty = it has no pipeline. gpipe is left out: 1f1b waits as long and
    holds less."""
    recomputes: tuple[str, ...] = ("none", "full")
    even_stages: bool = False
    """True: every piece of a pipeline has as many layers."""
    selective_repeats_matrices: bool = False
    """What ``selective`` computes again. True: every second matrix product (torchtitan); False: attention alone."""
    source: str


_DATA = frozenset({"dp_replicate", "dp_shard"})
_TRAINER = _DATA | {"tp", "cp"}
_HF = "huggingface/accelerate:src/accelerate/parallelism_config.py (dp_replicate, dp_shard, cp, tp; no pipeline)"
_MEGATRON = Abilities(
    degrees=frozenset({"dp_replicate", "tp", "pp", "cp", "ep"}),
    schedules=("1f1b", "interleaved-1f1b"),
    recomputes=("none", "selective", "full"),
    even_stages=True,
    source="NVIDIA/Megatron-LM:megatron/training/arguments.py, megatron/core/pipeline_parallel/schedules.py",
)

ABILITIES = {
    "pytorch": Abilities(
        degrees=_DATA | {"tp", "pp", "cp"},
        schedules=("1f1b", "interleaved-1f1b", "zb-v", "dualpipe-v"),
        recomputes=("none", "selective", "full"),
        source="pytorch/pytorch:torch/distributed/pipelining/schedules.py, torch/distributed/tensor/parallel",
    ),
    "torchtitan": Abilities(
        degrees=_DATA | {"tp", "pp", "cp", "ep"},
        schedules=("1f1b", "interleaved-1f1b", "zb-v", "dualpipe-v"),
        recomputes=("none", "selective", "full"),
        selective_repeats_matrices=True,
        source="pytorch/torchtitan:torchtitan/distributed/parallel_dims.py and pipeline_parallel.py",
    ),
    "torchtune": Abilities(
        degrees=_DATA | {"tp", "cp"}, source="pytorch/torchtune:torchtune/training/_distributed.py (ParallelDims)"
    ),
    "megatron-lm": _MEGATRON,
    "megatron-bridge": _MEGATRON,
    "deepspeed": Abilities(
        degrees=frozenset({"dp_shard", "tp", "pp"}),
        schedules=("1f1b",),
        source="deepspeedai/DeepSpeed:deepspeed/runtime/pipe/engine.py (ZeRO 0 and 1 only), "
        "deepspeed/runtime/tensor_parallel (ZeRO 0 to 2)",
    ),
    "litgpt": Abilities(
        degrees=_DATA | {"tp"},
        source="Lightning-AI/litgpt:litgpt/finetune/full.py (FSDPStrategy), litgpt/generate/tp.py",
    ),
    "unsloth": Abilities(
        degrees=frozenset({"dp_replicate"}),
        recomputes=("none", "full", "offload"),
        source="unslothai/unsloth:README.md (one device, or copies)",
    ),
    "transformers": Abilities(degrees=_TRAINER, source=_HF),
    "trl": Abilities(degrees=_TRAINER, source=_HF),
    "peft": Abilities(degrees=_DATA, source=_HF),
    "axolotl": Abilities(degrees=_TRAINER, source="axolotl-ai-cloud/axolotl:docs/nd_parallelism.qmd"),
    "ms-swift": Abilities(
        degrees=_DATA, source="modelscope/ms-swift:docs/source_en/Instruction/Command-line-parameters.md"
    ),
    "llama-factory": Abilities(degrees=_DATA, source="hiyouga/LLaMA-Factory:README.md (DDP, DeepSpeed, FSDP)"),
}
"""Framework -> what it does."""

Division = dict[str, object]
"""Fields of a plan that say how states are divided."""


def divisions(framework: Framework, *, data_ranks: int, shard_ranks: int, tp: int, pp: int) -> tuple[Division, ...]:
    """Return the ways in which a framework divides states over data-parallel ranks.

    Args:
        framework: the profile.
        data_ranks: ranks of data parallelism, copies and shares together.
        shard_ranks: ranks that may divide states (``dp_shard`` and ``cp``).
        tp: tensor-parallel degree; DeepSpeed's does not go with weights that are divided.
        pp: pipeline degree; DeepSpeed's does not go with gradients that are divided.
    """
    match framework.sharding:
        case Sharding.MEGATRON:
            both: tuple[Division, ...] = ({"distributed_optimizer": False}, {"distributed_optimizer": True})
            return both if data_ranks * shard_ranks > 1 else both[:1]
        case Sharding.ZERO:
            most = 1 if pp > 1 else 2 if tp > 1 else 3
            return tuple({"zero_stage": stage} for stage in range(most + 1)) if shard_ranks > 1 else ({},)
        case Sharding.FSDP1 | Sharding.FSDP2:
            if shard_ranks == 1:
                return ({},)
            ways: list[Division] = [{"reshard_after_forward": True}, {"reshard_after_forward": False}]
            if framework.deepspeed:
                ways += [{"zero_stage": stage} for stage in range(1, 4)]
            return tuple(ways)
        case _:
            return ({},)
