"""Grouped integers in 32-bit words: GPTQ and GPTQModel, AWQ, AutoRound.

All hold codes packed into words, one 16-bit scale per group and output, and zeros packed over the outputs;
they differ in whether there is an index of groups, and in how lists of modules are meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import ALL_MATRICES, AWQ_INT4, BLOCK_MATRICES, GPTQ_INT4, Role, StorageFormat, regrouped
from vramfit.readers.fields import Fields
from vramfit.readers.quantizers.names import (
    LARGEST_LIST,
    Names,
    containing,
    listed,
    patterns,
    transformers_names,
    wildcard_names,
)
from vramfit.readers.quantizers.recipe import Recipe, Rule

WORD_BITS = 32
GPTQ_BITS = (2, 3, 4, 5, 6, 7, 8)
AWQ_BITS = (4,)
PLAIN_BITS = 16
"""AutoRound's way to say that a module is not quantised."""
MARLIN = replace(
    GPTQ_INT4, name="marlin-int4", zero_bits=0, column_bytes=0,
    source="AutoGPTQ/AutoGPTQ:auto_gptq/nn_modules/qlinear/qlinear_marlin.py: codes B and fp16 scales s",
)  # fmt: skip
GEMV_GROUPS = {64: 16, 32: 32}
"""Group size -> groups are padded to a multiple of; 8 for 128 and more.

Source: casper-hansen/AutoAWQ:awq/modules/linear/gemv.py, calculate_zeros_width.
"""
RENAMED = {"w_bit": "bits", "q_group_size": "group_size"}
"""Older AWQ names."""
OVERRIDES = "ex" + "tra_config"
"""AutoRound's field for modules that differ."""
INSIDE = "modules_in_block_to_quantize"
"""Field of transformers' GPTQ for the only modules of a layer that are quantised."""
BLOCK_LISTS = ("block_name_to_quantize", "to_quant_block_names", "quant_block_list")


