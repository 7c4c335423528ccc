"""How a checkpoint is stored: ``torch_dtype`` and ``quantization_config`` of a ``config.json``."""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import (
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
from vramfit.spec import Scheme

DTYPES = {"float32": FP32, "float16": FP16, "bfloat16": BF16}
METHODS = ("fp8", "mxfp4", "gptq", "awq", "bitsandbytes")
LARGEST_LIST = 20_000


def read_scheme(fields: Fields) -> Scheme:
    """Return the format of the matrices and the plain format of the rest.

    Raises:
        UnsupportedModelError: a quantisation method that is not read yet.
        InvalidValueError: a dtype or a setting that cannot be.
    """
    plain = _plain(fields)
    if not fields.has("quantization_config"):
        return Scheme(quantised=plain, plain=plain)
    section = fields.section("quantization_config")
    method = _method(section)
    roles = frozenset({Role.EXPERT}) if method == "mxfp4" else None
    return Scheme(quantised=_quantised(section, method), plain=plain, kept=_kept(section), roles=roles)


def _plain(fields: Fields) -> StorageFormat:
    """Return the dtype of what is not quantised; nested in ``text_config`` for some, fp32 in files before 2020."""
    places = [fields, fields.section("text_config")] if fields.has("text_config") else [fields]
    for place in places:
        for name in ("torch_dtype", "dtype"):
            text = place.text(name)
            if text is not None and text.removeprefix("torch.") not in DTYPES:
                raise InvalidValueError(name, text, f"one of {', '.join(DTYPES)}")
            if text is not None:
                return DTYPES[text.removeprefix("torch.")]
    if fields.has("quantization_config"):
        fields.assumed.append("torch_dtype = bfloat16 for what is not quantised (the configuration names none)")
        return BF16
    fields.assumed.append("torch_dtype = float32 (the configuration names none; transformers saves fp32 then)")
    return FP32


def _method(section: Fields) -> str:
    method = section.text("quant_method")
    if method is None and (section.has("load_in_4bit") or section.has("load_in_8bit")):
        return "bitsandbytes"
    if method not in METHODS:
        raise UnsupportedModelError(
            f"quantization_config.quant_method: {method!r:.100}: expected one of {', '.join(METHODS)}; others are not read "
            "in this version: give weight_format for an estimate and leave quantization_config out"
        )
    return method


def _quantised(section: Fields, method: str) -> StorageFormat:
    match method:
        case "fp8":
            return _fp8(section)
        case "mxfp4":
            return MXFP4
        case "gptq" | "awq":
            base = GPTQ_INT4 if method == "gptq" else AWQ_INT4
            name = "bits" if section.has("bits") else "w_bit"
            bits = section.integer(name, largest=8)
            if bits not in {4, 8}:
                raise InvalidValueError(f"quantization_config.{name}", bits, "4 or 8")
            group = section.integer("group_size", 128, smallest=-1, largest=2**20)
            return _eight_bit(regrouped(base, group, "quantization_config.group_size"), bits)
        case _:
            return _bitsandbytes(section)


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
    if section.flag("load_in_8bit", default=False):
        return INT8
    if not section.flag("load_in_4bit", default=False):
        raise InvalidValueError("quantization_config.load_in_4bit", False, "true, or load_in_8bit true")
    return NF4_DQ if section.flag("bnb_4bit_use_double_quant", default=False) else NF4


def _kept(section: Fields) -> tuple[str, ...]:
    """Return name parts of the tensors that stay plain.

    ``modules_to_not_convert`` names modules, in full or from the right; what is named outside the
    layers (embeddings, output projection) stays plain by its role, and "*" stands for a layer's number.
    """
    for name in ("modules_to_not_convert", "llm_int8_skip_modules"):
        value = section.values.get(name)
        if value is None:
            continue
        if not isinstance(value, list) or len(value) > LARGEST_LIST or not all(isinstance(v, str) for v in value):
            raise InvalidValueError(f"quantization_config.{name}", value, "a list of module names")
        return tuple(dict.fromkeys(module for module in map(_in_layer, value) if module))
    return ()


def _in_layer(module: str) -> str:
    """Return what follows the layer's number in a module's name: ``model.layers.*.self_attn`` -> ``self_attn``."""
    _, _, behind = module.partition("layers.")
    return behind.partition(".")[2] if behind else ""
