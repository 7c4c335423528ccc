"""Language models that see or hear: one row of facts each.

Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0, names as in published files.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.families import audio, conformer, joints, qformer, vision, vision_qwen, vq
from vramfit.readers.families.decoder import Named, linear
from vramfit.readers.families.vision_sam import sam
from vramfit.readers.families.wrapper import Wrapper, each_layer, read_wrapper
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

_TOWER = "vision_tower.vision_model."
_CLIP_OR_PIXTRAL = {
    "clip_vision_model": (vision.clip, _TOWER),
    "siglip_vision_model": (vision.siglip, _TOWER),
    "pixtral": (vision.pixtral, "vision_tower."),
}
ADAPTED_RANK = 32
"""Width of what adapts a norm to the delay in Voxtral Realtime: a literal in its modelling code."""


def _adapted(spec: ModelSpec, _: Fields) -> ModelSpec:
    """Add what adapts every block's second norm to the delay that the transcript may have."""
    hidden, at = spec.hidden_size, "ada_rms_norm.linear"
    adapting = (*linear(f"{at}1", ADAPTED_RANK, hidden, Cut.WHOLE), *linear(f"{at}2", hidden, ADAPTED_RANK, Cut.WHOLE))
    return each_layer(spec, lambda layer: replace(layer, tensors=(*layer.tensors, *adapting)))


def _normed_heads(spec: ModelSpec, _: Fields) -> ModelSpec:
    """Add Chameleon's norms on queries and keys, with a weight and a bias for every head."""

    def normed(layer: Layer) -> Layer:
        facts = layer.attention
        assert isinstance(facts, GroupedQuery)
        heads = (("q", facts.num_attention_heads), ("k", facts.num_key_value_heads))
        norms = tuple(
            Tensor(name=f"self_attn.{n}_norm.{kind}", shape=(count, facts.head_dim), role=role)
            for n, count in heads
            for kind, role in (("weight", Role.NORM), ("bias", Role.BIAS))
        )
        return replace(layer, tensors=(*layer.tensors, *norms))

    return each_layer(spec, normed)


def _unadapted(spec: ModelSpec, fields: Fields) -> ModelSpec:
    """Say that Granite Speech's adapter, a file of its own, is not counted."""
    if fields.flag("has_lora_adapter", default=True):
        fields.assumed.append("has_lora_adapter: the adapter beside the model is not counted")
    return spec


_LLAVA = Wrapper(
    classes=("LlavaForConditionalGeneration",), text="llama", towers=_CLIP_OR_PIXTRAL, prefix="language_model.model.",
    head="language_model.lm_head", joint=joints.llava,
)  # fmt: skip
_LLAVA_NEXT = replace(_LLAVA, classes=("LlavaNextForConditionalGeneration",), joint=joints.llava_next)
_INSIDE = Wrapper(classes=(), text="llama", towers={}, prefix="model.language_model.")
"""Those whose file has all but the output projection below ``model.``"""
_QWEN2 = Wrapper(
    classes=("Qwen2VLForConditionalGeneration",), text="qwen2", towers={"": (vision_qwen.qwen2, "visual.")},
    prefix="model.", renamed=(("qwen2_vl_text", "qwen2"),),
)  # fmt: skip
_QWEN3 = replace(
    _INSIDE, classes=("Qwen3VLForConditionalGeneration",), text="qwen3",
    towers={"": (vision_qwen.qwen3, "model.visual.")}, renamed=(("qwen3_vl_text", "qwen3"),),
)  # fmt: skip
_GLM = replace(
    _INSIDE, classes=("Glm4vForConditionalGeneration",), text="glm4",
    towers={"": (vision_qwen.glm4v, "model.visual.")}, renamed=(("glm4v_text", "glm4"),),
)  # fmt: skip
_SHUFFLED = replace(
    _INSIDE, towers={"": (vision.idefics3, "model.vision_model.")}, prefix="model.text_model.", joint=joints.idefics3
)
_DEEPSEEK = replace(
    _INSIDE, classes=("DeepseekVLForConditionalGeneration",),
    towers={"siglip_vision_model": (vision.siglip, "model.vision_model.")}, tied=True,
    joint=joints.two("model.aligner.", ("linear1", "linear2")),
)  # fmt: skip
_BLIP = replace(
    _LLAVA, classes=("Blip2ForConditionalGeneration",), text="opt", towers={"": (vision.blip2, "vision_model.")},
    joint=qformer.queries, tied_inside=True, beside=(("qformer_config", qformer.blip2, "qformer."),),
)  # fmt: skip
_GOT = replace(
    _LLAVA, classes=("GotOcr2ForConditionalGeneration",), text="qwen2", towers={"": (sam, "vision_tower.")},
    joint=joints.got_ocr2, tied=True,
)  # fmt: skip
_INSTRUCTBLIP = replace(
    _BLIP, classes=("InstructBlipForConditionalGeneration",),
    text="llama", beside=(("qformer_config", qformer.instructblip, "qformer."),),
)  # fmt: skip
_HEARING = replace(_LLAVA, section="audio_config")

