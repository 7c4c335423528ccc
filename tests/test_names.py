"""Names are compared case and punctuation aside, whatever alphabet they are in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vramfit.names import normalise


@given(st.text(max_size=40) | st.text(st.characters(max_codepoint=127), max_size=40))
def test_only_letters_and_digits_count(text: str) -> None:
    """The quick way for ASCII keeps what the plain definition keeps: folded letters and digits, in order."""
    assert "".join(c for c in text.casefold() if c.isalnum()) == normalise(text)
