"""Qwen2.5-Omni and Qwen3-Omni: a thinker that sees, hears and writes; beside it a talker and what makes it sound.

``enable_audio_output`` says whether a load brings the latter two. Engines that serve text load the thinker alone.
Source: huggingface/transformers:src/transformers/models/qwen2_5_omni/ and models/qwen3_omni_moe/, 5.23.0.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.readers.families import audio, omni_sound, qwen2, qwen3, qwen3_next, vision_qwen
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.families.vision import position_table
from vramfit.readers.families.wrapper import Wrapper, each_layer, read_wrapper
from vramfit.readers.fields import LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, ModelSpec, Part, Tensor


def _thinkers(at: str) -> dict[str, Wrapper]:
    """Return both thinkers with their names below ``at``."""
    second = Wrapper(
        classes=("Qwen2_5OmniThinkerForConditionalGeneration",), text="qwen2",
        towers={"": (audio.qwen2_5_omni, f"{at}audio_tower.")}, section="audio_config",
        beside=(("vision_config", vision_qwen.qwen2_5_omni, f"{at}visual."),), prefix=f"{at}model.",
        head=f"{at}lm_head", renamed=(("qwen2_5_omni_text", "qwen2"),),
    )  # fmt: skip
    third = replace(
        second, classes=("Qwen3OmniMoeThinkerForConditionalGeneration",), text="qwen3_moe",
        towers={"": (audio.qwen3_omni, f"{at}audio_tower.")},
        beside=(("vision_config", vision_qwen.qwen3_omni, f"{at}visual."),),
        renamed=(("qwen3_omni_moe_text", "qwen3_moe"),),
    )  # fmt: skip
    return {"qwen2_5_omni": second, "qwen3_omni_moe": third}


_THINKERS = _thinkers("thinker.")
_ALONE = {f"{kind}_thinker": wrapper for kind, wrapper in _thinkers("").items()}
SECTIONS = {kind: wrapper.sections for kind, wrapper in _ALONE.items()}
CLASSES = {
    "qwen2_5_omni": ("Qwen2_5OmniForConditionalGeneration", "Qwen2_5OmniModel"),
    "qwen3_omni_moe": ("Qwen3OmniMoeForConditionalGeneration",),
    **{kind: wrapper.classes for kind, wrapper in _ALONE.items()},
}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an Omni configuration."""
    kind = fields.text("model_type") or ""
    if kind in _ALONE:
        return read_wrapper(fields, named, _ALONE[kind])
    spec = read_wrapper(fields.section("thinker_config"), named, _THINKERS[kind])
    sounding = fields.flag("enable_audio_output", default=True, recorded=True)
    talker = fields.section("talker_config")
    if kind == "qwen2_5_omni":
        sections = (_talker(talker, named), *omni_sound.token2wav(fields))
    else:
        sections = (*_talker_of_experts(talker, named), omni_sound.code2wav(fields))
    if sounding:
        fields.assumed.append("talker and token2wav: weights counted; their caches and working memory are not")
    return replace(spec, parts=(*spec.parts, *(replace(part, resident=sounding) for part in sections)))


def _talker(fields: Fields, named: Named) -> Part:
    """Return Qwen2.5-Omni's talker: a small Qwen2 over the codec's words and the thinker's states."""
    f = fields.filled(embedding_size=3584, head_dim=128, vocab_size=8448, num_key_value_heads=4)
    inner = qwen2.read(Fields({**f.values, "tie_word_embeddings": False}, f.path, f.assumed), named)
    hidden, wide, at = inner.hidden_size, f.integer("embedding_size"), "talker."
    words = f.integer("vocab_size", largest=LARGEST_VOCABULARY)
    around = (
        Tensor(name=f"{at}codec_head.weight", shape=(words, hidden), role=Role.HEAD),
        position_table(f"{at}model.embed_tokens", words, wide),
        *norm(f"{at}model.norm", hidden),
        *linear(f"{at}thinker_to_talker_proj", hidden, wide, Cut.WHOLE, bias=True),
    )
    return _part("talker", inner, f"{at}model.layers.{{layer}}.", around)


def _talker_of_experts(fields: Fields, named: Named) -> tuple[Part, ...]:
    """Return Qwen3-Omni's talker, a mixture with a shared expert, and what predicts the other codebooks."""
    text, code = fields.section("text_config"), fields.section("code_predictor_config")
    text = text.filled(
        vocab_size=3072, hidden_size=1024, num_hidden_layers=20, num_attention_heads=16, num_key_value_heads=2,
        intermediate_size=2048, moe_intermediate_size=384, num_experts_per_tok=8, num_experts=128,
    )  # fmt: skip
    code = code.filled(
        vocab_size=2048, hidden_size=1024, num_hidden_layers=5, num_attention_heads=16, num_key_value_heads=8,
        intermediate_size=3072, head_dim=128,
    )  # fmt: skip
    inner = qwen3.read(_as(text, "qwen3_moe"), named)
    shared = _shared_expert(text, inner)
    small = qwen3.read(_as(code, "qwen3"), named)
    hidden, wide = inner.hidden_size, fields.integer("thinker_hidden_size", 2048)
    at, middle = "talker.", text.integer("intermediate_size")
    projections = tuple(
        t
        for n in ("text", "hidden")
        for t in (
            *linear(f"{at}{n}_projection.linear_fc1", middle, wide, Cut.WHOLE, bias=True),
            *linear(f"{at}{n}_projection.linear_fc2", hidden, middle, Cut.WHOLE, bias=True),
        )
    )
    words = text.integer("vocab_size", largest=LARGEST_VOCABULARY)
    around = (
        position_table(f"{at}model.codec_embedding", words, hidden),
        *norm(f"{at}model.norm", hidden),
        *projections,
        Tensor(name=f"{at}codec_head.weight", shape=(words, hidden), role=Role.HEAD),
    )
    return (
        _part("talker", shared, f"{at}model.layers.{{layer}}.", around),
        _part("code predictor", small, f"{at}code_predictor.model.layers.{{layer}}.", _codes(fields, code, small)),
    )


def _codes(fields: Fields, code: Fields, small: ModelSpec) -> Tensors:
    """Return an embedding and a head for every codebook but the first, which the talker itself writes."""
    groups = code.integer("num_code_groups", fields.integer("num_code_groups", 32, largest=1024), largest=1024)
    words, hidden, at = code.integer("vocab_size"), small.hidden_size, "talker.code_predictor."
    return (
        *(position_table(f"{at}model.codec_embedding.{i}", words, hidden) for i in range(groups - 1)),
        *norm(f"{at}model.norm", hidden),
        *(Tensor(name=f"{at}lm_head.{i}.weight", shape=(words, hidden), role=Role.HEAD) for i in range(groups - 1)),
    )


def _shared_expert(text: Fields, inner: ModelSpec) -> ModelSpec:
    """Add the expert that all tokens pass, as Qwen3-Next has it."""
    facts, tensors = qwen3_next.experts(text, inner.hidden_size)
    more = tuple(t for t in tensors if "shared_expert" in t.name)
    return each_layer(inner, lambda layer: replace(layer, feed_forward=facts, tensors=(*layer.tensors, *more)))


def _as(fields: Fields, kind: str) -> Fields:
    return Fields({**fields.values, "model_type": kind, "tie_word_embeddings": False}, fields.path, fields.assumed)


def _part(name: str, inner: ModelSpec, prefix: str, around: Tensors) -> Part:
    return Part(name=name, layers=inner.layers, layer_prefix=prefix, tensors=around, resident=True)
