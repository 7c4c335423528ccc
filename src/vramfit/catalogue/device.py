"""Devices by name: what the driver of each reports, from ``devices.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vramfit.device import Device, Price
from vramfit.errors import InvalidValueError, UnknownNameError
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

    The label of a Kubernetes node is such a name too, with its key or without it.

    Raises:
        UnknownNameError: no device has that name; lists the nearest.
        InvalidValueError: several devices have that name; lists them.

    >>> find_device("A100 SXM 80GB").name
    'a100-sxm-80gb'
    >>> find_device("nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB-MIG-1g.10gb").name
    'a100-80gb-1g.10gb'
    """
    found = _named(name)
    if len(found) == 1:
        return _device(found[0])
    if found:
        names = ", ".join(row["name"] for row in found)
        raise InvalidValueError(path, name, f"the name of one device; {len(found)} have this one", f"name one: {names}")
    known = [n for row in _rows() for n in _names(row)]
    next_step = "`vramfit devices` lists all; a card that is not there: --gpu-memory with what nvidia-smi reports"
    raise UnknownNameError(path, name, nearest(name, known), next_step)


def find_card(product: str, total_bytes: int) -> Device | None:
    """Return the device that a driver calls so; of several, the one nearest in memory. None = not in the catalogue.

    >>> find_card("NVIDIA GeForce RTX 3060", 8 * 2**30).name
    'rtx-3060-8gb'
    """
    found = _named(product)
    if not found:
        return None
    return _device(min(found, key=lambda row: abs(int(row["total_bytes"]) - total_bytes)))


def _named(name: str) -> list[dict[str, Any]]:
    """Return the rows that have a name; a label's key is left out."""
    wanted = normalise(name.rpartition("=")[2].removeprefix("nvidia.com/"))
    return [row for row in _rows() if any(normalise(n) == wanted for n in _names(row))]


def _names(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (row["name"], row["product"], *row["aliases"])


def _device(row: Mapping[str, Any]) -> Device:
    """Make the noun of one row; lists become tuples."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    values["sources"] = {key: tuple(texts) for key, texts in row["sources"].items()}
    if "price" in row:
        values["price"] = Price(**row["price"])
    return Device(**values)
