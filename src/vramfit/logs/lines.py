"""Cleans a pasted log: bounded, without colours, one line after another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from vramfit.errors import UnreadableFileError
from vramfit.measured import Measurement
from vramfit.result import Quantity

LIMIT_BYTES = 16 * 2**20
LONGEST_LINE = 20_000
"""Longer lines are cut: no figure stands beyond. [characters]"""
_COLOURS = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]|\x1b\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)|\^\[\[[0-9;]{0,20}[A-Za-z]")
NUMBER = r"(\d{1,15}(?:\.\d{1,9})?)"
"""A printed figure; every pattern here is bounded, so that none can take long."""


def lines_of(data: bytes, where: str) -> tuple[str, ...]:
    """Return the lines of a log.

    Raises:
        UnreadableFileError: too long, or not text.
    """
    if len(data) > LIMIT_BYTES:
        raise UnreadableFileError(
            f"{where}: more than {LIMIT_BYTES >> 20} MiB: expected a start-up log; cut out the lines before serving"
        )
    if b"\x00" in data[:4096]:
        raise UnreadableFileError(f"{where}: holds zero bytes: expected text; paste the log as UTF-8")
    text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return tuple(_COLOURS.sub("", line[:LONGEST_LINE]).rstrip() for line in text.split("\n"))


def resolution(text: str, unit: int) -> int:
    """Return how finely a figure was printed. [B]

    >>> resolution("14.98", 2**30)
    10737418
    """
    return int(unit // 10 ** len(text.partition(".")[2]))


def sized(quantity: Quantity, text: str, unit: int, scope: str = "device") -> Measurement:
    """Make a measurement of a printed size."""
    value = float(text) * unit
    return Measurement(
        quantity=quantity, value=value, low=value, high=value, resolution_bytes=resolution(text, unit), scope=scope
    )


def counted(quantity: Quantity, text: str) -> Measurement:
    """Make a measurement of a printed count."""
    value = float(text.replace(",", ""))
    return Measurement(quantity=quantity, value=value, low=value, high=value)


def first(found: Iterable[Measurement], choose: Callable[..., Measurement] = max) -> Iterator[Measurement]:
    """Yield one measurement per quantity and scope: of several ranks the one that decides."""
    groups: dict[tuple[Quantity, str], list[Measurement]] = {}
    for each in found:
        groups.setdefault((each.quantity, each.scope), []).append(each)
    for group in groups.values():
        yield choose(group, key=lambda m: m.value)
