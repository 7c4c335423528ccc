"""``snapshot``: what a real memory snapshot says, under another configuration, beside a prediction, as a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from vramfit.cli.show import show, show_json
from vramfit.errors import InvalidValueError, UnreadableFileError
from vramfit.report.rows import Row, Section, Tone
from vramfit.trace.allocator_config import NEWEST, AllocatorConfig, parse_config, version_of
from vramfit.trace.recording import Frame, Recording
from vramfit.trace.replay import Peaks, Replay
from vramfit.trace.snapshot import Snapshot
from vramfit.trace.snapshot_beside import Beside, beside
from vramfit.trace.snapshot_facts import NUM_LARGEST, Held, SnapshotFacts, facts_of, held_at_peak
from vramfit.trace.snapshot_reader import load_snapshot
from vramfit.trace.snapshot_recording import recording_of
from vramfit.trace.timeline_html import size_text, timeline_html

NUM_DIFFERENCES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The same program under another configuration."""

    text: str
    peaks: Peaks


@click.command("snapshot")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--beside", "predicted", type=click.Path(path_type=Path), help="A predicted snapshot to set beside it.")
@click.option("--alloc-conf", "confs", multiple=True, help="Replay with this PYTORCH_CUDA_ALLOC_CONF; repeatable.")
@click.option("--torch-version", help="Version of torch whose allocator is meant; default: the newest known.")
@click.option("--device", type=int, help="Number of the device; default: the first that holds memory.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write a page with memory over time.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def snapshot_command(  # noqa: PLR0913, PLR0917 - click's options
    file: Path,
    predicted: Path | None,
    confs: tuple[str, ...],
    torch_version: str | None,
    device: int | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """Say what a memory snapshot of torch.cuda.memory._dump_snapshot holds.

    Peaks, segments, fragmentation and the largest tensors; and what another allocator configuration would reserve.
    Nothing in FILE is executed.
    """
    version = NEWEST if torch_version is None else version_of(torch_version)
    others = tuple(parse_config(text, version, "--alloc-conf") for text in confs)
    snapshot = load_snapshot(file)
    config = parse_config(snapshot.alloc_conf or "", version, f"{file}: allocator_settings")
    number = _device(snapshot, device, file)
    facts = facts_of(snapshot, number, config)
    recording = recording_of(snapshot, number, config, file.name) if others or page is not None else None
    what_if = () if recording is None or not others else tuple(_what_if(recording, (config, *others)))
    compared = None if predicted is None else _beside(snapshot, number, config, predicted)
    if page is not None and recording is not None:
        _write(page, timeline_html(Replay(recording, config).catch_up()))
    if as_json:
        show_json(as_mapping(facts, config, what_if, compared))
    else:
        show(_sections(file, facts, config, what_if, compared))


def _device(snapshot: Snapshot, asked: int | None, file: Path) -> int:
    found = snapshot.devices
    if not found:
        raise InvalidValueError(str(file), "no segments and no history", "a snapshot with memory in it")
    if asked is not None and asked not in found:
        raise InvalidValueError("--device", asked, f"one of {', '.join(map(str, found))}")
    return found[0] if asked is None else asked


def _what_if(recording: Recording, configs: tuple[AllocatorConfig, ...]) -> Iterator[WhatIf]:
    for config in configs:
        yield WhatIf(text=config.text, peaks=Replay(recording, config).catch_up().peaks)


def _beside(snapshot: Snapshot, device: int, config: AllocatorConfig, file: Path) -> Beside:
    other = load_snapshot(file)
    number = device if device in other.devices else _device(other, None, file)
    theirs = parse_config(other.alloc_conf or "", config.version, f"{file}: allocator_settings")
    return beside(held_at_peak(snapshot, device, config), held_at_peak(other, number, theirs))


def _write(page: Path, text: str) -> None:
    try:
        page.write_text(text, "utf-8")
    except OSError as error:
        raise UnreadableFileError(f"--html: {page}: {error.strerror}; expected a file that can be written") from error


def _sections(
    file: Path, facts: SnapshotFacts, config: AllocatorConfig, what_if: tuple[WhatIf, ...], compared: Beside | None
) -> Iterator[Section]:
    conf = f"configured with {config.text}" if config.text else "the allocator's defaults"
    yield Section("", (Row(f"{file.name}, device {facts.device}: {conf}", tone=Tone.STRONG),))
    yield _peaks(facts)
    yield _end(facts)
    if facts.at_peak:
        yield Section("Largest when most was asked for", tuple(_largest(facts)))
    yield _checked(facts)
    if what_if:
        yield Section("With another configuration, the same program", tuple(_configurations(what_if)))
    if compared is not None:
        yield Section("Beside the prediction, at the peaks", tuple(_compared(compared)))


def _peaks(facts: SnapshotFacts) -> Section:
    rows = [
        Row("reserved", size_text(facts.reserved_peak_bytes), "from the segment events"),
        Row("asked for", size_text(facts.requested_peak_bytes), "before any rounding"),
    ]
    if facts.check.equal and facts.num_events:
        rows.insert(1, Row("allocated", size_text(facts.check.peaks.allocated_bytes), "blocks, by the simulation"))
    if facts.num_ooms:
        rows.append(Row("out of memory", str(facts.num_ooms), "requests that were refused", Tone.BAD))
    title = f"Peaks over {facts.num_events:,} events" if facts.num_events else "Peaks (no history was recorded)"
    return Section(title, tuple(rows))


def _end(facts: SnapshotFacts) -> Section:
    rows = [
        Row("reserved", size_text(facts.reserved_bytes), f"{facts.num_segments:,} segments"),
        Row("active", size_text(facts.active_bytes), f"of it rounding {size_text(facts.rounding_bytes)}"),
        Row("free, could go back", size_text(facts.returnable_bytes), "whole segments; torch.cuda.empty_cache()"),
        Row("free, stuck", size_text(facts.stuck_bytes), f"between live blocks; largest {_largest_free(facts)}"),
        Row("small pool", size_text(facts.small_pool_bytes), "requests up to 1 MiB"),
    ]
    if facts.private_pool_bytes:
        rows.append(Row("private pools", size_text(facts.private_pool_bytes), "CUDA graphs, MemPool"))
    if facts.expandable_bytes:
        rows.append(Row("expandable", size_text(facts.expandable_bytes), "pages of expandable segments"))
    return Section("At the end", tuple(rows))


def _largest_free(facts: SnapshotFacts) -> str:
    return f"free block {size_text(facts.largest_free_bytes)}"


def _largest(facts: SnapshotFacts) -> Iterator[Row]:
    for group in facts.at_peak[:NUM_LARGEST]:
        each = f"{group.count} x {size_text(group.held.requested)}" if group.count > 1 else "one"
        place = _place(group.held)
        yield Row(each, size_text(group.requested), " ".join(p for p in (group.held.category, place) if p))
    rest = facts.at_peak[NUM_LARGEST:]
    if rest:
        yield Row(f"{len(rest)} other groups", size_text(sum(g.requested for g in rest)), tone=Tone.QUIET)


def _place(held: Held) -> str:
    if held.frames:
        return _line(held.frames[0])
    return "outside Python, such as the backward pass" if held.recorded else "before history was recorded"


def _line(frame: Frame) -> str:
    return f"{frame.file}:{frame.line} in {frame.function}"


def _checked(facts: SnapshotFacts) -> Section:
    check = facts.check
    if not check.num_events:
        row = Row("nothing to replay: record a history with torch.cuda.memory._record_memory_history()")
    elif check.equal:
        row = Row(f"reproduces all {check.num_events:,} events, every address among them", tone=Tone.GOOD)
    else:
        row = Row(
            f"reproduces {check.num_equal:,} of {check.num_events:,} events, then parts: {check.difference}",
            tone=Tone.WARN,
        )
    return Section("The simulated allocator", (row,))


def _configurations(found: tuple[WhatIf, ...]) -> Iterator[Row]:
    base = found[0].peaks.reserved_bytes
    for i, one in enumerate(found):
        reserved = one.peaks.reserved_bytes
        change = f"{(reserved - base) / base:+.1%}; " if i and base else ""
        text = f"{change}allocated {size_text(one.peaks.allocated_bytes)}"
        yield Row(one.text or "defaults", size_text(reserved), text, Tone.STRONG if i else Tone.PLAIN)
    yield Row(
        "reserved at most; the cache is emptied where it was, and memory has no end",
        tone=Tone.QUIET,
    )


def _compared(found: Beside) -> Iterator[Row]:
    yield Row("real", size_text(found.real_bytes), "asked for")
    share = found.predicted_bytes / found.real_bytes - 1 if found.real_bytes else 0.0
    yield Row("predicted", size_text(found.predicted_bytes), f"{share:+.2%}")
    yield Row("in both", size_text(found.equal_bytes), "size for size")
    for one in found.differences[:NUM_DIFFERENCES]:
        counts = f"real {one.num_real}, predicted {one.num_predicted} of {one.requested:,} B"
        text = ", ".join(part for part in (counts, one.category, *map(_line, one.frames[:1])) if part)
        sign = "+" if one.difference_bytes > 0 else "-"
        yield Row("differs", sign + size_text(abs(one.difference_bytes)), text, Tone.WARN)
    rest = found.differences[NUM_DIFFERENCES:]
    if rest:
        yield Row(f"{len(rest)} other sizes", size_text(sum(abs(d.difference_bytes) for d in rest)), tone=Tone.QUIET)


def as_mapping(
    facts: SnapshotFacts, config: AllocatorConfig, what_if: tuple[WhatIf, ...], compared: Beside | None
) -> dict[str, Any]:
    """Return everything for JSON; sizes are bytes."""
    found = asdict(facts)
    found["at_peak"] = [
        {
            "requested_bytes": group.held.requested,
            "count": group.count,
            "category": group.held.category or None,
            "frames": [frame._asdict() for frame in group.held.frames],
        }
        for group in facts.at_peak
    ]
    return {
        "alloc_conf": config.text,
        **found,
        "what_if": [{"alloc_conf": one.text, **asdict(one.peaks)} for one in what_if],
        "beside": None if compared is None else asdict(compared),
    }
