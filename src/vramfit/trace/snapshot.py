"""A memory snapshot as ``torch.cuda.memory._dump_snapshot`` writes it: segments, their blocks, and the history.

Source of the format: pytorch/pytorch:torch/csrc/cuda/memory_snapshot.cpp, torch/cuda/memory.py and
torch/utils/viz/MemoryViz.js.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vramfit.trace.recording import Frame

PACKAGES = re.compile(r"[/\\](site-packages|dist-packages|lib[/\\]python3\.\d+)[/\\]|^<frozen |^<string>")
"""Files of libraries."""


def user_frames(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Return the frames of Python files, innermost first, those of libraries only if there are no others."""
    python = tuple(frame for frame in frames if frame.file.endswith(".py"))
    return tuple(frame for frame in python if not PACKAGES.search(frame.file)) or python


class BlockState(StrEnum):
    """What a block of a segment is doing."""

    ALLOCATED = "active_allocated"
    PENDING_FREE = "active_pending_free"
    """Freed, but another stream may still work with it."""
    INACTIVE = "inactive"


class Action(StrEnum):
    """What an event of the history is."""

    ALLOC = "alloc"
    FREE_REQUESTED = "free_requested"
    FREE_COMPLETED = "free_completed"
    SEGMENT_ALLOC = "segment_alloc"
    SEGMENT_FREE = "segment_free"
    SEGMENT_MAP = "segment_map"
    SEGMENT_UNMAP = "segment_unmap"
    OOM = "oom"
    SNAPSHOT = "snapshot"
    OTHER = "other"
    """An action that a later version of PyTorch added, such as an annotation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotBlock:
    """One block of a segment."""

    address: int
    size: int
    requested: int
    """Bytes asked for; of a block that is not active, whatever was last asked of it. [B]"""
    state: BlockState
    frames: tuple[Frame, ...] = ()

    @property
    def active(self) -> bool:
        """True when it is handed out or waits for another stream."""
        return self.state is not BlockState.INACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A piece of device memory that the allocator holds; of an expandable segment, one mapped range."""

    device: int
    address: int
    size: int
    stream: int
    small: bool
    pool: tuple[int, int] = (0, 0)
    """Private pool; (0, 0) = none."""
    expandable: bool = False
    blocks: tuple[SnapshotBlock, ...] = ()
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    """One event of a device's history."""

    action: Action
    address: int
    """Of an out-of-memory event, the device's free bytes."""
    size: int
    """Requested bytes of a block, real bytes of a segment. [B]"""
    stream: int
    time_us: int = 0
    pool: tuple[int, int] = (0, 0)
    """Private pool; (0, 0) = none, or an older snapshot that does not say."""
    category: str = ""
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that a snapshot says about memory."""

    segments: tuple[Segment, ...]
    histories: tuple[tuple[HistoryEvent, ...], ...] = ()
    """By device, in order of time; empty = history was not recorded."""
    settings: Mapping[str, object] = field(default_factory=dict, hash=False)
    """``allocator_settings``; empty = an older snapshot without them."""

    @property
    def devices(self) -> tuple[int, ...]:
        """Devices that hold memory or have a history."""
        busy = {segment.device for segment in self.segments}
        return tuple(sorted(busy | {number for number, history in enumerate(self.histories) if history}))

    def segments_of(self, device: int) -> tuple[Segment, ...]:
        """Return a device's segments by address."""
        return tuple(sorted((s for s in self.segments if s.device == device), key=lambda s: s.address))

    def history_of(self, device: int) -> tuple[HistoryEvent, ...]:
        """Return a device's history."""
        return self.histories[device] if device < len(self.histories) else ()

    @property
    def alloc_conf(self) -> str | None:
        """Return the text the allocator was configured with; None = the snapshot does not say."""
        for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"):
            text = self.settings.get(name)
            if isinstance(text, str):
                return text
        return None
