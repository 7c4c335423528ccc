"""How a checkpoint is stored: ``torch_dtype`` and ``quantization_config`` of a ``config.json``."""

from __future__ import annotations

import re
from dataclasses import replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import (
    ALL_MATRICES,
    AWQ_INT4,
    BF16,
    FP8,
    FP8_BLOCK,
    FP16,
    FP32,
    GPTQ_INT4,
    INT8,
    MXFP4,
    NF4,
    NF4_DQ,
    Role,
    StorageFormat,
    regrouped,
)
from vramfit.readers.fields import Fields
from vramfit.spec import Layer, ModelSpec, Scheme

DTYPES = {"float32": FP32, "float16": FP16, "bfloat16": BF16}
METHODS = ("fp8", "mxfp4", "gptq", "awq", "bitsandbytes")
FOUR_BIT = (None, "fp4", "nf4")
"""Both store 4 bits in blocks of 64; None is bitsandbytes' own default, fp4."""
LARGEST_LIST = 20_000
EXCEPTIONS = ("modules_to_not_convert", "llm_int8_skip_modules", "ignored_layers")
"""Lists of modules that stay plain, under the name each method has for them."""
IN_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h)\.(?P<number>[0-9]{1,6}|\*)(?:\.(?P<module>.+)|$)")
"""``model.layers.3.mlp.gate``: the layer's number (``*`` = every layer) and the module in it."""


def read_scheme(fields: Fields) -> Scheme:
    """Return the format of the matrices and the plain format of the rest.

    Raises:
        UnsupportedModelError: a quantisation method, or a rule of one, that is not read yet.
        InvalidValueError: a dtype or a setting that cannot be.
    """
    plain = _plain(fields)
    if not fields.has("quantization_config"):
        return Scheme(quantised=plain, plain=plain)
    section = fields.section("quantization_config")
    method = _method(section)
    for rule in ("dynamic", "config_groups", "quant_algo", "quantized_layers"):
        section.refuse(rule, f"{method} with several formats in one model")
    roles = frozenset({Role.EXPERT}) if method == "mxfp4" else None
    if method == "gptq" and section.flag("lm_head", default=False):
        roles = ALL_MATRICES - {Role.EMBEDDING}
    return Scheme(quantised=_quantised(section, method), plain=plain, kept=_kept(section), roles=roles)


def check_kept(fields: Fields, spec: ModelSpec) -> None:
    """Refuse exceptions that hold in some layers only, or in a stack beside the language model: a scheme has none such.

    Raises:
        UnsupportedModelError: a module that would be quantised is to stay plain in some layers and not in others.
    """
    if spec.scheme.quantised.is_plain:
        return
    everywhere = replace(spec.scheme, kept=())
    kinds = {id(layer): layer for layer in spec.layers}
    numbers: dict[str, set[int]] = {}
    for entry in _exceptions(fields.section("quantization_config")):
        found = IN_LAYER.search(entry)
        if "vision" in entry.partition(".layers.")[0]:
            _refuse(entry, "in the vision tower", spec.parts)
        elif spec.layer_prefix.startswith(f"{entry}.") or (found and not found["module"]):
            _refuse(entry, "as a whole", wrong=True)
        elif found and found["number"] != "*":
            numbers.setdefault(found["module"], set()).add(int(found["number"]))
    for module, named in numbers.items():
        concerned = {key for key, layer in kinds.items() if _quantises(everywhere, layer, module)}
        holders = {i for i, layer in enumerate(spec.layers) if id(layer) in concerned}
        _refuse(f"layers.{min(named)}.{module}", f"in {len(named & holders)} of {len(holders)} layers", holders - named)


def _quantises(scheme: Scheme, layer: Layer, module: str) -> bool:
    """Say whether a module of that name in the layer has a tensor that the scheme quantises."""
    return any(f"{module}." in t.name and scheme.format_of(t) is scheme.quantised for t in layer.tensors)


def _refuse(entry: str, where: str, wrong: object) -> None:
    if wrong:
        raise UnsupportedModelError(
            f"quantization_config: {entry!r:.200} stays plain {where}; exceptions that do not hold in every layer are "
            "not understood in this version: give weight_format for an estimate and leave quantization_config out"
        )


