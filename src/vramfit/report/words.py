"""Words with numbers."""

from __future__ import annotations


def count_of(count: int, thing: str) -> str:
    """Return a count and its noun.

    >>> count_of(1, "sequence"), count_of(4, "sequence")
    ('1 sequence', '4 sequences')
    """
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
