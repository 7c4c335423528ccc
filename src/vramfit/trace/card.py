"""The imagined card's memory while a program runs: a replay that follows its recording, and what it says when full."""

from __future__ import annotations

import torch

from vramfit.trace.allocator_config import AllocatorConfig
from vramfit.trace.allocator_counters import PoolCounters
from vramfit.trace.allocator_device import DeviceMemory
from vramfit.trace.attribution import categorise
from vramfit.trace.recording import Mark, Recording
from vramfit.trace.replay import OutOfMemoryInReplayError, Replay
from vramfit.trace.replay_alive import alive_at, words


class Card:
    """One device's memory; refuses what does not fit as the real one does."""

    def __init__(
        self,
        recording: Recording,
        config: AllocatorConfig,
        total_bytes: int,
        outside_bytes: int,
        *,
        enforce: bool = True,
    ) -> None:
        """Begin with nothing but what lies outside the allocator, such as the CUDA context."""
        self.recording = recording
        self.total_bytes, self.outside_bytes = total_bytes, outside_bytes
        device = DeviceMemory(total_bytes, outside_bytes=outside_bytes) if enforce else DeviceMemory()
        self.replay = Replay(recording, config, device)
        self.out_of_memory: str | None = None
        self.peak_event = 0
        """Event at which most was allocated: the first of equal ones."""
        self._peak_allocated_bytes = 0

    def allocated(self, number: int) -> None:
        """Follow the recording up to an allocation that was just written there.

        Raises:
            torch.OutOfMemoryError: the card is full; says what was alive.
        """
        try:
            self.replay.catch_up()
        except OutOfMemoryInReplayError as error:
            self._refuse(number, error)
        now = self.counters.allocated_bytes.current
        if now > self._peak_allocated_bytes:
            self._peak_allocated_bytes, self.peak_event = now, len(self.recording) - 1

    def _refuse(self, number: int, error: OutOfMemoryInReplayError) -> None:
        categorise(self.recording)
        alive = alive_at(self.recording, error.event - 1, self.replay.size_of)
        self.recording.take_back(number)
        self.out_of_memory = f"{error.__cause__}\n{words(alive)}"
        raise torch.OutOfMemoryError(self.out_of_memory) from None

    def mark(self, mark: Mark, text: str = "", value: int = 0) -> None:
        """Do what a call such as ``empty_cache`` does, and note it."""
        self.recording.mark(mark, text, value)
        self.replay.catch_up()

    @property
    def counters(self) -> PoolCounters:
        """The allocator's counters of all pools, up to what was last followed."""
        return self.replay.allocator.counters.all

    @property
    def free_bytes(self) -> int:
        """What the driver would call free. [B]"""
        self.replay.catch_up()
        return max(0, self.total_bytes - self.outside_bytes - self.counters.reserved_bytes.current)

    def statistics(self) -> dict[str, int]:
        """Return what ``torch.cuda.memory_stats`` returns."""
        allocator = self.replay.catch_up().allocator
        return allocator.counters.as_memory_stats(allocator.config.max_split_bytes)

    def statistic(self, name: str) -> int:
        """Return one statistic by its key, such as ``allocated_bytes.all.peak``."""
        self.replay.catch_up()
        counter, _, when = name.partition(".all.")
        value: int = getattr(getattr(self.counters, counter), when)
        return value

    def summary(self) -> str:
        """Return a short table in place of ``torch.cuda.memory_summary``'s long one."""
        self.replay.catch_up()
        rows = ("allocated_bytes", "active_bytes", "requested_bytes", "reserved_bytes", "inactive_split_bytes")
        lines = [f"{'virtual GPU, bytes':24}{'current':>20}{'peak':>20}"]
        for row in rows:
            counter = getattr(self.counters, row)
            lines.append(f"{row:24}{counter.current:>20,}{counter.peak:>20,}")
        return "\n".join(lines)
