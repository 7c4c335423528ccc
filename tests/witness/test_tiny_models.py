"""Every family against transformers' own small models: count, names, shapes and windows, layer by layer."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tiny import ALL
from tiny.case import Tiny
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import ModelSpec, inventory

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.witness


WINDOWS = {
    "sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size", "full_attention": "none at all",
    "hybrid": "none at all",
    "minimax_m3_sparse": "none at all", "compressed_sparse_attention": "sliding_window",
    "heavily_compressed_attention": "sliding_window",
    "local": "window_size", "global": "none at all",
}  # fmt: skip
"""Kind of a layer -> field with its window."""


MOVED = (
    "embeddings.patch_embedding.", "embeddings.position_embedding.", "embeddings.class", "encoder.layers", "head.",
    "post", "pre",
)  # fmt: skip
"""Beginnings of names of CLIP and SigLIP towers."""


V4 = {
    "model.embed_tokens.": "embed.", "model.hc_head.hc_": "hc_head_", "model.": "", "attn.norm.": "attn.kv_norm.",
}  # fmt: skip
"""What transformers, saving DeepSeek V4 it has not read from a file, does not turn back: its name -> the published."""
KIMI = {
    "language_model.model.blocks.": "language_model.model.layers.", "model.mm_projector.": "mm_projector.",
    "vision_tower.encoder.patch_embed.": "vision_tower.patch_embed.",
}  # fmt: skip
"""The same of Kimi K2.5, whose tower alone has blocks."""
BORROWED = {"minimax_m3_vl_text": "minimax_m3_vl"}
"""Language models whose published names are those of the whole model."""


def build(case: Tiny) -> Any:
    """Return transformers' model, on a device without memory."""
    theirs = transformers.AutoConfig.for_model(case.kind, **case.values)
    with torch.device("meta"):
        if case.cls is not None:
            return getattr(transformers, case.cls)(theirs)
        return transformers.AutoModelForCausalLM.from_config(theirs)


def saved(kind: str, model: Any) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that ``save_pretrained`` writes; a tied one is written once."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.core_model_loading import revert_weight_conversion

    if kind in BORROWED:
        model._weight_conversions = get_checkpoint_conversion_mapping(BORROWED[kind])

    state = dict(model.state_dict())
    for name in model.all_tied_weights_keys:
        state.pop(name, None)
    shapes = {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, state).items()}
    if kind == "deepseek_v4":
        return {_turned_back(name): shape for name, shape in shapes.items()}
    if kind in BORROWED:
        return {name.replace("language_model.lm_head", "lm_head"): shape for name, shape in shapes.items()}
    return {_published(kind, name, shapes): shape for name, shape in shapes.items()}


def _turned_back(name: str) -> str:
    for theirs, published in V4.items():
        name = name.replace(theirs, published, 1)
    return name


ALONE = re.compile(r"(?:clip|siglip2?)_((?:text|vision)_model)")
"""Types of a tower of CLIP's or SigLIP's alone; the level that published files have above its tensors."""


def _published(kind: str, name: str, shapes: dict[str, tuple[int, ...]]) -> str:
    """Return the name a published file has, where version 5 does not find back to it.

    It gives Kimi's dense layers the name of its experts, and OLMo's attention layers the name of its delta
    layers' norms.
    """
    layer = name.split(".")[2] if name.startswith("model.layers.") else ""
    if kind == "kimi_linear" and f"model.layers.{layer}.block_sparse_moe.gate_proj.weight" in shapes:
        return name.replace(".block_sparse_moe.", ".mlp.")
    if kind == "olmo_hybrid" and f"model.layers.{layer}.self_attn.q_proj.weight" in shapes:
        return name.replace(".feedforward_layer_norm.", ".post_attention_layernorm.")
    if kind == "gemma4":  # its tower is its own, under the same names
        return name
    if kind == "vit_mae":  # a rule for the encoder's blocks catches the decoder's too, on the way out only
        return name.replace("decoder.decoder_encoder.layer.", "decoder.decoder_layers.")
    alone = ALONE.fullmatch(kind)
    if alone and not name.startswith((f"{alone[1]}.", "text_projection.", "visual_projection.")):
        return f"{alone[1]}.{name}"
    return _published_tower(name)


def _published_tower(name: str) -> str:
    """Version 5 has CLIP and SigLIP one level higher, and writes the old level only for models read from a file."""
    for theirs, published in KIMI.items():
        name = name.replace(theirs, published, 1)
    tower = "model.vision_tower." if name.startswith("model.") else "vision_tower."
    inside = name.startswith(tuple(f"{tower}{part}" for part in MOVED))
    return f"{tower}vision_model.{name.removeprefix(tower)}" if inside else name


def resident(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return name and shape of what a plain load brings to the device."""
    left = {
        f"{part.layer_prefix.replace('{layer}', str(i + part.first_layer))}{t.name.replace('{expert}', str(e))}"
        for part in spec.parts
        if not part.resident
        for i, layer in enumerate(part.layers)
        for t in layer.tensors
        for e in range(t.copies)
    } | {t.name for part in spec.parts if not part.resident for t in part.tensors}
    return {t.name: t.shape for t in inventory(spec) if t.name not in left}


def _as_saved(kind: str, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Version 5 turns the published experts of Qwen3-VL round as it reads them, not back for one of its own."""
    turned = kind == "qwen3_vl_moe" and ".experts." in name
    return (shape[0], shape[2], shape[1]) if turned else shape


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{i}-{case.kind}") for i, case in enumerate(ALL)])
def test_a_small_model_is_the_same(case: Tiny) -> None:
    """Same number of parameters, same names, same shapes, same windows."""
    model, spec = build(case), read_config(case.config, case.kind)
    assert saved(case.kind, model) == {
        name: _as_saved(case.kind, name, shape) for name, shape in resident(spec).items()
    }
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters
    theirs = model.config.get_text_config()
    types = getattr(theirs, "layer_types", None) or getattr(theirs, "attention_layers", None)
    for i, layer in enumerate(spec.layers):
        if isinstance(layer.attention, GroupedQuery) and layer.attention.causal:
            kind = "sliding_attention" if types is None else types[i]
            assert (getattr(theirs, WINDOWS[kind], None)) == layer.attention.window_tokens, i
