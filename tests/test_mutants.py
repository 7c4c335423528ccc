"""Damaged and hostile inputs end in a value or in our own error; ``benchmarks/fuzz.py`` runs a hundred thousand."""

from __future__ import annotations

import pytest

from mutants import KINDS, outcome

CASES = {"config": 1500, "safetensors": 1000, "gguf": 1000}


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_end_in_a_value_or_our_error(kind: str) -> None:
    """No other exception comes out, and every error has words; both ends are seen among the cases."""
    found = {outcome(kind, KINDS[kind][0](seed)) for seed in range(CASES[kind])}
    assert "an error without words" not in found
    assert {"value", "UnreadableFileError"} <= found
