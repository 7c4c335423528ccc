"""Every key that a program's files may hold, and what becomes of the keys of one file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from vramfit.commands.command_line import Effect, Word
from vramfit.errors import InvalidValueError
from vramfit.names import nearest
from vramfit.request import Given
from vramfit.training_files.key import BESIDE, DESCRIBES, NotModelled, Reader, beside, is_open
from vramfit.training_files.training_file import Refused, TrainingFile

LONGEST_SHOWN = 60
MOST_HINTS = 20
"""Unknown keys of one file for which near ones are looked up, which takes milliseconds for each."""
OFF: tuple[object, ...] = (False, 0, "0", "false", "False", "no", "disabled", [])
"""Values that say that something is not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a program's own sources say its files may hold; a name covers what lies below it."""

    source: str
    version: str
    known: frozenset[str]
    uncounted: Mapping[str, str]
    """Keys that touch memory in a way that is not counted here, and how."""
    model: frozenset[str] = frozenset()
    """Keys that describe a model by its sizes."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One program's way of writing settings."""

    kind: str
    """What people call such a file."""
    framework: str | None
    """Which one runs such a file, as requests name it; None = any may."""
    table: str
    """File below ``keys`` that lists what such a file may hold."""
    model: frozenset[str] = frozenset()
    """Keys that describe a model by its sizes."""

    def known(self) -> Keys:
        """Return all keys that such a file may hold."""
        found = keys(self.table)
        return replace(found, known=found.known | self.model, model=self.model)


def understand(
    dialect: Dialect,
    where: str,
    values: Mapping[str, Any],
    taken: Mapping[str, Reader],
    implied: Iterable[tuple[str, object, str]] = (),
) -> TrainingFile:
    """Return what became of every key.

    Args:
        dialect: whose file it is.
        where: its name, for messages.
        values: by full names, as ``flat`` makes them.
        taken: readers of the keys that stand for fields.
        implied: fields that follow from what such a file is, with the words that say why.

    Raises:
        InvalidValueError: a value of the wrong kind.
    """
    table = dialect.known()
    words = [_implied(where, *each) for each in implied]
    refused: list[Refused] = []
    hints = MOST_HINTS
    for name, value in values.items():
        if name not in taken:
            word = _not_taken(name, value, table)
            if word.effect is Effect.UNKNOWN and hints:
                word, hints = _with_hint(word, {*table.known, *table.uncounted, *taken}), hints - 1
            words.append(word)
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
        why = BESIDE if taken[name] is beside else ""
        words.append(Word(flag=name, values=(_shown(value),), effect=effect, why=why, given=given))
    return TrainingFile(
        kind=dialect.kind, where=where, framework=dialect.framework, words=tuple(words), refused=tuple(refused)
    )


def _implied(where: str, path: str, value: object, why: str) -> Word:
    given = Given(path=path, value=value, said=f"{where}: {why}")
    return Word(flag=why, values=(), effect=Effect.COUNTED, given=(given,))


def _advice(path: str) -> str:
    return f"what it stands for is not modelled: give {path.rpartition('.')[2]} beside the file to answer without it"


def _not_taken(name: str, value: object, table: Keys) -> Word:
    """Return the word of a key that stands for no field."""
    above = _above(name)
    why = next((table.uncounted[each] for each in above if each in table.uncounted), None)
    if why is not None:
        off = is_open(value) or value in OFF
        return _word(name, value, Effect.NONE if off else Effect.NOT_COUNTED, "" if off else why)
    if any(each in table.known for each in above):
        return _word(name, value, Effect.NONE, DESCRIBES if name in table.model else "")
    return _word(name, value, Effect.UNKNOWN, f"no key of {table.version}")


def _with_hint(word: Word, known: Iterable[str]) -> Word:
    """Return an unknown key with the nearest known ones."""
    close = nearest(word.flag, known)
    return replace(word, why=f"{word.why}; nearest: {', '.join(close)}") if close else word


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
