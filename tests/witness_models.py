"""transformers' own models without memory, and what they would save: the second witness of counts, names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_FIELDS = ("model_type", "architectures", "torch_dtype", "dtype", "quantization_config", "auto_map")
SAME_CLASS = {"kimi_k2": "deepseek_v3"}
"""Kinds that a published file names otherwise and whose class transformers has."""
MOVED = (
    "embeddings.patch_embedding.", "embeddings.position_embedding.", "embeddings.class", "encoder.layers", "head",
    "post", "pre",
)  # fmt: skip
"""Beginnings of names of CLIP and SigLIP towers."""


def build(config: Mapping[str, Any]) -> Any:
    """Return transformers' model of a configuration, on a device without memory.

    Raises:
        ValueError: transformers does not know the kind.
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


def saved_components(models: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that a pipeline saves, the folder before the name."""
    found = {}
    for folder, model in models.items():
        lost = "text_model." if type(model).__name__ == "CLIPTextModel" else ""  # as ``_published`` does for towers
        tied = getattr(model, "all_tied_weights_keys", None) or {}
        state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
        found.update({f"{folder}/{lost}{_tower(name)}": tuple(tensor.shape) for name, tensor in state.items()})
    return found


def _tower(name: str) -> str:
    """Return a name of the safety checker's tower as published."""
    inside = name.startswith("vision_model.") and not name.startswith("vision_model.vision_model.")
    return f"vision_model.{name}" if inside else name


def saved(model: Any) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that ``save_pretrained`` writes; a tied one is written once."""
    from transformers.core_model_loading import revert_weight_conversion

    state = dict(model.state_dict())
    for name in model.all_tied_weights_keys:
        state.pop(name, None)
    shapes = {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, state).items()}
    return {_published(name): shape for name, shape in shapes.items()}


def _published(name: str) -> str:
    """Version 5 has CLIP and SigLIP one level higher, and writes the old level only for models read from a file."""
    tower = "vision_tower."
    inside = name.startswith(tuple(f"{tower}{part}" for part in MOVED))
    return f"{tower}vision_model.{name.removeprefix(tower)}" if inside else name
