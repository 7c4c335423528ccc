"""Components of diffusion pipelines, small and with odd widths: what diffusers and transformers are asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Values = dict[str, Any]
WIDTH: Values = {"attention_head_dim": 16, "num_attention_heads": 3}
ROPE: Values = {"axes_dims_rope": [4, 6, 6], **WIDTH}


@dataclass(frozen=True)
class Small:
    """One case: the class and its configuration."""

    cls: str
    values: Values
    config_cls: str = ""
    """Configuration class of transformers; empty = a class of diffusers."""


_SD3: Values = {
    "num_layers": 4, "in_channels": 5, "out_channels": 7, "joint_attention_dim": 34, "caption_projection_dim": 48,
    "pooled_projection_dim": 22, "pos_embed_max_size": 10, **WIDTH,
}  # fmt: skip
_FLUX: Values = {
    "num_layers": 2, "num_single_layers": 3, "in_channels": 20, "joint_attention_dim": 34, "pooled_projection_dim": 22,
    **ROPE,
}  # fmt: skip
_FLUX2: Values = {
    "num_layers": 2, "num_single_layers": 3, "in_channels": 20, "joint_attention_dim": 34,
    "axes_dims_rope": [4, 4, 4, 4], **WIDTH,
}  # fmt: skip
_HUNYUAN: Values = {
    "num_layers": 2, "num_single_layers": 3, "num_refiner_layers": 2, "in_channels": 5, "out_channels": 7,
    "text_embed_dim": 34, "pooled_projection_dim": 22, "rope_axes_dim": [4, 6, 6], **WIDTH,
}  # fmt: skip
JOINT = (
    Small("SD3Transformer2DModel", {**_SD3, "dual_attention_layers": [0, 2], "qk_norm": "rms_norm"}),
    Small("SD3Transformer2DModel", {**_SD3, "out_channels": None}),
    Small("FluxTransformer2DModel", {**_FLUX, "guidance_embeds": True}),
    Small("FluxTransformer2DModel", {**_FLUX, "in_channels": 96, "out_channels": 16, "patch_size": 2}),
    Small("Flux2Transformer2DModel", {**_FLUX2, "mlp_ratio": 2.5}),
    Small("Flux2Transformer2DModel", {**_FLUX2, "guidance_embeds": False, "timestep_guidance_channels": 64}),
    Small("ChromaTransformer2DModel", {
        "num_layers": 2, "num_single_layers": 3, "in_channels": 20, "joint_attention_dim": 34,
        "approximator_num_channels": 16, "approximator_hidden_dim": 30, "approximator_layers": 2, **ROPE,
    }),
    Small("AuraFlowTransformer2DModel", {
        "num_mmdit_layers": 2, "num_single_dit_layers": 3, "in_channels": 5, "out_channels": 7,
        "joint_attention_dim": 34, "caption_projection_dim": 48, "pos_embed_max_size": 10, "sample_size": 8, **WIDTH,
    }),
    Small("QwenImageTransformer2DModel", {
        "num_layers": 2, "in_channels": 20, "out_channels": 7, "joint_attention_dim": 34, "zero_cond_t": True, **ROPE,
    }),
    Small("HunyuanVideoTransformer3DModel", {**_HUNYUAN, "mlp_ratio": 2.5}),
    Small("HunyuanVideoTransformer3DModel", {
        **_HUNYUAN, "guidance_embeds": False, "image_condition_type": "token_replace", "patch_size_t": 2,
    }),
    Small("HunyuanVideo15Transformer3DModel", {
        "num_layers": 2, "num_refiner_layers": 1, "in_channels": 5, "out_channels": 7, "text_embed_dim": 34,
        "text_embed_2_dim": 22, "image_embed_dim": 30, "rope_axes_dim": [4, 6, 6], "patch_size": 2, "mlp_ratio": 3.0,
        **WIDTH,
    }),
    Small("MochiTransformer3DModel", {
        "num_layers": 3, "in_channels": 5, "out_channels": 7, "pooled_projection_dim": 22, "text_embed_dim": 34,
        "time_embed_dim": 26, **WIDTH,
    }),
)  # fmt: skip

_HIDREAM: Values = {
    "num_layers": 2, "num_single_layers": 1, "in_channels": 5, "out_channels": 7, "patch_size": 2,
    "caption_channels": [34, 38], "text_emb_dim": 22, "num_activated_experts": 2, "axes_dims_rope": [8, 4, 4],
    "max_resolution": [16, 16], "llama_layers": [0, 1], **WIDTH,
}  # fmt: skip
_LTX2: Values = {
    "num_layers": 2, "in_channels": 5, "out_channels": 7, "caption_channels": 34, "cross_attention_dim": 52,
    "audio_in_channels": 9, "audio_out_channels": 11, "audio_num_attention_heads": 2, "audio_attention_head_dim": 12,
    "audio_cross_attention_dim": 26, **WIDTH,
}  # fmt: skip
MIXED = (
    Small("HiDreamImageTransformer2DModel", {**_HIDREAM, "num_routed_experts": 3}),
    Small("HiDreamImageTransformer2DModel", {**_HIDREAM, "num_routed_experts": 0, "out_channels": None}),
    Small("LTX2VideoTransformer3DModel", _LTX2),
    Small("LTX2VideoTransformer3DModel", {**_LTX2, "attention_bias": False, "attention_out_bias": False}),
)
_PIXART: Values = {
    "num_layers": 2, "in_channels": 4, "out_channels": 8, "caption_channels": 34, "cross_attention_dim": 48, **WIDTH,
}  # fmt: skip
_WAN: Values = {
    "num_layers": 2, "in_channels": 5, "out_channels": 7, "text_dim": 34, "freq_dim": 26, "ffn_dim": 70, **WIDTH,
}  # fmt: skip
_LTX: Values = {
    "num_layers": 2, "in_channels": 5, "out_channels": 7, "caption_channels": 34, "cross_attention_dim": 48, **WIDTH,
}  # fmt: skip
_COG: Values = {
    "num_layers": 2, "in_channels": 5, "out_channels": 7, "text_embed_dim": 34, "time_embed_dim": 26,
    "sample_width": 10, "sample_height": 8, "sample_frames": 9, "max_text_seq_length": 11, **WIDTH,
}  # fmt: skip
_SANA: Values = {
    "num_layers": 2, "in_channels": 5, "out_channels": 7, "num_cross_attention_heads": 4,
    "cross_attention_head_dim": 12, "cross_attention_dim": 48, "caption_channels": 34, "sample_size": 8, **WIDTH,
}  # fmt: skip
_LUMINA: Values = {
    "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 6, "num_kv_heads": 2, "in_channels": 5,
    "cap_feat_dim": 34, "axes_lens": [10, 10, 10],
}  # fmt: skip
_Z: Values = {"n_layers": 3, "n_refiner_layers": 2, "cap_feat_dim": 34, "axes_dims": [4, 6, 6], "axes_lens": [9, 9, 9]}
CROSS = (
    Small("PixArtTransformer2DModel", {**_PIXART, "sample_size": 128}),
    Small("PixArtTransformer2DModel", {**_PIXART, "sample_size": 64, "attention_bias": False}),
    Small("PixArtTransformer2DModel", {**_PIXART, "sample_size": 128, "use_additional_conditions": False}),
    Small("WanTransformer3DModel", _WAN),
    Small("WanTransformer3DModel", {**_WAN, "image_dim": 38, "added_kv_proj_dim": 48}),
    Small("WanTransformer3DModel", {
        **_WAN, "image_dim": 38, "added_kv_proj_dim": 48, "pos_embed_seq_len": 11, "cross_attn_norm": False,
    }),
    Small("LTXVideoTransformer3DModel", _LTX),
    Small("LTXVideoTransformer3DModel", {**_LTX, "attention_bias": False, "attention_out_bias": False}),
    Small("CogVideoXTransformer3DModel", {**_COG, "patch_bias": False, "attention_bias": False}),
    Small("CogVideoXTransformer3DModel", {**_COG, "norm_elementwise_affine": False}),
    Small("CogVideoXTransformer3DModel", {
        **_COG, "patch_size_t": 2, "patch_bias": False, "ofs_embed_dim": 18,
        "use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True,
    }),
    Small("SanaTransformer2DModel", {
        **_SANA, "qk_norm": "rms_norm_across_heads", "guidance_embeds": True, "patch_size": 2,
    }),
    Small("SanaTransformer2DModel", {**_SANA, "attention_bias": True, "mlp_ratio": 3.0}),
    Small("Lumina2Transformer2DModel", {**_LUMINA, "hidden_size": 48, "out_channels": 7, "axes_dim_rope": [4, 2, 2]}),
    Small("Lumina2Transformer2DModel", {
        **_LUMINA, "hidden_size": 1200, "multiple_of": 64, "ffn_dim_multiplier": 1.3, "axes_dim_rope": [100, 50, 50],
    }),
    Small("ZImageTransformer2DModel", {**_Z, "n_heads": 3, "n_kv_heads": 3, "dim": 48}),
    Small("ZImageTransformer2DModel", {
        **_Z, "n_heads": 20, "n_kv_heads": 20, "dim": 320, "all_patch_size": [2, 4], "all_f_patch_size": [1, 2],
        "qk_norm": False, "in_channels": 5,
    }),
)  # fmt: skip

_UNET: Values = {
    "block_out_channels": [16, 24, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "norm_num_groups": 4, "layers_per_block": 2, "cross_attention_dim": 34, "attention_head_dim": 4,
}  # fmt: skip
_CONTROL: Values = {name: value for name, value in _UNET.items() if name != "up_block_types"}
UNETS = (
    Small("UNet2DConditionModel", _UNET),
    Small("UNet2DConditionModel", {
        **_UNET, "attention_head_dim": [2, 4, 8], "use_linear_projection": True, "in_channels": 9,
    }),
    Small("UNet2DConditionModel", {
        **_UNET, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 3], "attention_head_dim": [2, 4, 8], "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "layers_per_block": [1, 2, 3],
        "projection_class_embeddings_input_dim": 70, "time_cond_proj_dim": 20,
    }),
    Small("UNet2DConditionModel", {**_UNET, "mid_block_type": "UNetMidBlock2D"}),
    Small("ControlNetModel", {**_CONTROL, "conditioning_embedding_out_channels": [8, 12, 20]}),
    Small("ControlNetModel", {
        **_CONTROL, "attention_head_dim": [2, 4, 8], "use_linear_projection": True, "conditioning_channels": 1,
        "transformer_layers_per_block": [1, 2, 3], "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 70,
    }),
    Small("UNet2DConditionModel", {
        **_UNET, "mid_block_type": None, "down_block_types": ["DownBlock2D"] * 3, "up_block_types": ["UpBlock2D"] * 3,
    }),
)  # fmt: skip

_KL: Values = {
    "block_out_channels": [16, 24], "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2, "norm_num_groups": 4, "layers_per_block": 1, "latent_channels": 5,
}  # fmt: skip
_WAN_VAE: Values = {
    "base_dim": 12, "z_dim": 5, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
}  # fmt: skip
_DEEP: Values = {
    "encoder_block_out_channels": [16, 24, 32], "decoder_block_out_channels": [16, 28, 32],
    "encoder_layers_per_block": [1, 2, 1], "decoder_layers_per_block": [1, 1, 2],
    "encoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
    "decoder_block_types": ["ResBlock", "EfficientViTBlock", "EfficientViTBlock"],
    "encoder_qkv_multiscales": [[], [], [5]], "decoder_qkv_multiscales": [[], [], [5, 3]], "attention_head_dim": 8,
    "latent_channels": 5,
}  # fmt: skip
AUTOENCODERS = (
    Small("AutoencoderKL", _KL),
    Small("AutoencoderKL", {
        **_KL, "layers_per_block": 2, "use_quant_conv": False, "use_post_quant_conv": False,
        "mid_block_add_attention": False, "in_channels": 6, "out_channels": 1,
    }),
    Small("AutoencoderDC", {**_DEEP, "encoder_out_shortcut": False, "decoder_in_shortcut": False}),
    Small("AutoencoderDC", {
        **_DEEP, "encoder_out_shortcut": False, "decoder_in_shortcut": False, "upsample_block_type": "interpolate",
        "downsample_block_type": "conv",
    }),
    Small("AutoencoderKLFlux2", {**_KL, "layers_per_block": 2}),
    Small("AutoencoderKLCogVideoX", {
        "block_out_channels": [16, 24], "down_block_types": ["CogVideoXDownBlock3D"] * 2,
        "up_block_types": ["CogVideoXUpBlock3D"] * 2, "norm_num_groups": 4, "layers_per_block": 1,
        "latent_channels": 5,
    }),
    Small("AutoencoderKLHunyuanVideo", {
        "block_out_channels": [16, 24, 32, 32], "norm_num_groups": 4, "layers_per_block": 1, "latent_channels": 5,
    }),
    Small("AutoencoderKLHunyuanVideo15", {
        "latent_channels": 4, "block_out_channels": [16, 24, 32, 40], "layers_per_block": 1,
        "spatial_compression_ratio": 8, "temporal_compression_ratio": 4,
    }),
    Small("AutoencoderKLWan", _WAN_VAE),
    Small("AutoencoderKLWan", {
        **_WAN_VAE, "is_residual": True, "decoder_base_dim": 20, "in_channels": 12, "out_channels": 12,
        "patch_size": 2,
    }),
    Small("AutoencoderKLQwenImage", _WAN_VAE),
    Small("AutoencoderKLLTXVideo", {
        "block_out_channels": [16, 24, 32, 32], "decoder_block_out_channels": [16, 24, 32, 32],
        "layers_per_block": [1, 2, 1, 3, 1], "decoder_layers_per_block": [1, 3, 1, 2, 1], "latent_channels": 5,
    }),
    Small("AutoencoderKLLTXVideo", {
        "block_out_channels": [16, 32, 64, 64], "down_block_types": ["LTXVideo095DownBlock3D"] * 3,
        "decoder_block_out_channels": [16, 24, 32], "layers_per_block": [1, 2, 1, 3],
        "decoder_layers_per_block": [1, 3, 1, 2], "decoder_spatio_temporal_scaling": [True, True, True],
        "downsample_type": ["spatial", "temporal", "spatiotemporal"], "spatio_temporal_scaling": [True, True, True],
        "upsample_residual": [True, True, True], "upsample_factor": [2, 2, 2], "timestep_conditioning": True,
        "decoder_inject_noise": [False, False, False, False], "latent_channels": 5,
    }),
    Small("AutoencoderKLLTXVideo", {
        "block_out_channels": [16, 24, 32, 32], "decoder_block_out_channels": [16, 24, 32],
        "layers_per_block": [1, 2, 1, 3, 1], "decoder_layers_per_block": [1, 3, 1, 2],
        "decoder_spatio_temporal_scaling": [True, True, True], "decoder_inject_noise": [True, False, False, True],
        "upsample_residual": [True, False, False], "upsample_factor": [2, 1, 1], "timestep_conditioning": True,
        "latent_channels": 5,
    }),
)  # fmt: skip

_CLIP: Values = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 14,
}  # fmt: skip
_CLIP_TEXT: Values = {
    **_CLIP, "vocab_size": 50, "max_position_embeddings": 9, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_CLIP_VISION: Values = {**_CLIP, "image_size": 14, "patch_size": 4}
_T5: Values = {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 3, "num_heads": 5, "vocab_size": 50}
_LLAMA: Values = {
    "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 101, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}  # fmt: skip
ENCODERS = (
    Small("CLIPTextModel", _CLIP_TEXT, "CLIPTextConfig"),
    Small("CLIPTextModelWithProjection", _CLIP_TEXT, "CLIPTextConfig"),
    Small("CLIPVisionModel", _CLIP_VISION, "CLIPVisionConfig"),
    Small("CLIPVisionModelWithProjection", _CLIP_VISION, "CLIPVisionConfig"),
    Small("T5EncoderModel", {**_T5, "feed_forward_proj": "relu"}, "T5Config"),
    Small("T5EncoderModel", {**_T5, "feed_forward_proj": "gated-gelu"}, "T5Config"),
    Small("UMT5EncoderModel", {**_T5, "feed_forward_proj": "gated-gelu"}, "UMT5Config"),
    Small("LlamaModel", _LLAMA, "LlamaConfig"),
    Small("LlamaForCausalLM", _LLAMA, "LlamaConfig"),
    Small("Gemma2Model", {**_LLAMA, "head_dim": 12}, "Gemma2Config"),
    Small("Qwen3Model", {**_LLAMA, "head_dim": 12}, "Qwen3Config"),
    Small("Qwen2_5_VLTextModel", _LLAMA, "Qwen2_5_VLTextConfig"),
    Small("Qwen3ForCausalLM", {**_LLAMA, "head_dim": 12, "tie_word_embeddings": False}, "Qwen3Config"),
)
OF_DIFFUSERS = (*JOINT, *MIXED, *CROSS, *UNETS, *AUTOENCODERS)
