"""Language models that see or hear."""

from __future__ import annotations

from typing import Any

from tiny.case import BASE, Tiny
from tiny.hybrids import DELTA, SHARED
from tiny.mixtures import EXPERTS

TEXT = {k: v for k, v in BASE.items() if not k.endswith("_token_id")}
QWEN_TOWER = {"depth": 2, "hidden_size": 48, "intermediate_size": 72, "num_heads": 4, "out_hidden_size": 64,
              "num_position_embeddings": 36}  # fmt: skip
TOWER = {"hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4,
         "image_size": 56, "patch_size": 14}  # fmt: skip
CLIP = {"model_type": "clip_vision_model", **TOWER, "projection_dim": 32}
SIGLIP = {"model_type": "siglip_vision_model", **TOWER}
SIGLIP2 = {"model_type": "siglip2_vision_model", **TOWER, "num_patches": 25}
PIXTRAL = {"model_type": "pixtral", **TOWER, "head_dim": 12}


def seeing(kind: str, cls: str, text: dict[str, Any], tower: dict[str, Any], **more: object) -> Tiny:
    """Return a case of a language model with a tower."""
    values = {"text_config": {**TEXT, **text}, "vision_config": tower, "tie_word_embeddings": False, **more}
    return Tiny(kind, values, cls=f"{cls}ForConditionalGeneration", own=True)


CASES = (
    seeing("qwen2_vl", "Qwen2VL", {"model_type": "qwen2_vl_text"},
           {"depth": 2, "embed_dim": 48, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 4}),
    seeing("qwen2_5_vl", "Qwen2_5_VL", {"model_type": "qwen2_5_vl_text"},
           {k: v for k, v in QWEN_TOWER.items() if k != "num_position_embeddings"}, tie_word_embeddings=True),
    seeing("qwen3_vl", "Qwen3VL", {"model_type": "qwen3_vl_text", "head_dim": 8},
           {**QWEN_TOWER, "deepstack_visual_indexes": [0, 1]}),
    seeing("qwen3_vl", "Qwen3VL", {"model_type": "qwen3_vl_text", "head_dim": 8}, QWEN_TOWER, tie_word_embeddings=True),
    seeing("qwen3_vl_moe", "Qwen3VLMoe", {"model_type": "qwen3_vl_moe_text", "head_dim": 8, **EXPERTS,
           "num_experts": 4}, {**QWEN_TOWER, "deepstack_visual_indexes": [0]}),
    seeing("qwen3_5", "Qwen3_5", {"model_type": "qwen3_5_text", **DELTA}, {**QWEN_TOWER, "model_type": "qwen3_5"}),
    seeing("qwen3_5_moe", "Qwen3_5Moe", {"model_type": "qwen3_5_moe_text", **DELTA, **SHARED},
           {**QWEN_TOWER, "model_type": "qwen3_5_moe"}),
    seeing("lfm2_vl", "Lfm2Vl", {"model_type": "lfm2", "layer_types": ["conv", "full_attention", "conv"]}, SIGLIP2,
           projector_hidden_size=72, downsample_factor=3),
    seeing("lfm2_vl", "Lfm2Vl", {"model_type": "lfm2", "full_attn_idxs": [1]}, {**SIGLIP2, "vision_use_head": False},
           projector_hidden_size=40, projector_bias=False, projector_use_layernorm=False, tie_word_embeddings=True),
    seeing("llava", "Llava", {"model_type": "llama"}, CLIP),
    seeing("llava", "Llava", {"model_type": "mistral", "head_dim": 8}, PIXTRAL),
    seeing("llava_next", "LlavaNext", {"model_type": "mistral", "head_dim": 8}, CLIP, multimodal_projector_bias=False),
    seeing("mistral3", "Mistral3", {"model_type": "mistral", "head_dim": 8}, PIXTRAL),
    seeing("mistral3", "Mistral3", {"model_type": "ministral3", "head_dim": 8}, PIXTRAL, tie_word_embeddings=True),
    seeing("paligemma", "PaliGemma", {"model_type": "gemma", "head_dim": 8}, SIGLIP, projection_dim=64,
           tie_word_embeddings=True),
    seeing("paligemma", "PaliGemma", {"model_type": "gemma2", "head_dim": 8},
           {**SIGLIP, "vision_use_head": False, "projection_dim": 64}, tie_word_embeddings=True),
    seeing("idefics3", "Idefics3", {"model_type": "llama"}, {**TOWER, "model_type": "idefics3_vision"}),
    seeing("smolvlm", "SmolVLM", {"model_type": "llama"}, {**TOWER, "model_type": "smolvlm_vision"}, scale_factor=3),
    seeing("internvl", "InternVL", {"model_type": "qwen2"},
           {**TOWER, "model_type": "internvl_vision", "image_size": [56, 56], "patch_size": [14, 14]}),
    seeing("llama4", "Llama4", {"model_type": "llama4_text", "head_dim": 8, "num_local_experts": 4,
           "intermediate_size_mlp": 96}, {**TOWER, "intermediate_size": 192, "vision_output_dim": 40,
           "projector_input_dim": 44, "projector_output_dim": 40}),
)  # fmt: skip
