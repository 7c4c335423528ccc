"""What a log says: facts of the request, printed figures, and the error with which it ended."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.measured import Measurement
from vramfit.request import Given


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """One allocation that failed, or a pool that was too small."""

    what: str
    """Who said so and of what: ``torch allocation``, ``KV cache of one request`` ..."""
    needed_bytes: int
    """What was asked for. [B]"""
    free_bytes: int
    """What was there. [B]"""
    total_bytes: int | None = None
    """What the device has; None = not said. [B]"""
    allocated_bytes: int | None = None
    """In use by torch; None = not said. [B]"""
    fragmented_bytes: int | None = None
    """Reserved by torch and not allocated; None = not said. [B]"""
    process_bytes: int | None = None
    """Of the whole process; None = not said. [B]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """Everything that was recognised in one log."""

    program: str
    """Who wrote it: ``vllm``, ``sglang``, ``llama.cpp``, ``ollama`` or ``torch``."""
    given: tuple[Given, ...]
    measured: tuple[Measurement, ...]
    device_total_bytes: int | None = None
    """What the log says that the device has; None = nothing. [B]"""
    device_resolution_bytes: int = 0
    """How finely. [B]"""
    failure: OutOfMemory | None = None
    """How it ended; None = it did not fail for memory."""
    notes: tuple[str, ...] = ()
    """What a reader should know of how it was read."""
