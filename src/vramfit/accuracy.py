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
from vramfit.rule_of_thumb import TYPICAL_TRAINABLE_DIVISOR, lora_rule, serving_rule, training_rule, weights_rule
from vramfit.source import read_model
from vramfit.traced import traced_readings
from vramfit.train import estimate_training
from vramfit.training import Training, TrainingRequest
from vramfit.training_result import TrainingEstimate
from vramfit.workload import TraceRequest

CAPACITIES = frozenset({Quantity.KV_CACHE, Quantity.KV_CACHE_TOKENS, Quantity.REQUESTS_AT_CONTEXT})
"""Quantities of which the smallest rank decides; of all others the largest does."""
STORED = frozenset({Quantity.WEIGHTS, Quantity.MODEL_BUFFER, Quantity.LOADED})
PEAKS = frozenset({Quantity.ALLOCATED_PEAK, Quantity.ACTIVE_PEAK, Quantity.RESERVED_PEAK, Quantity.PROCESS_PEAK})
BITS = (4, 8, 16, 32)
"""Widths that the rules know."""
WIDTHS = {"32": 32, "nf4": 4, "int4": 4, "int8": 8}
"""Part of a format's name and its width; all others are of 16 bits."""
UNDER_BEYOND = 0.02
"""An under-estimate counts as one when it is off by more than this share."""
UNDER_BEYOND_TRAINING = 0.05
"""The same for training: reserved memory differs by up to 4.7 % between ranks that do the same work (23 groups of
ranks in the raw data of MooreThreads/SimuMax:docs/b200)."""


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
    trains: bool = False
    """True: a training run."""
    rule: float | None = None
    """What the widely quoted rule of thumb says of it; None = no rule speaks of this quantity."""
    incomplete: tuple[str, ...] = ()
    """What the source leaves open that the figure depends on."""

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
    trains: bool = False
    """True: of training runs, whose under-estimates count from ``UNDER_BEYOND_TRAINING`` on."""


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
        try:
            if isinstance(request, TraceRequest):
                traced = traced_readings(request)
                rows += [_row(run, m, *traced[m.quantity]) for m in run.measured if m.quantity in traced]
                continue
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


def _estimate(request: Request | TrainingRequest) -> Estimate | TrainingEstimate:
    """Return what is predicted; on a card that we cannot name, what does not depend on it."""
    try:
        return _trained(request) if isinstance(request, TrainingRequest) else forward(request)
    except (InvalidValueError, UnknownNameError) as error:
        if error.path != "device":
            raise
    nowhere = replace(request, device=None)
    return _trained(nowhere) if isinstance(nowhere, TrainingRequest) else forward(nowhere)


def _trained(request: TrainingRequest) -> TrainingEstimate:
    model = read_model(request.config or str(request.model), name=request.model)
    device = None if request.device is None else find_device(request.device)
    return estimate_training(model, request.workload, request.plan, device, request.device_count)


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
        trains=isinstance(run.request, TrainingRequest),
        incomplete=run.incomplete,
    )


def training_rule_of_thumb(workload: Training, parameters: int, devices: int, quantity: Quantity) -> float:
    """Return what ``vramfit rough --training`` says of a figure, the whole divided over the devices. [B]

        loaded: parameters * bits / 8; full: four times that; adapters: that and 16 B for each of their parameters

    Bits are those of the weights: of the frozen base with adapters, 32 for mixed precision.
    """
    base = workload.base_format or ("fp32" if workload.precision is None else workload.precision.partition("-")[0])
    mixed = workload.method == "full" and (workload.precision or "").endswith("-mixed")
    bits = 32 if mixed else next((b for word, b in WIDTHS.items() if word in base), 16)
    if quantity in STORED:
        return weights_rule(parameters, bits).result_bytes / devices
    if workload.method == "full":
        return training_rule(parameters, bits).result_bytes / devices
    some = max(1, parameters // TYPICAL_TRAINABLE_DIVISOR)
    return lora_rule(parameters, bits, some).result_bytes / devices


def rule_of_thumb(
    request: Request | TrainingRequest, estimate: Estimate | TrainingEstimate, quantity: Quantity
) -> float | None:
    """Return what the rules that everybody quotes say of a figure, per device; None where they are silent. [B]

    weights: parameters * bits / 8; a peak: 1.2 times that; a server's pool: 0.9 of the card less the weights;
    training: ``training_rule_of_thumb``
    """
    if isinstance(request, TrainingRequest):
        return training_rule_of_thumb(request.workload, estimate.model.parameters, request.plan.num_devices, quantity)
    assert isinstance(estimate, Estimate)
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


def _predicted(estimate: Estimate | TrainingEstimate, measurement: Measurement) -> tuple[float, float, float] | None:
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
    groups: dict[tuple[bool, str, Quantity], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.trains, row.engine, row.quantity), []).append(row)
    for _, group in sorted(groups.items()):
        yield summary(group)


def summary(group: list[Row]) -> Summary:
    """Say how figures of one quantity of one engine are met."""
    errors = [row.error_ratio for row in group]
    worst = max(group, key=lambda row: abs(row.error_ratio))
    wrong = -1 if worst.quantity in CAPACITIES else 1
    beyond = UNDER_BEYOND_TRAINING if worst.trains else UNDER_BEYOND
    return Summary(
        engine_or_framework=worst.engine,
        quantity=worst.quantity,
        n=len(group),
        median_abs_error_ratio=median(map(abs, errors)),
        p90_abs_error_ratio=ninetieth([abs(e) for e in errors]),
        worst_id=worst.id,
        worst_error_ratio=worst.error_ratio,
        under_estimate_ratio=sum(wrong * e < -beyond for e in errors) / len(group),
        inside_band_ratio=sum(row.inside for row in group) / len(group),
        median_band_ratio=median((row.high - row.low) / row.predicted if row.predicted else 0 for row in group),
        trains=worst.trains,
    )


def ninetieth(values: list[float]) -> float:
    """Return the 90th percentile, between neighbours; of one value, itself.

    >>> ninetieth([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1])
    1.0
    """
    return quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]
