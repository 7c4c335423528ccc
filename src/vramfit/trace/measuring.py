"""Runs a table of workloads on the GPU of this machine, each in a fresh process, and writes measured runs.

Imports no torch: the processes it starts do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vramfit.errors import UnreadableFileError, UnsupportedModelError
from vramfit.units import GIB
from vramfit.workload import ListedWorkload, said

SECONDS_PER_RUN = 240
"""After which a run is given up."""
CHILD = "vramfit.trace.measured_child"
PROBE = "import torch; p = torch.cuda.get_device_properties(0); print(p.name); print(p.total_memory)"
LONGEST_REASON = 400
ALLOCATOR_SETTINGS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""Of the caller's shell: not part of a workload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The GPU of this machine, as torch sees it."""

    product: str
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """What is to be measured, and where it goes."""

    rows: tuple[ListedWorkload, ...]
    card: Card
    device: str | None
    """Name of the card in the catalogue; None = it is not there."""
    out: Path
    minutes: float
    again: bool = False
    """Whether runs that failed before are tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One row that was run, or was not."""

    id: str
    done: int
    of: int
    seconds: float
    said: str


def find_gpu() -> Card:
    """Ask torch, in a process of its own, for the GPU of this machine.

    Raises:
        UnsupportedModelError: torch is missing, or sees no GPU.
    """
    if find_spec("torch") is None:
        raise UnsupportedModelError(
            "torch is not installed: expected a build with CUDA; see https://pytorch.org/get-started"
        )
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)  # noqa: S603 - ours
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2][:LONGEST_REASON]
        raise UnsupportedModelError(
            f"no GPU that torch can use ({last}): expected one to measure on; without one: vramfit trace predicts, and "
            "--dry-run tries every workload at tiny size on the CPU"
        )
    product, total = done.stdout.split("\n")[:2]
    return Card(product=product, total_bytes=int(total))


def measure(asked: Measuring) -> Iterator[Progress]:
    """Run what is not in the output file yet, most informative first, until the time is up.

    Raises:
        UnreadableFileError: the output file holds something else, or cannot be written.
    """
    failed = asked.out.with_name(asked.out.name + ".failed")
    known = set(_ids(asked.out)) | (set() if asked.again else set(_ids(failed)))
    open_rows = [row for row in asked.rows if run_id(row, asked) not in known]
    deadline = time.monotonic() + 60 * asked.minutes
    for number, row in enumerate(open_rows, len(asked.rows) - len(open_rows) + 1):
        began = time.monotonic()
        if began >= deadline:
            left = len(asked.rows) - number + 1
            yield Progress(id="", done=number - 1, of=len(asked.rows), seconds=0, said=f"time is up; {left} left")
            return
        reason = why_not(row, asked.card)
        if reason is None:
            line, reason = _run(row, asked, min(SECONDS_PER_RUN, deadline - began + SECONDS_PER_RUN / 4))
            if line is not None:
                _append(asked.out, line)
        if reason is not None:
            _append(failed, {"id": run_id(row, asked), "reason": reason})
        told = reason or "measured"
        yield Progress(id=row.id, done=number, of=len(asked.rows), seconds=time.monotonic() - began, said=told)


def run_id(row: ListedWorkload, asked: Measuring) -> str:
    """Return the name of a run: of the workload, and of the card."""
    return f"{row.id}@{asked.device or asked.card.product.replace(' ', '-').lower()}"


