"""``train --from``: files of frameworks in, what was understood of them out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vramfit.commands.command_line import Effect, Word
from vramfit.readers.document import LIMIT_BYTES, load_document, parse_document
from vramfit.report.rows import Row, Section, Tone
from vramfit.result import in_words
from vramfit.training_files.combine import Combined
from vramfit.training_files.key import BESIDE, DESCRIBES
from vramfit.training_files.recognise import read
from vramfit.training_files.training_file import Document, TrainingFile

TITLES = {Effect.UNKNOWN: "not understood", Effect.NOT_COUNTED: "not counted"}
HIDDEN = frozenset({"config"})


def load(named: str) -> TrainingFile:
    """Read one file, standard input (``-``), or a command line that stands there itself.

    Raises:
        VramfitError: missing, damaged, nobody's file that is known here, or with values that cannot be.
    """
    path = Path(named)
    if named == "-":
        where, found = "standard input", parse_document(sys.stdin.buffer.read(LIMIT_BYTES + 1), "standard input")
    elif " " in named.strip() and not _is_there(path):
        where, found = "--from", named
    else:
        where, found = path.name, load_document(path)
    if isinstance(found, str):
        return read(Document(where=where, text=found))
    return read(Document(where=where, values=found))


def _is_there(path: Path) -> bool:
    """Say whether there is such a file; a command line may be longer than any path."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def understood(files: tuple[TrainingFile, ...], combined: Combined) -> tuple[Section, ...]:
    """Return what each field was understood as, and what became of the keys that stand for none."""
    taken = [
        Row(each.path.removeprefix("workload.").removeprefix("plan."), "", f"{in_words(each.value)}: {each.said}")
        for each in combined.given
        if each.path not in HIDDEN
    ]
    notes = [Row("worked out", "", text, Tone.QUIET) for text in combined.notes]
    rest = [row for file in files for row in _left(file)]
    kinds = ", ".join(f"{file.where} ({file.kind})" for file in files)
    return (
        Section(f"Taken from {kinds}", (*taken, *notes)),
        *((Section("Of these files", tuple(rest)),) if rest else ()),
    )


def _left(file: TrainingFile) -> Iterable[Row]:
    for effect in (Effect.UNKNOWN, Effect.NOT_COUNTED):
        for word in file.having(effect):
            yield Row(word.flag, "", f"{TITLES[effect]}: {word.why}", Tone.WARN)
    titles = {DESCRIBES: "sizes of the model", BESIDE: BESIDE, "": "without effect on memory"}
    for why, title in titles.items():
        quiet = [word.flag for word in file.having(Effect.NONE) if word.why == why]
        if quiet:
            yield Row(title, "", ", ".join(quiet), Tone.QUIET)


def as_json(files: tuple[TrainingFile, ...], combined: Combined) -> dict[str, Any]:
    """Return the same for JSON."""
    return {
        "given": [{"field": g.path, "value": _plain(g.value), "said": g.said} for g in combined.given],
        "notes": list(combined.notes),
        "files": [
            {"file": file.where, "kind": file.kind, "keys": [_word(word) for word in file.words]} for file in files
        ],
    }


def _word(word: Word) -> dict[str, Any]:
    return {"key": word.flag, "value": " ".join(word.values), "effect": word.effect.value, "why": word.why}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
