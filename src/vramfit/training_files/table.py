"""Every key that a program's files may hold, and what becomes of the keys of one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from vramfit.commands.command_line import Effect, Word
from vramfit.errors import InvalidValueError
from vramfit.names import nearest
from vramfit.request import Given
from vramfit.training_files.key import NotModelled, Reader, is_open
from vramfit.training_files.training_file import Refused, TrainingFile

LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a program's own sources say its files may hold; a name covers what lies below it."""

    source: str
    version: str
    known: frozenset[str]
    uncounted: Mapping[str, str]
    """Keys that touch memory in a way that is not counted here, and how."""


@cache
def keys(name: str) -> Keys:
    """Return the keys of a program, read once."""
    found = json.loads(files("vramfit.training_files").joinpath("keys", f"{name}.json").read_text("utf-8"))
    also = [keys(other) for other in found.get("also", ())]
    return Keys(
        source=found["source"],
        version=found["version"],
        known=frozenset(found["known"]).union(*(k.known for k in also)),
        uncounted={**{key: why for k in also for key, why in k.uncounted.items()}, **found["uncounted"]},
    )


def understand(  # noqa: PLR0913 - a kind of file is these five things
    kind: str,
    where: str,
    values: Mapping[str, Any],
    taken: Mapping[str, Reader],
    table: Keys,
    *,
    framework: str | None = None,
) -> TrainingFile:
    """Return what became of every key.

    Args:
        kind: what people call such a file.
        where: its name, for messages.
        values: by full names, as ``flat`` makes them.
        taken: readers of the keys that stand for fields.
        table: all keys of the program.
        framework: which one runs such a file; None = any may.

    Raises:
        InvalidValueError: a value of the wrong kind.
    """
    words: list[Word] = []
    refused: list[Refused] = []
    for name, value in values.items():
        if name not in taken:
            words.append(_not_taken(name, value, taken, table))
            continue
        found = taken[name](f"{where}: {name}", value, values)
        if isinstance(found, NotModelled):
            words.append(_word(name, value, Effect.NOT_COUNTED, found.why))
            if found.path is not None:
                error = InvalidValueError(f"{where}: {name}", value, found.expected, _advice(found.path))
                refused.append(Refused(path=found.path, error=error))
            continue
        said = f"{name}: {_shown(value)}"
        given = tuple(Given(path=path, value=each, said=f"{where}: {said}") for path, each in found)
        effect = Effect.COUNTED if given else Effect.NONE
        words.append(Word(flag=name, values=(_shown(value),), effect=effect, given=given))
    return TrainingFile(
        kind=kind, where=where, framework=framework, words=tuple(words), refused=tuple(refused)
    )


def _advice(path: str) -> str:
    return f"what it stands for is not modelled: give {path.rpartition('.')[2]} beside the file to answer without it"


def _not_taken(name: str, value: object, taken: Mapping[str, Reader], table: Keys) -> Word:
    """Return the word of a key that stands for no field."""
    above = _above(name)
    why = next((table.uncounted[each] for each in above if each in table.uncounted), None)
    if why is not None:
        off = is_open(value) or value in (False, 0, "0", "false", "False", "no", [])
        return _word(name, value, Effect.NONE if off else Effect.NOT_COUNTED, "" if off else why)
    if any(each in table.known for each in above):
        return _word(name, value, Effect.NONE, "")
    close = nearest(name, {*table.known, *table.uncounted, *taken})
    hint = f"; nearest: {', '.join(close)}" if close else ""
    return _word(name, value, Effect.UNKNOWN, f"no key of {table.version}{hint}")


def _above(name: str) -> tuple[str, ...]:
    """Return a name and those above it.

    >>> _above("a.b.c")
    ('a.b.c', 'a.b', 'a')
    """
    parts = name.split(".")
    return tuple(".".join(parts[:n]) for n in range(len(parts), 0, -1))


def _word(name: str, value: object, effect: Effect, why: str) -> Word:
    return Word(flag=name, values=(_shown(value),), effect=effect, why=why)


def _shown(value: object) -> str:
    """Return a value as the file has it, shortened."""
    if isinstance(value, list | tuple):
        value = ", ".join(str(each)[:LONGEST_SHOWN] for each in value[:LONGEST_SHOWN])
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = str(value)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."
