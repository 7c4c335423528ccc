"""One flag of a program: which field of the request it stands for, and how its value is read and written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vramfit.errors import InvalidValueError
from vramfit.request import Given

_HUMAN = re.compile(r"(\d{1,15})(?:\.(\d{1,6}))?([kKmMgGtT]?)")
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
LEFT_OPEN = frozenset({"auto", "-1", "none", ""})
"""Values by which a flag leaves the decision to the engine."""
TRUE, FALSE = frozenset({"1", "on", "true", "yes", "enabled"}), frozenset({"0", "off", "false", "no", "disabled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How values of one kind are read and written."""

    read: Callable[[str, str], object]
    """Of the flag's name and its text; None = left to the engine."""
    write: Callable[[object], str]


def whole(name: str, text: str) -> int | None:
    """Read a count; ``32k`` is 32,000 and ``32K`` is 32,768, as vLLM has it.

    Source: vllm-project/vllm:vllm/utils/argparse_utils.py, human_readable_int.

    >>> whole("--max-model-len", "32K"), whole("--max-model-len", "25.6k"), whole("--max-model-len", "auto")
    (32768, 25600, None)
    """
    if text.lower() in LEFT_OPEN:
        return None
    match = _HUMAN.fullmatch(text)
    digits, fraction, suffix = match.groups() if match else ("", None, "")
    if match is None or (fraction and suffix not in _DECIMAL):
        raise InvalidValueError(name, text, "a whole number such as 32768, 32k (32,000) or 32K (32,768)")
    scaled = int(digits + (fraction or "")) * {**_DECIMAL, **_BINARY, "": 1}[suffix]
    return int(scaled // 10 ** len(fraction or ""))


def share(name: str, text: str) -> float | None:
    """Read a share from 0 to 1."""
    if text.lower() in LEFT_OPEN:
        return None
    try:
        value = float(text[:40])
    except ValueError:
        raise InvalidValueError(name, text, "a share such as 0.9") from None
    if not 0 < value <= 1:
        raise InvalidValueError(name, text, "a share above 0 and at most 1")
    return value


def truth(name: str, text: str) -> bool | None:
    """Read on or off; None = left to the engine."""
    if text.lower() in TRUE | FALSE:
        return text.lower() in TRUE
    if text.lower() in LEFT_OPEN:
        return None
    raise InvalidValueError(name, text, "on, off or auto")


def plain(name: str, text: str) -> str:
    """Read a text; what a shell would have put in its place is not known here."""
    if "$" in text or "`" in text:
        raise InvalidValueError(name, text, "its value", "shell variables are not looked up: write the value itself")
    return text


def chosen(values: Mapping[str, str | None]) -> Kind:
    """Return the kind of a flag that takes one of these names; None = left to the engine."""

    def read(name: str, text: str) -> str | None:
        if text not in values:
            raise InvalidValueError(name, text, f"one of {', '.join(values)}", "others are not counted in this version")
        return values[text]

    back = {ours: theirs for theirs, ours in reversed(tuple(values.items())) if ours is not None}
    return Kind(read=read, write=lambda value: back.get(str(value), ""))


COUNT = Kind(read=whole, write=str)
SHARE = Kind(read=share, write=lambda value: f"{value:g}")
TEXT = Kind(read=plain, write=str)
TRUTH = Kind(read=truth, write=lambda value: "on" if value else "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag, or several spellings of it, that stands for one field."""

    names: tuple[str, ...]
    """The first is the one that we write."""
    path: str
    """Field of the request: ``workload.context_tokens``."""
    kind: Kind = COUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A flag without a value that stands for one value of a field."""

    names: tuple[str, ...]
    path: str
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """A flag whose value says several things at once, such as JSON."""

    names: tuple[str, ...]
    read: Callable[[str, str], tuple[Given, ...]]
    """Of the flag's name and its text."""
