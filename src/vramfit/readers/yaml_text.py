"""Reads YAML that nobody vouches for: plain values only, bounded in size, in depth, in values and in aliases.

The library's safe loader builds no objects, but it follows aliases: ten lines of them can stand for a billion
values. Here a text may have a few, and everything they stand for counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from vramfit.errors import UnreadableFileError, quote
from vramfit.readers.json_text import DEEPEST_NESTING

MOST_VALUES = 100_000
"""Values in one text, each use of an alias with all that it stands for."""
MOST_MARKS = 200_000
"""Characters that begin values: bounds the work of the parser before it begins."""
MOST_ALIASES = 1_000
_MARKS = (b":", b",", b"-", b"[", b"{")


def parse_yaml_object(text: bytes, where: str, limit_bytes: int) -> dict[str, object]:
    r"""Return the mapping that ``text`` holds, its values as JSON would have them.

    Raises:
        UnreadableFileError: too long, too deep, not UTF-8, not YAML, not a mapping, a tag that builds objects,
            or aliases that stand for too much.

    >>> parse_yaml_object(b"bf16: true\nlr: 1e-4", "a.yml", 100)
    {'bf16': True, 'lr': '1e-4'}
    """
    if len(text) > limit_bytes:
        raise UnreadableFileError(
            f"{where}: more than {limit_bytes:,} bytes; expected a configuration; is this the right file?"
        )
    if sum(text.count(mark) for mark in _MARKS) > MOST_MARKS:
        raise UnreadableFileError(f"{where}: too many values; expected a configuration; is this the right file?")
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(
            f"{where}: byte 0x{text[error.start]:02x} that is not UTF-8; expected YAML; is this the right file?"
        ) from None
    parsed = _parsed(decoded, where)
    if not isinstance(parsed, dict):
        raise UnreadableFileError(
            f"{where}: {quote(parsed)}: expected a mapping of keys to values; is this the right file?"
        )
    budget = [MOST_VALUES]
    plain = _plain(parsed, where, 0, budget)
    assert isinstance(plain, dict)
    return plain


def _parsed(text: str, where: str) -> object:
    """Run the parser, and turn whatever it says into one kind of error with its place."""
    import yaml  # noqa: PLC0415 - only files in YAML pay for it

    try:
        _check(_events(text), where)
        return yaml.load(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise UnreadableFileError(
            f"{where}{place}: {error.problem or error.context}; expected YAML of plain values; correct the text"
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UnreadableFileError(f"{where}: {quote(str(error))}; expected YAML of plain values; correct it") from None
    except RecursionError:
        raise _too_deep(where) from None


def _events(text: str) -> Iterator[Any]:
    import yaml  # noqa: PLC0415 - only files in YAML pay for it

    return iter(yaml.parse(text, Loader=yaml.SafeLoader))


def _check(events: Iterator[Any], where: str) -> None:
    """Refuse depth and aliases before anything is built: the parser itself walks without recursion here."""
    depth = aliases = 0
    for event in events:
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        aliases += kind == "AliasEvent"
        if depth > DEEPEST_NESTING + 2:  # the stream and the document are two
            raise _too_deep(where)
        if aliases > MOST_ALIASES:
            raise UnreadableFileError(f"{where}: more than {MOST_ALIASES:,} aliases; write the values out")


def _too_deep(where: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{where}: nested deeper than {DEEPEST_NESTING}; expected a configuration; is this the right file?"
    )


def _plain(value: object, where: str, depth: int, budget: list[int]) -> object:
    """Return a value as JSON has it, counting all that aliases stand for."""
    budget[0] -= 1
    if budget[0] < 0:
        raise UnreadableFileError(f"{where}: aliases that stand for more than {MOST_VALUES:,} values; write them out")
    if depth > DEEPEST_NESTING:
        raise _too_deep(where)
    if isinstance(value, dict):
        return {str(name)[:200]: _plain(each, where, depth + 1, budget) for name, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(each, where, depth + 1, budget) for each in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return PurePath(str(value)).as_posix() if not isinstance(value, bytes) else value.decode("utf-8", "replace")
