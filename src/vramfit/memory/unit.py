"""Units of a model as data-parallel ranks gather and reduce them: an embedding, a block, the head.

FSDP2 and ZeRO-3 hold a unit whole only while it works; what that takes at each point of a step stands here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vramfit.formats import Role, weight_format
from vramfit.framework import Sharding
from vramfit.memory.held import Held, held_of
from vramfit.memory.model_states import (
    Setting,
    adds_beside,
    gradient_format,
    kept_gradient,
    padding_ranks,
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
    whole_gradient_bytes: int
    """Its gradients as its backward makes them, before they are reduced."""
    reduced_bytes: int
    """Its gradients as they travel, whole; 0 = they do not."""


NOTHING = Unit(whole_bytes=0, kept_gradient_bytes=0, whole_gradient_bytes=0, reduced_bytes=0)
"""Beyond the ends of the model, or part of a unit that is whole already."""


def unit_of(tensors: Iterable[Tensor], setting: Setting) -> Unit:
    """Return the unit that some tensors make up."""
    held = held_of(tensors, setting.shard)
    compute = weight_format(setting.recipe.compute_format).block_bytes
    divided = [h for h in held if weight_ranks(setting, h) > 1 or setting.offload.parameters or _casts(h, setting)]
    whole = sum(
        h.parameters * compute * padding_ranks(setting, h)
        if h.format.is_plain
        else h.count * h.format.tensor_size(h.tensor.shape)
        for h in divided
    )
    reduce = setting.recipe.reduce_format
    travels = setting.sharding in FSDP and setting.shard.state_ranks > 1
    mixes = setting.framework.mixes_frozen and setting.sharding is Sharding.FSDP1
    if travels and mixes and any(h.trained for h in held):
        held = tuple(replace(h, tensor=replace(h.tensor, frozen=False)) for h in held)
    return Unit(
        whole_bytes=whole,
        kept_gradient_bytes=sum(kept_gradient(h, setting) for h in held),
        whole_gradient_bytes=sum(trained_bytes(h, setting, _made(h.format.name, setting), 1) for h in held),
        reduced_bytes=sum(trained_bytes(h, setting, reduce, 1) * padding_ranks(setting, h) for h in held)
        if travels
        else 0,
    )


def _casts(held: Held, setting: Setting) -> bool:
    """Whether FSDP makes a copy of a weight in another format although it is not divided."""
    plain = held.format.is_plain and held.format.name == setting.recipe.parameter_format
    differs = setting.recipe.compute_format != setting.recipe.parameter_format
    return setting.sharding in FSDP and setting.shard.zero_stage >= 3 and plain and differs


def _made(stored: str, setting: Setting) -> str:
    """Return the format in which backward makes the gradient of a weight: that in which forward read it."""
    recipe = setting.recipe
    return recipe.compute_format if stored == recipe.parameter_format and not recipe.autocast else stored


def together(units: Iterable[Unit]) -> Unit:
    """Return several units as one: embedding and head that belong to the outermost unit."""
    every = tuple(units)
    return Unit(
        whole_bytes=sum(u.whole_bytes for u in every),
        kept_gradient_bytes=sum(u.kept_gradient_bytes for u in every),
        whole_gradient_bytes=sum(u.whole_gradient_bytes for u in every),
        reduced_bytes=sum(u.reduced_bytes for u in every),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """Buffers of one kind at one point of a step. [B]"""

    name: str
    bytes: int
    formula: str
    source: str


_FSDP2 = "pytorch/pytorch:torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py"
_FSDP1 = "pytorch/pytorch:torch/distributed/fsdp/_runtime_utils.py"
_ZERO3 = "deepspeedai/DeepSpeed:deepspeed/runtime/zero/partitioned_param_coordinator.py"
_ZERO2 = "deepspeedai/DeepSpeed:deepspeed/runtime/zero/stage_1_and_2.py"


def forward_buffers(setting: Setting, now: Unit, beside: int, stays: int, done: int) -> tuple[Buffers, ...]:
    """Return what is gathered while a unit's forward runs. [B]

    fully_shard: the unit whole, and the buffer it was gathered into, kept until the next unit has been copied out.
    FullyShardedDataParallel: the unit whole, and the next one, which is gathered meanwhile.
    ZeRO-3: the unit, what is fetched ahead, and what is kept because it is used again soon.

    Args:
        setting: the rank.
        now: the unit that runs.
        beside: buffers into which units are gathered, or the unit that is gathered next.
        stays: whole bytes of the outermost unit, which stays whole to the end of the backward pass.
        done: whole bytes of earlier units, which stay where nothing is given back after the forward pass.
    """
    if setting.sharding in FSDP:
        kept = stays + (0 if _reshards(setting) else done)
        return _gathered(setting, now.whole_bytes + kept, beside)
    return _zero3(setting, now)


def backward_buffers(
    setting: Setting, now: Unit, ahead: Unit, before: Unit | None, stays: int, waiting: int
) -> tuple[Buffers, ...]:
    """Return what is gathered and reduced while a unit's backward runs. [B]

    FSDP: the unit whole, the unit that is gathered ahead, and the gradients of the unit before, which travel in the
    reduce format until the next ones do.

    Args:
        setting: the rank.
        now: the unit that runs.
        ahead: the unit that is gathered next, which is its predecessor in the model.
        before: the unit whose gradients travel; None = there is none yet.
        stays: whole bytes of the outermost unit.
        waiting: whole bytes of units still to come, which are whole where nothing was given back.
    """
    if setting.sharding in FSDP:
        kept = stays + (0 if _reshards(setting) else waiting)
        reduced = () if before is None else (_reduced(setting, before.reduced_bytes),)
        gathered = ahead.whole_bytes if _reshards(setting) else 0
        return (*_gathered(setting, now.whole_bytes + kept, gathered), *reduced)
    return (*_zero3(setting, now), *_zero_bucket(setting))


def reducing_buffers(setting: Setting, unit: Unit, stays: int) -> tuple[Buffers, ...]:
    """Return what is there when a unit's backward is over and its gradients, still whole, begin to travel. [B]"""
    return (*_gathered(setting, stays, unit.whole_bytes), _reduced(setting, unit.reduced_bytes))


