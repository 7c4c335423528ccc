"""Measured runs as JSON lines, version 1, and what came of predicting them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from vramfit.accuracy import Accuracy
from vramfit.errors import InvalidValueError, UnreadableFileError
from vramfit.measured import Evidence, MeasuredRun, Measurement
from vramfit.readers.json_text import load_bytes, parse_json_object
from vramfit.result import COUNTED, Quantity
from vramfit.trace_wire import is_trace, trace_request_from_mapping
from vramfit.wire import request_from_mapping

FILE_LIMIT_BYTES = 64 * 2**20
LINE_LIMIT_BYTES = 4 * 2**20


class MeasurementWire(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One figure: bytes, or a value for counts; low and high where the source gives only a range."""

    quantity: Quantity
    bytes: int | None = None
    value: float | None = None
    low_bytes: int | None = None
    high_bytes: int | None = None
    resolution_bytes: int = 0
    scope: Annotated[str, msgspec.Meta(pattern="^(device|sum|device:[0-9]{1,4})$")] = "device"


class RunWire(msgspec.Struct, forbid_unknown_fields=True):
    """One line of a file of measured runs."""

    schema: int
    id: str
    request: dict[str, Any]
    measured: list[MeasurementWire]
    source: str
    evidence: Evidence
    note: str = ""
    config_from: str | None = None
    details: dict[str, Any] | None = None
    incomplete: tuple[str, ...] = ()


def load_runs(path: Path) -> tuple[MeasuredRun, ...]:
    """Read a file of measured runs, one JSON object per line.

    Raises:
        UnreadableFileError: a file that is missing or too large, or a line that is no JSON object.
        InvalidValueError: an unknown field or a wrong type; the message says in which line.
    """
    lines = load_bytes(path, FILE_LIMIT_BYTES).splitlines()
    runs = [_run(line, f"{path.name}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not runs:
        raise UnreadableFileError(f"{path}: no measured run in it: expected one JSON object per line")
    return tuple(runs)


def _run(line: bytes, where: str) -> MeasuredRun:
    values = parse_json_object(line, where, LINE_LIMIT_BYTES)
    try:
        wire = msgspec.convert(values, RunWire)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        raise InvalidValueError(f"{where}: {path.rstrip('`') or 'run'}", _shown(values), message) from error
    if wire.schema != 1:
        raise InvalidValueError(f"{where}: schema", wire.schema, "1")
    try:
        read = trace_request_from_mapping if is_trace(wire.request) else request_from_mapping
        request = read(wire.request)
    except InvalidValueError as error:
        raise InvalidValueError(f"{where}: request.{error.path}", error.seen, error.expected) from error
    return MeasuredRun(
        id=wire.id,
        request=request,
        measured=tuple(_measurement(m, f"{where}: measured[{i}]") for i, m in enumerate(wire.measured)),
        source=wire.source,
        evidence=wire.evidence,
        note=wire.note,
        incomplete=wire.incomplete,
    )


def _shown(values: Mapping[str, object]) -> str:
    return str(values.get("id", "a run without id"))[:100]


def _measurement(wire: MeasurementWire, where: str) -> Measurement:
    """Return one figure; counts stand in ``value``, sizes in ``bytes``, ranges in low and high."""
    figure = wire.value if wire.quantity in COUNTED else wire.bytes
    low, high = wire.low_bytes, wire.high_bytes
    if figure is None and (low is None or high is None):
        field = "value" if wire.quantity in COUNTED else "bytes"
        raise InvalidValueError(f"{where}.{field}", None, f"the measured {wire.quantity.value}, or low and high")
    middle = figure if figure is not None else ((low or 0) + (high or 0)) / 2
    if middle <= 0:
        raise InvalidValueError(f"{where}.{wire.quantity.value}", middle, "a figure above 0")
    return Measurement(
        quantity=wire.quantity,
        value=middle,
        low=middle if low is None else low,
        high=middle if high is None else high,
        resolution_bytes=wire.resolution_bytes,
        scope=wire.scope,
    )


def accuracy_to_json(found: Accuracy) -> bytes:
    """Encode rows, summary and what was skipped, indented."""
    rows = [
        {"id": r.id, "quantity": r.quantity, "measured": r.measured, "predicted": r.predicted,
         "error_ratio": r.error_ratio, "low": r.low, "high": r.high}
        for r in found.rows
    ]  # fmt: skip
    return _json({"rows": rows, "summary": _builtins(found.summary), "skipped": _builtins(found.skipped)})


def _builtins(nouns: Iterable[object]) -> Any:  # noqa: ANN401 - JSON
    return msgspec.to_builtins(tuple(nouns))


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
