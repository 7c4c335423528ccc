"""Checkpoints in 8-bit or 4-bit floats with one simple rule: fp8 of transformers, FBGEMM's fp8, MXFP4 of gpt-oss."""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.formats import FP8, FP8_BLOCK, MXFP4, Role, StorageFormat
from vramfit.readers.fields import Fields
from vramfit.readers.quantizers.names import Names, listed, transformers_names
from vramfit.readers.quantizers.recipe import Recipe, Rule

SKIPPED = ("modules_to_not_convert", "ignored_layers", "llm_int8_skip_modules")
"""Lists of modules that stay plain, under the names that files have for them."""
FBGEMM_FP8 = StorageFormat(
    name="fp8-channel",
    block_bytes=1,
    row_bytes=4,
    tensor_bytes=4,
    source="huggingface/transformers:src/transformers/integrations/fbgemm_fp8.py, FbgemmFp8Linear: one fp32 scale per "
    "output channel, and input_scale_ub",
)
STATIC_SCALE_BYTES = 4
"""fp32 scale of the activations, one per matrix."""


def skipped(section: Fields, *fields: str) -> tuple[Rule, ...]:
    """Return the rule for the modules that lists of those names leave plain."""
    names = listed(section, *fields)
    return (Rule(names=transformers_names(names, section.at(fields[0])), held=None),) if names else ()


def read_fp8(section: Fields, plain: StorageFormat) -> Recipe:
    """Read fp8 with one scale per tile (``weight_block_size``) or per tensor."""
    del plain
    static = section.text("activation_scheme") == "static"
    held = _tiled(section)
    if static:
        held = replace(held, tensor_bytes=held.tensor_bytes + STATIC_SCALE_BYTES)
    return Recipe(default=held, rules=skipped(section, *SKIPPED))


def _tiled(section: Fields) -> StorageFormat:
    tile = section.values.get("weight_block_size")
    if tile is None:
        return FP8
    sides = isinstance(tile, list) and len(tile) == 2 and all(isinstance(s, int) and 1 <= s <= 65536 for s in tile)
    if not sides or not isinstance(tile, list) or tile[0] != tile[1]:
        raise InvalidValueError(section.at("weight_block_size"), tile, "two equal integers, such as [128, 128]")
    return replace(FP8_BLOCK, tile_elements=tile[0])


def read_fbgemm(section: Fields, plain: StorageFormat) -> Recipe:
    """Read fp8 as FBGEMM has it, one scale per output channel."""
    del plain
    return Recipe(default=FBGEMM_FP8, rules=skipped(section, *SKIPPED))


def read_mxfp4(section: Fields, plain: StorageFormat) -> Recipe:
    """Read MXFP4 as gpt-oss has it: routed experts only."""
    del plain
    skip = skipped(section, *SKIPPED)
    return Recipe(default=MXFP4, rules=skip, roles=frozenset({Role.EXPERT}), towers=False)


def everything(held: StorageFormat) -> Rule:
    """Return a rule that holds for every module."""
    return Rule(names=Names(everywhere=("",), texts=()), held=held)
