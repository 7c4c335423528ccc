"""Encoders of pipelines, which transformers holds.

CLIP's text and image towers, T5 and its relatives, the safety checker, language models that serve as text encoders.
Source: huggingface/transformers:src/transformers/models/<family>/, 5.23.0; names as published files have them.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from vramfit.pipeline import Encoder
from vramfit.readers.diffusion.block import Anatomy, Classes, Known, Stack, Tensors, block, linear, norm, one_of, table
from vramfit.readers.families.decoder import head_dim
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_VOCABULARY, Fields
from vramfit.readers.hf_config import read_config
from vramfit.spec import ModelSpec

GATED = ("gated-gelu", "gated-silu")
SPECIAL_CONCEPTS, CONCEPTS = 3, 17
"""Embeddings that the safety checker compares images with, fixed in diffusers' safety_checker.py."""

_CLIP_TEXT: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "projection_dim": 512,
    "num_hidden_layers": 12, "num_attention_heads": 8, "max_position_embeddings": 77,
}  # fmt: skip
_CLIP_VISION: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "projection_dim": 512, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_channels": 3, "image_size": 224, "patch_size": 32,
}  # fmt: skip
_T5: dict[str, Any] = {
    "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128,
    "relative_attention_num_buckets": 32, "feed_forward_proj": "relu",
}  # fmt: skip


def _clip_layers(fields: Fields, prefix: str) -> Stack:
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    heads = fields.integer("num_attention_heads")
    tensors = (
        *(t for n in ("k", "v", "q") for t in linear(f"self_attn.{n}_proj", hidden, hidden)),
        *linear("self_attn.out_proj", hidden, hidden),
        *norm("layer_norm1", hidden, bias=True),
        *linear("mlp.fc1", width, hidden),
        *linear("mlp.fc2", hidden, width),
        *norm("layer_norm2", hidden, bias=True),
    )
    made = block(heads, head_dim(fields, hidden, heads), width, tensors)
    return Stack(prefix=f"{prefix}encoder.layers.{{layer}}.", layers=(made,) * fields.num_layers)


def clip_text(fields: Fields) -> Anatomy:
    """Read CLIP's text tower."""
    hidden, at = fields.integer("hidden_size"), "text_model."
    length = fields.integer("max_position_embeddings", largest=LARGEST_CONTEXT)
    vocab = fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    tensors = (
        *table(f"{at}embeddings.token_embedding.weight", vocab, hidden),
        *table(f"{at}embeddings.position_embedding.weight", length, hidden),
        *norm(f"{at}final_layer_norm", hidden, bias=True),
    )
    facts = Encoder(hidden_size=hidden, max_tokens=length)
    return Anatomy(tensors=tensors, stacks=(_clip_layers(fields, at),), facts=facts)


def clip_text_projected(fields: Fields) -> Anatomy:
    """Read CLIP's text tower with the projection to the space it shares with images."""
    found, hidden = clip_text(fields), fields.integer("hidden_size")
    projection = linear("text_projection", fields.integer("projection_dim"), hidden, bias=False)
    return replace(found, tensors=(*found.tensors, *projection))


