"""Predictions beside measurements: one row per figure, a summary per engine and quantity, and what was skipped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf
from statistics import median, quantiles

from vramfit.answer import forward
from vramfit.catalogue.device import find_device
from vramfit.errors import InvalidValueError, UnknownNameError, VramfitError
from vramfit.measured import MeasuredRun, Measurement
from vramfit.request import Request
from vramfit.result import Breakdown, Estimate, Quantity, Reading
from vramfit.rule_of_thumb import serving_rule, weights_rule
from vramfit.training import TrainingRequest

CAPACITIES = frozenset({Quantity.KV_CACHE, Quantity.KV_CACHE_TOKENS, Quantity.REQUESTS_AT_CONTEXT})
"""Quantities of which the smallest rank decides; of all others the largest does."""
STORED = frozenset({Quantity.WEIGHTS, Quantity.MODEL_BUFFER, Quantity.LOADED})
PEAKS = frozenset({Quantity.ALLOCATED_PEAK, Quantity.ACTIVE_PEAK, Quantity.RESERVED_PEAK, Quantity.PROCESS_PEAK})
BITS = (4, 8, 16, 32)
"""Widths that the rules know."""
UNDER_BEYOND = 0.02
"""An under-estimate counts as one when it is off by more than this share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, measured and predicted."""

    id: str
    engine: str
    quantity: Quantity
    measured: float
    predicted: float
    low: float
    high: float
    inside: bool
    """Whether the measured figure lies between low and high, give or take how finely it was printed."""
    rule: float | None = None
    """What the widely quoted rule of thumb says of it; None = no rule speaks of this quantity."""

    @property
    def error_ratio(self) -> float:
        """Predicted over measured, less one; of a measured zero, zero or infinity."""
        if not self.measured:
            return inf if self.predicted else 0.0
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How one engine's figures of one quantity are met."""

    engine_or_framework: str
    quantity: Quantity
    n: int
    median_abs_error_ratio: float
    p90_abs_error_ratio: float
    worst_id: str
    worst_error_ratio: float
    under_estimate_ratio: float
    """Share of rows predicted too small by more than ``UNDER_BEYOND``; of capacities, too large."""
    inside_band_ratio: float
    median_band_ratio: float
    """Median width of the band over the prediction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A run, or one of its figures, that cannot be predicted, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Everything that came out."""

    rows: tuple[Row, ...]
    summary: tuple[Summary, ...]
    skipped: tuple[Skipped, ...]


def validate(runs: Iterable[MeasuredRun]) -> Accuracy:
    """Predict every figure of every run and compare; what cannot be predicted is skipped with its reason."""
    rows: list[Row] = []
    skipped: list[Skipped] = []
    for run in runs:
        request = run.request
        if isinstance(request, TrainingRequest):
            skipped.append(Skipped(id=run.id, reason="training is not predicted in this version"))
            continue
        try:
            estimate = _estimate(request)
        except VramfitError as error:
            skipped.append(Skipped(id=run.id, reason=str(error)))
            continue
        for measurement in run.measured:
            found = _predicted(estimate, measurement)
            if found is None:
                skipped.append(Skipped(id=run.id, reason=_why_not(run, measurement)))
                continue
            rule = rule_of_thumb(request, estimate, measurement.quantity)
            rows.append(replace(_row(run, measurement, *found), rule=rule))
    return Accuracy(rows=tuple(rows), summary=tuple(_summaries(rows)), skipped=tuple(skipped))


def _estimate(request: Request) -> Estimate:
    """Return what is predicted; on a card that we cannot name, what does not depend on it."""
    try:
        return forward(request)
    except (InvalidValueError, UnknownNameError) as error:
        if error.path != "device":
            raise
    return forward(replace(request, device=None))