WRAPPERS: dict[str, Wrapper] = {
    "audioflamingo3": replace(
        _HEARING, classes=("AudioFlamingo3ForConditionalGeneration",), text="qwen2",
        towers={"": (audio.whisper_large, "audio_tower.")}, joint=joints.two("multi_modal_projector."),
    ),
    "aya_vision": replace(
        _LLAVA, classes=("AyaVisionForConditionalGeneration",), text="cohere2",
        towers={"siglip_vision_model": (vision.siglip, _TOWER)}, joint=joints.aya, tied=True,
    ),
    "aria": replace(
        _LLAVA, classes=("AriaForConditionalGeneration",), towers={"": (vision.idefics3, _TOWER)}, joint=joints.aria,
        text="aria_text",
    ),
    "chameleon": Wrapper(
        classes=("ChameleonForConditionalGeneration",), text="llama", towers={"": (vq.chameleon, "model.vqmodel.")},
        section="vq_config", prefix="model.", defaults=(("num_key_value_heads", 32),), finish=_normed_heads,
    ),
    "blip-2": _BLIP,
    "cohere2_vision": replace(
        _INSIDE, classes=("Cohere2VisionForConditionalGeneration",), text="cohere2",
        towers={"siglip_vision_model": (vision.siglip, f"model.{_TOWER}")}, joint=joints.command, tied=True,
    ),
    "deepseek_vl": _DEEPSEEK,
    "deepseek_vl_hybrid": replace(
        _DEEPSEEK, classes=("DeepseekVLHybridForConditionalGeneration",), joint=joints.deepseek_hybrid,
        beside=(("high_res_vision_config", sam, "model.high_res_vision_model.vision_encoder."),),
    ),
    "glm46v": replace(_GLM, classes=("Glm46VForConditionalGeneration",)),
    "glm4v": _GLM,
    "glm4v_moe": replace(
        _GLM, classes=("Glm4vMoeForConditionalGeneration",), text="glm4_moe",
        renamed=(("glm4v_moe_text", "glm4_moe"),), defaults=(("attention_bias", True),),
    ),
    "glm_ocr": replace(
        _GLM, classes=("GlmOcrForConditionalGeneration",), towers={"": (vision_qwen.glm_ocr, "model.visual.")},
        renamed=(("glm_ocr_text", "glm4"),), defaults=(("attention_bias", False), ("num_key_value_heads", 8)),
    ),
    "glmga": replace(_GLM, classes=("Glm46VForConditionalGeneration",)),
    "got_ocr2": _GOT,
    "granite_speech": Wrapper(
        classes=("GraniteSpeechForConditionalGeneration",), text="granite",
        towers={"": (conformer.granite, "encoder.")}, section="encoder_config", prefix="language_model.model.",
        head="language_model.lm_head", tied=True, joint=qformer.windowed_queries, finish=_unadapted,
        beside=(("projector_config", qformer.blip2, "projector.qformer."),),
    ),
    "idefics2": replace(
        _SHUFFLED, classes=("Idefics2ForConditionalGeneration",), text="mistral",
        towers={"": (vision.idefics2, "model.vision_model.")}, joint=joints.idefics2,
    ),
    "idefics3": replace(_SHUFFLED, classes=("Idefics3ForConditionalGeneration",)),
    "instructblip": _INSTRUCTBLIP,
    "instructblipvideo": replace(_INSTRUCTBLIP, classes=("InstructBlipVideoForConditionalGeneration",)),
    "internvl": replace(
        _LLAVA, classes=("InternVLForConditionalGeneration",), text="qwen2",
        towers={"internvl_vision": (vision.internvit, "vision_tower.")}, joint=joints.internvl, tied=True,
    ),
    "janus": replace(
        _INSIDE, classes=("JanusForConditionalGeneration",), towers={"": (vision.janus, "model.vision_model.")},
        tied=True, joint=joints.janus, beside=(("vq_config", vq.janus, "model.vqmodel."),),
    ),
    "lfm2_vl": replace(
        _INSIDE, classes=("Lfm2VlForConditionalGeneration",), text="lfm2", tied=True, joint=joints.lfm2,
        towers={"siglip2_vision_model": (vision.siglip2, f"model.{_TOWER}")},
    ),
    "lighton_ocr": replace(
        _INSIDE, classes=("LightOnOcrForConditionalGeneration",), text="qwen3",
        towers={"pixtral": (vision.pixtral, "model.vision_encoder.")}, joint=joints.lighton, tied=True,
    ),
    "llama4": replace(
        _LLAVA, classes=("Llama4ForConditionalGeneration",), text="llama4_text",
        towers={"": (vision.llama4, "vision_model.")}, joint=joints.llama4,
    ),
    "llava": _LLAVA,
    "llava_next": _LLAVA_NEXT,
    "llava_next_video": replace(_LLAVA_NEXT, classes=("LlavaNextVideoForConditionalGeneration",)),
    "llava_onevision": replace(
        _LLAVA_NEXT, classes=("LlavaOnevisionForConditionalGeneration",), text="qwen2",
        towers={"siglip_vision_model": (vision.siglip, _TOWER)},
    ),
    "mistral3": replace(
        _LLAVA, classes=("Mistral3ForConditionalGeneration",), text="mistral",
        towers={"pixtral": (vision.pixtral, "vision_tower.")}, joint=joints.mistral3, tied=True,
    ),
    "ovis2": replace(
        _INSIDE, classes=("Ovis2ForConditionalGeneration",), text="qwen2",
        towers={"": (vision.ovis2, "model.vision_tower.")}, joint=joints.ovis2, tied=True,
    ),
    "paddleocr_vl": Wrapper(
        classes=("PaddleOCRVLForConditionalGeneration",), text="ernie4_5",
        towers={"": (vision.siglip_large, "visual.vision_model.")}, prefix="model.", tied=True, joint=joints.paddle,
        renamed=(("paddleocr_vl_text", "ernie4_5"),), defaults=(("num_key_value_heads", 2),),
    ),
    "paligemma": replace(
        _LLAVA, classes=("PaliGemmaForConditionalGeneration",), text="gemma",
        towers={"siglip_vision_model": (vision.siglip, _TOWER)}, joint=joints.paligemma, tied=True,
    ),
    "pp_chart2table": _GOT,
    "qwen2_5_vl": replace(
        _QWEN2, classes=("Qwen2_5_VLForConditionalGeneration",), towers={"": (vision_qwen.qwen2_5, "visual.")},
        renamed=(("qwen2_5_vl_text", "qwen2"),),
    ),
    "qwen2_audio": replace(
        _HEARING, classes=("Qwen2AudioForConditionalGeneration",), text="qwen2",
        towers={"": (audio.whisper_large, "audio_tower.")}, joint=joints.qwen2_audio,
    ),
    "qwen2_vl": _QWEN2,
    "qwen3_5": replace(_QWEN3, classes=("Qwen3_5ForConditionalGeneration",), text="qwen3_5_text"),
    "qwen3_5_moe": replace(_QWEN3, classes=("Qwen3_5MoeForConditionalGeneration",), text="qwen3_5_moe_text"),
    "qwen3_asr": replace(
        _INSIDE, classes=("Qwen3ASRForConditionalGeneration",), text="qwen3", section="audio_config", tied=True,
        towers={"": (audio.qwen3_asr, "model.audio_tower.")}, joint=joints.qwen3_asr,
    ),
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": replace(_QWEN3, classes=("Qwen3VLMoeForConditionalGeneration",), text="qwen3_vl_moe_text"),
    "smolvlm": replace(_SHUFFLED, classes=("SmolVLMForConditionalGeneration",)),
    "video_llama_3": replace(
        _INSIDE, classes=("VideoLlama3ForConditionalGeneration",), text="qwen2",
        towers={"": (vision.siglip_rotated, "model.vision_model.")},
        joint=joints.two("model.projector.readout.", ("0", "2")),
    ),
    "video_llava": replace(
        _LLAVA, classes=("VideoLlavaForConditionalGeneration",),
        towers={"clip_vision_model": (vision.clip, "image_tower.")},
        beside=(("vision_config", vision.clip, "video_tower."),),
    ),
    "vipllava": replace(_LLAVA, classes=("VipLlavaForConditionalGeneration",), joint=joints.vipllava),
    "voxtral": replace(
        _HEARING, classes=("VoxtralForConditionalGeneration",),
        towers={"": (audio.whisper_large, "audio_tower.")}, joint=joints.voxtral, defaults=(("head_dim", 128),),
    ),
    "voxtral_realtime": replace(
        _HEARING, classes=("VoxtralRealtimeForConditionalGeneration",), text="ministral",
        towers={"": (audio.voxtral_realtime, "audio_tower.")}, tied=True,
        joint=joints.two("multi_modal_projector.", bias=False, by="downsample_factor"),
        renamed=(("voxtral_realtime_text", "ministral"),), finish=_adapted,
    ),
}  # fmt: skip
"""``model_type`` -> its kind."""
SECTIONS = {kind: wrapper.sections for kind, wrapper in WRAPPERS.items()}
CLASSES = {kind: wrapper.classes for kind, wrapper in WRAPPERS.items()}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the kinds in ``WRAPPERS``."""
    return read_wrapper(fields, named, WRAPPERS[fields.text("model_type") or ""])