def _vision(fields: Fields, prefix: str) -> tuple[Tensors, Stack]:
    hidden, side = fields.integer("hidden_size"), fields.integer("patch_size")
    places = (fields.integer("image_size", smallest=side) // side) ** 2 + 1
    at = f"{prefix}embeddings."
    tensors = (
        *table(f"{at}class_embedding", hidden),
        *table(f"{at}patch_embedding.weight", hidden, fields.integer("num_channels"), side, side),
        *table(f"{at}position_embedding.weight", places, hidden),
        *norm(f"{prefix}pre_layrnorm", hidden, bias=True),
        *norm(f"{prefix}post_layernorm", hidden, bias=True),
    )
    return tensors, _clip_layers(fields, prefix)


def clip_vision(fields: Fields) -> Anatomy:
    """Read CLIP's image tower."""
    tensors, stack = _vision(fields, "vision_model.")
    side = fields.integer("patch_size")
    places = (fields.integer("image_size") // side) ** 2 + 1
    facts = Encoder(hidden_size=fields.integer("hidden_size"), max_tokens=places)
    return Anatomy(tensors=tensors, stacks=(stack,), facts=facts)


def clip_vision_projected(fields: Fields) -> Anatomy:
    """Read CLIP's image tower with the projection to the space it shares with texts."""
    found = clip_vision(fields)
    projection = linear(
        "visual_projection", fields.integer("projection_dim"), fields.integer("hidden_size"), bias=False
    )
    return replace(found, tensors=(*found.tensors, *projection))


def safety_checker(fields: Fields) -> Anatomy:
    """Read Stable Diffusion's safety checker: an image tower and a list of concepts to compare with."""
    given = fields.section("vision_config").values
    section = Fields({**_CLIP_VISION, **given}, fields.at("vision_config"), fields.assumed)
    tensors, stack = _vision(section, "vision_model.vision_model.")
    width = fields.integer("projection_dim")
    around = (
        *linear("visual_projection", width, section.integer("hidden_size"), bias=False),
        *table("concept_embeds", CONCEPTS, width),
        *table("special_care_embeds", SPECIAL_CONCEPTS, width),
        *table("concept_embeds_weights", CONCEPTS),
        *table("special_care_embeds_weights", SPECIAL_CONCEPTS),
    )
    facts = Encoder(hidden_size=section.integer("hidden_size"), max_tokens=None)
    return Anatomy(tensors=(*tensors, *around), stacks=(stack,), facts=facts)


def t5(fields: Fields) -> Anatomy:
    """Read T5's encoder: the first layer holds the bias by distance for all."""
    return _t5(fields, everywhere=False)


def umt5(fields: Fields) -> Anatomy:
    """Read UMT5's encoder: every layer has a bias by distance of its own."""
    return _t5(fields, everywhere=True)


def _t5(fields: Fields, *, everywhere: bool) -> Anatomy:
    hidden, vocab = fields.integer("d_model"), fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    num = fields.integer("num_layers", largest=4096)
    usual, first = _t5_layer(fields, hidden, biased=everywhere), _t5_layer(fields, hidden, biased=True)
    made = [block(fields.integer("num_heads"), fields.integer("d_kv"), fields.integer("d_ff"), t, gated=_gated(fields))
            for t in (first, usual)]  # fmt: skip
    tensors = (*table("shared.weight", vocab, hidden), *norm("encoder.final_layer_norm", hidden))
    stack = Stack(prefix="encoder.block.{layer}.layer.", layers=(made[0], *(made[1],) * (num - 1)))
    return Anatomy(tensors=tensors, stacks=(stack,), facts=Encoder(hidden_size=hidden, max_tokens=None))


def _gated(fields: Fields) -> bool:
    return bool(one_of(fields, "feed_forward_proj", ("relu", "gelu", *GATED)) in GATED)


def _t5_layer(fields: Fields, hidden: int, *, biased: bool) -> Tensors:
    heads, width = fields.integer("num_heads"), fields.integer("d_ff")
    inner, buckets = heads * fields.integer("d_kv"), fields.integer("relative_attention_num_buckets")
    into = ("wi_0", "wi_1") if _gated(fields) else ("wi",)
    return (
        *(t for n in "qkv" for t in linear(f"0.SelfAttention.{n}", inner, hidden, bias=False)),
        *linear("0.SelfAttention.o", hidden, inner, bias=False),
        *(table("0.SelfAttention.relative_attention_bias.weight", buckets, heads) if biased else ()),
        *norm("0.layer_norm", hidden),
        *(t for n in into for t in linear(f"1.DenseReluDense.{n}", width, hidden, bias=False)),
        *linear("1.DenseReluDense.wo", hidden, width, bias=False),
        *norm("1.layer_norm", hidden),
    )


ENCODERS: Classes = MappingProxyType({
    "CLIPTextModel": Known(clip_text, _CLIP_TEXT, {}),
    "CLIPTextModelWithProjection": Known(clip_text_projected, _CLIP_TEXT, {}),
    "CLIPVisionModel": Known(clip_vision, _CLIP_VISION, {}),
    "CLIPVisionModelWithProjection": Known(clip_vision_projected, _CLIP_VISION, {}),
    "StableDiffusionSafetyChecker": Known(safety_checker, {"projection_dim": 512}, {}),
    "T5EncoderModel": Known(t5, _T5, {}),
    "UMT5EncoderModel": Known(umt5, {
        **_T5, "vocab_size": 250112, "feed_forward_proj": "gated-gelu", "d_ff": 1024, "num_layers": 8, "num_heads": 6,
    }, {}),
})  # fmt: skip
"""Class name -> how it is read."""

LANGUAGE_MODELS = MappingProxyType({
    "Gemma2Model": "Gemma2ForCausalLM",
    "Gemma3ForConditionalGeneration": "Gemma3ForConditionalGeneration",
    "LlamaForCausalLM": "LlamaForCausalLM",
    "LlamaModel": "LlamaForCausalLM",
    "Mistral3ForConditionalGeneration": "Mistral3ForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration": "Qwen2_5_VLForConditionalGeneration",
    "Qwen2_5_VLTextModel": "Qwen2ForCausalLM",
    "Qwen3ForCausalLM": "Qwen3ForCausalLM",
    "Qwen3Model": "Qwen3ForCausalLM",
})  # fmt: skip
"""Class that a pipeline loads -> the class with an output projection that our families read it as."""
BARE = ("Gemma2Model", "LlamaModel", "Qwen2_5_VLTextModel", "Qwen3Model")
"""Those loaded without the output projection; their tensors carry no ``model.`` before their names."""


def language_model(fields: Fields, name: str, chosen: str) -> tuple[ModelSpec, Encoder]:
    """Return the language model that encodes the text, and its facts; nothing is generated and nothing is cached."""
    config = {**fields.values, "architectures": [LANGUAGE_MODELS[chosen]]}
    if chosen == "Qwen2_5_VLTextModel":
        config["model_type"] = "qwen2"
    spec = read_config(config, name)
    facts = Encoder(hidden_size=spec.hidden_size, max_tokens=spec.max_position_embeddings)
    return (_bare(spec) if chosen in BARE else spec), facts


def _bare(spec: ModelSpec) -> ModelSpec:
    """Drop the output projection and the prefix."""

    def plain(tensors: Tensors) -> Tensors:
        kept = (t for t in tensors if not t.name.startswith("lm_head."))
        return tuple(replace(t, name=t.name.removeprefix("model.")) for t in kept)

    return replace(
        spec,
        embeddings=plain(spec.embeddings),
        head=plain(spec.head),
        layer_prefix=spec.layer_prefix.removeprefix("model."),
    )
