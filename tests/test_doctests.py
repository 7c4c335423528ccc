"""Every example in a docstring of the package is true."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
from pathlib import Path

import pytest

PLACES = importlib.util.find_spec("vramfit").submodule_search_locations  # type: ignore[union-attr] # it is installed
MODULES = sorted(
    ".".join(path.relative_to(Path(place).parent).with_suffix("").parts).removesuffix(".__init__")
    for place in PLACES or ()
    for path in Path(place).rglob("*.py")
    if path.stem != "__main__"
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    """The doctests of a module pass."""
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