def why_not(row: ListedWorkload, card: Card) -> str | None:
    """Return why a row is not tried on this machine; None = it is."""
    missing = [name for name in row.packages if find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if row.needs_gib * GIB > card.total_bytes:
        return f"needs about {row.needs_gib:g} GiB; the card has {card.total_bytes / GIB:.1f}"
    return None


def _run(row: ListedWorkload, asked: Measuring, seconds: float) -> tuple[dict[str, Any] | None, str | None]:
    """Run one row in a fresh process; return its measured run, or why there is none."""
    order: dict[str, Any] = {"workload": said(row.workload)}
    if row.snapshot:
        folder = asked.out.with_suffix(".snapshots")
        folder.mkdir(parents=True, exist_ok=True)
        order["snapshot"] = str((folder / f"{row.id}.pickle").absolute())
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", CHILD], input=json.dumps(order), capture_output=True, text=True, timeout=seconds,
            env=environment(row), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, f"not done after {seconds:.0f} s"
    if done.returncode:
        return None, (done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}")[:LONGEST_REASON]
    try:
        found = json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        return None, f"no answer: {done.stdout[-LONGEST_REASON:]}"
    return measured_run(row, found, asked), None


def environment(row: ListedWorkload | None = None) -> dict[str, str]:
    """Return the variables of a process: its allocator's settings, one card, no network, our own sources."""
    own = {name: value for name, value in os.environ.items() if name not in ALLOCATOR_SETTINGS}
    own |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    own["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # nvidia-smi's numbers and torch's are the same ones then
    own["CUDA_VISIBLE_DEVICES"] = own.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    source = str(Path(__file__).resolve().parents[2])
    own["PYTHONPATH"] = os.pathsep.join(filter(None, (source, own.get("PYTHONPATH", ""))))
    if row is not None and row.workload.alloc_conf:
        own["PYTORCH_CUDA_ALLOC_CONF"] = row.workload.alloc_conf
    return own


def measured_run(row: ListedWorkload, found: Mapping[str, Any], asked: Measuring) -> dict[str, Any]:
    """Return one line of JSON, version 1: all that is needed to trace the run again, and what was measured."""
    workload = {"kind": "trace", **said(row.workload), "torch_version": found["torch"], "packages": found["packages"]}
    request: dict[str, Any] = {"workload": workload, "device_memory_bytes": found["device_memory_bytes"]}
    if asked.device is not None:
        request["device"] = asked.device
    return {
        "schema": 1,
        "id": run_id(row, asked),
        "request": request,
        "measured": list(_figures(found)),
        "source": f"vramfit measure, {found['device']}, driver {found['driver']}",
        "evidence": "exact-log",
        "details": {key: value for key, value in found.items() if key not in {"device_memory_bytes", "packages"}},
    }


def _figures(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the figures; where nvidia-smi sees no process, all that the card lost since before counts."""
    peaks, context = found["peaks"], found["context"]
    for name in ("requested", "allocated", "reserved"):
        if peaks[f"{name}_peak_bytes"]:
            yield {"quantity": f"{name}_peak", "bytes": peaks[f"{name}_peak_bytes"]}
    before = found["driver_used_before_bytes"] or 0
    process, bare = peaks["process_bytes"], context["process_bytes"]
    if process is None:
        process = peaks["driver_used_bytes"] - before
        bare = context["driver_used_bytes"] - before
    yield {"quantity": "process_peak", "bytes": process, "resolution_bytes": 2**20}
    if bare:
        yield {"quantity": "before_weights", "bytes": bare, "resolution_bytes": 2**20}
    if process > peaks["reserved_peak_bytes"]:
        yield {"quantity": "non_torch", "bytes": process - peaks["reserved_peak_bytes"], "resolution_bytes": 2**20}


def _ids(path: Path) -> Iterator[str]:
    """Yield the ids in a file of JSON lines; of a last line that was cut off, none."""
    if not path.exists():
        return
    lines = path.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            yield str(json.loads(line)["id"])
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise UnreadableFileError(
                    f"{path}, line {number}: no measured run: expected JSON lines with an id; name another --out"
                ) from None


def _append(path: Path, value: Mapping[str, Any]) -> None:
    """Write one line at the end; a line that was cut off before is dropped first."""
    try:
        written = path.read_bytes() if path.exists() else b""
        whole = written.rfind(b"\n") + 1
        with path.open("r+b" if written else "wb") as file:
            file.seek(whole)
            file.write(json.dumps(value).encode() + b"\n")
            file.truncate()
    except OSError as error:
        raise UnreadableFileError(
            f"{path}: {error.strerror}; expected a file that can be written; name another --out"
        ) from None


def dry_run(rows: Iterable[ListedWorkload], run: Callable[[ListedWorkload], None]) -> Iterator[Progress]:
    """Try every row at tiny size with what ``run`` does; whatever it raises is told, not raised."""
    rows = tuple(rows)
    for number, row in enumerate(rows, 1):
        began, told = time.monotonic(), "ok"
        missing = [name for name in row.packages if find_spec(name) is None]
        try:
            if missing:
                told = f"skipped: {', '.join(missing)} not installed"
            else:
                run(row)
        except Exception as error:  # noqa: BLE001 - whatever a builder raises is what a dry run is for
            told = f"failed: {type(error).__name__}: {error}"[:LONGEST_REASON]
        yield Progress(id=row.id, done=number, of=len(rows), seconds=time.monotonic() - began, said=told)
