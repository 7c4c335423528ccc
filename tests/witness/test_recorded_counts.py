"""What counts.json says of transformers, asked again for a spread of rows; all of them: scripts/exactness.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vramfit.catalogue.model import find_model

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.witness, pytest.mark.slow]

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import exactness  # noqa: E402 - beside the tests, not a package

COUNTS = exactness.recorded(exactness.COUNTS)
BUILT = sorted(
    (found["parameters"], name)
    for name, found in COUNTS.items()
    if "parameters" in found and found["tensors"] < 2000 and "components" not in find_model(name).config
)
SPREAD = [name for _, name in BUILT[:: len(BUILT) // 12]]
"""From the smallest to the largest; those with thousands of tensors take long."""


@pytest.mark.parametrize("name", SPREAD)
def test_transformers_still_counts_what_is_recorded(name: str) -> None:
    """Class, parameters, tensors, names and shapes."""
    measured, recorded = exactness.measure(find_model(name)), COUNTS[name]
    assert {k: v for k, v in measured.items() if k != "program"} == {
        k: v for k, v in recorded.items() if k not in {"program", "why"}
    }
