"""Counts many candidates of one training run: each part that ``train`` is made of is asked once, and put together here.

The bytes of a moment are those of activations, which tokens decide, and those of states, which weights decide. Both
are kept for every piece of the model, so that a candidate costs a few sums. That the sums are those of
``estimate_training``, byte for byte, is tested; what is shown is counted by ``estimate_training`` itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from operator import add

from vramfit.device import Device
from vramfit.framework import Framework, Sharding
from vramfit.memory.model_states import Setting
from vramfit.memory.unit import NOTHING
from vramfit.request import Plan
from vramfit.result import WHILE_TRAINING, Breakdown, Counter, Item, Phase, Total
from vramfit.shard import Shard
from vramfit.spec import ModelSpec
from vramfit.step import BlockStep, StepCost
from vramfit.train import band_of, fragmented, other_moments, process_items, setting_of, standing_items, step_of
from vramfit.training import Training
from vramfit.training_choices import Decided, decide
from vramfit.training_model import as_trained
from vramfit.training_plan import Cutting, Stage, cutting, in_flight, shard_of, sharding_of, stages_of
from vramfit.training_walk import Run, Walk, points, runs_of, waiting_bytes

PASSES = (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD)
"""Phases in which activations pile up and drain."""

TRAVELS = replace(NOTHING, reduced_bytes=1)
"""A unit of which only one thing is said: its gradients travel."""

FACTS = tuple(
    f.name
    for f in fields(Shard)
    if f.name not in {"label", "num_ranks", "model", "first", "last", "in_flight", "sequence_ranks"}
)
"""What a shard says of states beside the piece of the model that it holds."""

Sums = tuple[int, int]
"""Expected and high. [B]"""
Structure = tuple[tuple[int, bool], ...]
"""How many equal blocks every run has, and whether it is the head."""


@dataclass(frozen=True, slots=True)
class Need:
    """What the heaviest rank of a candidate needs. [B]"""

    expected_bytes: int
    high_bytes: int
    stage: int
    """Number of its first pipeline stage like this."""


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
    loaded: int
    """What is there before the first step."""
    passes: bool
    reduces: tuple[bool, ...]
    """Runs whose gradients travel: they have a point more."""


@dataclass(frozen=True, slots=True)
class Step:
    """The blocks of a piece for one micro-batch, and what was made of them."""

    setting: Setting
    cost: StepCost
    structure: Structure
    made: dict[tuple[bool, tuple[bool, ...]], Tokens] = field(default_factory=dict)

    def tokens(self, states: States) -> Tokens:
        """Return what tokens decide, at the points that the states have."""
        key = states.passes, states.reduces
        if key not in self.made:
            self.made[key] = _tokens(self, states)
        return self.made[key]


@dataclass(frozen=True, slots=True)
class Piece:
    """Equal stages of a pipeline."""

    number: int
    """Tells it from all other pieces of a search."""
    stage: Stage
    alike: tuple[int, ...]
    """Numbers of the stages that hold the same."""


@dataclass(frozen=True, slots=True)
class Place:
    """A plan without its micro-batches, ready to be counted."""

    cut: Cutting
    decided: Decided
    pieces: tuple[Piece, ...]
    key: tuple[object, ...]
    """Equal for plans that divide states alike."""


@dataclass(frozen=True, slots=True)
class MeshCount:
    """One model, workload and device; everything that several candidates share is kept."""

    model: ModelSpec
    workload: Training
    device: Device
    framework: Framework
    by_sharding: dict[Sharding, tuple[Decided, ModelSpec]] = field(default_factory=dict)
    pieces: dict[object, tuple[Piece, ...]] = field(default_factory=dict)
    numbers: dict[object, int] = field(default_factory=dict)
    """What a stage holds and how it is divided -> its number: equal stages of different pipelines are one."""
    flights: dict[object, tuple[int, ...]] = field(default_factory=dict)
    """Schedule and micro-batches -> the forward passes that each stage of a pipeline holds at worst."""
    trainings: dict[object, Training] = field(default_factory=dict)
    settings: dict[object, Setting] = field(default_factory=dict)
    steps: dict[tuple[int, int, int, str], Step] = field(default_factory=dict)
    states: dict[object, States] = field(default_factory=dict)
    met: dict[tuple[int, int], Met] = field(default_factory=dict)

    def place(self, plan: Plan) -> Place:
        """Cut the model by a plan whose micro-batches are open.

        Raises:
            VramfitError: the plan cannot be carried out.
        """
        cut = cutting(self.framework, plan, 1)
        decided, marked = self.decided(plan)
        plan = cut.plan
        key = (cut.sharding, plan.tp, plan.etp, plan.ep, plan.pp, plan.virtual_stages, plan.pp_schedule, plan.vocab_tp)
        if key not in self.pieces:
            self.pieces[key] = self._pieces(marked, plan)
        pieces = self.pieces[key]
        shard = self._shard(pieces[0], cut, flight=1)
        facts = tuple(getattr(shard, name) for name in FACTS)
        return Place(cut, decided, pieces, (cut.sharding, plan.reshard_after_forward, *facts))

    def decided(self, plan: Plan) -> tuple[Decided, ModelSpec]:
        """Return the workload without open fields, and the model as it trains, under a plan."""
        sharding = sharding_of(self.framework, plan)
        if sharding not in self.by_sharding:
            found = decide(self.model, self.workload, plan)
            marked = as_trained(self.model, found.training, wide_base=found.framework.wide_base)
            self.by_sharding[sharding] = found, marked
        return self.by_sharding[sharding]

    def _pieces(self, marked: ModelSpec, plan: Plan) -> tuple[Piece, ...]:
        alike: dict[object, list[Stage]] = {}
        for stage in stages_of(marked, plan):
            alike.setdefault((stage.content, stage.first, stage.last), []).append(stage)
        divided = id(marked), plan.tp, plan.etp, plan.ep
        return tuple(
            Piece(
                self.numbers.setdefault((divided, content), len(self.numbers)),
                stages[0],
                tuple(stage.number for stage in stages),
            )
            for content, stages in alike.items()
        )

    def need(self, place: Place, micro_batch: int, accumulation: int, recompute: str) -> Need:
        """Return what the heaviest rank needs: of equal stages the one that holds most at once."""
        expected, high, number = -1, -1, 0
        plan, band = place.cut.plan, self.framework.fragmented_by(place.cut.sharding)
        held = self._flights(plan, accumulation)
        for piece in place.pieces:
            flight = max(held[stage] for stage in piece.alike)
            step = self._step(place, piece, micro_batch, recompute)
            states = self._states(place, piece, step, min(accumulation, 2), min(flight, 2))
            tokens = step.tokens(states)
            pair = id(tokens), id(states)
            met = self.met.get(pair)
            if met is None:
                met = self.met[pair] = meet(tokens, states)
            inside, inside_high, here, here_high = met.peaks(flight, plan.virtual_stages or 1)
            lost = fragmented(Total(low_bytes=0, expected_bytes=inside, high_bytes=inside_high), states.loaded, band)
            here += lost.expected_bytes
            if here > expected:
                expected, number = here, piece.stage.number
            high = max(high, here_high + lost.high_bytes)
        return Need(expected, high, number)

    def _flights(self, plan: Plan, accumulation: int) -> tuple[int, ...]:
        """Return the forward passes that each stage holds at worst."""
        key = plan.pp, plan.pp_schedule, plan.virtual_stages, accumulation
        found = self.flights.get(key)
        if found is None:
            plan = replace(plan, micro_batches=accumulation) if plan.pp > 1 else plan
            found = self.flights[key] = tuple(in_flight(plan, stage) for stage in range(plan.pp))
        return found

    def _step(self, place: Place, piece: Piece, micro_batch: int, recompute: str) -> Step:
        key = piece.number, place.cut.plan.cp, micro_batch, recompute
        found = self.steps.get(key)
        if found is None:
            asked = id(place.decided), micro_batch, recompute
            training = self.trainings.get(asked)
            if training is None:
                training = self.trainings[asked] = varied(place.decided.training, micro_batch, 1, recompute)
            setting = self.settings.get(key[:2])
            if setting is None:
                setting = self.settings[key[:2]] = self._setting(place, piece, training, flight=1)
            found = self.steps[key] = _step(replace(setting, training=training))
        return found

    def _states(self, place: Place, piece: Piece, step: Step, passes: int, flight: int) -> States:
        """Return what weights decide, with one forward pass of a step and one in flight, or several of them."""
        key = piece.number, place.key, passes, flight, step.structure
        found = self.states.get(key)
        if found is None:
            training = replace(place.decided.training, gradient_accumulation_steps=passes)
            setting = self._setting(place, piece, training, flight)
            found = self.states[key] = _states(setting, step, self.device)
        return found

    def _setting(self, place: Place, piece: Piece, training: Training, flight: int) -> Setting:
        shard = self._shard(piece, place.cut, flight)
        return setting_of(shard, replace(place.decided, training=training), place.cut)

    def _shard(self, piece: Piece, cut: Cutting, flight: int) -> Shard:
        vocabulary = self.model.vocab_size or 0
        return shard_of(piece.stage, cut, vocab_size=vocabulary, flight=flight, label="", num_ranks=1)


def varied(training: Training, micro_batch: int, accumulation: int, recompute: str) -> Training:
    """Return the workload of a candidate; modules are named for selective recomputation only."""
    return replace(
        training,
        micro_batch=micro_batch,
        gradient_accumulation_steps=accumulation,
        recompute=recompute,
        recompute_modules=training.recompute_modules if recompute == "selective" else None,
    )


def _step(setting: Setting) -> Step:
    cost = step_of(setting)
    ends = [(1, False)] * (cost.embedding is not None), [(1, True)] * (cost.head is not None)
    return Step(setting, cost, (*ends[0], *((times, False) for _, times in cost.blocks), *ends[1]))


def _tokens(step: Step, states: States) -> Tokens:
    """Return what tokens decide at every point; of the states only which points there are is asked."""
    runs = tuple(
        Run(block=block, times=times, unit=TRAVELS if reduces else NOTHING, loss=loss)
        for (block, (times, loss)), reduces in zip(_blocks(step), states.reduces, strict=True)
    )
    walk = Walk(setting=step.setting, runs=runs, held_bytes=step.cost.held_bytes)
    rows: dict[Phase, list[Sums]] = {}
    kept: dict[tuple[int, ...], Sums] = {}
    for point in points(runs):
        if point.counts not in kept:
            kept[point.counts] = _figures(walk.kept(point.counts))
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


def _figures(parts: Iterable[tuple[str, int]]) -> Sums:
    """Return expected and high of what is kept or worked with, each part's band for itself."""
    sizes = [size for _, size in parts]
    return sum(sizes), sum(band_of(size)[1] for size in sizes)


