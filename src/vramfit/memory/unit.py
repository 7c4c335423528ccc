"""Units of a model as data-parallel ranks gather and reduce them: an embedding, a block, the head.

FSDP2 and ZeRO-3 hold a unit whole only while it works; what that takes at each point of a step stands here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vramfit.formats import weight_format
from vramfit.framework import Sharding
from vramfit.memory.held import held_of
from vramfit.memory.model_states import (
    Setting,
    gradient_format,
    gradient_ranks,
    trained_bytes,
    weight_ranks,
)
from vramfit.spec import Tensor
from vramfit.units import larger, smaller

FSDP = frozenset({Sharding.FSDP1, Sharding.FSDP2})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What one unit takes beside its block's own tensors. [B]"""

    whole_bytes: int
    """Its weights gathered, in the format that the forward pass reads; 0 = they are whole on every rank."""
    kept_gradient_bytes: int
    """Its gradients as they are kept until the step."""
    reduced_bytes: int
    """Its gradients as they travel, whole; 0 = they do not."""


def unit_of(tensors: Iterable[Tensor], setting: Setting) -> Unit:
    """Return the unit that some tensors make up."""
    held = held_of(tensors, setting.shard)
    compute = weight_format(setting.recipe.compute_format).block_bytes
    divided = [h for h in held if weight_ranks(setting, h) > 1 or setting.offload.parameters]
    whole = sum(
        h.parameters * compute if h.format.is_plain else h.count * h.format.tensor_size(h.tensor.shape) for h in divided
    )
    reduce = setting.recipe.reduce_format
    travels = setting.sharding in FSDP and setting.shard.state_ranks > 1
    return Unit(
        whole_bytes=whole,
        kept_gradient_bytes=sum(
            trained_bytes(h, setting, gradient_format(h, setting), gradient_ranks(setting, h)) for h in held
        ),
        reduced_bytes=sum(trained_bytes(h, setting, reduce, 1) for h in held) if travels else 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """Buffers of one kind at one point of a step. [B]"""

    name: str
    bytes: int
    formula: str
    source: str


_FSDP2 = "pytorch/pytorch:torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py"
_ZERO3 = "deepspeedai/DeepSpeed:deepspeed/runtime/zero/partitioned_param_coordinator.py"
_ZERO2 = "deepspeedai/DeepSpeed:deepspeed/runtime/zero/stage_1_and_2.py"


def forward_buffers(setting: Setting, now: Unit, beside: Unit, ends: int, done: int) -> tuple[Buffers, ...]:
    """Return what is gathered while a unit's forward runs. [B]

    fully_shard: the unit whole, and the buffer it was gathered into, kept until the next unit is copied out.
    ZeRO-3: the unit, what is fetched ahead, and what is kept because it is used again soon.

    Args:
        setting: the rank.
        now: the unit that runs.
        beside: the largest unit that is gathered before or after it.
        ends: units that stay whole from here to the end of the backward pass.
        done: whole bytes of earlier units, which stay where nothing is given back after the forward pass.
    """
    if setting.sharding in FSDP:
        kept = ends + (0 if _reshards(setting) else done)
        return _fsdp(now, beside, kept)
    return _zero3(setting, now)


def backward_buffers(setting: Setting, now: Unit, beside: Unit, ends: int, ahead: int) -> tuple[Buffers, ...]:
    """Return what is gathered and reduced while a unit's backward runs. [B]

    fully_shard: the unit whole, the buffer of the unit that is gathered ahead, and the gradients of the unit before,
    which travel in the reduce format until the next ones do.
    """
    if setting.sharding in FSDP:
        kept = ends + (0 if _reshards(setting) else ahead)
        reduced = Buffers(
            name="buffers/reduce_scatter_input", bytes=beside.reduced_bytes, source=_FSDP2,
            formula=f"gradients of one unit in {setting.recipe.reduce_format}",
        )  # fmt: skip
        return (*_fsdp(now, beside, kept), reduced)
    return (*_zero3(setting, now), *_zero_bucket(setting))


def _reshards(setting: Setting) -> bool:
    return setting.reshards and setting.shard.zero_stage >= 3


def _fsdp(now: Unit, beside: Unit, kept: int) -> tuple[Buffers, ...]:
    return (
        Buffers(
            name="buffers/gathered_weights", bytes=now.whole_bytes + kept, source=_FSDP2,
            formula="weights of the unit that runs, and of those that stay whole",
        ),
        Buffers(
            name="buffers/all_gather_output", bytes=larger(now.whole_bytes, beside.whole_bytes), source=_FSDP2,
            formula="buffer that a unit is gathered into, kept until the next one is",
        ),
    )  # fmt: skip


def _zero3(setting: Setting, now: Unit) -> tuple[Buffers, ...]:
    if setting.sharding is not Sharding.ZERO or setting.shard.zero_stage < 3:
        return ()
    buckets, size = setting.framework.buckets, weight_format(setting.recipe.compute_format).block_bytes
    every = sum(h.parameters for h in setting.held if weight_ranks(setting, h) > 1)
    live = smaller(every, larger(now.whole_bytes // size + buckets.prefetch, buckets.max_live))
    return (
        Buffers(
            name="buffers/gathered_weights", bytes=live * size, source=_ZERO3,
            formula=f"at most {buckets.max_live:,} live parameters, or one unit and {buckets.prefetch:,} ahead",
        ),
    )  # fmt: skip


def _zero_bucket(setting: Setting) -> tuple[Buffers, ...]:
    """Return the bucket through which DeepSpeed reduces gradients, two of them when they overlap."""
    buckets, shard = setting.framework.buckets, setting.shard
    if setting.sharding is not Sharding.ZERO or (shard.zero_stage < 2 and not buckets.contiguous_gradients):
        return ()
    trained = sum(h.parameters for h in setting.held if h.trained)
    size = weight_format(setting.recipe.compute_format).block_bytes
    times = 2 if buckets.overlap else 1
    return (
        Buffers(
            name="buffers/reduce_bucket", bytes=times * size * max(buckets.reduce, 0), source=_ZERO2,
            formula=f"{times} x reduce_bucket_size {buckets.reduce:,} elements",
        ) if trained else Buffers(name="buffers/reduce_bucket", bytes=0, source=_ZERO2, formula="nothing is trained"),
    )  # fmt: skip


def standing_buffers(setting: Setting) -> tuple[Buffers, ...]:
    """Return buffers that stand for the whole of training: DDP's buckets. [B]"""
    if setting.sharding is not Sharding.DDP or setting.framework.buckets.gradients_in_buckets:
        return ()
    size = sum(trained_bytes(h, setting, gradient_format(h, setting), 1) for h in setting.held)
    return (
        Buffers(
            name="buffers/ddp_buckets", bytes=size, formula="gradients once more, in buckets that are reduced",
            source="pytorch/pytorch:torch/nn/parallel/distributed.py, gradient_as_bucket_view",
        ),
    )  # fmt: skip
