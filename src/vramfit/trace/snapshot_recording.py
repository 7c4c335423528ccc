"""Turns a real history into a recording, so that it can be replayed under another configuration."""

from __future__ import annotations

from vramfit.trace.allocator_config import AllocatorConfig
from vramfit.trace.recording import CATEGORIES, Category, Mark, Recording
from vramfit.trace.snapshot import Action, HistoryEvent, Snapshot, user_frames
from vramfit.trace.snapshot_rewind import first_segments

BEFORE = "before the history"
KNOWN = {category.value: category for category in CATEGORIES}
GONE = {Action.SEGMENT_FREE, Action.SEGMENT_UNMAP}


def recording_of(snapshot: Snapshot, device: int, config: AllocatorConfig, title: str = "") -> Recording:
    """Return what the program of a snapshot did: what it held before the history began, then its requests and frees.

    A block that waited for another stream dies when that had finished. The cache is emptied where cached memory went
    back to the device.
    """
    recording = Recording(title)
    numbers: dict[int, int] = {}
    recording.mark(Mark.PHASE, BEFORE)
    for segment in first_segments(snapshot, device, config):
        for block in segment.blocks:
            if block.active:
                numbers[block.address] = recording.allocate(
                    max(block.requested, 1),
                    stream=segment.stream,
                    category=Category.UNKNOWN,
                    frames=user_frames(block.frames),
                )
    recording.mark(Mark.PHASE, "history")
    giving_back = False
    for event in snapshot.history_of(device):
        if event.action in GONE:
            if not giving_back:
                recording.mark(Mark.EMPTY_CACHE)
        else:
            _play(event, recording, numbers)
        giving_back = event.action in GONE
    recording.finish()
    return recording


def _play(event: HistoryEvent, recording: Recording, numbers: dict[int, int]) -> None:
    if event.action is Action.ALLOC:
        numbers[event.address] = recording.allocate(
            max(event.size, 1),
            stream=event.stream,
            category=KNOWN.get(event.category, Category.UNKNOWN),
            frames=user_frames(event.frames),
        )
    elif event.action is Action.FREE_COMPLETED:
        recording.free(numbers.pop(event.address))
