"""What was alive at a moment of a recording: by category, by module, and the largest with their lines of code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from vramfit.trace.allocator_device import format_size
from vramfit.trace.recording import Allocation, Category, Recording

NUM_LARGEST = 10
NUM_MODULES = 5
"""Modules that a message names."""
NO_MODULE = "(no module)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """Everything that was alive after one event, largest first; sizes are those of blocks. [B]"""

    event: int
    phase: str
    step: int | None
    by_category: tuple[tuple[Category, int], ...]
    by_module: tuple[tuple[str, int], ...]
    largest: tuple[tuple[Allocation, int], ...]

    @property
    def total_bytes(self) -> int:
        """All of it. [B]"""
        return sum(size for _, size in self.by_category)


def alive_at(recording: Recording, event: int, size_of: Callable[[int], int]) -> Alive:
    """Return what was alive after an event; ``size_of`` gives the bytes of an allocation by its number."""
    by_category: Counter[Category] = Counter()
    by_module: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    for number in recording.alive(event):
        size = size_of(number)
        by_category[recording.category(number)] += size
        by_module[recording.module(number) or NO_MODULE] += size
        sizes.append((-size, number))
    return Alive(
        event=event,
        phase=recording.phase_at(event),
        step=recording.step_at(event),
        by_category=tuple(by_category.most_common()),
        by_module=tuple(by_module.most_common()),
        largest=tuple((recording.allocation(number), -size) for size, number in sorted(sizes)[:NUM_LARGEST]),
    )


def words(alive: Alive) -> str:
    """Return the lines that follow PyTorch's own message."""
    when = " in " + " of ".join(
        part for part in (alive.phase, f"step {alive.step}" if alive.step is not None else "") if part
    )
    lines = [f"Alive{when if when != ' in ' else ''}: " + _list(alive.by_category, len(alive.by_category))]
    if alive.by_module:
        lines.append(f"By module: {_list(alive.by_module, NUM_MODULES)}")
    if alive.largest:
        first, size = alive.largest[0]
        line = f" made at {first.frames[0].file}:{first.frames[0].line}" if first.frames else ""
        lines.append(
            f"Largest: {format_size(size)}, {first.category.value} of {first.operator or 'an unknown operator'}{line}"
        )
    return "\n".join(lines)


def _list(parts: tuple[tuple[str, int], ...] | tuple[tuple[Category, int], ...], most: int) -> str:
    shown = [f"{name} {format_size(size)}" for name, size in parts[:most]]
    rest = sum(size for _, size in parts[most:])
    return ", ".join([*shown, *([f"{len(parts) - most} others {format_size(rest)}"] if rest else [])]) or "nothing"
