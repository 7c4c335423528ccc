"""Attributes of PyTorch that are replaced while a virtual GPU is active, and put back whatever happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MISSING = object()


class Replacements:
    """Replaced attributes, in order; ``undo`` puts them back in reverse."""

    def __init__(self) -> None:
        """Begin with nothing replaced."""
        self._before: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any, *, new: bool = False) -> None:
        """Replace an attribute where there is one; ``new``: also where there is none."""
        own = vars(owner).get(name, _MISSING)
        if own is _MISSING and not new and not hasattr(owner, name):
            return
        self._before.append((owner, name, own))
        setattr(owner, name, value)

    def set_all(self, owner: Any, values: Mapping[str, Any]) -> None:
        """Replace several attributes."""
        for name, value in values.items():
            self.set(owner, name, value)

    def undo(self) -> None:
        """Put everything back."""
        while self._before:
            owner, name, value = self._before.pop()
            if value is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
