"""Writes a command line with some fields of the request changed: flags that stand for them are replaced or added."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from vramfit.commands.command_line import CommandLine, Effect, Word
from vramfit.commands.flag import Flag
from vramfit.commands.ollama import PARAMETERS
from vramfit.commands.program import spelling
from vramfit.commands.read import PROGRAMS
from vramfit.request import Given

LONGEST_LINE = 88
"""A command longer than this is continued over lines, one flag each. [characters]"""


def rewritten(line: CommandLine, changes: Iterable[Given]) -> CommandLine | None:
    """Return the command with those fields changed; None = the program has no flag for one of them."""
    if line.engine == "ollama" and not line.modelfile:
        line = _as_modelfile(line)
    words = list(line.words)
    for change in changes:
        new = _word(line, change)
        if new is None:
            return None
        names = _names(line, change.path)
        at = [i for i, w in enumerate(words) if w.flag in names or any(g.path == change.path for g in w.given)]
        kept = [word for i, word in enumerate(words) if i not in at]
        place = at[0] if at else len(kept)
        words = [*kept[:place], new, *kept[place:]]
    given = tuple(g for g in line.given if g not in [x for w in line.words for x in w.given])
    return CommandLine(
        engine=line.engine,
        head=line.head,
        words=tuple(words),
        given=(*given, *(g for word in words for g in word.given)),
        modelfile=line.modelfile,
    )


def _as_modelfile(line: CommandLine) -> CommandLine:
    """Return the Modelfile of an ``ollama run``, which has no flags of its own for sizes."""
    model = next((g for g in line.given if g.path == "model"), None)
    said = "" if model is None else model.said
    given = tuple(g for g in line.given if model is not None and g.path in {"model", "workload.weight_format"})
    words = (Word(flag="FROM", values=(said,), effect=Effect.COUNTED, given=given),)
    return CommandLine(engine=line.engine, head=(), words=words, given=line.given, modelfile=True)


def _flags(line: CommandLine, path: str) -> tuple[Flag, ...]:
    """Return the flags that stand for a field."""
    if line.modelfile:
        return tuple(flag for flag in PARAMETERS.values() if flag.path == path)
    program = next(p for p in PROGRAMS if p.engine == line.engine)
    return tuple(f for f in program.flags if isinstance(f, Flag) and f.path == path)


def _names(line: CommandLine, path: str) -> frozenset[str]:
    """Return every spelling of those flags, as it may stand in the command."""
    names = [name for flag in _flags(line, path) for name in flag.names]
    return frozenset((*names, *(spelling(n) for n in names), *(f"PARAMETER {n}" for n in names)))


def _word(line: CommandLine, change: Given) -> Word | None:
    """Return the flag that says a change; None = there is none, or it has no word for the value."""
    for flag in _flags(line, change.path):
        text = flag.kind.write(change.value)
        if text:
            name = f"PARAMETER {flag.names[0]}" if line.modelfile else flag.names[0]
            return Word(flag=name, values=(text,), effect=Effect.COUNTED, given=(change,))
    return None


def text_lines(line: CommandLine) -> tuple[str, ...]:
    """Return the command as it can be pasted: one line, or continued over several; of a Modelfile the counted lines."""
    if line.modelfile:
        return tuple(" ".join((word.flag, *word.values)) for word in line.words if word.given)
    variables = [word for word in line.words if not word.flag.startswith("-")]
    flags = [_joined(word) for word in line.words if word not in variables]
    head = shlex.join(line.head)
    whole = " ".join((head, *flags))
    if len(whole) <= LONGEST_LINE or not flags:
        return (whole,)
    return (f"{head} \\", *(f"  {flag} \\" for flag in flags[:-1]), f"  {flags[-1]}")


def _joined(word: Word) -> str:
    if word.joined:
        return shlex.quote(f"{word.flag}={word.values[0]}")
    return shlex.join((word.flag, *word.values))