def _plain(fields: Fields) -> StorageFormat:
    """Return the dtype of what is not quantised; nested in ``text_config`` for some, fp32 in files before 2020."""
    places = [fields, fields.section("text_config")] if fields.has("text_config") else [fields]
    for place in places:
        for name in ("torch_dtype", "dtype"):
            text = place.text(name)
            if text is not None and text.removeprefix("torch.") not in DTYPES:
                raise InvalidValueError(place.at(name), text, f"one of {', '.join(DTYPES)}")
            if text is not None:
                return DTYPES[text.removeprefix("torch.")]
    if fields.has("quantization_config"):
        fields.assume("torch_dtype", "bfloat16", "for what is not quantised; the configuration names none")
        return BF16
    fields.assume("torch_dtype", "float32", "the configuration names none, which once meant float32")
    return FP32


def _method(section: Fields) -> str:
    method = section.text("quant_method")
    if method is None and (section.has("load_in_4bit") or section.has("load_in_8bit")):
        return "bitsandbytes"
    if method is None or method not in METHODS:
        raise UnsupportedModelError(
            f"quantization_config.quant_method: {method!r:.100}: expected one of {', '.join(METHODS)}; others are "
            "not read in this version: give weight_format for an estimate and leave quantization_config out"
        )
    return method


def _quantised(section: Fields, method: str) -> StorageFormat:
    match method:
        case "fp8":
            return _fp8(section)
        case "mxfp4":
            return MXFP4
        case "gptq":
            return _grouped(section, GPTQ_INT4, (4, 8))
        case "awq":
            return _grouped(section, AWQ_INT4, (4,))
        case _:
            return _bitsandbytes(section)


def _grouped(section: Fields, fmt: StorageFormat, known: tuple[int, ...]) -> StorageFormat:
    """Return a grouped integer format with the width and the group size that the section names."""
    name = "w_bit" if section.has("w_bit") else "bits"
    bits = section.integer(name, largest=64)
    if bits not in known:
        raise InvalidValueError(section.at(name), bits, " or ".join(map(str, known)))
    size = "q_group_size" if section.has("q_group_size") else "group_size"
    group = section.integer(size, 128, smallest=-1, largest=2**20)
    return _eight_bit(regrouped(fmt, group, section.at(size)), bits)


def _eight_bit(fmt: StorageFormat, bits: int) -> StorageFormat:
    """Return the 8-bit variant of a grouped format: whole bytes, zeros of 8 bits."""
    if bits == 4:
        return fmt
    return replace(fmt, name=fmt.name.replace("int4", "int8"), block_elements=1, block_bytes=1, zero_bits=8)


def _fp8(section: Fields) -> StorageFormat:
    """Return fp8 with one scale per tile (``weight_block_size``) or per tensor."""
    tile = section.values.get("weight_block_size")
    if tile is None:
        return FP8
    sides = isinstance(tile, list) and len(tile) == 2 and all(isinstance(s, int) and 1 <= s <= 65536 for s in tile)
    if not sides or not isinstance(tile, list) or tile[0] != tile[1]:
        raise InvalidValueError("quantization_config.weight_block_size", tile, "two equal integers, such as [128, 128]")
    return replace(FP8_BLOCK, tile_elements=tile[0])


def _bitsandbytes(section: Fields) -> StorageFormat:
    eight, four = section.flag("load_in_8bit", default=False), section.flag("load_in_4bit", default=False)
    if eight == four:
        raise InvalidValueError(section.at("load_in_4bit"), four, "either load_in_4bit or load_in_8bit true, not both")
    if eight:
        return INT8
    kind = section.text("bnb_4bit_quant_type")
    if kind not in FOUR_BIT:
        raise InvalidValueError(section.at("bnb_4bit_quant_type"), kind, "nf4 or fp4")
    return NF4_DQ if section.flag("bnb_4bit_use_double_quant", default=False) else NF4


def _kept(section: Fields) -> tuple[str, ...]:
    """Return parts of names of the tensors that stay plain: a module's name, ended by a dot.

    Without the dot ``mlp.gate`` would also keep ``mlp.gate_proj``. What stands before and at the layer's number is
    dropped, since a scheme holds in every layer; ``check_kept`` refuses what that would get wrong.
    """
    found = ((IN_LAYER.search(entry), entry) for entry in _exceptions(section))
    modules = (match["module"] if match else entry for match, entry in found)
    return tuple(dict.fromkeys(f"{module}." for module in modules if module))


def _exceptions(section: Fields) -> tuple[str, ...]:
    """Return the modules that the section excepts, as they stand there."""
    names: list[str] = []
    for field in EXCEPTIONS:
        value = section.values.get(field)
        if value is None:
            continue
        if not isinstance(value, list) or len(value) > LARGEST_LIST or not all(isinstance(v, str) for v in value):
            raise InvalidValueError(section.at(field), value, f"a list of at most {LARGEST_LIST:,} module names")
        names.extend(value)
    return tuple(names)
