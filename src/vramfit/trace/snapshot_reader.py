"""Reads a real memory snapshot: plain data only, every field checked, into values that cannot change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from vramfit.errors import InvalidValueError, UnreadableFileError
from vramfit.trace.recording import Frame
from vramfit.trace.snapshot import Action, BlockState, HistoryEvent, Segment, Snapshot, SnapshotBlock
from vramfit.trace.snapshot_pickle import EXPECTED, LIMIT_BYTES, load_plain

LARGEST = 2**62
OLD_PENDING = "active_awaiting_free"
"""What the documentation calls a pending block; the code writes ``active_pending_free``."""
ACTIONS = {action.value: action for action in Action}
STATES = {state.value: state for state in BlockState}
T = TypeVar("T")


def load_snapshot(path: Path) -> Snapshot:
    """Read a snapshot file.

    Raises:
        VramfitError: it cannot be read, is no snapshot, or is made to do harm.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror}; expected {EXPECTED}") from error
    return read_snapshot(data, str(path))


def read_snapshot(data: bytes, where: str = "snapshot") -> Snapshot:
    """Return the snapshot that a pickle holds.

    Raises:
        VramfitError: it is no snapshot, or is made to do harm.
    """
    found = load_plain(data, where)
    if isinstance(found, list):  # what torch.cuda.memory_snapshot() returns, pickled by its user
        found = {"segments": found}
    return _Reader(where).snapshot(found)


class _Reader:
    """Turns plain data into nouns; what it costs grows with the file, whatever the file repeats."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.seen: set[int] = set()
        self.frames_of: dict[int, tuple[Frame, ...]] = {}
        self.frame_of: dict[int, Frame] = {}

    def snapshot(self, found: object) -> Snapshot:
        top = self.mapping(found, "")
        histories = tuple(
            tuple(self.each(self.list(history, f"device_traces[{device}]"), self.event, f"device_traces[{device}]"))
            for device, history in enumerate(self.list(top.get("device_traces", []), "device_traces"))
        )
        settings = self.mapping(top.get("allocator_settings", {}), "allocator_settings")
        segments = self.list(self.need(top, "segments", ""), "segments")
        return Snapshot(
            segments=tuple(self.each(segments, self.segment, "segments")),
            histories=histories,
            settings={str(key): value for key, value in settings.items()},
        )

    def segment(self, found: object, path: str) -> Segment:
        fields = self.mapping(found, path)
        address, size = self.size(fields, "address", path), self.size(fields, "total_size", path)
        blocks: list[SnapshotBlock] = []
        place = address
        for i, block in enumerate(self.list(self.need(fields, "blocks", path), f"{path}.blocks")):
            blocks.append(self.block(block, f"{path}.blocks[{i}]", place))
            place += blocks[-1].size
        if place != address + size:
            raise self.wrong(f"{path}.blocks", place - address, f"blocks that add up to total_size {size}")
        return Segment(
            device=self.size(fields, "device", path, 0),
            address=address,
            size=size,
            stream=self.size(fields, "stream", path, 0),
            small=fields.get("segment_type") == "small",
            pool=_pool(fields.get("segment_pool_id")),
            expandable=fields.get("is_expandable") is True,
            blocks=tuple(blocks),
            frames=self.frames(fields.get("frames", []), f"{path}.frames"),
        )

    def block(self, found: object, path: str, place: int) -> SnapshotBlock:
        self.once(found, path)
        fields = self.mapping(found, path)
        size, state = self.size(fields, "size", path), fields.get("state")
        if state == OLD_PENDING:
            state = BlockState.PENDING_FREE.value
        if not isinstance(state, str) or state not in STATES:
            raise self.wrong(f"{path}.state", state, " or ".join(BlockState))
        return SnapshotBlock(
            address=place,
            size=size,
            requested=self.size(fields, "requested_size", path, size),
            state=STATES[state],
            frames=self.frames(fields.get("frames", []), f"{path}.frames"),
        )

    def event(self, found: object, path: str) -> HistoryEvent:
        fields = self.mapping(found, path)
        name = fields.get("action")
        action = ACTIONS.get(name, Action.OTHER) if isinstance(name, str) else Action.OTHER
        place = "device_free" if action is Action.OOM else "addr"
        category = fields.get("category", "")
        return HistoryEvent(
            action=action,
            address=self.size(fields, place, path, 0),
            size=self.size(fields, "size", path, 0),
            stream=self.size(fields, "stream", path, 0),
            time_us=self.size(fields, "time_us", path, 0),
            pool=_pool(fields.get("pool_id")),
            category=category if isinstance(category, str) else "",
            frames=self.frames(fields.get("frames", []), f"{path}.frames"),
        )

    def frames(self, found: object, path: str) -> tuple[Frame, ...]:
        if not found:
            return ()
        known = self.frames_of.get(id(found))
        if known is None:
            lines = self.list(found, path)
            known = tuple(self.frame_of.get(id(line)) or self.frame(line, path) for line in lines)
            self.frames_of[id(found)] = known
        return known

    def frame(self, found: object, path: str) -> Frame:
        """Return one frame; the same dictionary stands in many lists, and stays alive while they are read."""
        fields = self.mapping(found, path)
        file, line, name = fields.get("filename", "??"), fields.get("line", 0), fields.get("name", "??")
        frame = Frame(str(file)[:4096], line if isinstance(line, int) else 0, str(name)[:4096])
        self.frame_of[id(found)] = frame
        return frame

    def each(self, found: list[Any], read: Callable[[object, str], T], path: str) -> Iterable[T]:
        for i, value in enumerate(found):
            self.once(value, path)
            yield read(value, f"{path}[{i}]")

    def once(self, found: object, path: str) -> None:
        """Refuse a value that was read before: a small file can name one list a million times."""
        if id(found) in self.seen:
            raise UnreadableFileError(
                f"{self.where}: {path}: the same object as one before; expected {EXPECTED}, which repeats none"
            )
        self.seen.add(id(found))

    def mapping(self, found: object, path: str) -> dict[Any, Any]:
        if not isinstance(found, dict):
            raise self.wrong(path, type(found).__name__, "a dictionary")
        return found

    def list(self, found: object, path: str) -> list[Any]:
        if not isinstance(found, list):
            raise self.wrong(path, type(found).__name__, "a list")
        return found

    def need(self, fields: dict[Any, Any], name: str, path: str) -> object:
        if name not in fields:
            raise self.wrong(f"{path}.{name}".lstrip("."), None, "it to be there")
        return fields[name]

    def size(self, fields: dict[Any, Any], name: str, path: str, absent: int | None = None) -> int:
        value = self.need(fields, name, path) if absent is None else fields.get(name, absent)
        if type(value) is not int or not 0 <= value < LARGEST:
            raise self.wrong(f"{path}.{name}", value, "a whole number of bytes, or an address")
        return value

    def wrong(self, path: str, seen: object, expected: str) -> InvalidValueError:
        return InvalidValueError(f"{self.where}: {path or 'top'}", seen, expected, f"is it {EXPECTED}?")


def _pool(found: object) -> tuple[int, int]:
    """Return the number of a private pool; anything else is none."""
    if isinstance(found, tuple) and len(found) == 2 and all(type(part) is int for part in found):
        return found
    return (0, 0)
