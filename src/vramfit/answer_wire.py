"""Answers as JSON, version 1: encoding and JSON Schema.

The shapes are declared once, as structs; encoding comes from them, and so does the schema in ``schema/``, which
``scripts/docs`` writes with the words of ``result`` as descriptions.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vramfit.result import (
    Answer,
    Basis,
    Breakdown,
    Choice,
    Counter,
    DeviceOption,
    Estimate,
    Fit,
    Phase,
    Quantity,
    Verdict,
    in_words,
)
from vramfit.wire import PlanWire, RequestWire, plan_wire, request_wire, shipped_schema


class ModelWire(msgspec.Struct):
    """The model as understood."""

    name: str
    family: str
    parameters: int
    active_parameters: int
    layers: dict[str, int]
    evidence: str


class ChoiceWire(msgspec.Struct):
    """A field that was left open: what was taken, and why."""

    field: str
    value: str | int | float | bool | None
    why: str


class TotalWire(msgspec.Struct):
    """Low, expected and high of one moment. [B]"""

    low_bytes: int
    expected_bytes: int
    high_bytes: int


class ItemWire(msgspec.Struct):
    """One thing that occupies memory."""

    name: str
    bytes: int
    low_bytes: int
    high_bytes: int
    phases: list[Phase]
    basis: Basis
    formula: str
    source: str
    counter: Counter


class ReadingWire(msgspec.Struct):
    """One figure that the engine, or a counter beside it, would print."""

    quantity: Quantity
    value: int | float
    low: int | float
    high: int | float
    formula: str
    source: str


class ReservationWire(msgspec.Struct):
    """What a server may take."""

    limit_bytes: int
    outside: list[str]
    formula: str


class BreakdownWire(msgspec.Struct):
    """One distinct rank."""

    rank: str
    num_ranks: int
    items: list[ItemWire]
    readings: list[ReadingWire]
    reservation: ReservationWire | None
    phases: dict[str, TotalWire]
    peak_bytes: int
    peak_phase: Phase


class FitWire(msgspec.Struct):
    """The verdict on the device for the worst rank."""

    verdict: Verdict
    device: str | None
    capacity_bytes: int | None
    headroom_bytes: int
    margin_bytes: int | None
    high_margin_bytes: int | None
    worst_rank: str
    largest_item: str


class LimitWire(msgspec.Struct):
    """The largest value that fits."""

    value: int
    bounded_by: str


class PriceWire(msgspec.Struct):
    """What devices rent for on demand: one provider's list price on one day."""

    usd_per_hour: float
    provider: str
    date: str
    terms: str
    source: str


class OptionWire(msgspec.Struct):
    """The fewest devices of one kind; ``count`` 0 = none within the search."""

    device: str
    count: int
    plan: PlanWire
    verdict: Verdict
    margin_bytes: int
    price: PriceWire | None


class ChangeWire(msgspec.Struct):
    """One change and what it brings."""

    flags: str
    saves_bytes: int
    verdict: Verdict
    margin_bytes: int
    note: str


class AnswerWire(msgspec.Struct, kw_only=True):
    """The whole answer."""

    schema: int = 1
    model: ModelWire
    weights_bytes: int
    kv_bytes_per_token: int
    request: RequestWire
    choices: list[ChoiceWire]
    assumptions: list[str]
    breakdowns: list[BreakdownWire]
    peak_bytes: int
    peak_phase: Phase
    low_bytes: int
    expected_bytes: int
    high_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    process_bytes: int
    kv_cache_bytes: int | None
    kv_cache_tokens: int | None
    requests_at_context: float | None
    not_counted: list[str]
    verdict: FitWire
    longest_context: LimitWire | None
    largest_batch: LimitWire | None
    device_options: list[OptionWire]
    changes: list[ChangeWire]


def answer_to_json(answer: Answer) -> bytes:
    """Encode an answer, indented."""
    return msgspec.json.format(msgspec.json.encode(_answer_wire(answer)), indent=2)


def answer_schema() -> dict[str, Any]:
    """Return the JSON Schema of an answer."""
    return shipped_schema("answer.v1.json")


