"""How a checkpoint is stored: ``torch_dtype`` and ``quantization_config`` of a ``config.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import BF16, FP16, FP32, StorageFormat
from vramfit.readers.fields import Fields

if TYPE_CHECKING:
    from vramfit.readers.quantizers.recipe import Recipe  # only quantised checkpoints pay for it

DTYPES = {"float32": FP32, "float16": FP16, "bfloat16": BF16}
METHODS = {
    "aqlm": "others.read_aqlm",
    "auto-round": "integers.read_autoround",
    "awq": "integers.read_awq",
    "bitnet": "others.read_bitnet",
    "bitsandbytes": "bitsandbytes.read",
    "compressed-tensors": "compressed_tensors.read",
    "eetq": "others.read_eetq",
    "exl2": "others.read_exl2",
    "exl3": "others.read_exl3",
    "fbgemm_fp8": "floats.read_fbgemm",
    "fp8": "floats.read_fp8",
    "gptq": "integers.read_gptq",
    "hqq": "others.read_hqq",
    "modelopt": "modelopt.read",
    "mxfp4": "floats.read_mxfp4",
    "quanto": "others.read_quanto",
    "quark": "quark.read",
    "torchao": "others.read_torchao",
}
"""``quant_method`` -> the function below ``quantizers`` that reads its section."""
SPELLINGS = {"intel/auto-round": "auto-round", "compressed_tensors": "compressed-tensors", "modelopt_fp4": "modelopt"}
SECTIONS = ("quantization_config", "compression_config")
"""Names of the section; the second in early files of compressed-tensors."""


def read_recipe(fields: Fields, plain: StorageFormat) -> Recipe | None:
    """Return how the matrices of a checkpoint are held; None when it is not quantised.

    Raises:
        UnsupportedModelError: a quantisation method, or a rule of one, that is not read.
        InvalidValueError: a setting that cannot be.
    """
    section = _section(fields)
    if section is None:
        return None
    module, _, function = METHODS[_method(section)].partition(".")
    read: Callable[[Fields, StorageFormat], Recipe] = getattr(
        import_module(f"vramfit.readers.quantizers.{module}"), function
    )
    return read(section, plain)


def _section(fields: Fields) -> Fields | None:
    """Return the section, which multimodal files have at the top or in ``text_config``."""
    places = [fields, fields.section("text_config")] if fields.has("text_config") else [fields]
    return next((place.section(name) for place in places for name in SECTIONS if place.has(name)), None)


def read_plain(fields: Fields) -> StorageFormat:
    """Return the dtype of what is not quantised; nested in ``text_config`` for some, fp32 in files before 2020.

    Raises:
        InvalidValueError: a dtype that is not one of those checkpoints have.
    """
    places = [fields, fields.section("text_config")] if fields.has("text_config") else [fields]
    for place in places:
        for name in ("torch_dtype", "dtype"):
            text = place.text(name)
            if text is not None and text.removeprefix("torch.") not in DTYPES:
                raise InvalidValueError(place.at(name), text, f"one of {', '.join(DTYPES)}")
            if text is not None:
                return DTYPES[text.removeprefix("torch.")]
    if _section(fields) is not None:
        fields.assume("torch_dtype", "bfloat16", "for what is not quantised; the configuration names none")
        return BF16
    fields.assume("torch_dtype", "float32", "the configuration names none, which once meant float32")
    return FP32


def _method(section: Fields) -> str:
    method = section.text("quant_method")
    if method is None and (section.has("load_in_4bit") or section.has("load_in_8bit")):
        return "bitsandbytes"
    if section.has("quant_algo") and (method is None or section.text("quant_algo") == "MIXED_PRECISION"):
        return "modelopt"
    found = SPELLINGS.get(method or "", method)
    if found not in METHODS:
        raise UnsupportedModelError(
            f"{section.at('quant_method')}: {method!r:.100}: expected one of {', '.join(METHODS)}; others are "
            "not read in this version: give weight_format for an estimate and leave quantization_config out"
        )
    return str(found)


def with_quantization_file(config: Mapping[str, object], content: Mapping[str, object]) -> dict[str, object]:
    """Return a configuration with what ``hf_quant_config.json`` beside it says, unless it says it itself.

    Raises:
        InvalidValueError: the file has no ``quantization`` section.
    """
    if any(config.get(name) is not None for name in SECTIONS):
        return dict(config)
    section = Fields(content, "hf_quant_config.json").section("quantization").values
    if section.get("quant_algo") is None and section.get("kv_cache_quant_algo") is None:
        return dict(config)
    return {**config, "quantization_config": {"quant_method": "modelopt", **section}}
