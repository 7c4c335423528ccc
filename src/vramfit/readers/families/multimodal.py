"""Language models with a vision tower: which text family, which tower, what joins them, and where all stand in a file.

Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0, names as in published files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.families import FAMILIES, vision
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, ModelSpec, Part, Tensor

Tower = Callable[[Fields, str], Part]
Joint = Callable[[Fields, Fields, int, int], Tensors]
"""(all fields, the tower's section, the tower's width, the language model's width) -> what joins them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapper:
    """One kind of multimodal model."""

    text: str
    """Text family where ``text_config`` does not say."""
    towers: Mapping[str, tuple[Tower, str]]
    """``model_type`` of the tower's section -> its reader and its prefix; the first one is the default."""
    prefix: str
    """Before the language model's tensors, in place of ``model.``"""
    head: str = "lm_head"
    tied: bool = False
    """Class default of the outer ``tie_word_embeddings``."""
    joint: Joint = lambda _whole, _tower, _inside, _text: ()
    renamed: tuple[tuple[str, str], ...] = ()
    """Text ``model_type`` here -> family that reads it."""


def _two_layers(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    bias = whole.flag("multimodal_projector_bias", default=True)
    count = whole.values.get("vision_feature_layer")
    wide = inside * (len(count) if isinstance(count, list) else 1)
    return (
        *linear("multi_modal_projector.linear_1", text, wide, Cut.WHOLE, bias=bias),
        *linear("multi_modal_projector.linear_2", text, text, Cut.WHOLE, bias=bias),
    )


def _with_newline(whole: Fields, tower: Fields, inside: int, text: int) -> Tensors:
    newline = Tensor(name="image_newline", shape=(text,), role=Role.EMBEDDING)
    return (newline, *_two_layers(whole, tower, inside, text))


def _merging(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    bias = whole.flag("multimodal_projector_bias", default=False)
    merge = whole.integer("spatial_merge_size", 2, largest=64)
    at = "multi_modal_projector."
    return (
        *norm(f"{at}norm", inside),
        *linear(f"{at}patch_merger.merging_layer", inside, inside * merge**2, Cut.WHOLE),
        *linear(f"{at}linear_1", text, inside, Cut.WHOLE, bias=bias),
        *linear(f"{at}linear_2", text, text, Cut.WHOLE, bias=bias),
    )


def _one_layer(whole: Fields, _: Fields, inside: int, __: int) -> Tensors:
    out = whole.integer("projection_dim", 2048)
    return linear("multi_modal_projector.linear", out, inside, Cut.WHOLE, bias=True)


def _shuffled(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    scale = whole.integer("scale_factor", 2, largest=64)
    return linear("model.connector.modality_projection.proj", text, inside * scale**2, Cut.WHOLE)


def _normed(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    ratio = whole.values.get("downsample_ratio", 0.5)
    if not isinstance(ratio, float) or not 0 < ratio <= 1:
        raise InvalidValueError(whole.at("downsample_ratio"), ratio, "a number above 0 and at most 1")
    wide, at = inside * int(1 / ratio) ** 2, "multi_modal_projector."
    return (
        *norm(f"{at}layer_norm", wide, bias=True),
        *linear(f"{at}linear_1", text, wide, Cut.WHOLE, bias=True),
        *linear(f"{at}linear_2", text, text, Cut.WHOLE, bias=True),
    )


def _from_adapter(_whole: Fields, tower: Fields, _inside: int, text: int) -> Tensors:
    return linear("multi_modal_projector.linear_1", text, tower.integer("vision_output_dim", 7680), Cut.WHOLE)


def _unshuffled(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    factor, width = whole.integer("downsample_factor", 2, largest=64), whole.integer("projector_hidden_size", 2560)
    bias, wide, at = whole.flag("projector_bias", default=True), inside * factor**2, "model.multi_modal_projector."
    normed = whole.flag("projector_use_layernorm", default=True)
    return (
        *(norm(f"{at}layer_norm", wide, bias=True) if normed else ()),
        *linear(f"{at}linear_1", width, wide, Cut.WHOLE, bias=bias),
        *linear(f"{at}linear_2", text, width, Cut.WHOLE, bias=bias),
    )


_TOWER = "vision_tower.vision_model."
_CLIP_OR_PIXTRAL = {
    "clip_vision_model": (vision.clip, _TOWER),
    "siglip_vision_model": (vision.siglip, _TOWER),
    "pixtral": (vision.pixtral, "vision_tower."),
}
_LLAVA = Wrapper(
    text="llama", towers=_CLIP_OR_PIXTRAL, prefix="language_model.model.", head="language_model.lm_head",
    joint=_two_layers,
)  # fmt: skip
_QWEN3 = Wrapper(
    text="qwen3", towers={"": (vision.qwen3, "model.visual.")}, prefix="model.language_model.",
    renamed=(("qwen3_vl_text", "qwen3"),),
)  # fmt: skip
_SHUFFLED = Wrapper(
    text="llama", towers={"": (vision.siglip_bare, "model.vision_model.")}, prefix="model.text_model.", joint=_shuffled
)

WRAPPERS: dict[str, Wrapper] = {
    "idefics3": _SHUFFLED,
    "internvl": replace(
        _LLAVA, text="qwen2", towers={"internvl_vision": (vision.internvit, "vision_tower.")}, joint=_normed, tied=True
    ),
    "lfm2_vl": Wrapper(
        text="lfm2", towers={"siglip2_vision_model": (vision.siglip2, f"model.{_TOWER}")},
        prefix="model.language_model.", joint=_unshuffled, tied=True,
    ),
    "llama4": replace(
        _LLAVA, text="llama4_text", towers={"": (vision.llama4, "vision_model.")}, joint=_from_adapter
    ),
    "llava": _LLAVA,
    "llava_next": replace(_LLAVA, joint=_with_newline),
    "mistral3": replace(
        _LLAVA, text="mistral", towers={"pixtral": (vision.pixtral, "vision_tower.")}, joint=_merging, tied=True
    ),
    "paligemma": replace(
        _LLAVA, text="gemma", towers={"siglip_vision_model": (vision.siglip, _TOWER)}, joint=_one_layer, tied=True
    ),
    "qwen2_5_vl": Wrapper(
        text="qwen2", towers={"": (vision.qwen2_5, "visual.")}, prefix="model.", renamed=(("qwen2_5_vl_text", "qwen2"),)
    ),
    "qwen2_vl": Wrapper(
        text="qwen2", towers={"": (vision.qwen2, "visual.")}, prefix="model.", renamed=(("qwen2_vl_text", "qwen2"),)
    ),
    "qwen3_5": replace(_QWEN3, text="qwen3_5_text"),
    "qwen3_5_moe": replace(_QWEN3, text="qwen3_5_moe_text"),
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": replace(_QWEN3, text="qwen3_vl_moe_text"),
    "smolvlm": _SHUFFLED,
}  # fmt: skip
"""``model_type`` -> its kind."""
SECTIONS = dict.fromkeys(WRAPPERS, ("text_config", "vision_config"))


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the kinds in ``WRAPPERS``."""
    kind = fields.text("model_type") or ""
    wrapper = WRAPPERS[kind]
    spec = _language_model(fields, named, wrapper)
    spec = replace(
        spec,
        embeddings=tuple(_moved(t, wrapper) for t in spec.embeddings),
        head=tuple(_moved(t, wrapper) for t in spec.head),
        layer_prefix=wrapper.prefix + spec.layer_prefix.removeprefix("model."),
    )
    section = fields.section("vision_config")
    named_tower = section.text("model_type") or ""
    reader, prefix = wrapper.towers.get(named_tower) or next(iter(wrapper.towers.values()))
    if "" not in wrapper.towers and named_tower and named_tower not in wrapper.towers:
        section.refuse("model_type", f"a tower that {kind} is not read with")
    tower = reader(section, prefix)
    inside = _width(tower)
    joint = wrapper.joint(fields, section, inside, spec.hidden_size)
    return replace(spec, parts=(*spec.parts, replace(tower, tensors=(*tower.tensors, *joint))))


def _language_model(fields: Fields, named: Named, wrapper: Wrapper) -> ModelSpec:
    """Read the language model by its own family; older files hold its fields at the top."""
    section = fields.section("text_config") if fields.has("text_config") else fields
    own = section.text("model_type") if section is not fields else None
    text = dict(wrapper.renamed).get(own or "", own or wrapper.text)
    if text not in FAMILIES or text in WRAPPERS:
        section.refuse("model_type", "a language model that is not read in this place")
    tied = next((part for part in (fields, section) if part.has("tie_word_embeddings")), None)
    value = wrapper.tied if tied is None else tied.flag("tie_word_embeddings", default=wrapper.tied)
    if tied is None:
        fields.assume("tie_word_embeddings", value)
    values = {**section.values, "model_type": text, "tie_word_embeddings": value}
    inner = Fields(values, section.path, fields.assumed)
    spec: ModelSpec = import_module(f"vramfit.readers.families.{FAMILIES[text]}").read(inner, named)
    return spec


def _moved(tensor: Tensor, wrapper: Wrapper) -> Tensor:
    """Return a tensor of the language model under its name in the whole file."""
    if tensor.name.startswith("lm_head."):
        return replace(tensor, name=wrapper.head + tensor.name.removeprefix("lm_head"))
    return replace(tensor, name=wrapper.prefix + tensor.name.removeprefix("model."))


def _width(tower: Part) -> int:
    """Return the width at which the tower's blocks read and write."""
    return next(t.shape[-1] for t in tower.layers[0].tensors if t.role is Role.LINEAR)
