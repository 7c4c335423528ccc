"""One key of a file: which field of the request it stands for, and how its value is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from vramfit.errors import InvalidValueError

OPEN = frozenset({"auto", "", "none", "null", "-1"})
"""Words by which a file leaves the decision to the program."""
TRUE, FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})
LARGEST = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class NotModelled:
    """A value that means something that is not counted here."""

    why: str
    path: str | None = None
    """Field that the user has to give in its place; None = the answer goes on without it."""
    expected: str = ""


Found: TypeAlias = Iterable[tuple[str, object]] | NotModelled
Reader: TypeAlias = Callable[[str, Any, Mapping[str, Any]], Found]
"""Of a key's full name, its value and all values of the file by their full names."""


BESIDE = "read together with another key"
DESCRIBES = "describes the model"


def beside(*_: object) -> Found:
    """Read a key that another key's reader looks at: alone it says nothing."""
    return ()


def is_open(value: object) -> bool:
    """Say whether a value leaves the decision to the program."""
    return value is None or (isinstance(value, str | int) and str(value).strip().lower() in OPEN)


def count(name: str, value: object) -> int | None:
    """Read a positive integer, as a number or in words; None = left to the program.

    >>> count("batch_size", "1_024"), count("batch_size", 4.0), count("batch_size", "auto")
    (1024, 4, None)
    """
    if is_open(value):
        return None
    text = str(value)[:40].replace("_", "").replace(",", "")
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if isinstance(value, bool | list | dict) or not 1 <= number < LARGEST or number != int(number):
        raise InvalidValueError(name, value, "a positive integer")
    return int(text) if text.isdecimal() else int(number)


def ratio(name: str, value: object) -> float | None:
    """Read a number; None = left to the program."""
    if is_open(value):
        return None
    try:
        return float("" if isinstance(value, bool | list | dict) else str(value)[:40])
    except ValueError:
        raise InvalidValueError(name, value, "a number") from None


def truth(name: str, value: object) -> bool | None:
    """Read yes or no; None = left to the program.

    >>> truth("bf16", "True"), truth("bf16", False), truth("bf16", "auto")
    (True, False, None)
    """
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in TRUE | FALSE and isinstance(value, str | int):
        return word in TRUE
    if is_open(value):
        return None
    raise InvalidValueError(name, value, "true or false")


def text(name: str, value: object) -> str | None:
    """Read a word; None = left to the program."""
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise InvalidValueError(name, value, "one word")


def names(name: str, value: object) -> tuple[str, ...] | None:
    """Read several words: a list, or one text with commas or spaces between them.

    >>> names("lora_target", "q_proj,v_proj"), names("lora_target_modules", ["q_proj"])
    (('q_proj', 'v_proj'), ('q_proj',))
    """
    if value is None or value in ("", []):
        return None
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise InvalidValueError(name, value, "a list of names")


def to(path: str, kind: Callable[[str, object], object] = count) -> Reader:
    """Return the reader of a key that stands for one field."""

    def read(name: str, value: object, _: Mapping[str, Any]) -> Found:
        found = kind(name, value)
        return () if found is None else ((path, found),)

    return read


def when(yes: Iterable[tuple[str, object]] = (), no: Iterable[tuple[str, object]] = ()) -> Reader:
    """Return the reader of a switch that stands for some fields when on, and for others when off."""

    def read(name: str, value: object, _: Mapping[str, Any]) -> Found:
        found = truth(name, value)
        return () if found is None else yes if found else no

    return read


def stage(path: str, *more: tuple[str, object]) -> Reader:
    """Return the reader of a ZeRO stage, which may be 0."""

    def read(name: str, value: object, _: Mapping[str, Any]) -> Found:
        found = 0 if str(value) == "0" else count(name, value)
        return () if found is None else ((path, found), *more)

    return read


def switch(path: str, on: object = True, off: object = False) -> Reader:
    """Return the reader of a switch that stands for one value of a field when on, and for another when off."""
    return when(((path, on),), ((path, off),))


def named(path: str, values: Mapping[str, Any]) -> Reader:
    """Return the reader of a key whose words are values of one field; None = the program's own choice."""
    meanings = {said: () if ours is None else ((path, ours),) for said, ours in values.items()}
    return word(meanings, path)


def word(
    meanings: Mapping[str, Iterable[tuple[str, object]]], path: str | None = None, what: str = "not modelled"
) -> Reader:
    """Return the reader of a key whose words mean fields; ``path`` must be given in place of a word not among them."""

    def read(name: str, value: object, _: Mapping[str, Any]) -> Found:
        said = "" if value is None else text(name, value) or ""
        found = meanings.get(said, meanings.get(said.lower()))
        if found is not None:
            return found
        if is_open(value):
            return ()
        return NotModelled(why=f"{said[:60]}: {what}", path=path, expected=f"one of {', '.join(meanings)}")

    return read


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return the values of nested objects by their full names.

    >>> flat({"zero_optimization": {"stage": 3}, "fp16": {}})
    {'zero_optimization.stage': 3, 'fp16': None}
    """
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.") if value else {f"{prefix}{name}": None}
        else:
            found[f"{prefix}{name}"] = value
    return found
