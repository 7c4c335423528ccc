"""Requests to trace a workload as JSON, version 1: ``workload.kind`` is ``trace``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vramfit.errors import InvalidValueError
from vramfit.names import nearest
from vramfit.workload import TraceRequest, Workload

KIND = "trace"
BESIDE = ("kind", "torch_version", "packages")
"""Fields of the JSON object that say what ran, not what was run."""
TOP = ("workload", "device", "device_memory_bytes")
TEXTS = ("builder", "task", "precision", "optimizer", "optimizer_implementation", "recompute", "alloc_conf")


def is_trace(request: Mapping[str, object]) -> bool:
    """Say whether a request is one to trace."""
    workload = request.get("workload")
    return isinstance(workload, Mapping) and workload.get("kind") == KIND


def trace_request_from_mapping(values: Mapping[str, Any]) -> TraceRequest:
    """Return the request that a decoded JSON object stands for.

    Raises:
        InvalidValueError: an unknown field or a wrong type, with its path and the nearest name.
    """
    _known(values, TOP, "")
    workload = values["workload"]
    own = [field.name for field in fields(Workload)]
    _known(workload, (*BESIDE, *own), "workload.")
    if not isinstance(workload.get("builder"), str):
        raise InvalidValueError("workload.builder", workload.get("builder"), "the name of a builder")
    program = {name: workload[name] for name in own if workload.get(name) is not None}
    for name in TEXTS:
        _typed(program, name, str, "a text")
    for name in ("arguments", "packages"):
        _typed(workload, name, Mapping, "an object")
    for name in ("cudnn_benchmark",):
        _typed(program, name, bool, "true or false")
    _typed(program, "clip_norm", (int, float), "a number")
    _typed(workload, "torch_version", str, "a version such as 2.11.0+cu128")
    _typed(values, "device", str, "the name of a card", prefix="")
    return TraceRequest(
        workload=Workload(**program),
        device=values.get("device"),
        device_memory_bytes=values.get("device_memory_bytes"),
        torch_version=workload.get("torch_version"),
        packages=dict(workload.get("packages") or {}),
    )


def _known(values: Mapping[str, object], names: tuple[str, ...], prefix: str) -> None:
    for name, value in values.items():
        if name not in names:
            close = nearest(name, names)
            hint = f"nearest: {', '.join(close)}" if close else ""
            raise InvalidValueError(f"{prefix}{name}"[:200], value, f"a known field ({', '.join(sorted(names))})", hint)


def _typed(values: Mapping[str, Any], name: str, kind: Any, expected: str, prefix: str = "workload.") -> None:  # noqa: ANN401
    value = values.get(name)
    if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise InvalidValueError(f"{prefix}{name}", value, expected)
