"""bitsandbytes: 4 bits in blocks of 64 or 8 bits per output row, in every linear layer that is not skipped."""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import ALL_MATRICES, INT8, NF4, NF4_DQ, Role, StorageFormat
from vramfit.readers.fields import Fields
from vramfit.readers.quantizers.floats import skipped
from vramfit.readers.quantizers.recipe import Recipe

FOUR_BIT = (None, "fp4", "nf4")
"""Both store 4 bits in blocks of 64; None is bitsandbytes' own default, fp4."""
SKIPPED = "llm_int8_skip_modules"


def read(section: Fields, plain: StorageFormat) -> Recipe:
    """Read a bitsandbytes section; without a list the output projection stays plain, with one the list decides.

    Source: huggingface/transformers:src/transformers/quantizers/base.py, get_modules_to_not_convert.
    """
    del plain
    roles = ALL_MATRICES - {Role.EMBEDDING} if section.has(SKIPPED) else ALL_MATRICES - {Role.EMBEDDING, Role.HEAD}
    return Recipe(default=_format(section), rules=skipped(section, SKIPPED), roles=frozenset(roles))


def _format(section: Fields) -> StorageFormat:
    eight, four = (section.flag(f"{prefix}load_in_{n}bit", default=False) for prefix, n in _flags(section))
    if eight == four:
        raise InvalidValueError(section.at("load_in_4bit"), four, "either load_in_4bit or load_in_8bit true, not both")
    if eight:
        return INT8
    kind = section.text("bnb_4bit_quant_type")
    if kind not in FOUR_BIT:
        raise InvalidValueError(section.at("bnb_4bit_quant_type"), kind, "nf4 or fp4")
    return NF4_DQ if section.flag("bnb_4bit_use_double_quant", default=False) else NF4


def _flags(section: Fields) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return which names hold the flags: newer files have private ones beside or instead of the public."""
    prefix = "" if section.has("load_in_8bit") or section.has("load_in_4bit") else "_"
    return ((prefix, 8), (prefix, 4))
