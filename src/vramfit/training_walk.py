"""The walk over one step: forward, loss, backward, optimizer step; what is alive at each moment.

Activations pile up block by block and drain again while gradients appear; equal blocks are a straight line between
their first and their last, so both ends of it are the only moments that can be the worst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vramfit.framework import Sharding
from vramfit.memory.model_states import Setting, adds_beside
from vramfit.memory.unit import (
    FSDP,
    NOTHING,
    Buffers,
    Unit,
    backward_buffers,
    forward_buffers,
    reducing_buffers,
    together,
    unit_of,
)
from vramfit.result import Phase
from vramfit.spec import ModelSpec, Tensor
from vramfit.step import BlockStep, StepCost
from vramfit.units import ceil_div


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Equal blocks in a row."""

    block: BlockStep
    times: int
    unit: Unit
    loss: bool = False
    """True: the head, whose passes are the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """What the step itself holds at one moment, beside weights and states. [B]"""

    phase: Phase
    label: str
    kept: tuple[tuple[str, int], ...]
    """Activations kept for the backward pass, by module."""
    working: tuple[str, int]
    """What the block that runs has alive: its name and bytes."""
    gradients: int
    buffers: tuple[Buffers, ...]
    cached: int = 0
    """Cast copies of weights that autocast keeps."""

    @property
    def total_bytes(self) -> int:
        """All of it. [B]"""
        buffers = sum(b.bytes for b in self.buffers)
        return sum(size for _, size in self.kept) + self.working[1] + self.gradients + buffers + self.cached


@dataclass(frozen=True, slots=True)
class Point:
    """Where in a forward or backward pass a rank is."""

    run: int
    """Number of the run whose block works."""
    counts: tuple[int, ...]
    """How many blocks of every run keep their activations: those before this one in order of the forward pass."""
    backward: bool
    moving: bool = False
    """True: weights are gathered before its forward, or gradients, still whole, begin to travel after its backward."""

    def phase(self, run: Run) -> Phase:
        """Return the phase that this point belongs to."""
        return Phase.LOSS if run.loss else Phase.BACKWARD if self.backward else Phase.FORWARD

    def label(self, run: Run) -> str:
        """Return where it is, in words."""
        if self.moving:
            return f"{'reducing gradients' if self.backward else 'gathering weights'} of {run.block.name}"
        if run.loss:
            return "backward of the loss" if self.backward else "loss"
        which = run.block.name if run.times == 1 else _numbered(run.block.name, self.counts[self.run])
        return f"{'backward' if self.backward else 'forward'} of {which}"


def _numbered(name: str, count: int) -> str:
    """Name one of several equal blocks by its number on this rank: the third of those from layer 4 on is layer 6.

    >>> _numbered("layers", 31), _numbered("layer 4", 2)
    ('layer 31', 'layer 6')
    """
    first = name.removeprefix("layer ")
    return f"layer {int(first) + count}" if first.isdecimal() else f"layer {count}"


def points(runs: tuple[Run, ...]) -> tuple[Point, ...]:
    """Return the points of one micro-batch, in order of time: the first and the last block of each run, both ways."""
    full, found = [run.times for run in runs], []
    for i, run in enumerate(runs):
        for place in _ends(run.times):
            counts = (*full[:i], place, *(0 for _ in full[i + 1 :]))
            if run.unit.whole_bytes:
                found.append(Point(i, counts, backward=False, moving=True))
            found.append(Point(i, counts, backward=False))
    back = []
    for p in reversed([p for p in found if not p.moving]):
        back.append(Point(p.run, p.counts, backward=True))
        if runs[p.run].unit.reduced_bytes:
            back.append(Point(p.run, p.counts, backward=True, moving=True))
    return (*found, *back)


def runs_of(step: StepCost, setting: Setting) -> tuple[Run, ...]:
    """Put each block of a step together with its unit of weights, in order of the forward pass."""
    model = setting.shard.model
    found: list[Run] = []
    if step.embedding is not None:
        found.append(Run(block=step.embedding, times=1, unit=unit_of(model.embeddings, setting)))
    number = 0
    known: dict[int, Unit] = {}
    beyond = _beyond(model)
    for block, times in step.blocks:
        layer = model.layers[number] if number < len(model.layers) else None
        if layer is None:
            unit = unit_of(beyond[number - len(model.layers)], setting) if beyond else NOTHING
        else:
            unit = known.setdefault(id(layer), unit_of(layer.tensors, setting))
        found.append(Run(block=block, times=times, unit=unit))
        number += times
    if step.head is not None:
        found.append(Run(block=step.head, times=1, unit=unit_of(model.head, setting), loss=True))
    return tuple(found)


def _beyond(model: ModelSpec) -> tuple[tuple[Tensor, ...], ...]:
    """Return the tensors of each block of a multi-token-prediction head; its losses use the model's own projection."""
    part = next((part for part in model.parts if part.predicts and part.resident), None)
    if part is None:
        return ()
    return (part.tensors, *((),) * (part.depth - 1), *(layer.tensors for layer in part.layers), *((),) * part.depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One micro-batch on one rank, walked through."""

    setting: Setting
    runs: tuple[Run, ...]
    held_bytes: int = 0
    """Logits that the caller holds until the backward pass of all blocks is over. [B]"""

    @property
    def kept_by_all(self) -> int:
        """Activations of one micro-batch on all blocks of this rank; the loss goes back at once. [B]

        DeepSpeed keeps what a stage sent, divided by tensor-parallel ranks (deepspeed/runtime/pipe/engine.py,
        _exec_send_activations); Megatron gives it back (pipeline_parallel/schedules.py, deallocate_output_tensor).
        """
        shard, blocks = self.setting.shard, [run for run in self.runs if not run.loss]
        sends = self.setting.sharding is Sharding.ZERO and not shard.last and blocks
        sent = blocks[-1].block.output_bytes // shard.tensor_ranks if sends else 0
        return sent + sum(run.times * run.block.kept_bytes for run in blocks)

    @property
    def passes(self) -> bool:
        """Whether a gradient leaves as soon as it is made."""
        training = self.setting.training
        return bool(training.optimizer_in_backward) or self.stays

    @property
    def stays(self) -> bool:
        """Whether gradients are there from the first forward on: accumulated, zeroed, or in a framework's buffer."""
        setting = self.setting
        steps = setting.training.gradient_accumulation_steps or 1
        shard = setting.shard
        buffers = setting.sharding is Sharding.MEGATRON
        zero = setting.sharding is Sharding.ZERO and (shard.zero_stage >= 3 or adds_beside(setting))
        return not setting.training.optimizer_in_backward and (
            steps > 1 or shard.in_flight > 1 or self.unsynced or buffers or zero or not setting.framework.set_to_none
        )

    @property
    def between_steps(self) -> int:
        """Gradients that are there while nothing is being learnt: zeroed, or in a framework's buffer. [B]"""
        setting = self.setting
        buffers = setting.sharding is Sharding.MEGATRON
        zero = setting.sharding is Sharding.ZERO and (setting.shard.zero_stage >= 3 or adds_beside(setting))
        return self.all_gradients if buffers or zero or not setting.framework.set_to_none else 0

    @property
    def all_gradients(self) -> int:
        """Gradients of all blocks as they are kept until the step. [B]"""
        if self.setting.training.optimizer_in_backward or self.setting.offload.gradients:
            return 0
        return sum(run.times * run.unit.kept_gradient_bytes for run in self.runs)

    @property
    def unsynced(self) -> bool:
        """Whether gradients of several micro-batches add up whole before they are reduced.

        FSDP does so under a pipeline, and where a framework puts reduction off.

        Source: pytorch/pytorch:torch/distributed/pipelining/stage.py, backward_maybe_with_nosync; they add up in the
        reduce format (torch/distributed/fsdp/_fully_shard/_fsdp_param.py, to_accumulated_grad_if_needed).
        """
        shard = self.setting.shard
        pipelined = shard.in_flight > 1 or not (shard.first and shard.last)
        steps = self.setting.training.gradient_accumulation_steps or 1
        put_off = self.setting.framework.adds_up_whole and steps > 1
        return (pipelined or put_off) and self.setting.sharding in FSDP

    @property
    def accumulated(self) -> int:
        """Gradients that are there from the first forward of a later micro-batch on. [B]"""
        if self.unsynced:
            return sum(run.times * run.unit.reduced_bytes for run in self.runs)
        return self.all_gradients

    def waiting(self) -> tuple[tuple[str, int], ...]:
        """Activations of other micro-batches that wait for their backward pass, by name. [B]"""
        shard = self.setting.shard
        waiting = waiting_bytes(self.kept_by_all, shard.in_flight, shard.pieces)
        return (("waiting_micro_batches", waiting),) if waiting else ()

    def kept(self, found: Iterable[Point]) -> dict[tuple[int, ...], tuple[tuple[str, int], ...]]:
        """Activations of this micro-batch kept at each point, by module; points are in order of time. [B]

        count * size, summed over runs; counts that come again are those of the way back.
        """
        sums: dict[str, int] = {}
        before = (0,) * len(self.runs)
        along: dict[tuple[int, ...], tuple[tuple[str, int], ...]] = {}
        for point in found:
            if point.counts in along:
                continue
            for run, count, old in zip(self.runs, point.counts, before, strict=True):
                if count != old:
                    for name, size in run.block.kept:
                        sums[name] = sums.get(name, 0) + (count - old) * size
            before = point.counts
            along[before] = tuple(sums.items())
        return along

    def moments(self) -> Iterator[Alive]:
        """Yield the moments of forward, loss and backward, in order of time."""
        waiting, passes = self.waiting(), self.passes
        found = points(self.runs)
        kept = self.kept(found)
        for point in found:
            run = self.runs[point.run]
            gradients, buffers = self.states(point)
            yield Alive(
                phase=point.phase(run),
                label=point.label(run),
                kept=(*waiting, *kept[point.counts], *self.held(point)),
                working=self.working(point, passes=passes),
                gradients=gradients,
                buffers=buffers,
                cached=self.cached(point),
            )

    def working(self, point: Point, *, passes: bool) -> tuple[str, int]:
        """Return what the running block works with at a point, and its name; ``passes`` as of this walk. [B]"""
        block = self.runs[point.run].block
        if not point.backward:
            return f"{block.name}_forward", 0 if point.moving else block.forward_bytes
        if point.moving:
            return f"{block.name}_input_gradient", block.output_bytes
        size = block.passing_bytes if passes and block.passing_bytes is not None else block.backward_bytes
        return f"{block.name}_backward", size

    def held(self, point: Point) -> tuple[tuple[str, int], ...]:
        """Return the logits that the caller holds through the backward pass of all blocks, the head's own aside. [B]"""
        holds = point.backward and self.held_bytes and not self.runs[point.run].loss
        return (("logits_held_by_caller", self.held_bytes),) if holds else ()

    def cached(self, point: Point) -> int:
        """Return the cast copies of weights that autocast holds at a point. [B]"""
        if point.backward:
            return 0
        return sum(n * run.block.cached_bytes for n, run in zip(point.counts, self.runs, strict=True))

    def states(self, point: Point) -> tuple[int, tuple[Buffers, ...]]:
        """Return gradients and buffers at a point: what depends on weights and not on tokens. [B]"""
        i = point.run
        counts = [run.times - (j == i) for j, run in enumerate(self.runs)] if self.unsynced else point.counts
        whole = sum(n * self._unit(j).whole_bytes for j, n in enumerate(counts))
        if not point.backward:
            stays = self.accumulated if self.stays else 0
            return stays, self._around_forward(point, whole)
        made = self._made(point)
        if point.moving:
            return self._reducing(point, made)
        return made, self._around_backward(point, whole)

    def _around_forward(self, point: Point, done: int) -> tuple[Buffers, ...]:
        """Return the buffers around the forward of one block, or what there is when its weights were just gathered."""
        i = point.run
        now, last, ahead = self._unit(i), self._near(i, -1) if point.counts[i] == 0 else self._unit(i), self._near(i, 1)
        if self.setting.sharding is Sharding.FSDP2:
            own = now if now.whole_bytes else last
            beside = (now.whole_bytes + last.whole_bytes) if point.moving else own.whole_bytes
        else:
            beside = ahead.whole_bytes
        return forward_buffers(self.setting, now, beside, self.outermost, done)

    def _made(self, point: Point) -> int:
        """Gradients of blocks whose backward is over, as they are kept. [B]"""
        if self.stays or self.passes:
            return self.accumulated if self.stays else 0
        over = (
            run.times - n - (j == point.run) for j, (run, n) in enumerate(zip(self.runs, point.counts, strict=True))
        )
        return sum(n * self._left(j) for j, n in enumerate(over))

    def _around_backward(self, point: Point, waiting: int) -> tuple[Buffers, ...]:
        """Return the buffers around the backward of one block of a run."""
        i, place, last = point.run, point.counts[point.run], self.runs[point.run].times - 1
        before = self._unit(i) if place < last else self._unit(i + 1) if i + 1 < len(self.runs) else None
        ahead = self._unit(i) if place else self._near(i, -1)
        return backward_buffers(self.setting, self._unit(i), ahead, before, self.outermost, waiting)

    def _reducing(self, point: Point, made: int) -> tuple[int, tuple[Buffers, ...]]:
        """Return gradients and buffers when those of one block, still whole, begin to travel.

        Embedding and head travel together after everything else where they belong to the outermost unit.
        """
        run = self.runs[point.run]
        if not self._joined(point.run):
            return made + run.unit.whole_gradient_bytes, reducing_buffers(self.setting, run.unit, self.outermost)
        if point.run:
            return made, ()
        ends = together(r.unit for j, r in enumerate(self.runs) if self._joined(j))
        whole = made + run.unit.whole_gradient_bytes
        return whole, reducing_buffers(self.setting, replace(ends, whole_bytes=0), 0)

    @property
    def outermost(self) -> int:
        """Whole bytes of embedding and head where they are one unit that stays whole to the end. [B]"""
        return sum(run.unit.whole_bytes for j, run in enumerate(self.runs) if self._joined(j))

    def _joined(self, i: int) -> bool:
        """Whether a run belongs to the outermost unit: embedding and head, unless a framework wraps them."""
        setting, run = self.setting, self.runs[i]
        ends = run.loss or (i == 0 and setting.shard.first)
        return ends and setting.framework.whole_ends and setting.sharding in FSDP

    def _unit(self, i: int) -> Unit:
        """Return the unit that is gathered for a run; what belongs to the outermost unit is whole already."""
        return NOTHING if self._joined(i) else self.runs[i].unit

    def _near(self, i: int, step: int) -> Unit:
        """Return the unit of the next run, itself where it has several blocks, nothing beyond the ends."""
        if self.runs[i].times > 1:
            return self._unit(i)
        return self._unit(i + step) if 0 <= i + step < len(self.runs) else NOTHING

    def _left(self, i: int) -> int:
        """Gradients that one block of a run leaves behind: reduced, or whole until the outermost unit is. [B]"""
        unit = self.runs[i].unit
        waits = self._joined(i) and unit.reduced_bytes
        if self.setting.offload.gradients and not waits:
            return 0
        return unit.whole_gradient_bytes if waits else unit.kept_gradient_bytes


def waiting_bytes(kept_by_all: int, in_flight: int, pieces: int) -> int:
    """Activations of other micro-batches that wait for their backward pass. [B]

    in_flight * kept / pieces - kept
    """
    return ceil_div(in_flight * kept_by_all, pieces) - kept_by_all


def _ends(times: int) -> tuple[int, ...]:
    """Return how many equal blocks went before: at the first of them and at the last."""
    return (0,) if times == 1 else (0, times - 1)
