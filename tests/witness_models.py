"""transformers' own models without memory, and what they would save: the second witness of counts, names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vramfit.spec import ModelSpec, inventory

NO_FIELDS = ("model_type", "architectures", "torch_dtype", "dtype", "quantization_config", "auto_map")
SAME_CLASS = {"kimi_k2": "deepseek_v3"}
"""Kinds that a published file names otherwise and whose class transformers has."""
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
ALONE = re.compile(r"(?:clip|siglip2?)_((?:text|vision)_model)")
"""Types of a tower of CLIP's or SigLIP's alone; the level that published files have above its tensors."""

Shapes = dict[str, tuple[int, ...]]


def build(config: Mapping[str, Any]) -> Any:
    """Return transformers' model of a configuration, on a device without memory.

    Raises:
        ValueError: transformers does not know the kind or the class.
    """
    import torch
    import transformers

    kind = SAME_CLASS.get(config["model_type"], config["model_type"])
    if kind not in transformers.CONFIG_MAPPING:
        raise ValueError(f"no kind {kind}")
    fields = {name: value for name, value in config.items() if name not in NO_FIELDS}
    theirs = transformers.AutoConfig.for_model(kind, **fields)
    named = (config.get("architectures") or [None])[0]
    cls = getattr(transformers, named, None) if named else None
    if named and cls is None:
        raise ValueError(f"no class {named}")
    with torch.device("meta"):
        if cls is not None:
            return cls(theirs)
        return transformers.AutoModelForCausalLM.from_config(theirs)


def build_components(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return diffusers' and transformers' models of a pipeline with its configs inside: folder -> model."""
    import diffusers
    import torch
    import transformers
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    found = {}
    for folder, values in config["components"].items():
        name = config[folder][1]
        fields = {key: value for key, value in values.items() if key not in (*NO_FIELDS, "_class_name")}
        cls = getattr(diffusers, name, None) or getattr(transformers, name, StableDiffusionSafetyChecker)
        with torch.device("meta"):
            of_diffusers = issubclass(cls, diffusers.ModelMixin)
            found[folder] = cls(**fields) if of_diffusers else cls(cls.config_class(**fields))
    return found


def saved_components(models: Mapping[str, Any]) -> Shapes:
    """Return name and shape of every tensor that a pipeline saves, the folder before the name."""
    found = {}
    for folder, model in models.items():
        lost = "text_model." if type(model).__name__ == "CLIPTextModel" else ""  # as ``_published`` does for towers
        tied = getattr(model, "all_tied_weights_keys", None) or {}
        state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
        nested = type(model).__name__ == "StableDiffusionSafetyChecker"
        shapes = {lost + (_tower(name) if nested else name): tuple(tensor.shape) for name, tensor in state.items()}
        found.update({f"{folder}/{name}": shape for name, shape in shapes.items()})
    return found


def _tower(name: str) -> str:
    """Return a name of the safety checker's tower as published."""
    inside = name.startswith("vision_model.") and not name.startswith("vision_model.vision_model.")
    return f"vision_model.{name}" if inside else name


def saved(model: Any, kind: str) -> Shapes:
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


def _published(kind: str, name: str, shapes: Shapes) -> str:
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


def resident(spec: ModelSpec) -> Shapes:
    """Return name and shape of what a plain load brings to the device."""
    loaded = replace(spec, parts=tuple(part for part in spec.parts if part.resident))
    return {tensor.name: tensor.shape for tensor in inventory(loaded)}


def as_saved(shapes: Shapes, kind: str) -> Shapes:
    """Version 5 turns the published experts of Qwen3-VL round as it reads them, not back for one of its own."""
    if kind != "qwen3_vl_moe":
        return shapes
    return {n: (s[0], s[2], s[1]) if ".experts." in n else s for n, s in shapes.items()}