def _blocks(step: Step) -> list[tuple[BlockStep, tuple[int, bool]]]:
    cost = step.cost
    blocks = [cost.embedding] * (cost.embedding is not None) + [b for b, _ in cost.blocks]
    blocks += [cost.head] * (cost.head is not None)
    return list(zip(blocks, step.structure, strict=True))  # type: ignore[arg-type]


def _states(setting: Setting, step: Step, device: Device) -> States:
    """Return what weights decide at every point, and in the phases without one."""
    walk = Walk(setting=setting, runs=runs_of(step.cost, setting))
    items = (*standing_items(setting), *process_items(setting.shard, device))
    inside, outside = _sums(items, allocated=True), _sums(items, allocated=False)
    rows: dict[Phase, list[int]] = {}
    for point in points(walk.runs):
        gradients, buffers = walk.states(point)
        rows.setdefault(point.phase(walk.runs[point.run]), []).append(gradients + sum(b.bytes for b in buffers))
    for alive in other_moments(walk):
        size = alive.gradients + sum(b.bytes for b in alive.buffers)
        inside[alive.phase] = _plus(inside[alive.phase], (size, size))
    here = tuple(phase for phase in PASSES if phase in rows)
    others = [phase for phase in WHILE_TRAINING if phase not in here and phase is not Phase.EVALUATION]
    return States(
        rows=tuple(tuple(rows[phase]) for phase in here),
        standing=tuple(inside[phase] for phase in here),
        process=tuple(outside[phase] for phase in here),
        evaluation=inside[Phase.EVALUATION],
        evaluation_process=outside[Phase.EVALUATION],
        allocated=_largest(inside[phase] for phase in others),
        whole=_largest(_plus(inside[phase], outside[phase]) for phase in others),
        loaded=inside[Phase.LOAD][0],
        passes=walk.passes,
        reduces=tuple(bool(run.unit.reduced_bytes) for run in walk.runs),
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
