"""What tokens decide and what weights decide on a piece of the model, and both put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from operator import add

from vramfit.device import Device
from vramfit.memory.model_states import Setting
from vramfit.memory.unit import NOTHING
from vramfit.result import WHILE_TRAINING, Breakdown, Counter, Item, Phase
from vramfit.step import BlockStep, StepCost
from vramfit.train import band_of, other_moments, standing_items, step_of
from vramfit.training_process import process_items
from vramfit.training_walk import Point, Run, Walk, points, runs_of, waiting_bytes

PASSES = (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD)
"""Phases in which activations pile up and drain."""

NO_BLOCK = BlockStep(name="", kept=(), forward_bytes=0, backward_bytes=0, gradient_bytes=0, output_bytes=0)
Sums = tuple[int, int]
"""Expected and high. [B]"""
Moves = tuple[tuple[bool, bool], ...]
"""Whether each run's weights are gathered, and whether its gradients travel: it has a point more for each."""
Structure = tuple[tuple[int, bool], ...]
"""How many equal blocks every run has, and whether it is the head."""


@dataclass(frozen=True, slots=True)
class Row:
    """Points of one phase in order of time."""

    expected: tuple[int, ...]
    high: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What tokens decide on a piece of the model. [B]"""

    rows: tuple[Row, ...]
    """For every phase of ``PASSES`` that occurs: what blocks keep and work with."""
    kept_by_all: int
    evaluation: Sums


@dataclass(frozen=True, slots=True)
class States:
    """What weights decide on a piece of the model. [B]"""

    rows: tuple[tuple[int, ...], ...]
    """For every phase of ``PASSES`` that occurs: gradients and buffers at its points."""
    standing: tuple[Sums, ...]
    """What torch counts in these phases whatever the step does."""
    process: tuple[Sums, ...]
    """What it does not count in them."""
    evaluation: Sums
    evaluation_process: Sums
    allocated: Sums
    """Largest of the other phases, as torch counts it."""
    whole: Sums
    """Largest of the other phases, with what torch does not count."""
    steady: int
    """What makes no holes in the allocator: loaded before the first step, or held by the optimizer step."""
    passes: bool
    moves: Moves


@dataclass(frozen=True, slots=True)
class Step:
    """The blocks of a piece for one micro-batch, and what was made of them."""

    setting: Setting
    cost: StepCost
    structure: Structure
    made: dict[tuple[bool, Moves], Tokens] = field(default_factory=dict)

    def tokens(self, states: States) -> Tokens:
        """Return what tokens decide, at the points that the states have."""
        key = states.passes, states.moves
        if key not in self.made:
            self.made[key] = tokens_of(self, states)
        return self.made[key]


def step_in(setting: Setting) -> Step:
    """Return the blocks of a rank for one micro-batch, and how they follow one another."""
    cost = step_of(setting)
    before, after = [(1, False)] * (cost.embedding is not None), [(1, True)] * (cost.head is not None)
    return Step(setting, cost, (*before, *((times, False) for _, times in cost.blocks), *after))


def tokens_of(step: Step, states: States) -> Tokens:
    """Return what tokens decide at every point; of the states only which points there are is asked."""
    runs = tuple(Run(block=block, times=times, unit=NOTHING, loss=loss) for block, (times, loss) in _blocks(step))
    walk = Walk(setting=step.setting, runs=runs, held_bytes=step.cost.held_bytes)
    rows: dict[Phase, list[Sums]] = {}
    found = _points(step.structure, states.moves)
    kept = {counts: _figures(parts) for counts, parts in walk.kept(found).items()}
    for point in found:
        expected, high = _plus(
            kept[point.counts], _figures((walk.working(point, passes=states.passes), *walk.held(point)))
        )
        cached = walk.cached(point)
        rows.setdefault(point.phase(runs[point.run]), []).append((expected + cached, high + cached))
    largest = max(run.block.forward_bytes for run in runs)
    return Tokens(
        rows=tuple(Row(*map(tuple, zip(*rows[phase], strict=True))) for phase in PASSES if phase in rows),
        kept_by_all=walk.kept_by_all,
        evaluation=(largest, band_of(largest)[1]),
    )


@cache
def _points(structure: Structure, moves: Moves) -> tuple[Point, ...]:
    """Return the points of runs of which only their number of blocks, and what travels, is known."""
    units = [replace(NOTHING, whole_bytes=int(gathers), reduced_bytes=int(reduces)) for gathers, reduces in moves]
    return points(
        tuple(
            Run(block=NO_BLOCK, times=times, unit=unit, loss=loss)
            for (times, loss), unit in zip(structure, units, strict=True)
        )
    )


def _figures(parts: Iterable[tuple[str, int]]) -> Sums:
    """Return expected and high of what is kept or worked with, each part's band for itself."""
    sizes = [size for _, size in parts]
    return sum(sizes), sum(band_of(size)[1] for size in sizes)