def _answer_wire(answer: Answer) -> AnswerWire:
    estimate = answer.estimate
    return AnswerWire(
        model=converted(estimate.model, ModelWire, layers=dict(estimate.model.layers)),
        weights_bytes=estimate.weights_bytes,
        kv_bytes_per_token=estimate.kv_bytes_per_token,
        request=request_wire(answer.request),
        choices=[choice_wire(choice) for choice in estimate.choices],
        assumptions=list(estimate.assumptions),
        breakdowns=[breakdown_wire(b) for b in estimate.breakdowns],
        **sums_of(estimate.worst),
        kv_cache_bytes=_least(estimate, Quantity.KV_CACHE, int),
        kv_cache_tokens=_least(estimate, Quantity.KV_CACHE_TOKENS, int),
        requests_at_context=_least(estimate, Quantity.REQUESTS_AT_CONTEXT, float),
        not_counted=list(estimate.not_counted),
        verdict=fit_wire(answer.fit),
        longest_context=converted(answer.longest_context, LimitWire) if answer.longest_context else None,
        largest_batch=converted(answer.largest_batch, LimitWire) if answer.largest_batch else None,
        device_options=[option_wire(o) for o in answer.device_options],
        changes=[converted(c, ChangeWire) for c in answer.changes],
    )


def sums_of(worst: Breakdown) -> dict[str, Any]:
    """Return the fields that every answer has of the heaviest rank: its peak, when it is, and the three readings."""
    peak = worst.peak()
    return {
        "peak_bytes": peak.expected_bytes,
        "peak_phase": worst.peak_phase,
        "low_bytes": peak.low_bytes,
        "expected_bytes": peak.expected_bytes,
        "high_bytes": peak.high_bytes,
        **{f"{counter.value}_bytes": worst.peak(counter).expected_bytes for counter in Counter},
    }


def choice_wire(choice: Choice) -> ChoiceWire:
    """Return the struct of a choice; a value of several parts in words."""
    value = choice.value
    if not isinstance(value, str | int | float | bool | None):
        value = in_words(value)
    return ChoiceWire(field=choice.field, value=value, why=choice.why)


def fit_wire(fit: Fit) -> FitWire:
    """Return the struct of a verdict; without a device, without sizes of one."""
    named = bool(fit.device)
    return FitWire(
        verdict=fit.verdict,
        device=fit.device or None,
        capacity_bytes=fit.capacity_bytes if named else None,
        headroom_bytes=fit.headroom_bytes,
        margin_bytes=fit.margin_bytes if named else None,
        high_margin_bytes=fit.high_margin_bytes if named else None,
        worst_rank=fit.worst_rank,
        largest_item=fit.largest_item,
    )


def converted(noun: object, struct: type[Any], **replaced: Any) -> Any:  # noqa: ANN401 - any noun, its own struct
    """Return the struct of a noun: the same fields, save those that are replaced."""
    return struct(**{name: replaced.get(name, getattr(noun, name)) for name in struct.__struct_fields__})


def option_wire(option: DeviceOption) -> OptionWire:
    """Return the struct of the fewest devices of one kind."""
    price = None if option.price is None else converted(option.price, PriceWire)
    return converted(option, OptionWire, plan=plan_wire(option.plan), price=price)  # type: ignore[no-any-return]


def breakdown_wire(breakdown: Breakdown) -> BreakdownWire:
    """Return the struct of one distinct rank."""
    held = breakdown.reservation
    return BreakdownWire(
        rank=breakdown.rank,
        num_ranks=breakdown.num_ranks,
        items=[converted(i, ItemWire, phases=list(i.phases)) for i in breakdown.items],
        readings=[converted(r, ReadingWire) for r in breakdown.readings],
        reservation=converted(held, ReservationWire, outside=list(held.outside)) if held is not None else None,
        phases={phase.value: converted(total, TotalWire) for phase, total in breakdown.totals().items()},
        peak_bytes=breakdown.peak().expected_bytes,
        peak_phase=breakdown.peak_phase,
    )


def _least(estimate: Estimate, quantity: Quantity, kind: type[Any]) -> Any:  # noqa: ANN401 - an int or a float
    """Return the figure of the rank that has least of it; None where no engine prints one."""
    found = [r.value for rank in estimate.breakdowns for r in rank.readings if r.quantity is quantity]
    return kind(min(found)) if found else None
