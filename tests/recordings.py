"""Recordings that several tests replay."""

from __future__ import annotations

from vramfit.trace.recording import Category, Frame, Mark, Recording
from vramfit.units import MIB


def busy_recording() -> Recording:
    """Record three steps with small and large tensors, a second stream and an emptied cache."""
    recording = Recording("busy")
    weights = [
        recording.allocate(n, operator="aten.empty", module=f"layers.{i}", category=Category.PARAMETER)
        for i, n in enumerate((300, 5 * MIB, 30 * MIB, 700_000))
    ]
    for step in range(3):
        recording.mark(Mark.STEP, value=step)
        kept = [
            recording.allocate(
                3 * MIB + 1000 * i,
                operator="aten.mm",
                module="layers.1",
                category=Category.ACTIVATION,
                frames=(Frame("train.py", 12, "forward"), Frame("train.py", 30, "<module>")),
            )
            for i in range(6)
        ]
        recording.use(kept[2], 9)
        for number in reversed(kept):
            recording.free(number)
        if step == 1:
            recording.mark(Mark.EMPTY_CACHE)
    recording.free(weights[1])
    return recording
