"""Published configurations of models that see, cut down to the fields that decide memory, and their published counts.

Counts of ``PUBLISHED``: the Hub's safetensors metadata as in
floschne/gimmick@81c06a5e04ee936534f8519d1f13591505f5182b:src/gimmick/models/__init__.py, get_model_sizes.
"""

from __future__ import annotations

from typing import Any

from published_configs import llama

Config = dict[str, Any]

SMALL_EYE: Config = {
    "model_type": "intern_vit_6b", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 448, "patch_size": 14, "qkv_bias": True, "qk_normalization": False,
    "norm_type": "layer_norm",
}  # fmt: skip
LARGE_EYE: Config = {
    **SMALL_EYE, "hidden_size": 3200, "intermediate_size": 12800, "num_hidden_layers": 45, "num_attention_heads": 25,
    "qkv_bias": False, "qk_normalization": True, "norm_type": "rms_norm",
}  # fmt: skip


def qwen2(hidden: int, layers: int, heads: int, kv: int, width: int, vocab: int) -> Config:
    """Return a Qwen2 without tied embeddings."""
    return llama(hidden, layers, heads, kv, width, vocab, model_type="qwen2", use_sliding_window=False)


def internvl(eye: Config, text: Config) -> Config:
    """Return an InternVL 2.5 in OpenGVLab's layout."""
    return {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "llm_config": text,
            "vision_config": eye, "downsample_ratio": 0.5, "torch_dtype": "bfloat16"}  # fmt: skip


LLAMA_3_2_11B_VISION: Config = {
    "model_type": "mllama",
    "architectures": ["MllamaForConditionalGeneration"],
    "torch_dtype": "bfloat16",
    "text_config": llama(
        4096, 40, 32, 8, 14336, 128256, model_type="mllama_text_model",
        cross_attention_layers=[3, 8, 13, 18, 23, 28, 33, 38],
    ),
    "vision_config": {
        "model_type": "mllama_vision_model", "hidden_size": 1280, "num_hidden_layers": 32, "num_global_layers": 8,
        "attention_heads": 16, "intermediate_size": 5120, "vision_output_dim": 7680, "image_size": 560,
        "patch_size": 14, "max_num_tiles": 4,
        "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
    },
}  # fmt: skip
MINICPM_V_2_6: Config = {
    **qwen2(3584, 28, 28, 4, 18944, 151666),
    "model_type": "minicpmv",
    "architectures": ["MiniCPMV"],
    "version": 2.6,
    "query_num": 64,
    "drop_vision_last_layer": False,
    "vision_config": {
        "model_type": "siglip", "hidden_size": 1152, "image_size": 980, "intermediate_size": 4304,
        "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14,
    },
}  # fmt: skip
PHI_3_5_VISION: Config = {
    **llama(3072, 32, 32, 32, 8192, 32064, model_type="phi3_v", sliding_window=262144),
    "architectures": ["Phi3VForCausalLM"],
    "img_processor": {"image_dim_out": 1024, "name": "clip_vision_model", "num_img_tokens": 144,
                      "model_name": "openai/clip-vit-large-patch14-336"},
    "embd_layer": {"embedding_cls": "image", "hd_transform_order": "sub_glb", "projection_cls": "mlp",
                   "use_hd_transform": True, "with_learnable_separator": True},
}  # fmt: skip
PUBLISHED: dict[str, tuple[Config, int]] = {
    "Llama-3.2-11B-Vision-Instruct": (LLAMA_3_2_11B_VISION, 10_670_220_835),
    "MiniCPM-V-2_6": (MINICPM_V_2_6, 8_099_175_152),
    "Phi-3.5-vision-instruct": (PHI_3_5_VISION, 4_146_621_440),
    "InternVL2_5-1B": (internvl(SMALL_EYE, qwen2(896, 24, 14, 2, 4864, 151674)), 938_193_024),
    "InternVL2_5-4B": (internvl(SMALL_EYE, qwen2(2048, 36, 16, 2, 11008, 151674)), 3_712_637_952),
    "InternVL2_5-38B": (internvl(LARGE_EYE, qwen2(5120, 64, 40, 8, 27648, 151674)), 38_388_164_992),
    "InternVL2_5-78B": (internvl(LARGE_EYE, qwen2(8192, 80, 64, 8, 29568, 151674)), 78_408_318_336),
}
KIMI_VL_A3B: Config = {
    "model_type": "kimi_vl",
    "architectures": ["KimiVLForConditionalGeneration"],
    "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "deepseek_v3", "vocab_size": 163840, "hidden_size": 2048, "intermediate_size": 11264,
        "moe_intermediate_size": 1408, "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
        "n_shared_experts": 2, "n_routed_experts": 64, "kv_lora_rank": 512, "q_lora_rank": None,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "num_experts_per_tok": 6,
        "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
    },
    "vision_config": {
        "model_type": "moonvit", "patch_size": 14, "num_attention_heads": 16, "num_hidden_layers": 27,
        "hidden_size": 1152, "intermediate_size": 4304, "init_pos_emb_height": 64, "init_pos_emb_width": 64,
        "merge_kernel_size": [2, 2],
    },
}  # fmt: skip
MOLMO_7B_D: Config = {
    **llama(3584, 28, 28, 4, 37888, 152064, model_type="molmo"),
    "architectures": ["MolmoForCausalLM"],
    "embedding_size": 152064,
    "qkv_bias": True,
    "attention_layer_norm": False,
    "layer_norm_type": "rms",
}
QWEN_2_5_OMNI_7B: Config = {
    "model_type": "qwen2_5_omni",
    "architectures": ["Qwen2_5OmniModel"],
    "torch_dtype": "bfloat16",
    "enable_audio_output": True,
    "thinker_config": {
        "audio_config": {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
                         "num_mel_bins": 128, "output_dim": 3584},
        "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
                          "out_hidden_size": 3584, "patch_size": 14},
        "text_config": qwen2(3584, 28, 28, 4, 18944, 152064),
    },
    "talker_config": {"hidden_size": 896, "embedding_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 24,
                      "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 8448},
    "token2wav_config": {},
}  # fmt: skip
"""With the class defaults of ``token2wav_config``, which the published one repeats."""


def whisper(hidden: int, layers: int, heads: int, bins: int, vocab: int, decoder_layers: int | None = None) -> Config:
    """Return a Whisper: networks are four times as wide as the hidden size."""
    return {
        "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "torch_dtype": "float16",
        "d_model": hidden, "encoder_layers": layers, "decoder_layers": decoder_layers or layers,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_dim": 4 * hidden,
        "decoder_ffn_dim": 4 * hidden, "vocab_size": vocab, "num_mel_bins": bins, "max_source_positions": 1500,
        "max_target_positions": 448,
    }  # fmt: skip


WHISPERS: dict[str, tuple[Config, int]] = {
    "whisper-tiny": (whisper(384, 4, 6, 80, 51865), 37_760_640),
    "whisper-base": (whisper(512, 6, 8, 80, 51865), 72_593_920),
    "whisper-small": (whisper(768, 12, 12, 80, 51865), 241_734_912),
    "whisper-medium": (whisper(1024, 24, 16, 80, 51865), 763_857_920),
    "whisper-large-v3": (whisper(1280, 32, 20, 128, 51866), 1_543_490_560),
    "whisper-large-v3-turbo": (whisper(1280, 32, 20, 128, 51866, 4), 808_878_080),
}
"""Counts: the Hub's safetensors metadata; the positions of the encoder are among them."""
