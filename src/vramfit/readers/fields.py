"""Typed access to an untrusted configuration: every value is checked, every error names its path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vramfit.errors import InvalidValueError, UnsupportedModelError

LARGEST_WIDTH = 2**24
LARGEST_LAYERS = 4096
LARGEST_EXPERTS = 65536
LARGEST_VOCABULARY = 2**26
LARGEST_CONTEXT = 2**32
PUBLISHED_CODE = "the code beside the weights"
"""Where class defaults come from when transformers does not have the family."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The content of one ``config.json`` (or of a section of it) and where it stands."""

    values: Mapping[str, object]
    path: str = ""
    assumed: list[str] = field(default_factory=list)
    """Class defaults that were taken because the field is absent; shared by all sections."""
    code: str = "transformers"
    """Whose class defaults they are."""

    def at(self, name: str) -> str:
        """Return the full path of a field, for an error."""
        return f"{self.path}.{name}" if self.path else name

    def integer(self, name: str, default: int | None = None, *, largest: int = LARGEST_WIDTH, smallest: int = 1) -> int:
        """Return a bounded integer; ``default`` is the family's class default, recorded when taken.

        Raises:
            UnsupportedModelError: absent, and the family has no default.
            InvalidValueError: not an integer, or out of bounds.
        """
        value = self.values.get(name)
        if value is None:
            if default is None:
                raise UnsupportedModelError(
                    f"{self.at(name)}: missing: expected an integer from {smallest} to {largest:,}; "
                    "take the model's complete config.json"
                )
            self.assume(name, default)
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
            raise InvalidValueError(self.at(name), value, f"an integer from {smallest} to {largest:,}")
        return value

    def optional(self, name: str, *, largest: int = LARGEST_WIDTH, smallest: int = 1) -> int | None:
        """Return a bounded integer, or None when the field is absent or null."""
        return None if self.values.get(name) is None else self.integer(name, largest=largest, smallest=smallest)

    def assume(self, name: str, value: object, why: str | None = None) -> None:
        """Record what was taken for a field that is absent."""
        why = why or f"class default in {self.code}; the configuration has none"
        self.assumed.append(f"{self.at(name)} = {value} ({why})")

    def filled(self, **defaults: object) -> Fields:
        """Return the same fields with class defaults where they are absent or null; each one taken is recorded."""
        for name, value in defaults.items():
            if not self.has(name):
                self.assume(name, value)
        there = {name: value for name, value in self.values.items() if value is not None or name not in defaults}
        return Fields({**defaults, **there}, self.path, self.assumed)

    def flag(self, name: str, *, default: bool, recorded: bool = False) -> bool:
        """Return a boolean; absent or null = ``default``, which is recorded when whole matrices depend on it."""
        value = self.values.get(name)
        if value is None:
            if recorded:
                self.assume(name, default)
            return default
        if not isinstance(value, bool):
            raise InvalidValueError(self.at(name), value, "true or false")
        return value

    def text(self, name: str) -> str | None:
        """Return a text, or None when the field is absent or null."""
        value = self.values.get(name)
        if value is None or isinstance(value, str):
            return value
        raise InvalidValueError(self.at(name), value, "a text")

    def words(self, name: str, known: tuple[str, ...], count: int) -> tuple[str, ...] | None:
        """Return a list with one known word per layer, or None when the field is absent or null."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count:
            raise InvalidValueError(self.at(name), value, f"a list of {count} words, one per layer")
        for i, word in enumerate(value):
            if word not in known:
                raise InvalidValueError(f"{self.at(name)}[{i}]", word, f"one of {', '.join(known)}")
        return tuple(value)

    def layers_with(self, word: str, other: str, name: str = "layer_types") -> tuple[bool, ...] | None:
        """Say of each layer whether it has this word and not the other; None when the list is absent or null."""
        words = self.words(name, (word, other), self.num_layers)
        return None if words is None else tuple(each == word for each in words)

    def integers(self, name: str, largest: int) -> frozenset[int]:
        """Return a list of integers from 0 as a set; absent or null = empty."""
        value = self.values.get(name)
        if value is None:
            return frozenset()
        if not isinstance(value, list) or len(value) > largest:
            raise InvalidValueError(self.at(name), value, f"a list of at most {largest} integers")
        for i, entry in enumerate(value):
            if isinstance(entry, bool) or not isinstance(entry, int) or not 0 <= entry < largest:
                raise InvalidValueError(f"{self.at(name)}[{i}]", entry, f"an integer from 0 to {largest - 1}")
        return frozenset(value)

    def row(self, name: str, default: tuple[int, ...], *, largest: int, most: int = 64) -> tuple[int, ...]:
        """Return a list of 1 to ``most`` integers from 1 to ``largest`` in its order; ``default`` is recorded."""
        if not self.has(name):
            self.assume(name, list(default))
            return default
        value = self.values[name]
        if not isinstance(value, list | tuple) or not 0 < len(value) <= most:
            raise InvalidValueError(self.at(name), value, f"a list of 1 to {most} integers")
        for i, entry in enumerate(value):
            if isinstance(entry, bool) or not isinstance(entry, int) or not 1 <= entry <= largest:
                raise InvalidValueError(f"{self.at(name)}[{i}]", entry, f"an integer from 1 to {largest}")
        return tuple(value)

    def section(self, name: str) -> Fields:
        """Return a nested section."""
        value = self.values.get(name)
        if not isinstance(value, Mapping):
            raise InvalidValueError(self.at(name), value, "an object")
        return Fields(value, self.at(name), self.assumed, self.code)

    def has(self, name: str) -> bool:
        """Say whether the field is there and not null."""
        return self.values.get(name) is not None

    def absent(self, name: str) -> bool:
        """Say whether the field is not there at all; null is an answer where the family has one for it."""
        return name not in self.values

    def refuse(self, name: str, why: str) -> None:
        """Refuse a field that changes the model's shapes in a way that is not understood."""
        if self.has(name) and self.values[name] is not False:
            raise UnsupportedModelError(
                f"{self.at(name)}: {self.values[name]!r:.100}: {why}; not understood in this version, "
                "so no number is given"
            )

    def insist(self, name: str, *, on: bool, why: str) -> None:
        """Refuse a flag that is set otherwise than in every published model; absent means as there."""
        if self.flag(name, default=on) is not on:
            raise UnsupportedModelError(
                f"{self.at(name)}: {not on}: {why}; not understood in this version, so no number is given"
            )

    @property
    def num_layers(self) -> int:
        """Number of layers, under its usual name."""
        return self.integer("num_hidden_layers", largest=LARGEST_LAYERS)
