"""AMD Quark: a format for all modules, and others by name or by class.

Source: amd/Quark:quark/torch/export/config; layouts as vLLM loads them, model_executor/layers/quantization/quark.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import UnsupportedModelError
from vramfit.formats import ALL_MATRICES, FP8, FP32, Role, StorageFormat
from vramfit.readers.fields import Fields
from vramfit.readers.quantizers.names import listed, wildcard_names
from vramfit.readers.quantizers.recipe import Recipe, Rule, Scale

_SOURCE = "vllm-project/vllm:vllm/model_executor/layers/quantization/quark"
SCALE_BYTES = 4
"""Quark stores scales in fp32 unless the scale has a float format of its own."""


def read(section: Fields, plain: StorageFormat) -> Recipe:
    """Read Quark's section: exceptions, then rules by name, then the global format."""
    ignored = listed(section, "exclude") or ()
    rules = [Rule(names=wildcard_names(ignored, section.at("exclude")), held=None)] if ignored else []
    layers = section.section("layer_quant_config") if section.has("layer_quant_config") else None
    for name in layers.values if layers else ():
        held = _held(layers.section(name)) if layers and layers.values[name] is not None else None
        rules.append(Rule(names=wildcard_names([name], section.at("layer_quant_config")), held=held))
    if section.values.get("layer_type_quant_config"):
        section.refuse("layer_type_quant_config", "formats by class of module")
    default = _held(section.section("global_quant_config")) if section.has("global_quant_config") else None
    cache = section.values.get("kv_cache_quant_config")
    declared = "fp8" if cache and "fp8" in str(cache)[:10_000] else None
    scales = tuple(Scale(name=f"self_attn.{n}_proj.output_scale", shape=(), held=FP32) for n in "kv")
    del plain
    return Recipe(
        default=default,
        rules=tuple(rules),
        roles=ALL_MATRICES - {Role.EMBEDDING},
        kv_format=declared,
        kv_scales=scales if declared else (),
    )


def _held(config: Fields) -> StorageFormat | None:
    """Return the format of one configuration's weights."""
    if not config.has("weight"):
        return None
    weight = config.section("weight")
    kind, scheme = weight.text("dtype") or "", weight.text("qscheme") or ""
    static = SCALE_BYTES if _static(config) else 0
    match kind, scheme:
        case ("fp8_e4m3", "per_tensor"):
            return replace(FP8, tensor_bytes=SCALE_BYTES + static)
        case ("fp8_e4m3", "per_channel"):
            return replace(FP8, name="fp8-channel", tensor_bytes=static, row_bytes=SCALE_BYTES)
        case ("int8", "per_tensor"):
            return replace(FP8, name="int8-tensor", tensor_bytes=SCALE_BYTES + static)
        case ("int8", "per_channel"):
            return replace(FP8, name="int8-channel", tensor_bytes=static, row_bytes=SCALE_BYTES)
        case ("fp4", "per_group"):
            group = weight.integer("group_size", 32, largest=2**20)
            return StorageFormat(
                name="mxfp4", block_elements=2, block_bytes=1, group_elements=group, group_bytes=1, source=_SOURCE
            )
        case _:
            raise UnsupportedModelError(
                f"{weight.at('dtype')}: {kind!r:.50} {scheme!r:.50}: expected fp8_e4m3 or int8 per_tensor or "
                "per_channel, or fp4 per_group; give weight_format for an estimate and leave the section out"
            )


def _static(config: Fields) -> bool:
    """Say whether the activations have a stored scale."""
    if not config.has("input_tensors"):
        return False
    return not config.section("input_tensors").flag("is_dynamic", default=False)
