"""Runs one workload on the GPU of this machine and prints what the counters said: ``python -m`` in a fresh process.

Reads one JSON object from standard input and prints one as the last line of its output. Needs torch and what the
workload needs, nothing else.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from vramfit.trace.workloads import run_workload
from vramfit.workload import Workload

MIB = 2**20
PACKAGES = ("transformers", "peft", "timm", "torchvision", "diffusers", "accelerate", "triton")
HISTORY_EVENTS = 1_000_000
SECONDS_FOR_NVIDIA_SMI = 20
COUNTERS = {
    "allocated_bytes": "allocated_bytes.all.current",
    "reserved_bytes": "reserved_bytes.all.current",
    "allocated_peak_bytes": "allocated_bytes.all.peak",
    "requested_peak_bytes": "requested_bytes.all.peak",
    "active_peak_bytes": "active_bytes.all.peak",
    "reserved_peak_bytes": "reserved_bytes.all.peak",
    "num_segments": "segment.all.current",
    "num_alloc_retries": "num_alloc_retries",
}
"""What is recorded -> the allocator's own word for it."""


class Driver:
    """What nvidia-smi says of the card that torch uses and of this process on it."""

    def __init__(self, card: str) -> None:
        """Name the card by its number on the bus, or by its identifier."""
        self.card = f"--id={card}"

    def __call__(self, query: str) -> list[list[str]]:
        """Return the table that nvidia-smi prints for a query; none where there is no nvidia-smi."""
        command = ["nvidia-smi", self.card, query, "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(  # noqa: S603 - the driver's own tool
                command, capture_output=True, text=True, timeout=SECONDS_FOR_NVIDIA_SMI, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return []
        return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]

    def process_bytes(self) -> int | None:
        """Return what it shows for this process; None = it cannot see processes, as inside most containers."""
        for row in self("--query-compute-apps=pid,used_memory"):
            if row[0] == str(os.getpid()) and row[1].isdecimal():
                return int(row[1]) * MIB
        return None

    def device_bytes(self) -> int | None:
        """Return what it shows as used on the card by everyone."""
        rows = self("--query-gpu=memory.used")
        return int(rows[0][0]) * MIB if rows and rows[0][0].isdecimal() else None

    def version(self) -> str:
        """Return the version of the driver."""
        rows = self("--query-gpu=driver_version")
        return rows[0][0] if rows else "unknown"


class Moments:
    """Counters after each part of the run; peaks are those since the moment before."""

    def __init__(self, driver: Driver) -> None:
        """Start with nothing seen."""
        self.driver, self.seen, self.started = driver, list[dict[str, Any]](), time.monotonic()

    def __call__(self, name: str) -> None:
        """Record one moment and begin the next."""
        torch.cuda.synchronize()
        stats = torch.cuda.memory_stats()
        moment: dict[str, Any] = {"at": name, "seconds": round(time.monotonic() - self.started, 3)}
        moment |= {ours: int(stats.get(theirs, 0)) for ours, theirs in COUNTERS.items()}
        free, total = torch.cuda.mem_get_info()
        moment |= {"driver_used_bytes": total - free, "process_bytes": self.driver.process_bytes()}
        self.seen.append(moment)
        torch.cuda.reset_peak_memory_stats()

    def largest(self, name: str) -> int | None:
        """Return the largest value of a counter over all moments."""
        return max((m[name] for m in self.seen if m[name] is not None), default=None)


def measure(order: Mapping[str, Any]) -> dict[str, Any]:
    """Run a workload and return the counters of every moment, and of what it ran on."""
    driver = Driver(os.environ.get("CUDA_VISIBLE_DEVICES") or "0")
    idle = driver.device_bytes()  # before anything of ours is on the card
    properties = torch.cuda.get_device_properties(0)
    torch.cuda.synchronize()
    context = _context(driver)
    if order.get("snapshot"):
        torch.cuda.memory._record_memory_history(max_entries=HISTORY_EVENTS)
    moments = Moments(driver)
    run_workload(Workload(**order["workload"]), "cuda", moments)
    if order.get("snapshot"):
        torch.cuda.memory._dump_snapshot(order["snapshot"])
    return {
        "device": properties.name,
        "device_memory_bytes": properties.total_memory,
        "compute_capability": [properties.major, properties.minor],
        "driver": driver.version(),
        "driver_used_before_bytes": idle,
        "context": context,
        "moments": moments.seen,
        "peaks": {name: moments.largest(name) for name in (*COUNTERS, "driver_used_bytes", "process_bytes")},
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "packages": dict(_versions()),
    }


def _context(driver: Driver) -> dict[str, int | None]:
    """Return what the process holds once it has a context, and one small tensor, less what torch reserved for it."""
    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    reserved, process = torch.cuda.memory_reserved(), driver.process_bytes()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return {
        "process_bytes": None if process is None else process - reserved,
        "driver_used_bytes": total - free - reserved,
    }


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))  # noqa: T201 - the answer to the process that asked
