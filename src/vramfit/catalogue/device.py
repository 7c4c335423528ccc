"""Devices by name: what the driver of each reports, from ``devices.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vramfit.device import Device
from vramfit.errors import UnknownNameError
from vramfit.names import nearest, normalise

_FILE = Path(__file__).with_name("devices.json")


@cache
def _rows() -> tuple[dict[str, Any], ...]:
    """Return the rows of the embedded file, read once."""
    return tuple(json.loads(_FILE.read_bytes()))


def all_devices() -> tuple[Device, ...]:
    """Return every device of the catalogue, in the order of the file."""
    return tuple(_device(row) for row in _rows())


def find_device(name: str, path: str = "device") -> Device:
    """Return the device of that name or alias: exactly, case and punctuation aside, never by substring.

    Raises:
        UnknownNameError: no device has that name; lists the nearest.

    >>> find_device("A100 SXM 80GB").name
    'a100-sxm-80gb'
    """
    wanted = normalise(name)
    known: list[str] = []
    for row in _rows():
        names = (row["name"], row["product"], *row["aliases"])
        if any(normalise(n) == wanted for n in names):
            return _device(row)
        known.extend(names)
    next_step = "`vramfit devices` lists all; a card that is not there: --gpu-memory with what nvidia-smi reports"
    raise UnknownNameError(path, name, nearest(name, known), next_step)


def _device(row: Mapping[str, Any]) -> Device:
    """Make the noun of one row; lists become tuples."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    values["sources"] = {key: tuple(texts) for key, texts in row["sources"].items()}
    return Device(**values)