def _row(run: MeasuredRun, measurement: Measurement, predicted: float, low: float, high: float) -> Row:
    slack = measurement.resolution_bytes / 2
    return Row(
        id=run.id,
        engine=run.runtime,
        quantity=measurement.quantity,
        measured=measurement.value,
        predicted=predicted,
        low=low,
        high=high,
        inside=low - slack <= measurement.high and measurement.low <= high + slack,
    )


def rule_of_thumb(request: Request, estimate: Estimate, quantity: Quantity) -> float | None:
    """Return what the rules that everybody quotes say of a figure, per device; None where they are silent. [B]

    weights: parameters * bits / 8; a peak: 1.2 times that; a server's pool: 0.9 of the card less the weights
    """
    parameters, devices = estimate.model.parameters, sum(rank.num_ranks for rank in estimate.breakdowns)
    bits = min(BITS, key=lambda b: abs(b - 8 * estimate.weights_bytes / parameters)) if parameters else 16
    weights = weights_rule(parameters, bits).result_bytes / devices
    if quantity in STORED:
        return weights
    if quantity in PEAKS:
        return serving_rule(parameters, bits).result_bytes / devices
    if quantity is Quantity.KV_CACHE and (request.device or request.device_memory_bytes):
        card = request.device_memory_bytes or find_device(str(request.device)).capacity_bytes
        return max(0.0, (request.workload.memory_fraction or 0.9) * card - weights)
    return None


def _why_not(run: MeasuredRun, measurement: Measurement) -> str:
    missing = "; no device is named" if run.request.device is None and run.request.device_memory_bytes is None else ""
    return f"{measurement.quantity.value}: engine {run.runtime} is not predicted to print it{missing}"


def _predicted(estimate: Estimate, measurement: Measurement) -> tuple[float, float, float] | None:
    """Return value, low and high of a quantity over the ranks that its scope names; None = it is not predicted."""
    found = [(rank, reading) for rank in estimate.breakdowns for reading in rank.readings
             if reading.quantity is measurement.quantity]  # fmt: skip
    if not found:
        return None
    if measurement.scope == "sum":
        return tuple(sum(getattr(r, f) * rank.num_ranks for rank, r in found) for f in ("value", "low", "high"))
    if measurement.scope.startswith("device:"):
        found = [_of_device(found, int(measurement.scope.removeprefix("device:")))]
    choose = min if measurement.quantity in CAPACITIES else max
    reading = choose((r for _, r in found), key=lambda r: r.value)
    return float(reading.value), float(reading.low), float(reading.high)


def _of_device(found: list[tuple[Breakdown, Reading]], number: int) -> tuple[Breakdown, Reading]:
    """Return the reading of the device with that number, ranks in order of their stages."""
    each = [pair for pair in found for _ in range(pair[0].num_ranks)]
    return each[min(number, len(each) - 1)]


def _summaries(rows: list[Row]) -> Iterable[Summary]:
    groups: dict[tuple[str, Quantity], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.engine, row.quantity), []).append(row)
    for (engine, quantity), group in sorted(groups.items()):
        errors = [row.error_ratio for row in group]
        worst = max(group, key=lambda row: abs(row.error_ratio))
        wrong = -1 if quantity in CAPACITIES else 1
        yield Summary(
            engine_or_framework=engine,
            quantity=quantity,
            n=len(group),
            median_abs_error_ratio=median(map(abs, errors)),
            p90_abs_error_ratio=ninetieth([abs(e) for e in errors]),
            worst_id=worst.id,
            worst_error_ratio=worst.error_ratio,
            under_estimate_ratio=sum(wrong * e < -UNDER_BEYOND for e in errors) / len(group),
            inside_band_ratio=sum(row.inside for row in group) / len(group),
            median_band_ratio=median((row.high - row.low) / row.predicted if row.predicted else 0 for row in group),
        )


def ninetieth(values: list[float]) -> float:
    """Return the 90th percentile, between neighbours; of one value, itself.

    >>> ninetieth([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1])
    1.0
    """
    return quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]
