"""A program that serves models: how its command lines begin, and what each of its flags means."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

from vramfit.commands.flag import Flag, Nested, Switch


class Takes(StrEnum):
    """What follows a flag."""

    NOTHING = "nothing"
    ONE = "one value"
    MANY = "several values"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One server program."""

    engine: str
    """As requests name it."""
    starts: tuple[tuple[str, ...], ...]
    """Beginnings of its command lines, by base name: ``("vllm", "serve")``."""
    images: tuple[str, ...]
    """Endings of names of container images whose entry point it is; a tag that is a version tells its version."""
    table: str
    """File below ``flags`` that lists every flag of its parser."""
    positional_model: bool
    flags: tuple[Flag | Switch | Nested, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Every flag of a program's own parser."""

    source: str
    version: str
    takes: Mapping[str, Takes]
    """Flags of that version and of those before."""
    gone_after: Mapping[str, str]
    """Flag -> last version, of those read, that has it."""
    first_seen: Mapping[str, str]
    """Flag -> first version, of those read, that has it; absent = all have it."""
    uncounted: Mapping[str, str]
    """Flags that touch memory in a way that is not counted here, and how."""
    noted: Mapping[str, str]
    """Flags that do not change what is counted although one might think so, and why."""


def spelling(flag: str) -> str:
    """Return a long flag with hyphens, as parsers themselves treat underscores.

    >>> spelling("--max_model_len"), spelling("-ngl")
    ('--max-model-len', '-ngl')
    """
    return flag.replace("_", "-") if flag.startswith("--") else flag


@cache
def table(name: str) -> Table:
    """Return the flags of a program, read once."""
    found = json.loads(files("vramfit.commands").joinpath("flags", f"{name}.json").read_text("utf-8"))
    old = {flag: kind for flags in found["gone_after"].values() for flag, kind in flags.items()}
    kinds = {"switch": Takes.NOTHING, "value": Takes.ONE, "list": Takes.MANY}
    takes = {spelling(flag): kinds[kind] for flag, kind in old.items()}
    for key, kind in (("switches", Takes.NOTHING), ("values", Takes.ONE), ("lists", Takes.MANY)):
        takes |= dict.fromkeys(map(spelling, found[key]), kind)
    return Table(
        source=found["source"],
        version=found["version"],
        takes=takes,
        gone_after={spelling(flag): version for version, flags in found["gone_after"].items() for flag in flags},
        first_seen={spelling(flag): version for version, flags in found["first_seen"].items() for flag in flags},
        uncounted={spelling(flag): why for flag, why in found["uncounted"].items()},
        noted={spelling(flag): why for flag, why in found["noted"].items()},
    )


def by_name(flags: Iterable[Flag | Switch | Nested]) -> dict[str, Flag | Switch | Nested]:
    """Return the flags by each of their spellings."""
    return {spelling(name): flag for flag in flags for name in flag.names}
