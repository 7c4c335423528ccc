"""Reads the recorded histories of real GPUs in ``trace/histories``; each says what its lines mean and whose it is."""

from __future__ import annotations

from pathlib import Path

from vramfit.trace.snapshot import Action, BlockState, HistoryEvent, Segment, Snapshot, SnapshotBlock

FOLDER = Path(__file__).parent / "trace" / "histories"
LETTERS = {
    "a": (Action.ALLOC,),
    "r": (Action.FREE_REQUESTED,),
    "c": (Action.FREE_COMPLETED,),
    "f": (Action.FREE_REQUESTED, Action.FREE_COMPLETED),
    "A": (Action.SEGMENT_ALLOC,),
    "F": (Action.SEGMENT_FREE,),
}


def real_history(name: str) -> Snapshot:
    """Return the snapshot that a recorded history describes."""
    lines = [line for line in (FOLDER / f"{name}.txt").read_text("ascii").splitlines() if not line.startswith("#")]
    heads: list[tuple[int, int, bool]] = []
    blocks: list[list[SnapshotBlock]] = []
    history: list[HistoryEvent] = []
    place = 0
    for line in lines[1:]:
        words = line.split()
        if words[0] == "s":
            place = int(words[1], 16)
            heads.append((place, int(words[2]), words[3] == "small"))
            blocks.append([])
        elif line.startswith(" "):
            size = int(words[0])
            blocks[-1].append(
                SnapshotBlock(address=place, size=size, requested=int(words[1]), state=BlockState(words[2]))
            )
            place += size
        else:
            history += [
                HistoryEvent(action=action, address=int(words[1], 16), size=int(words[2]), stream=0)
                for action in LETTERS[words[0]]
            ]
    segments = tuple(
        Segment(
            device=0, address=address, size=sum(b.size for b in held), stream=stream, small=small, blocks=tuple(held)
        )
        for (address, stream, small), held in zip(heads, blocks, strict=True)
    )
    return Snapshot(segments=segments, histories=(tuple(history),))
