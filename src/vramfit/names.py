"""How names are compared: exactly, case and punctuation aside, and never by substring."""

from __future__ import annotations

from collections.abc import Iterable

_NOT_NAMING = {code: None for code in range(128) if not chr(code).isalnum()}
"""What is dropped from ASCII, for ``str.translate``: catalogues compare thousands of names."""


def normalise(name: str) -> str:
    """Fold case and drop everything but letters and digits.

    >>> normalise("A100-SXM-80GB") == normalise("a100 sxm_80gb")
    True
    """
    if name.isascii():
        return name.lower().translate(_NOT_NAMING)
    return "".join(c for c in name.casefold() if c.isalnum())


def nearest(name: str, choices: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """Return up to ``limit`` of ``choices`` that look most like ``name``, best first.

    >>> nearest("fp9", ["fp8", "bf16", "int4"])
    ('fp8',)
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only paid for when something went wrong

    folded: dict[str, str] = {}
    for choice in choices:
        folded.setdefault(normalise(choice), choice)
    wanted = normalise(name[:200])
    return tuple(folded[match] for match in get_close_matches(wanted, folded, n=limit, cutoff=0.5))