def _reshards(setting: Setting) -> bool:
    return setting.reshards and setting.shard.zero_stage >= 3


def _reduced(setting: Setting, size: int) -> Buffers:
    return Buffers(
        name="buffers/reduce_scatter_input", bytes=size, source=_FSDP2,
        formula=f"gradients of one unit in {setting.recipe.reduce_format}",
    )  # fmt: skip


def _gathered(setting: Setting, whole: int, beside: int) -> tuple[Buffers, ...]:
    source = _FSDP2 if setting.sharding is Sharding.FSDP2 else _FSDP1
    return (
        Buffers(
            name="buffers/gathered_weights", bytes=whole, source=source,
            formula="weights of the unit that runs, and of those that stay whole",
        ),
        Buffers(
            name="buffers/all_gather_output", bytes=beside, source=source,
            formula="buffer into which one unit is gathered while another runs",
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
    divides = shard.zero_stage >= 2 or (buckets.contiguous_gradients and not adds_beside(setting))
    if setting.sharding is not Sharding.ZERO or not divides:
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
    """Return buffers that stand for the whole of training: DDP's buckets, stand-ins for Megatron's gradients. [B]"""
    if setting.framework.style.fused_weight_gradients and setting.sharding is Sharding.MEGATRON:
        return (_stand_ins(setting),)
    if setting.sharding is not Sharding.DDP or setting.framework.buckets.gradients_in_buckets:
        return ()
    size = sum(trained_bytes(h, setting, gradient_format(h, setting), 1) for h in setting.held)
    return (
        Buffers(
            name="buffers/ddp_buckets", bytes=size, formula="gradients once more, in buckets that are reduced",
            source="pytorch/pytorch:torch/nn/parallel/distributed.py, gradient_as_bucket_view",
        ),
    )  # fmt: skip


MERGED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Matrices that Megatron holds as one."""


def _stand_ins(setting: Setting) -> Buffers:
    """Return the tensors that autograd is given in place of gradients which a kernel adds to a buffer by itself.

        one for every distinct shape of a trained matrix, in the format of the forward pass

    Golden values of two 7B runs of Megatron are 436 and 98 MiB + 1 GiB above weights, gradients and states after a
    step; stand-ins are 336 MiB + 1,025 MiB of the first and 84 MiB of the second.
    Source: NVIDIA/TransformerEngine:transformer_engine/pytorch/module/base.py, get_dummy_wgrad;
    NVIDIA/Megatron-LM:megatron/core/tensor_parallel/layers.py, LinearWithGradAccumulationAndAsyncCommunication.
    """
    model, shapes = setting.shard.model, set[tuple[int, ...]]()
    for tensors in (*(layer.tensors for layer, _ in model.groups), model.head):
        rows: dict[str, tuple[int, int]] = {}
        for t in tensors:
            if len(t.shape) > 1 and not t.frozen and t.role not in {Role.ROUTER, Role.CONVOLUTION}:
                merged = next((m[0] for m in MERGED if any(name in t.name for name in m)), "")
                key = t.name.replace(next((n for m in MERGED for n in m if n in t.name), ""), "") + merged
                rows[key] = (rows.get(key, (0, 0))[0] + t.shape[-2], t.shape[-1])
        shapes.update(rows.values())
    size = weight_format(setting.recipe.compute_format).block_bytes * sum(a * b for a, b in shapes)
    return Buffers(
        name="buffers/stand_ins_for_gradients", bytes=size,
        formula=f"{len(shapes)} shapes of matrices in {setting.recipe.compute_format}",
        source="NVIDIA/TransformerEngine:transformer_engine/pytorch/module/base.py, get_dummy_wgrad",
    )  # fmt: skip
