"""Sizes: how to round, compare, print and parse them.

A size (bytes, tokens, a batch) is an ``int`` or an integer array, so that one formula
answers one question or a million. The functions here use nothing but arithmetic and
comparison, hence they work on both without importing an array library.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias, overload

from vramfit.errors import InvalidValueError

Size: TypeAlias = Any
"""An ``int``, or an integer array (NumPy and alike) that broadcasts with the others."""

KIB = 2**10
MIB = 2**20
GIB = 2**30
GB = 10**9

LARGEST_SIZE = 2**62
"""Upper bound on any size that enters: sums of such sizes still fit the range of a 64-bit array."""

_UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_COUNTS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_NUMBER = re.compile(r"\s*([0-9]+)(?:\.([0-9]+))?\s*([A-Za-z]*)\s*")


@overload
def ceil_div(a: int, b: int) -> int: ...
@overload
def ceil_div(a: Size, b: Size) -> Size: ...
def ceil_div(a: Size, b: Size) -> Size:
    """Return ``a / b`` rounded up, for integers and integer arrays.

    >>> ceil_div(7, 2), ceil_div(8, 2), ceil_div(0, 2)
    (4, 4, 0)
    """
    return -(-a // b)


@overload
def round_up(a: int, multiple: int) -> int: ...
@overload
def round_up(a: Size, multiple: Size) -> Size: ...
def round_up(a: Size, multiple: Size) -> Size:
    """Return the smallest multiple of ``multiple`` that is not below ``a``.

    >>> round_up(513, 512)
    1024
    """
    return ceil_div(a, multiple) * multiple


def larger(a: Size, b: Size) -> Size:
    """Return the larger of two sizes, element by element when one is an array.

    >>> larger(3, 5)
    5
    """
    return a + (b - a) * (b > a)


def smaller(a: Size, b: Size) -> Size:
    """Return the smaller of two sizes, element by element when one is an array.

    >>> smaller(3, 5)
    3
    """
    return a + (b - a) * (b < a)


def is_array(size: Size) -> bool:
    """Say whether a size is an array rather than one integer."""
    return not isinstance(size, int)


def count_of(count: Size, thing: str) -> str:
    """Return a count and its noun; of an array the noun alone.

    >>> count_of(1, "sequence"), count_of(8192, "token")
    ('1 sequence', '8,192 tokens')
    """
    if is_array(count):
        return f"{thing}s"
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def format_bytes(size: int) -> str:
    """Print bytes for people: GiB with two decimals, smaller sizes in MiB, KiB or B.

    >>> format_bytes(17179869184), format_bytes(131072), format_bytes(-5 * 2**20)
    ('16.00 GiB', '128.00 KiB', '-5.00 MiB')
    """
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(size) >= unit:
            return f"{size / unit:,.2f} {name}"
    return f"{size} B"


def format_gib(size: int) -> str:
    """Print bytes in GiB, always, so that a column can be compared by eye.

    >>> format_gib(16060522496)
    '14.96'
    """
    return f"{size / GIB:,.2f}"


def gb(size: int) -> str:
    """Print bytes as pages quote them, in GB of 10**9, without zeros at the end.

    >>> gb(14 * 10**9), gb(3250 * 10**6), gb(436_800_000_000)
    ('14 GB', '3.25 GB', '436.8 GB')
    """
    return f"{size / GB:,.2f}".rstrip("0").rstrip(".") + " GB"


def format_count(count: int) -> str:
    """Print a number of parameters as people write it.

    >>> format_count(8030261248), format_count(124439808)
    ('8.03B', '124.44M')
    """
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.2f}{name}"
    return str(count)


def _scaled(text: str, path: str, units: dict[str, int], expected: str) -> int:
    """Read ``12.5GiB``-like text as an exact integer; fractions of one unit are refused."""
    match = _NUMBER.fullmatch(text[:64]) if len(text) <= 64 else None
    factor = units.get(match.group(3).upper()) if match else None
    if match is None or factor is None:
        raise InvalidValueError(path, text[:64], expected)
    whole, fraction = match.group(1), match.group(2) or ""
    scaled = int(whole + fraction) * factor
    if scaled % 10 ** len(fraction):
        raise InvalidValueError(path, text, f"{expected}; this one is not a whole number of units")
    return check_size(scaled // 10 ** len(fraction), path)


def parse_bytes(text: str, path: str = "size") -> int:
    """Read a size in bytes: ``"80GiB"``, ``"24 GB"``, ``"1024"``; GB is 10**9, GiB is 2**30.

    Raises:
        InvalidValueError: not such a text, or not a whole number of bytes.

    >>> parse_bytes("1.5 GiB"), parse_bytes("24GB")
    (1610612736, 24000000000)
    """
    return _scaled(text, path, _UNITS, 'bytes such as "80GiB", "24GB" or "1024"')


def parse_count(text: str, path: str = "parameters") -> int:
    """Read a parameter count: ``"70B"``, ``"7.5b"``, ``"350M"``, ``"8030261248"``.

    >>> parse_count("70B"), parse_count("1.3b")
    (70000000000, 1300000000)
    """
    return _scaled(text, path, _COUNTS, 'a count such as "70B", "350M" or "8030261248"')


def check_size(value: object, path: str, *, smallest: int = 1) -> int:
    """Return ``value`` if it is an integer from ``smallest`` to ``LARGEST_SIZE``; arrays pass element by element.

    Raises:
        InvalidValueError: a bool, a float, a text, or out of range.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if not smallest <= value <= LARGEST_SIZE:
            raise InvalidValueError(path, value, f"an integer from {smallest} to {LARGEST_SIZE:,}")
        return value
    if getattr(getattr(value, "dtype", None), "kind", "") in {"i", "u"}:
        low, high = value.min(), value.max()  # type: ignore[attr-defined]
        if low < smallest or high > LARGEST_SIZE:
            raise InvalidValueError(
                path, f"array from {low} to {high}", f"integers from {smallest} to {LARGEST_SIZE:,}"
            )
        return value  # type: ignore[return-value]
    raise InvalidValueError(path, value, f"an integer from {smallest} to {LARGEST_SIZE:,}")
