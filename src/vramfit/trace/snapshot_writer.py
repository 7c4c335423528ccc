"""Writes a replayed recording as a memory snapshot that PyTorch's own viewer opens.

The viewer reads pickles of protocol 2 to 4 with plain data only, rebuilds the past backwards from the last segments,
and wants ``unknown`` among the categories as soon as there are any (pytorch/pytorch:torch/utils/viz/MemoryViz.js).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vramfit.trace.allocator_block import Block
from vramfit.trace.allocator_books import Books
from vramfit.trace.allocator_config import UNLIMITED, AllocatorConfig
from vramfit.trace.recording import Frame, Recording
from vramfit.trace.replay import Replay, TraceEvent
from vramfit.trace.snapshot import BlockState

PROTOCOL = 4
UNKNOWN = "unknown"
NO_MODULE = "(no module)"


class _Frames:
    """Lists of frames, each written once however often it comes."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._known: dict[tuple[Frame, ...], list[dict[str, Any]]] = {}

    def of(self, owner: int) -> list[dict[str, Any]]:
        """Return the user's frames of an allocation below one that names its operator and module."""
        if owner < 0:
            return self._known.setdefault((), [])
        recording = self._recording
        made_by = Frame(recording.module(owner) or NO_MODULE, 0, recording.operator(owner) or UNKNOWN)
        frames = (made_by, *recording.frames(owner))
        found = self._known.get(frames)
        if found is None:
            found = [{"filename": f.file, "line": f.line, "name": f.function} for f in frames]
            self._known[frames] = found
        return found


def write_snapshot(path: Path, replays: Sequence[Replay]) -> None:
    """Write the replays (made with ``keep_trace``), one for each device in order, as one snapshot."""
    path.write_bytes(snapshot_bytes(replays))


def snapshot_bytes(replays: Sequence[Replay]) -> bytes:
    """Return the pickle of a snapshot of the replays, one for each device in order."""
    return pickle.dumps(snapshot_data(replays), protocol=PROTOCOL)


def snapshot_data(replays: Sequence[Replay]) -> dict[str, Any]:
    """Return a snapshot as the plain data that PyTorch pickles."""
    segments: list[dict[str, Any]] = []
    traces: list[list[dict[str, Any]]] = []
    for device, replay in enumerate(replays):
        frames = _Frames(replay.recording)
        segments += _segments(replay.allocator.books, device, frames)
        traces.append([_entry(event, replay.recording, frames) for event in replay.trace])
    config = replays[0].allocator.config if replays else AllocatorConfig()
    return {
        "segments": segments,
        "device_traces": traces,
        "allocator_settings": _settings(config),
        "external_annotations": [],
    }


def _entry(event: TraceEvent, recording: Recording, frames: _Frames) -> dict[str, Any]:
    place = "device_free" if event.action == "oom" else "addr"
    return {
        "action": event.action,
        place: event.address,
        "size": event.size,
        "stream": event.stream,
        "time_us": event.event,
        "frames": frames.of(event.owner),
        "category": UNKNOWN if event.owner < 0 else recording.category(event.owner).value,
    }


def mapped_ranges(books: Books) -> Iterable[list[Block]]:
    """Yield the blocks of each segment, of an expandable one those of each range with memory behind it, by address."""
    halves = [books.small, books.large, *(h for p in books.private.values() for h in (p.small, p.large))]
    blocks = [*books.active.values(), *(block for half in halves for block in half.blocks.values() if block.mapped)]
    heads = (b for b in blocks if b.previous is None or not b.previous.mapped)
    for head in sorted(heads, key=lambda b: b.address):
        found, block = [head], head.next
        while block is not None and block.mapped:
            found.append(block)
            block = block.next
        yield found


def _segments(books: Books, device: int, frames: _Frames) -> Iterable[dict[str, Any]]:
    for blocks in mapped_ranges(books):
        head = blocks[0]
        active = [block for block in blocks if not block.idle]
        yield {
            "device": device,
            "address": head.address,
            "total_size": sum(block.size for block in blocks),
            "allocated_size": sum(block.size for block in blocks if block.allocated),
            "active_size": sum(block.size for block in active),
            "requested_size": sum(block.requested for block in active),
            "stream": head.stream,
            "segment_type": "small" if head.pool.small else "large",
            "segment_pool_id": (0, 0 if head.pool.private is None else head.pool.private.number),
            "is_expandable": head.expandable is not None,
            "frames": [],
            "blocks": [
                {
                    "address": block.address,
                    "size": block.size,
                    "requested_size": block.requested,
                    "state": _state(block).value,
                    "frames": frames.of(block.owner),
                }
                for block in blocks
            ],
        }


def _state(block: Block) -> BlockState:
    if block.allocated:
        return BlockState.ALLOCATED
    return BlockState.INACTIVE if block.idle else BlockState.PENDING_FREE


def _settings(config: AllocatorConfig) -> dict[str, Any]:
    return {
        "PYTORCH_CUDA_ALLOC_CONF": config.text,
        "max_split_size": -1 if config.max_split_bytes == UNLIMITED else config.max_split_bytes,
        "garbage_collection_threshold": config.garbage_collection_threshold,
        "expandable_segments": config.expandable,
        "roundup_power2_divisions": {str(1 << slot): steps for slot, steps in enumerate(config.divisions)},
    }
