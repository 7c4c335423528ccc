"""A command line as understood: what it gives of a request, and what became of each of its flags."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vramfit.request import Given


class Effect(StrEnum):
    """What a flag has to do with memory."""

    COUNTED = "counted"
    NONE = "does not touch memory"
    NOT_COUNTED = "touches memory, not counted"
    UNKNOWN = "not understood"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One flag with its values, where it stands and what it does."""

    flag: str
    """As it was written, without ``=value``."""
    values: tuple[str, ...]
    effect: Effect
    why: str = ""
    given: tuple[Given, ...] = ()
    joined: bool = False
    """True: written as ``--flag=value``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """One command line of an engine."""

    engine: str
    head: tuple[str, ...]
    """Everything before the flags, as written: variables, a container, the program, a positional model."""
    words: tuple[Word, ...]
    given: tuple[Given, ...]
    """Fields of the request, in the order in which they stand."""
    modelfile: bool = False
    """True: a file of instructions, one per line, rather than a command line."""

    def flags(self, effect: Effect) -> tuple[Word, ...]:
        """Return the flags that have that effect."""
        return tuple(word for word in self.words if word.effect is effect)
