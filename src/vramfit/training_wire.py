"""Answers about training as JSON, version 1: encoding and JSON Schema; shapes that serving has too come from there."""

from __future__ import annotations

from typing import Any

import msgspec

from vramfit.answer_wire import (
    BreakdownWire,
    ChangeWire,
    ChoiceWire,
    FitWire,
    ItemWire,
    LimitWire,
    ModelWire,
    OptionWire,
    breakdown_wire,
    choice_wire,
    converted,
    fit_wire,
    option_wire,
    sums_of,
)
from vramfit.result import Counter, Phase
from vramfit.timeline import Timeline
from vramfit.training_result import TrainingAnswer
from vramfit.wire import RequestWire, request_wire, shipped_schema


class MomentWire(msgspec.Struct):
    """What torch would count as allocated at one point of a step."""

    phase: Phase
    label: str
    parts: dict[str, int]
    total_bytes: int


class TimelineWire(msgspec.Struct):
    """The moments of one step on one rank, in order of time."""

    rank: str
    moments: list[MomentWire]


class HostWire(msgspec.Struct):
    """What one distinct rank holds in host memory."""

    rank: str
    items: list[ItemWire]
    total_bytes: int


class BandWire(msgspec.Struct):
    """One of the three readings, on the worst rank."""

    low_bytes: int
    expected_bytes: int
    high_bytes: int


class TrainingAnswerWire(msgspec.Struct, kw_only=True):
    """The whole answer about one training run."""

    schema: int = 1
    model: ModelWire
    trained_parameters: int
    request: RequestWire
    choices: list[ChoiceWire]
    assumptions: list[str]
    breakdowns: list[BreakdownWire]
    timelines: list[TimelineWire]
    host: list[HostWire]
    host_bytes: int
    peak_bytes: int
    peak_phase: Phase
    peak_at: str
    why: str
    low_bytes: int
    expected_bytes: int
    high_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    process_bytes: int
    readings: dict[str, BandWire]
    not_counted: list[str]
    verdict: FitWire
    largest_micro_batch: LimitWire | None
    longest_sequence: LimitWire | None
    cheapest_recompute: str | None
    device_options: list[OptionWire]
    changes: list[ChangeWire]


def training_answer_to_json(answer: TrainingAnswer) -> bytes:
    """Encode an answer, indented."""
    return msgspec.json.format(msgspec.json.encode(_answer_wire(answer)), indent=2)


def training_answer_schema() -> dict[str, Any]:
    """Return the JSON Schema of an answer about training."""
    return shipped_schema("training_answer.v1.json")


def _answer_wire(answer: TrainingAnswer) -> TrainingAnswerWire:
    estimate = answer.estimate
    worst = estimate.worst
    bands = {counter.value: worst.peak(counter) for counter in Counter}
    limits = (answer.largest_micro_batch, answer.longest_sequence)
    micro_batch, sequence = (None if limit is None else converted(limit, LimitWire) for limit in limits)
    return TrainingAnswerWire(
        model=converted(estimate.model, ModelWire, layers=dict(estimate.model.layers)),
        trained_parameters=estimate.trained_parameters,
        request=request_wire(answer.request),
        choices=[choice_wire(choice) for choice in estimate.choices],
        assumptions=list(estimate.assumptions),
        breakdowns=[breakdown_wire(rank) for rank in estimate.breakdowns],
        timelines=[_timeline_wire(timeline) for timeline in estimate.timelines],
        host=list(_hosts(answer)),
        host_bytes=estimate.host_bytes,
        **sums_of(worst),
        peak_at=estimate.worst_timeline.peak.label,
        why=estimate.why,
        readings={name: converted(band, BandWire) for name, band in bands.items()},
        not_counted=list(estimate.not_counted),
        verdict=fit_wire(answer.fit),
        largest_micro_batch=micro_batch,
        longest_sequence=sequence,
        cheapest_recompute=answer.cheapest_recompute,
        device_options=[option_wire(option) for option in answer.device_options],
        changes=[converted(change, ChangeWire) for change in answer.changes],
    )


def _timeline_wire(timeline: Timeline) -> TimelineWire:
    moments = [
        MomentWire(phase=m.phase, label=m.label, parts=dict(m.parts), total_bytes=m.total_bytes)
        for m in timeline.moments
    ]
    return TimelineWire(rank=timeline.rank, moments=moments)


def _hosts(answer: TrainingAnswer) -> list[HostWire]:
    """Return the host memory of each distinct rank that holds any."""
    ranks = zip(answer.estimate.breakdowns, answer.estimate.hosts, strict=True)
    return [
        HostWire(
            rank=rank.rank,
            items=[converted(item, ItemWire, phases=list(item.phases)) for item in items],
            total_bytes=sum(item.bytes for item in items),
        )
        for rank, items in ranks
        if items
    ]
