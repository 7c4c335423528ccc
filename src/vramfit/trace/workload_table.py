"""Reads a table of workloads: TOML, groups of rows that share what is written above them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from vramfit.errors import InvalidValueError, UnreadableFileError
from vramfit.names import nearest
from vramfit.workload import LONGEST_ID, ListedWorkload, Workload

FILE_LIMIT_BYTES = 4 * 2**20
PROGRAM = frozenset(field.name for field in fields(Workload))
LISTED = frozenset({"id", "order", "needs_gib", "packages", "snapshot"})
DEFAULT_ORDER = 3


def load_workloads(path: Path) -> tuple[ListedWorkload, ...]:
    """Return the rows of a file, most informative first.

    Raises:
        UnreadableFileError: a file that is missing, too large or no TOML.
        InvalidValueError: an unknown field, a wrong value or an id that stands twice.
    """
    try:
        with path.open("rb") as file:
            text = file.read(FILE_LIMIT_BYTES + 1)
        values = tomllib.loads(text[:FILE_LIMIT_BYTES].decode())
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror}; expected a table of workloads, workloads.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{path}: {error}; expected TOML") from None
    if len(text) > FILE_LIMIT_BYTES:
        raise UnreadableFileError(f"{path}: more than {FILE_LIMIT_BYTES:,} bytes; expected a table of workloads")
    return read_workloads(values)


def read_workloads(values: Mapping[str, Any]) -> tuple[ListedWorkload, ...]:
    """Return the rows of a decoded table, most informative first; of equal order, as they stand."""
    found = [row for number, group in enumerate(values.get("group", ())) for row in _rows(group, f"group[{number}]")]
    if not found:
        raise InvalidValueError("group", values.get("group"), "at least one [[group]] with rows")
    seen: set[str] = set()
    for row in found:
        if row.id in seen:
            raise InvalidValueError("id", row.id, "an id that no other row has")
        seen.add(row.id)
    return tuple(sorted(found, key=lambda row: row.order))


def _rows(group: object, where: str) -> Iterator[ListedWorkload]:
    """Yield the rows of a group; what a row says wins, and ``arguments`` and ``config`` are merged."""
    if not isinstance(group, Mapping) or not isinstance(group.get("rows"), list):
        raise InvalidValueError(f"{where}.rows", None, "a list of rows, each with an id")
    shared = {name: value for name, value in group.items() if name != "rows"}
    for number, row in enumerate(group["rows"]):
        if not isinstance(row, Mapping):
            raise InvalidValueError(f"{where}.rows[{number}]", row, "a table with an id")
        yield _row(merged(shared, row), f"{where}.rows[{number}]")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return two tables as one; tables inside are merged too, of everything else the one above wins.

    >>> merged({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}})
    {'a': {'x': 1, 'y': 3}, 'b': 1}
    """
    both = dict(below)
    for name, value in above.items():
        mapped = isinstance(value, Mapping) and isinstance(both.get(name), Mapping)
        both[name] = merged(both[name], value) if mapped else value
    return both


def _row(values: Mapping[str, Any], where: str) -> ListedWorkload:
    for field in values:
        if field not in PROGRAM | LISTED:
            close = nearest(field, PROGRAM | LISTED)
            hint = f"nearest: {', '.join(close)}" if close else ""
            raise InvalidValueError(f"{where}.{field}", values[field], "a field of a workload", hint)
    name: Any = values.get("id")
    if not isinstance(name, str) or not name.isascii() or not 0 < len(name) <= LONGEST_ID:
        raise InvalidValueError(f"{where}.id", name, f"a text of up to {LONGEST_ID} characters")
    program = {key: value for key, value in values.items() if key in PROGRAM}
    if "builder" not in program:
        raise InvalidValueError(f"{where}.builder", None, "the name of a builder")
    return ListedWorkload(
        id=name,
        workload=Workload(**program),
        order=int(values.get("order", DEFAULT_ORDER)),
        needs_gib=float(values.get("needs_gib", 4)),
        packages=tuple(values.get("packages", ())),
        snapshot=bool(values.get("snapshot", False)),
    )
