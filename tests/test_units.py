"""Sizes: rounding, comparison, printing, parsing, bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramfit.errors import InvalidValueError
from vramfit.units import (
    LARGEST_SIZE,
    ceil_div,
    check_size,
    format_bytes,
    larger,
    parse_bytes,
    parse_count,
    round_up,
    smaller,
)

SIZES = st.integers(0, 2**40)


@given(SIZES, st.integers(1, 2**20))
def test_ceil_div_is_exact(a: int, b: int) -> None:
    """The smallest n with n * b >= a."""
    n = ceil_div(a, b)
    assert n * b >= a > (n - 1) * b
    assert n * b == round_up(a, b)


@given(st.lists(st.tuples(SIZES, SIZES), min_size=1))
def test_arrays_and_integers_agree(pairs: list[tuple[int, int]]) -> None:
    """Element by element, an array gives what the integers give."""
    a, b = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    assert [max(p) for p in pairs] == larger(a, b).tolist() == [larger(*p) for p in pairs]
    assert [min(p) for p in pairs] == smaller(a, b).tolist() == [smaller(*p) for p in pairs]


@given(SIZES)
def test_exact_sizes_parse_back(size: int) -> None:
    """A number of bytes printed in full parses back to itself."""
    assert size + 1 == parse_bytes(str(size + 1)) == parse_bytes(f"{size + 1} B")


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GiB", 85_899_345_920), ("24 GB", 24_000_000_000), ("1.5 GiB", 1_610_612_736), ("81559 MiB", 85_520_809_984)],
)
def test_gb_and_gib_are_not_the_same(text: str, size: int) -> None:
    """GB is 10^9, GiB is 2^30."""
    assert size == parse_bytes(text)


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1GiB", "1e9", "1.0000000001GiB", "9" * 80, "80 gigs", "nan", "0", "0GiB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """One error names the path and what was expected."""
    with pytest.raises(InvalidValueError, match="size"):
        parse_bytes(text)


def test_counts_use_powers_of_ten() -> None:
    """70B is 70 x 10^9 parameters."""
    assert 70_000_000_000 == parse_count("70B")
    assert 7_500_000_000 == parse_count("7.5b")


@pytest.mark.parametrize("value", [0, -1, LARGEST_SIZE + 1, 1.5, "8", True, None, np.array([1, 0]), np.array([1.5])])
def test_sizes_out_of_bounds_are_refused(value: object) -> None:
    """Zero, negative, huge, fractional, text, bool and arrays that hold such."""
    with pytest.raises(InvalidValueError, match="batch"):
        check_size(value, "batch")


def test_printing_uses_binary_units() -> None:
    """Two decimals, the largest unit that gives at least one."""
    assert ["512 B", "1.50 KiB", "16.00 GiB"] == [format_bytes(s) for s in (512, 1536, 2**34)]
