"""Writes what a trace found: PyTorch's own snapshot, and our page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vramfit.errors import UnreadableFileError
from vramfit.trace.replay import Replay
from vramfit.trace.snapshot_writer import snapshot_bytes
from vramfit.trace.timeline_html import timeline_html

if TYPE_CHECKING:
    from vramfit.trace.session import Traced


def replayed(traced: Traced) -> Replay:
    """Return the recording played through an allocator that keeps every action, on a card without end."""
    return Replay(traced.recording, traced.config, keep_trace=True).catch_up()


def write_snapshot(traced: Traced, path: Path) -> None:
    """Write the snapshot that ``torch.cuda.memory._dump_snapshot`` would.

    Raises:
        UnreadableFileError: the file cannot be written.
    """
    _write(path, snapshot_bytes([replayed(traced)]))


def write_html(traced: Traced, path: Path) -> None:
    """Write our own page with the timeline: one file that needs no network.

    Raises:
        UnreadableFileError: the file cannot be written.
    """
    _write(path, timeline_html(replayed(traced), device_name=traced.report.device).encode())


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror}; expected a place to write to") from None
