"""Models by name: the published configuration of each, from ``models/<organisation>.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vramfit.errors import UnknownNameError
from vramfit.names import nearest, normalise

_FOLDER = Path(__file__).with_name("models")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One checkpoint, or several with the same shapes and format, and where its facts come from."""

    name: str
    """Hub id."""
    aliases: tuple[str, ...]
    """Other ids of the same shapes, and the short forms people type."""
    config: Mapping[str, object]
    """Fields of the published ``config.json`` that decide memory, in Hugging Face names."""
    parameters: int | None
    """Published count; None = none was found. A witness, not an input."""
    source: str
    verified_by: str | None
    """A second source that agrees; None = unverified."""
    date: str


def all_models() -> tuple[ModelRow, ...]:
    """Return every model of the catalogue, by organisation."""
    return tuple(_row(row) for row in _rows(""))


def find_model(name: str) -> ModelRow:
    """Return the model of that Hub id or alias: as written, else punctuation aside, never by substring.

    Raises:
        UnknownNameError: the catalogue has no such name, or several that differ in punctuation only; lists the nearest.

    >>> find_model("llama-3.1-8b").name
    'meta-llama/Llama-3.1-8B-Instruct'
    >>> find_model("facebook/opt-13b").name, find_model("facebook/OPT-1.3B").name
    ('facebook/opt-13b', 'facebook/opt-1.3b')
    """
    written, wanted = name.casefold(), normalise(name)
    close: dict[str, dict[str, Any]] = {}
    known: list[str] = []
    for row in _rows(name.split("/", maxsplit=1)[0] if "/" in name else ""):
        names = (row["name"], *row["aliases"])
        if any(n.casefold() == written for n in names):
            return _row(row)
        close |= {n: row for n in names if normalise(n) == wanted}
        known.extend(names)
    if len({row["name"] for row in close.values()}) == 1:
        return _row(next(iter(close.values())))
    raise UnknownNameError("model", name, tuple(close) or nearest(name, known), "`vramfit models` lists all")


def _rows(organisation: str) -> Iterator[dict[str, Any]]:
    """Yield raw rows, those of the named organisation first, so that a full id reads one file only."""
    paths = sorted(_FOLDER.glob("*.json"), key=lambda p: (p.stem != organisation, p.stem))
    for path in paths:
        yield from json.loads(path.read_bytes())


def _row(row: Mapping[str, Any]) -> ModelRow:
    values = {**row, "aliases": tuple(row["aliases"])}
    return ModelRow(**values)