def packed(fmt: StorageFormat, bits: int) -> StorageFormat:
    """Return the variant of a grouped 4-bit format with another width: whole words of 32 bits.

    >>> packed(GPTQ_INT4, 3).block_elements, packed(GPTQ_INT4, 3).block_bytes, packed(GPTQ_INT4, 8).block_bytes
    (32, 12, 1)
    """
    if bits == 4:
        return fmt
    name = fmt.name.replace("int4", f"int{bits}")
    if WORD_BITS % bits == 0:
        elements, size = max(1, 8 // bits), max(1, bits // 8)
    else:
        elements, size = WORD_BITS, 4 * bits
    return replace(fmt, name=name, block_elements=elements, block_bytes=size, zero_bits=bits if fmt.zero_bits else 0)


def read_gptq(section: Fields, plain: StorageFormat) -> Recipe:
    """Read a GPTQ section, with the ``dynamic`` rules of GPTQModel; the checkpoint has ``g_idx`` in every layout.

    Source: ModelCloud/GPTQModel:gptqmodel/quantization/config.py, dynamic_get; nn_modules/qlinear/__init__.py.
    """
    del plain
    base = MARLIN if section.text("checkpoint_format") == "marlin" else GPTQ_INT4
    default = _format(section, base, GPTQ_BITS)
    inside = _flat(section.values.get(INSIDE), section.at(INSIDE))
    if inside:
        only = Rule(names=Names(endings=tuple(f".{name}" for name in inside)), held=default)
        return Recipe(default=None, rules=(only,), towers=False)
    head = section.flag("lm_head", default=False)
    rules = _dynamic(section, base, default) if section.has("dynamic") else ()
    roles = ALL_MATRICES - {Role.EMBEDDING} if head or rules else BLOCK_MATRICES
    if rules and not head:
        rules = (*rules, Rule(names=Names(endings=("lm_head",)), held=None))
    return Recipe(default=default, rules=rules, roles=frozenset(roles), towers=False)


def _format(
    section: Fields, fmt: StorageFormat, known: tuple[int, ...], default: StorageFormat | None = None
) -> StorageFormat:
    """Return a grouped integer format with the width and the group size that the section names."""
    width = next((old for old, new in RENAMED.items() if new == "bits" and section.has(old)), "bits")
    size = next((old for old, new in RENAMED.items() if new == "group_size" and section.has(old)), "group_size")
    bits = section.integer(width, None if default is None else _bits(default), largest=64)
    if bits not in known:
        raise InvalidValueError(section.at(width), bits, " or ".join(map(str, known)))
    group = section.integer(size, 128 if default is None else default.group_elements, smallest=-1, largest=2**20)
    return regrouped(packed(fmt, bits), group, section.at(size))


def _bits(fmt: StorageFormat) -> int:
    return 8 * fmt.block_bytes // fmt.block_elements


def _dynamic(section: Fields, base: StorageFormat, default: StorageFormat) -> tuple[Rule, ...]:
    """Return GPTQModel's rules in their order: ``-:`` leaves modules plain, others change what they name."""
    values, path = section.section("dynamic"), section.at("dynamic")
    found = []
    for key, change in values.values.items():
        names = patterns([key.removeprefix("+:").removeprefix("-:")], path)
        if key.startswith("-:"):
            found.append(Rule(names=names, held=None))
        elif isinstance(change, Mapping):
            inner = Fields(change, f"{path}[{key!r:.100}]", [])
            found.append(Rule(names=names, held=_format(inner, base, GPTQ_BITS, default)))
        else:
            raise InvalidValueError(f"{path}[{key!r:.100}]", change, "an object such as {'bits': 8}")
    return tuple(found)


def read_awq(section: Fields, plain: StorageFormat) -> Recipe:
    """Read an AWQ section: layouts ``gemm`` (and what is made of it at load), ``gemv`` and ``gemv_fast``."""
    del plain
    held = _awq_layout(section, _format(section, AWQ_INT4, AWQ_BITS))
    skip = listed(section, "modules_to_not_convert")
    rules = (Rule(names=containing(skip), held=None),) if skip else ()
    return Recipe(default=held, rules=rules, towers=False)


def _awq_layout(section: Fields, fmt: StorageFormat) -> StorageFormat:
    version = (section.text("version") or "gemm").lower()
    if version not in {"gemv", "gemv_fast"}:
        return fmt
    multiple = GEMV_GROUPS.get(fmt.group_elements, 8)
    return replace(fmt, group_multiple=multiple, zero_bits=16 if version == "gemv_fast" else 4)


def read_autoround(section: Fields, plain: StorageFormat) -> Recipe:
    """Read an AutoRound section: GPTQ's layout without ``g_idx``, or AWQ's; modules that differ have their own entry.

    Source: intel/auto-round:auto_round_extension/torch/qlinear_torch.py, QuantLinear; auto_round/export/.
    """
    del plain
    packing = section.text("packing_format") or section.text("backend") or "auto_round:auto_gptq"
    if "gptq" not in packing and "awq" not in packing and "exllama" not in packing:
        raise UnsupportedModelError(
            f"{section.at('packing_format')}: {packing!r:.100}: expected one of auto_round:auto_gptq, "
            "auto_round:auto_awq; give weight_format for an estimate and leave quantization_config out"
        )
    kind = section.text("data_type") or "int"
    if kind != "int":
        raise UnsupportedModelError(f"{section.at('data_type')}: {kind!r:.100}: expected int; others are not read yet")
    awq = "awq" in packing
    base = AWQ_INT4 if awq else replace(GPTQ_INT4, column_bytes=0 if packing.startswith("auto_round:") else 4)
    known = AWQ_BITS if awq else GPTQ_BITS
    default = _format(section, base, known)
    skip = listed(section, "modules_to_not_convert")
    rules = _overrides(section, base, known, default)
    rules = (*rules, Rule(names=containing(skip), held=None)) if skip else rules
    blocks = _blocks(section)
    if blocks:
        return Recipe(default=None, rules=(*rules, Rule(names=blocks, held=default)), roles=ALL_MATRICES, towers=True)
    roles = ALL_MATRICES - {Role.EMBEDDING}
    rules = (*rules, Rule(names=Names(endings=("lm_head",)), held=None))
    return Recipe(default=default, rules=rules, roles=frozenset(roles), towers=False)


def _overrides(
    section: Fields, base: StorageFormat, known: tuple[int, ...], default: StorageFormat
) -> tuple[Rule, ...]:
    """Return the rules for modules with settings of their own, gathered by format."""
    if not section.has(OVERRIDES):
        return ()
    groups: dict[StorageFormat | None, list[str]] = {}
    for name, change in section.section(OVERRIDES).values.items():
        path = f"{section.at(OVERRIDES)}[{name!r:.100}]"
        if not isinstance(change, Mapping):
            raise InvalidValueError(path, change, "an object such as {'bits': 16}")
        inner = Fields(change, path, [])
        plain = inner.has("bits") and inner.integer("bits", largest=64) >= PLAIN_BITS
        groups.setdefault(None if plain else _format(inner, base, known, default), []).append(name)
    return tuple(
        Rule(names=transformers_names(names, section.at(OVERRIDES)), held=held) for held, names in groups.items()
    )


def _blocks(section: Fields) -> Names | None:
    """Return the blocks that are quantised where the section lists them; None = all layers of the language model."""
    for name in BLOCK_LISTS:
        blocks = _flat(section.values.get(name), section.at(name))
        if blocks:
            return wildcard_names(blocks, section.at(name))
    return None


def _flat(value: object, path: str) -> list[str]:
    """Return names from a text with commas, a list, or a list of lists; null = none."""
    if value is None:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    inner = value if isinstance(value, list) else [None]
    texts = [text for part in inner for text in (part if isinstance(part, list) else [part])]
    names = [text for text in texts if isinstance(text, str)]
    if len(texts) > LARGEST_LIST or len(names) < len(texts):
        raise InvalidValueError(path, value, f"a list of at most {LARGEST_LIST:,} names")
    return names
