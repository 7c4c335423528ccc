"""The levels of a U-Net, from the finest to the coarsest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Level:
    """One level, on the way down and on the way up."""

    channels: int
    layers: int
    """Residual blocks on the way down; on the way up there is one more."""
    transformers: int
    """Transformer blocks behind each of them."""
    heads: int
    text: int
    """Width of the text that is attended to."""
    attends: bool

    @property
    def inner(self) -> int:
        """Width of the transformer: whole heads."""
        return self.channels // self.heads * self.heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """All levels, and whether projections into transformers are linear layers (else convolutions of one pixel)."""

    levels: tuple[Level, ...]
    linear: bool

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(level.channels for level in self.levels)

    @property
    def time(self) -> int:
        """Width of the embedding of the time step: four times the first level's."""
        return 4 * self.channels[0]
