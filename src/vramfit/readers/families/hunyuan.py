"""Hunyuan-Large and Hunyuan-A13B: experts counted layer by layer, and layers that read another layer's keys and values.

Source: vllm-project/vllm@00f8d44:vllm/model_executor/models/hunyuan_v1.py (cross-layer attention, lists);
huggingface/transformers:src/transformers/models/hunyuan_v1_moe/, 5.23.0 (names).
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import UnsupportedModelError
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.families.decoder import Named
from vramfit.readers.families.mixtures import STYLES
from vramfit.readers.families.style import read_style
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Layer, ModelSpec

LISTED = ("moe_topk", "num_shared_expert", "moe_intermediate_size", "intermediate_size", "num_experts")
"""Fields that may hold one number for each layer."""
WIDTH = "moe_intermediate_size"


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of Hunyuan's first mixtures."""
    values = {**fields.values, **{name: _same(fields, name) for name in LISTED if fields.has(name)}}
    one = Fields(values, fields.path, fields.assumed)
    wide = _shared(one) * one.integer("intermediate_size")
    style = STYLES["hunyuan_v1_moe"]
    assert style.mixture is not None
    width = WIDTH if one.has(WIDTH) else style.mixture.width
    mixture = replace(style.mixture, width=width, shared_width=("shared_intermediate_size", wide))
    one = Fields({**values, "shared_intermediate_size": wide}, fields.path, fields.assumed)
    style = replace(style, mixture=mixture, head_dim=one.optional("attention_head_dim"))
    spec = read_style(one, named, style)
    if not one.flag("use_cla", default=False):
        return spec
    every = one.integer("cla_share_factor", largest=LARGEST_LAYERS)
    taking = {id(layer): _taking(layer) for layer in spec.layers}
    layers = tuple(taking[id(layer)] if i % every else layer for i, layer in enumerate(spec.layers))
    return replace(spec, layers=layers)


def _shared(fields: Fields) -> int:
    """Return the number of shared experts; transformers always has one."""
    if not fields.flag("use_mixed_mlp_moe", default=True):
        return 0
    return fields.integer("num_shared_expert", smallest=0, largest=64) if fields.has("num_shared_expert") else 1


def _same(fields: Fields, name: str) -> object:
    """Return a number that may be given once for each layer; different ones are refused."""
    value = fields.values[name]
    if not isinstance(value, list):
        return value
    if not value or any(entry != value[0] for entry in value):
        raise UnsupportedModelError(
            f"{fields.at(name)}: {value!r:.100}: layers that differ; expected one number, or the same for every layer, "
            "as in all published models"
        )
    return value[0]


def _taking(layer: Layer) -> Layer:
    """Return the layer without keys and values of its own."""
    assert isinstance(layer.attention, GroupedQuery)
    kept = tuple(t for t in layer.tensors if not t.name.startswith(("self_attn.k_proj.", "self_attn.v_proj.")))
    return replace(layer, attention=replace(layer.attention, shares_cache=True), tensors=kept)
