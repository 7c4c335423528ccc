"""torch's out-of-memory messages.

Wording: pytorch/pytorch:c10/cuda/CUDACachingAllocator.cpp, since 2.2, and the older one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from vramfit.log_facts import LogFacts, OutOfMemory
from vramfit.logs.lines import NUMBER
from vramfit.units import GIB, KIB, MIB

UNITS = {"GiB": GIB, "MiB": MIB, "KiB": KIB, "bytes": 1}
SIZE = rf"{NUMBER} (GiB|MiB|KiB|bytes)"
OUT = re.compile(rf"CUDA out of memory\. Tried to allocate {SIZE}\.? ")
NEW = {
    "total": re.compile(rf"GPU \d{{1,3}} has a total capacity of {SIZE}"),
    "free": re.compile(rf"of which {SIZE} is free"),
    "process": re.compile(rf"this process has {SIZE} memory in use"),
    "allocated": re.compile(rf"{SIZE} is allocated by PyTorch"),
    "fragmented": re.compile(rf"{SIZE} is reserved by PyTorch but unallocated"),
}
OLD = {
    "total": re.compile(rf"GPU \d{{1,3}}; {SIZE} total capacity"),
    "free": re.compile(rf"{SIZE} free"),
    "allocated": re.compile(rf"{SIZE} already allocated"),
    "reserved": re.compile(rf"{SIZE} reserved in total by PyTorch"),
}


def is_log(lines: Iterable[str]) -> bool:
    """Say whether torch ran out of memory anywhere."""
    return any(OUT.search(line) for line in lines)


def failure(lines: tuple[str, ...]) -> OutOfMemory | None:
    """Return the first allocation that failed; a message broken over lines is put together."""
    for i, line in enumerate(lines):
        match = OUT.search(f"{line} ")
        if match is None:
            continue
        text = " ".join(lines[i : i + 4])[:4000]
        parts = {name: _size(mark.search(text)) for name, mark in {**OLD, **NEW}.items()}
        parts |= {name: _size(mark.search(text)) for name, mark in OLD.items() if parts.get(name) is None}
        reserved, allocated = parts.get("reserved"), parts.get("allocated")
        spare = parts.get("fragmented")
        if spare is None and reserved is not None and allocated is not None:
            spare = reserved - allocated
        return OutOfMemory(
            what="one allocation of torch",
            needed_bytes=_size(match) or 0,
            free_bytes=parts.get("free") or 0,
            total_bytes=parts.get("total"),
            allocated_bytes=allocated,
            fragmented_bytes=spare,
            process_bytes=parts.get("process"),
        )
    return None


def _size(match: re.Match[str] | None) -> int | None:
    return None if match is None else int(float(match.group(1)) * UNITS[match.group(2)])


def read(lines: tuple[str, ...]) -> LogFacts:
    """Return what torch's message says."""
    found = failure(lines)
    return LogFacts(
        program="torch",
        given=(),
        measured=(),
        device_total_bytes=None if found is None else found.total_bytes,
        device_resolution_bytes=GIB // 100,
        failure=found,
    )