def _blocks(step: Step) -> list[tuple[BlockStep, tuple[int, bool]]]:
    cost = step.cost
    blocks = [cost.embedding] * (cost.embedding is not None) + [b for b, _ in cost.blocks]
    blocks += [cost.head] * (cost.head is not None)
    return list(zip(blocks, step.structure, strict=True))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is there by phase, whatever the step does at the moment. [B]"""

    inside: dict[Phase, Sums]
    """As torch counts it."""
    outside: dict[Phase, Sums]
    """What torch does not count."""


def standing_in(setting: Setting) -> Standing:
    """Return what stands on a rank."""
    return _standing(tuple(standing_items(setting)))


def process_in(setting: Setting, device: Device) -> Standing:
    """Return what the process of a rank takes."""
    return _standing(tuple(process_items(setting, device)))


def _standing(items: tuple[Item, ...]) -> Standing:
    return Standing(_sums(items, allocated=True), _sums(items, allocated=False))


@dataclass(frozen=True, slots=True)
class Weights:
    """What weights decide on a piece of the model, whatever the process takes. [B]"""

    rows: dict[Phase, tuple[int, ...]]
    standing: Standing
    """Gradients outside forward and backward in it."""
    passes: bool
    moves: Moves

    def beside(self, process: Standing, steady: Phase) -> States:
        """Return the same with what the process takes; in the phase ``steady``, nothing makes holes."""
        inside = {phase: _plus(each, process.inside[phase]) for phase, each in self.standing.inside.items()}
        outside = {phase: _plus(each, process.outside[phase]) for phase, each in self.standing.outside.items()}
        here = tuple(phase for phase in PASSES if phase in self.rows)
        others = [phase for phase in WHILE_TRAINING if phase not in here and phase is not Phase.EVALUATION]
        return States(
            rows=tuple(self.rows[phase] for phase in here),
            standing=tuple(inside[phase] for phase in here),
            process=tuple(outside[phase] for phase in here),
            evaluation=inside[Phase.EVALUATION],
            evaluation_process=outside[Phase.EVALUATION],
            allocated=_largest(inside[phase] for phase in others),
            whole=_largest(_plus(inside[phase], outside[phase]) for phase in others),
            steady=inside[steady][0],
            passes=self.passes,
            moves=self.moves,
        )


def weights_in(setting: Setting, step: Step, standing: Standing) -> Weights:
    """Return what weights decide at every point, and in the phases without one."""
    walk = Walk(setting=setting, runs=runs_of(step.cost, setting))
    inside = dict(standing.inside)
    rows: dict[Phase, list[int]] = {}
    for point in points(walk.runs):
        gradients, buffers = walk.states(point)
        rows.setdefault(point.phase(walk.runs[point.run]), []).append(gradients + sum(b.bytes for b in buffers))
    for alive in other_moments(walk):
        size = alive.gradients + sum(b.bytes for b in alive.buffers)
        inside[alive.phase] = _plus(inside[alive.phase], (size, size))
    return Weights(
        rows={phase: tuple(row) for phase, row in rows.items()},
        standing=Standing(inside, standing.outside),
        passes=walk.passes,
        moves=tuple((bool(run.unit.whole_bytes), bool(run.unit.reduced_bytes)) for run in walk.runs),
    )


def _sums(items: tuple[Item, ...], *, allocated: bool) -> dict[Phase, Sums]:
    """Return what items take in each phase: those that torch counts as allocated, or the others."""
    chosen = tuple(item for item in items if (item.counter is Counter.ALLOCATED) is allocated)
    totals = Breakdown(rank="", num_ranks=1, items=chosen).totals()
    found = {phase: (total.expected_bytes, total.high_bytes) for phase, total in totals.items()}
    return {phase: found.get(phase, (0, 0)) for phase in WHILE_TRAINING}


def _plus(one: Sums, other: Sums) -> Sums:
    return one[0] + other[0], one[1] + other[1]


def _largest(found: Iterable[Sums]) -> Sums:
    """Return the largest of each figure for itself."""
    expected, high = zip(*found, strict=True)
    return max(expected), max(high)


Four = tuple[int, int, int, int]
"""Expected and high as torch counts them, then with what it does not count. [B]"""


@dataclass(frozen=True, slots=True)
class Met:
    """Tokens and states of a piece put together, other micro-batches aside. [B]"""

    passes: Four
    """Largest of the phases in which other micro-batches wait too."""
    others: Four
    """Largest of the other phases."""
    kept_by_all: int

    def peaks(self, flight: int, pieces: int) -> Four:
        """Return the peaks with so many forward passes in flight, fragmentation aside. [B]"""
        waiting = waiting_bytes(self.kept_by_all, flight, pieces)
        high = band_of(waiting)[1]
        inside, inside_high, whole, whole_high = self.passes
        other, other_high, other_whole, other_whole_high = self.others
        return (
            max(inside + waiting, other),
            max(inside_high + high, other_high),
            max(whole + waiting, other_whole),
            max(whole_high + high, other_whole_high),
        )


def meet(tokens: Tokens, states: States) -> Met:
    """Put tokens and states of a piece together.

    The worst point of a phase is the one with most expected bytes, as ``estimate_training`` takes it; the high figure
    is that of this point.
    """
    inside = inside_high = whole = whole_high = 0
    phases = zip(tokens.rows, states.rows, states.standing, states.process, strict=True)
    for row, gradients, (stands, stands_high), (outside, outside_high) in phases:
        totals = list(map(add, row.expected, gradients))
        worst = totals.index(max(totals))
        expected = stands + totals[worst]
        high = stands_high + row.high[worst] + gradients[worst]
        inside, inside_high = max(inside, expected), max(inside_high, high)
        whole, whole_high = max(whole, expected + outside), max(whole_high, high + outside_high)
    evaluation = _plus(states.evaluation, tokens.evaluation)
    allocated = _largest((states.allocated, evaluation))
    everything = _largest((states.whole, _plus(evaluation, states.evaluation_process)))
    return Met((inside, inside_high, whole, whole_high), (*allocated, *everything), tokens.kept_by_all)
