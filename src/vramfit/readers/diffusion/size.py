"""Widths and patches, which all transformers here name alike."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.errors import InvalidValueError
from vramfit.readers.diffusion.block import integers
from vramfit.readers.fields import LARGEST_WIDTH, Fields

LARGEST_PATCH = 64


@dataclass(frozen=True, slots=True)
class Width:
    """How wide a transformer is."""

    heads: int
    head_dim: int
    mlp: int
    """Inner width of the feed-forward network."""

    @property
    def inner(self) -> int:
        """Width of a token."""
        return self.heads * self.head_dim


def width_of(fields: Fields, *, ratio: str = "") -> Width:
    """Return heads, their width and the network's: four times a token's, or what the field ``ratio`` says."""
    heads, dim = (
        fields.integer("num_attention_heads", largest=4096),
        fields.integer("attention_head_dim", largest=65536),
    )
    return Width(heads, dim, scaled(fields, ratio, heads * dim) if ratio else 4 * heads * dim)


def scaled(fields: Fields, name: str, width: int) -> int:
    """Return a width times a ratio that may be a fraction, rounded down as diffusers does."""
    value = fields.values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST_PATCH:
        raise InvalidValueError(fields.at(name), value, f"a number above 0 and at most {LARGEST_PATCH}")
    return max(1, min(int(width * value), LARGEST_WIDTH))


def patch(fields: Fields) -> tuple[int, int, int]:
    """Return frames, rows and columns of a patch: from a list of three, or ``patch_size`` and ``patch_size_t``."""
    if isinstance(fields.values.get("patch_size"), list | tuple):
        found = integers(fields, "patch_size", largest=LARGEST_PATCH)
        if len(found) != 3:
            raise InvalidValueError(fields.at("patch_size"), list(found), "three integers: frames, rows, columns")
        return found[0], found[1], found[2]
    side = fields.integer("patch_size", largest=LARGEST_PATCH)
    return fields.optional("patch_size_t", largest=LARGEST_PATCH) or 1, side, side
