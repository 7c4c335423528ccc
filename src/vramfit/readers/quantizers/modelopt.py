"""NVIDIA ModelOpt: one algorithm for all, or one per module, in ``quantization_config`` or ``hf_quant_config.json``.

Source: NVIDIA/Model-Optimizer:modelopt/torch/export/quant_utils.py, process_layer_quant_config and
get_quantization_format; unified_export_hf.py for what is stored beside the codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import ALL_MATRICES, BLOCK_MATRICES, FP8, FP8_BLOCK, FP32, Role, StorageFormat
from vramfit.readers.fields import Fields
from vramfit.readers.quantizers.floats import read_fp8
from vramfit.readers.quantizers.names import listed, wildcard_names
from vramfit.readers.quantizers.recipe import Recipe, Rule, Scale

_SOURCE = "NVIDIA/Model-Optimizer:modelopt/torch/export/unified_export_hf.py"
STATIC_FP8 = replace(FP8, tensor_bytes=8, source=f"{_SOURCE}: fp32 weight_scale and input_scale")
NVFP4 = StorageFormat(
    name="nvfp4", block_elements=2, block_bytes=1, group_elements=16, group_bytes=1, tensor_bytes=8,
    source=f"{_SOURCE}: e4m3 weight_scale per 16, fp32 weight_scale_2 and input_scale",
)  # fmt: skip
INT4 = StorageFormat(
    name="int4-awq", block_elements=2, block_bytes=1, group_elements=128, group_bytes=2,
    source=f"{_SOURCE}: two codes a byte, weight_scale per group, pre_quant_scale per input",
)  # fmt: skip
ALGORITHMS = {
    "FP8": STATIC_FP8,
    "FP8_PER_CHANNEL_PER_TOKEN": replace(
        FP8, name="fp8-channel", tensor_bytes=0, row_bytes=4, source=f"{_SOURCE}: one fp32 weight_scale per output"
    ),
    "FP8_PB_WO": FP8_BLOCK,
    "FP8_PB_REAL": FP8_BLOCK,
    "NVFP4": NVFP4,
    "W4A16_NVFP4": replace(NVFP4, tensor_bytes=4, source=f"{_SOURCE}: no input_scale"),
    "W4A8_NVFP4_FP8": NVFP4,
    "NVFP4_AWQ": replace(NVFP4, column_bytes=2, source=f"{_SOURCE}: and pre_quant_scale per input"),
    "W4A16_AWQ": replace(INT4, column_bytes=2),
    "W4A8_AWQ": replace(INT4, column_bytes=2, tensor_bytes=8),
    "MXFP4": StorageFormat(
        name="mxfp4", block_elements=2, block_bytes=1, group_elements=32, group_bytes=1, source=_SOURCE
    ),
    "MXFP8": StorageFormat(name="mxfp8", block_bytes=1, group_elements=32, group_bytes=1, source=_SOURCE),
    "W8A16": replace(FP8, name="int8-channel", tensor_bytes=0, row_bytes=4, source=_SOURCE),
}
MIXED = "MIXED_PRECISION"
CACHES = {"FP8": "fp8", "INT8": "int8"}
"""Cache algorithms that are read; others (NVFP4) are recorded as they are named."""


def read(section: Fields, plain: StorageFormat) -> Recipe:
    """Read ModelOpt's section, in the words of its own file or of ``config.json``."""
    if not section.has("quant_algo"):
        return _by_groups(section, plain)
    algorithm = section.text("quant_algo") or ""
    rules = _skipped(section)
    if not rules:
        section.assume(
            "exclude_modules", "lm_head", "the section lists none; ModelOpt leaves lm_head and routers plain"
        )
    cache, scales = _cache(section)
    if algorithm == MIXED:
        default = read_fp8(section, plain).default if section.text("quant_method") == "fp8" else None
        rules = (*_per_layer(section), *(rules if default is None else ()))
    else:
        default = _algorithm(algorithm, section, section.at("quant_algo"))
    return Recipe(
        default=default,
        rules=rules,
        roles=ALL_MATRICES - {Role.EMBEDDING} if listed(section, "exclude_modules", "ignore") else BLOCK_MATRICES,
        kv_format=cache,
        kv_scales=scales,
    )


def _by_groups(section: Fields, plain: StorageFormat) -> Recipe:
    from vramfit.readers.quantizers.compressed_tensors import read as read_groups  # noqa: PLC0415 - the rarer way

    return read_groups(section, plain)


def _skipped(section: Fields) -> tuple[Rule, ...]:
    names = listed(section, "exclude_modules", "ignore")
    return (Rule(names=wildcard_names(names, section.at("exclude_modules")), held=None),) if names else ()


def _algorithm(name: str, section: Fields, path: str) -> StorageFormat:
    found = ALGORITHMS.get(name.upper())
    if found is None:
        raise UnsupportedModelError(
            f"{path}: {name!r:.100}: expected one of {', '.join((*ALGORITHMS, MIXED))}; others are not read: give "
            "weight_format for an estimate and leave the quantisation out"
        )
    if not found.group_elements or not section.has("group_size"):
        return found
    return replace(found, group_elements=section.integer("group_size", largest=2**20))


def _per_layer(section: Fields) -> tuple[Rule, ...]:
    """Return a rule per format of ``quantized_layers``: module -> algorithm."""
    layers = section.section("quantized_layers")
    groups: dict[StorageFormat, list[str]] = {}
    for name, facts in layers.values.items():
        if not isinstance(facts, Mapping):
            raise InvalidValueError(f"{layers.path}[{name!r:.100}]", facts, "an object with a quant_algo")
        inner = Fields(facts, f"{layers.path}[{name!r:.100}]")
        held = _algorithm(inner.text("quant_algo") or "", inner, inner.at("quant_algo"))
        groups.setdefault(held, []).append(name)
    return tuple(Rule(names=wildcard_names(names, layers.path), held=held) for held, names in groups.items())


def _cache(section: Fields) -> tuple[str | None, tuple[Scale, ...]]:
    """Return the declared cache format and its fp32 scales, one per projection."""
    named = section.values.get("kv_cache_quant_algo")
    scheme = section.values.get("kv_cache_scheme")
    if named is None and isinstance(scheme, Mapping):
        named = "FP8" if scheme.get("type", "float") == "float" and scheme.get("num_bits", 8) == 8 else "INT8"
    elif named is None:
        named = scheme
    if named is None:
        return None, ()
    if not isinstance(named, str):
        raise InvalidValueError(section.at("kv_cache_quant_algo"), named, f"one of {', '.join(CACHES)}")
    scales = tuple(Scale(name=f"self_attn.{n}_proj.{n}_scale", shape=(), held=FP32) for n in "kv")
    return CACHES.get(named, named.lower()), scales if named in CACHES else ()
