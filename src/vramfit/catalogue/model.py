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
_NAMES = Path(__file__).with_name("model_names.json")
"""Written by scripts/model_names.py: organisation -> the names of each row, its id first; read instead of all rows."""


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
    return tuple(_row(row) for row in _rows())


def find_model(name: str) -> ModelRow:
    """Return the model of that Hub id or alias: as written, else punctuation aside, never by substring.

    Raises:
        UnknownNameError: the catalogue has no such name, or several that differ in punctuation only; lists the nearest.

    >>> find_model("llama-3.1-8b").name
    'meta-llama/Llama-3.1-8B-Instruct'
    >>> find_model("facebook/opt-13b").name, find_model("facebook/OPT-1.3B").name
    ('facebook/opt-13b', 'facebook/opt-1.3b')
    """
    names: Mapping[str, list[list[str]]] = json.loads(_NAMES.read_bytes())
    rows = [(organisation, row) for organisation, rows in names.items() for row in rows]
    written, wanted = name.casefold(), normalise(name)
    found = [place for place in rows if any(n.casefold() == written for n in place[1])]
    found = found or [place for place in rows if any(normalise(n) == wanted for n in place[1])]
    if len(found) != 1:
        known = [n for _, row in found or rows for n in row]
        close = tuple(n for n in known if normalise(n) == wanted)
        raise UnknownNameError("model", name, close or nearest(name, known), "`vramfit models` lists all")
    organisation, (identity, *_) = found[0]
    return next(_row(row) for row in _rows(organisation) if row["name"] == identity)


def _rows(organisation: str = "*") -> Iterator[dict[str, Any]]:
    """Yield the raw rows of one organisation, or of all."""
    for path in sorted(_FOLDER.glob(f"{organisation}.json")):
        yield from json.loads(path.read_bytes())


def _row(row: Mapping[str, Any]) -> ModelRow:
    values = {**row, "aliases": tuple(row["aliases"])}
    return ModelRow(**values)
