"""Which meshes fit, and which first: every candidate counted by the functions that answer a single question.

There is no second formula: ``mesh_count`` puts together what the parts of ``train`` return, each part once for all
candidates that share it; what is shown at the end is counted once more in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType

from vramfit.catalogue.link import links_of
from vramfit.device import Device
from vramfit.errors import ImpossiblePlanError, InvalidValueError, VramfitError
from vramfit.fit import fit
from vramfit.formats import weight_format
from vramfit.framework import Framework
from vramfit.frameworks.abilities import ABILITIES, Division, divisions
from vramfit.frameworks.profile import find_framework
from vramfit.mesh import Candidate, Links, MeshAnswer, Proxy, Ranked
from vramfit.mesh_axes import DEGREES, DIVISIONS, Axes, Spread, Tally, spreads
from vramfit.mesh_count import MeshCount, Need, Place, varied
from vramfit.mesh_proxy import Exchanges, Traffic, exchanges
from vramfit.request import MOST_RANKS, Plan
from vramfit.spec import ModelSpec
from vramfit.train import estimate_training
from vramfit.training import Training
from vramfit.units import check_size

PER_DEVICE = 4
"""Sequences of one step for each device, where no global batch is given: a stated assumption."""
SHOWN = 20
DOES_NOT_FIT = "does not fit"
FIXABLE = (
    "dp_replicate", "dp_shard", "tp", "pp", "cp", "ep", "etp", "zero_stage", "pp_schedule", "virtual_stages",
    "distributed_optimizer", "reshard_after_forward", "sequence_parallel", "vocab_tp", "micro_batch", "recompute",
)  # fmt: skip
"""What a question may hold fast instead of leaving it to the search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshQuestion:
    """A model, how it is trained, and how many devices of one kind there are."""

    model: ModelSpec
    workload: Training
    """Its micro-batch, recomputation and accumulation are what the search varies."""
    device: Device
    num_devices: int
    global_batch: int | None = None
    """Sequences of one step, all ranks together; None = ``PER_DEVICE`` for each device."""
    headroom_bytes: int = 0
    links: Links | None = None
    """None = by the catalogue."""
    fixed: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Fields of ``FIXABLE`` that are given."""
    most: int = SHOWN
    """How many ranked candidates are returned."""
    every: bool = False
    """True: all candidates are ranked; False: the best of each mesh."""


@dataclass(frozen=True, slots=True)
class Found:
    """One candidate that was counted."""

    spread: Spread
    micro_batch: int
    recompute: str
    need: Need
    proxy: Proxy
    tight: bool

    @property
    def candidate(self) -> Candidate:
        """The candidate as a noun."""
        return Candidate(
            plan=self.spread.plan(self.micro_batch),
            micro_batch=self.micro_batch,
            accumulation=self.spread.sequences // self.micro_batch,
            recompute=self.recompute,
        )

    @property
    def place(self) -> tuple[bool, float, float, int]:
        """Sorts fitting before tight, cheap before dear, of equals what exchanges less, then the emptier."""
        return self.tight, self.proxy.cost, self.proxy.exchange_ratio, self.need.expected_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search over meshes works with, and what it finds."""

    question: MeshQuestion
    axes: Axes
    count: MeshCount
    traffic: Traffic
    links: Links
    tally: Tally = field(default_factory=Tally)
    lacking: list[Found] = field(default_factory=list)
    """At most one: of the candidates that do not fit the one that lacks least."""

    @property
    def room(self) -> int:
        """What a device has, less headroom. [B]"""
        return self.question.device.capacity_bytes - self.question.headroom_bytes

    def candidates(self) -> Iterator[Found]:
        """Count every candidate; yield those that fit, tally the others."""
        for spread in spreads(self.axes, self.tally):
            try:
                place = self.count.place(Plan(**spread.fields))  # type: ignore[arg-type]
            except ImpossiblePlanError as error:
                many = len(spread.micro_batches) * len(spread.recomputes)
                self.tally.refuse(reason(error), many, str(error))
                continue
            for recompute in spread.recomputes:
                yield from self._fitting(spread, place, recompute)

    def _fitting(self, spread: Spread, place: Place, recompute: str) -> Iterator[Found]:
        """Yield the micro-batches that fit, smallest first.

        Where one does not, larger ones of as many or fewer passes need no less and are not counted: tokens that are
        kept grow with the micro-batch, forward passes in flight fall at most as it grows. Only a step of a single
        pass is another program, whose gradients are not there from the start: it is counted.
        """
        lacks, sent = False, None
        for micro_batch in spread.micro_batches:
            accumulation = spread.sequences // micro_batch
            if lacks and accumulation > 1:
                self.tally.refuse(DOES_NOT_FIT, 1, "")
                continue
            need = self.count.need(place, micro_batch, accumulation, recompute)
            if need.expected_bytes <= self.room:
                sent = sent or self._exchanges(spread, place, recompute)
                yield self._found(spread, place, micro_batch, recompute, need, sent)
                continue
            lacks = True
            self.tally.refuse(DOES_NOT_FIT, 1, "")
            if not self.lacking or need.expected_bytes < self.lacking[0].need.expected_bytes:
                sent = sent or self._exchanges(spread, place, recompute)
                self.lacking[:] = [self._found(spread, place, micro_batch, recompute, need, sent)]

    def _exchanges(self, spread: Spread, place: Place, recompute: str) -> Exchanges:
        cut = place.cut
        return exchanges(
            self.traffic, self.links, cut.plan, sequences=spread.sequences, recompute=recompute, divided=cut.zero_stage
        )

    def _found(
        self, spread: Spread, place: Place, micro_batch: int, recompute: str, need: Need, sent: Exchanges
    ) -> Found:
        cost = sent.proxy(place.cut.plan, spread.sequences // micro_batch)
        return Found(spread, micro_batch, recompute, need, cost, need.high_bytes > self.room)

    def ranked(self, found: Found) -> Ranked:
        """Count a candidate once more in full.

        Raises:
            AssertionError: the search and ``estimate_training`` disagree.
        """
        question, candidate = self.question, found.candidate
        workload = varied(question.workload, candidate.micro_batch, candidate.accumulation, candidate.recompute)
        estimate = estimate_training(question.model, workload, candidate.plan, question.device, question.num_devices)
        judged = fit(estimate.breakdowns, question.device, question.headroom_bytes)
        peak = self.room - judged.margin_bytes
        assert peak == found.need.expected_bytes, "one formula"
        return Ranked(
            candidate=replace(candidate, plan=estimate.plan),
            proxy=found.proxy,
            verdict=judged.verdict,
            peak_bytes=peak,
            high_bytes=self.room - judged.high_margin_bytes,
            margin_bytes=judged.margin_bytes,
            heaviest_rank=judged.worst_rank,
        )


def reason(error: VramfitError) -> str:
    """Return the kind of a refusal that a formula made."""
    text = str(error)
    kinds = {"layer": "the layers", "piece": "the layers", "stage": "the layers", "expert": "the experts"}
    what = next((kind for word, kind in kinds.items() if word in text), "heads or widths")
    return f"does not divide {what}"


def search_of(question: MeshQuestion) -> Search:
    """Return the search that answers a question.

    Raises:
        VramfitError: a question that cannot be.
    """
    _check(question)
    framework, _ = find_framework(question.workload.framework, question.workload.framework_version)
    count = MeshCount(question.model, question.workload, question.device, framework)
    decided, marked = count.decided(Plan(dp_shard=question.num_devices))
    sequence = decided.training.sequence_tokens
    assert sequence is not None, "decided"
    abilities = ABILITIES[framework.name]
    axes = Axes(
        model=question.model,
        framework=framework,
        abilities=abilities,
        num_devices=question.num_devices,
        global_batch=question.global_batch or PER_DEVICE * question.num_devices,
        sequence_tokens=sequence,
        fixed=question.fixed,
    )
    traffic = Traffic(
        model=marked,
        sequence_tokens=sequence,
        compute_bytes=weight_format(decided.recipe.compute_format).block_bytes,
        reduce_bytes=weight_format(decided.recipe.reduce_format).block_bytes,
        selective_repeats_matrices=abilities.selective_repeats_matrices,
    )
    return Search(
        question=question, axes=axes, count=count, traffic=traffic, links=question.links or links_of(question.device)
    )


def rank_meshes(question: MeshQuestion) -> MeshAnswer:
    """Return the meshes that fit, ranked by the proxy, and why the others were refused.

    Raises:
        VramfitError: a question that cannot be; one that merely has no fitting mesh is answered.
    """
    search = search_of(question)
    found = sorted(search.candidates(), key=lambda each: each.place)
    num_tight = sum(each.tight for each in found)
    axes, tally = search.axes, search.tally
    chosen = found if question.every else best_of_each(found)
    ranked = tuple(search.ranked(each) for each in chosen[: question.most])
    assumptions = [*search.count.decided(Plan())[0].assumptions]
    if question.global_batch is None:
        assumptions.append(f"global batch {axes.global_batch}: {PER_DEVICE} sequences for each device, none was given")
    if search.links.source.startswith("assumed"):
        assumptions.append(search.links.source)
    return MeshAnswer(
        model=question.model.name,
        device=question.device.name,
        num_devices=question.num_devices,
        framework=axes.framework.name,
        sequence_tokens=axes.sequence_tokens,
        global_batch=axes.global_batch,
        links=search.links,
        ranked=ranked,
        every=question.every,
        num_fitting=len(found) - num_tight,
        num_tight=num_tight,
        refusals=tally.refusals,
        num_candidates=len(found) + tally.num_candidates,
        because=because(ranked, tally),
        assumptions=tuple(assumptions),
        nearest=search.ranked(search.lacking[0]) if search.lacking and not found else None,
    )


def best_of_each(found: Iterable[Found]) -> list[Found]:
    """Return the first candidate of every mesh, in order."""
    first: dict[tuple[object, ...], Found] = {}
    for each in found:
        first.setdefault(tuple(each.spread.fields.get(name, 1) for name in (*DEGREES, "ep", "etp")), each)
    return list(first.values())


def because(ranked: tuple[Ranked, ...], tally: Tally) -> str:
    """Say why the first is first; where there is none, what stands most in the way."""
    if not ranked:
        reasons = [refusal.reason for refusal in tally.refusals]
        return f"none fits; most candidates: {reasons[0]}" if reasons else "no candidate at all"
    first, others = ranked[0], ranked[1:]
    said = said_of(first)
    other = next((each for each in others if each.candidate.plan != first.candidate.plan), None)
    if other is None:
        return said
    return f"{said}; the next plan costs {other.proxy.cost:.3f}: {said_of(other)}"


def said_of(ranked: Ranked) -> str:
    """Say what makes up the cost of one candidate, in the words of the proxy's formula."""
    cost = ranked.proxy
    hidden = cost.passing_ratio <= 1 and cost.once_ratio <= 1 / cost.passes
    beside = cost.passing_ratio + cost.once_ratio
    parts = (
        (cost.waiting_ratio, f"matrices wait {100 * cost.waiting_ratio:.1f} % of their time for exchanges"),
        (beside, f"weights and gradients travel {100 * beside:.1f} % of it{', hidden behind them' if hidden else ''}"),
        (cost.bubble_ratio, f"stages wait {100 * cost.bubble_ratio:.1f} % of a step for one another"),
        (cost.recompute_ratio, f"{100 * cost.recompute_ratio:.0f} % of the forward pass runs twice"),
        (not cost.between_bytes, "nothing leaves a node"),
    )
    return ", ".join(text for amount, text in parts if amount) or "nothing is exchanged and nothing runs twice"


def _check(question: MeshQuestion) -> None:
    """Refuse what cannot be asked.

    Raises:
        VramfitError: the field, what was seen, what was expected.
    """
    check_size(question.num_devices, "gpus")
    if question.num_devices > MOST_RANKS:
        raise InvalidValueError("gpus", question.num_devices, f"at most {MOST_RANKS}")
    check_size(question.headroom_bytes, "headroom_bytes", smallest=0)
    if question.global_batch is not None:
        check_size(question.global_batch, "global_batch")
    if question.model.components or not question.model.layers:
        raise ImpossiblePlanError(
            f"{question.model.name}: no layers to spread: expected a language model or an encoder; "
            "diffusion pipelines are not divided here"
        )
    if question.workload.objective != "next-token":
        raise InvalidValueError(
            "workload.objective", question.workload.objective, '"next-token"',
            "models and engines beside the trained one are not searched: ask vramfit train with a plan",
        )  # fmt: skip
    _check_fixed(question)
    _check_able(question)


def _check_fixed(question: MeshQuestion) -> None:
    """Refuse what is held fast and cannot be."""
    fixed = question.fixed
    for name, value in fixed.items():
        if name not in FIXABLE:
            raise InvalidValueError(f"plan.{name}", value, f"one of {', '.join(FIXABLE)}", "the search decides it")
        if isinstance(value, int) and not isinstance(value, bool):
            check_size(value, f"plan.{name}", smallest=0 if name == "zero_stage" else 1)
    product = prod(int(str(fixed.get(name, 1))) for name in DEGREES)
    if question.num_devices % product:
        given = " x ".join(f"{name} {fixed[name]}" for name in DEGREES if name in fixed)
        raise ImpossiblePlanError(
            f"gpus: {question.num_devices}: expected a multiple of {product}, the product of the given degrees "
            f"({given}); change one of them"
        )
    if fixed.get("pp") == 1:
        for name in ("pp_schedule", "virtual_stages"):
            if name in fixed:
                raise InvalidValueError(f"plan.{name}", fixed[name], "pp above 1 beside it")


def _check_able(question: MeshQuestion) -> None:
    """Refuse what is held fast and the framework does not have."""
    framework, _ = find_framework(question.workload.framework, question.workload.framework_version)
    able, fixed = ABILITIES[framework.name], question.fixed
    known = {"recompute": able.recomputes, "pp_schedule": able.schedules}
    for name, values in known.items():
        if name in fixed and fixed[name] not in values:
            raise InvalidValueError(name, fixed[name], f"what {framework.name} has: {', '.join(values) or 'none'}")
    for name in (*DEGREES, "ep"):
        if name in fixed and fixed[name] != 1 and name not in able.degrees:
            has = ", ".join(sorted(able.degrees))
            raise InvalidValueError(f"plan.{name}", fixed[name], f"1 with {framework.name}, which has {has}")
    for name in DIVISIONS:
        if name in fixed and not any(fixed[name] == way.get(name) for way in _ways(framework)):
            raise InvalidValueError(f"plan.{name}", fixed[name], f"a way in which {framework.name} divides states")


def _ways(framework: Framework) -> tuple[Division, ...]:
    """Return every way in which a framework divides states, where tensor and pipeline parallelism leave it free."""
    return divisions(framework, data_ranks=2, shard_ranks=2, tp=1, pp=1)
