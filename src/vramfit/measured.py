"""What somebody really measured: a request, the figures that were printed, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vramfit.request import Request
from vramfit.result import Quantity
from vramfit.training import Training, TrainingRequest
from vramfit.workload import TraceRequest, Workload


class Evidence(StrEnum):
    """How a figure reached us."""

    EXACT_LOG = "exact-log"  # the program's own output
    TABLE = "table"  # somebody's table of results
    REPORTED = "reported"  # said in passing


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One figure of a run."""

    quantity: Quantity
    value: float
    """Bytes, or a count; the middle when only a range is known."""
    low: float
    """What the source's range begins with; ``value`` when it gives one figure."""
    high: float
    resolution_bytes: int = 0
    """How finely the source printed; 0 = to the byte. [B]"""
    scope: str = "device"
    """``device`` (the worst one, or any when all are alike), ``device:N``, or ``sum``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """One run: what was asked of the engine or the framework, and what was measured."""

    id: str
    request: Request | TrainingRequest | TraceRequest
    measured: tuple[Measurement, ...]
    source: str
    evidence: Evidence
    note: str = ""
    incomplete: tuple[str, ...] = ()
    """What the source leaves open that the figures depend on: ``"counter not stated"``."""

    @property
    def runtime(self) -> str:
        """What ran: the engine that served, or the framework that trained; ``torch`` = a workload of ours."""
        workload = self.request.workload
        if isinstance(workload, Workload):
            return "torch"
        return workload.framework if isinstance(workload, Training) else workload.engine
