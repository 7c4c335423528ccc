"""Typed access to the keys of one architecture in a GGUF header; every error names the key."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.errors import UnsupportedModelError, quote
from vramfit.readers.gguf import GgufHeader, Value

LARGEST = 2**32


@dataclass(frozen=True, slots=True)
class Metadata:
    """The keys that start with the architecture's name."""

    header: GgufHeader
    architecture: str
    where: str

    def value(self, name: str) -> Value | None:
        """Return a key's value as it stands; None = there is no such key."""
        return self.header.metadata.get(f"{self.architecture}.{name}")

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an integer from 0, or the default where there is no such key.

        Raises:
            UnsupportedModelError: another kind of value, or neither key nor default.
        """
        value = self.optional(name)
        if value is not None:
            return value
        if default is None:
            raise self.wrong(name, "an integer")
        return default

    def optional(self, name: str) -> int | None:
        """Return an integer from 0; None = there is no such key."""
        value = self.value(name)
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= LARGEST:
            raise self.wrong(name, "an integer from 0")
        return value

    def per_layer(self, name: str, layer: int, default: int | None = None) -> int:
        """Return a key that is one number for all layers, or an array with one per layer."""
        value = self.value(name)
        if not isinstance(value, tuple):
            return self.integer(name, default)
        found = value[layer] if layer < len(value) else None
        if not isinstance(found, int) or not 0 <= found <= LARGEST:
            raise self.wrong(name, f"an integer from 0 for layer {layer}")
        return int(found)

    def wrong(self, name: str, expected: str) -> UnsupportedModelError:
        """Return the error for a key that is missing or of another kind."""
        return UnsupportedModelError(
            f"{self.where}: {self.architecture}.{name}: {quote(self.value(name))}: expected {expected}; "
            "convert the model anew"
        )
