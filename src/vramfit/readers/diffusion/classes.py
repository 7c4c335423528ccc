"""Which function reads which class of diffusers: a table of facts.

Each row: the function, the class's defaults for fields that decide a shape (diffusers writes only what its version
knew, so older files lack some), and fields that must be as here because other values change shapes in ways not read.
Source: the signatures of huggingface/diffusers@v0.42.1:src/diffusers/models/, one class each.
"""

from __future__ import annotations

from types import MappingProxyType

from vramfit.readers.diffusion import (
    autoencoder,
    autoencoder_deep,
    autoencoder_hunyuan15,
    autoencoder_video,
    controlnet,
    cross,
    hidream,
    joint,
    ltx2,
    unet,
)
from vramfit.readers.diffusion.block import Classes, Known

_FLUX = {"patch_size": 1, "in_channels": 64, "out_channels": None, "num_layers": 19, "num_single_layers": 38,
         "attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 4096}  # fmt: skip
_UNET_PLAIN = {
    "class_embed_type": None, "num_class_embeds": None, "encoder_hid_dim": None, "encoder_hid_dim_type": None,
    "only_cross_attention": False, "mid_block_only_cross_attention": None, "dual_cross_attention": False,
    "cross_attention_norm": None, "resnet_time_scale_shift": "default", "time_embedding_type": "positional",
    "time_embedding_dim": None, "timestep_post_act": None, "attention_type": "default",
    "class_embeddings_concat": False, "reverse_transformer_layers_per_block": None, "time_embedding_act_fn": None,
}  # fmt: skip
_CHANNELS = [128, 256, 512, 512]
_FOUR = 4

CLASSES: Classes = MappingProxyType({
    "AuraFlowTransformer2DModel": Known(joint.auraflow, {
        "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_mmdit_layers": 4, "num_single_dit_layers": 32,
        "attention_head_dim": 256, "num_attention_heads": 12, "joint_attention_dim": 2048,
        "caption_projection_dim": 3072, "pos_embed_max_size": 1024,
    }, {}),
    "AutoencoderDC": Known(autoencoder_deep.deep, {
        "in_channels": 3, "latent_channels": 32, "attention_head_dim": 32, "encoder_block_types": "ResBlock",
        "decoder_block_types": "ResBlock", "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
        "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
        "encoder_layers_per_block": [2, 2, 2, 3, 3, 3], "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
        "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
        "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]], "upsample_block_type": "pixel_shuffle",
        "downsample_block_type": "pixel_unshuffle",
    }, {"decoder_norm_types": "rms_norm"}),
    "AutoencoderKL": Known(autoencoder.image, {
        "in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"], "block_out_channels": [64], "layers_per_block": 1,
        "latent_channels": 4, "use_quant_conv": True, "use_post_quant_conv": True, "mid_block_add_attention": True,
    }, {}),
    "AutoencoderKLCogVideoX": Known(autoencoder.cogvideox, {
        "in_channels": 3, "out_channels": 3, "down_block_types": ["CogVideoXDownBlock3D"] * _FOUR,
        "up_block_types": ["CogVideoXUpBlock3D"] * _FOUR, "block_out_channels": [128, 256, 256, 512],
        "latent_channels": 16, "layers_per_block": 3, "temporal_compression_ratio": 4, "use_quant_conv": False,
        "use_post_quant_conv": False,
    }, {}),
    "AutoencoderKLFlux2": Known(autoencoder.flux2, {
        "in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"] * _FOUR,
        "up_block_types": ["UpDecoderBlock2D"] * _FOUR, "block_out_channels": _CHANNELS, "layers_per_block": 2,
        "latent_channels": 32, "use_quant_conv": True, "use_post_quant_conv": True, "mid_block_add_attention": True,
        "patch_size": [2, 2],
    }, {"decoder_block_out_channels": None}),
    "AutoencoderKLHunyuanVideo": Known(autoencoder.hunyuan_video, {
        "in_channels": 3, "out_channels": 3, "latent_channels": 16,
        "down_block_types": ["HunyuanVideoDownBlock3D"] * _FOUR, "up_block_types": ["HunyuanVideoUpBlock3D"] * _FOUR,
        "block_out_channels": _CHANNELS, "layers_per_block": 2, "spatial_compression_ratio": 8,
        "temporal_compression_ratio": 4, "mid_block_add_attention": True,
    }, {}),
    "AutoencoderKLHunyuanVideo15": Known(autoencoder_hunyuan15.hunyuan_video15, {
        "in_channels": 3, "out_channels": 3, "latent_channels": 32, "block_out_channels": [128, 256, 512, 1024, 1024],
        "layers_per_block": 2, "spatial_compression_ratio": 16, "temporal_compression_ratio": 4,
    }, {"downsample_match_channel": True, "upsample_match_channel": True}),
    "AutoencoderKLLTXVideo": Known(autoencoder_video.ltx, {
        "in_channels": 3, "out_channels": 3, "latent_channels": 128, "block_out_channels": _CHANNELS,
        "down_block_types": ["LTXVideoDownBlock3D"] * _FOUR, "decoder_block_out_channels": _CHANNELS,
        "layers_per_block": [4, 3, 3, 3, 4], "decoder_layers_per_block": [4, 3, 3, 3, 4],
        "spatio_temporal_scaling": [True, True, True, False],
        "decoder_spatio_temporal_scaling": [True, True, True, False], "decoder_inject_noise": [False] * 5,
        "upsample_factor": [1] * _FOUR, "downsample_type": ["conv"] * _FOUR, "timestep_conditioning": False,
        "patch_size": 4, "patch_size_t": 1,
    }, {}),
    "AutoencoderKLQwenImage": Known(autoencoder_video.wan, {
        "base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
        "temperal_downsample": [False, True, True], "in_channels": 3, "out_channels": 3,
    }, {"attn_scales": []}),
    "AutoencoderKLWan": Known(autoencoder_video.wan, {
        "base_dim": 96, "decoder_base_dim": None, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
        "temperal_downsample": [False, True, True], "is_residual": False, "in_channels": 3, "out_channels": 3,
        "patch_size": None,
    }, {"attn_scales": []}),
    "ChromaTransformer2DModel": Known(joint.chroma, {
        **_FLUX, "approximator_num_channels": 64, "approximator_hidden_dim": 5120, "approximator_layers": 5,
    }, {}),
    "CogVideoXTransformer3DModel": Known(cross.cogvideox, {
        "num_attention_heads": 30, "attention_head_dim": 64, "in_channels": 16, "out_channels": 16,
        "time_embed_dim": 512, "ofs_embed_dim": None, "text_embed_dim": 4096, "num_layers": 30,
        "attention_bias": True, "sample_width": 90, "sample_height": 60, "sample_frames": 49, "patch_size": 2,
        "patch_size_t": None, "temporal_compression_ratio": 4, "max_text_seq_length": 226,
        "norm_elementwise_affine": True, "use_learned_positional_embeddings": False, "patch_bias": True,
    }, {"activation_fn": "gelu-approximate"}),
    "ControlNetModel": Known(controlnet.controlnet, {
        "in_channels": 4, "conditioning_channels": 3, "mid_block_type": "UNetMidBlock2DCrossAttn",
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 1280,
        "transformer_layers_per_block": 1, "attention_head_dim": 8, "num_attention_heads": None,
        "use_linear_projection": False, "addition_embed_type": None, "projection_class_embeddings_input_dim": None,
        "conditioning_embedding_out_channels": [16, 32, 96, 256],
    }, _UNET_PLAIN),
    "Flux2Transformer2DModel": Known(joint.flux2, {
        "patch_size": 1, "in_channels": 128, "out_channels": None, "num_layers": 8, "num_single_layers": 48,
        "attention_head_dim": 128, "num_attention_heads": 48, "joint_attention_dim": 15360,
        "timestep_guidance_channels": 256, "mlp_ratio": 3.0, "guidance_embeds": True,
    }, {}),
    "FluxTransformer2DModel": Known(joint.flux, {
        **_FLUX, "pooled_projection_dim": 768, "guidance_embeds": False,
    }, {}),
    "HiDreamImageTransformer2DModel": Known(hidream.hidream, {
        "patch_size": None, "in_channels": 64, "out_channels": None, "num_layers": 16, "num_single_layers": 32,
        "attention_head_dim": 128, "num_attention_heads": 20, "caption_channels": None, "text_emb_dim": 2048,
        "num_routed_experts": 4, "num_activated_experts": 2,
    }, {"force_inference_output": False}),
    "HunyuanVideo15Transformer3DModel": Known(joint.hunyuan_video15, {
        "in_channels": 65, "out_channels": 32, "num_attention_heads": 16, "attention_head_dim": 128, "num_layers": 54,
        "num_refiner_layers": 2, "mlp_ratio": 4.0, "patch_size": 1, "patch_size_t": 1, "text_embed_dim": 3584,
        "text_embed_2_dim": 1472, "image_embed_dim": 1152,
    }, {"qk_norm": "rms_norm", "use_meanflow": False}),
    "HunyuanVideoTransformer3DModel": Known(joint.hunyuan_video, {
        "in_channels": 16, "out_channels": 16, "num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 20,
        "num_single_layers": 40, "num_refiner_layers": 2, "mlp_ratio": 4.0, "patch_size": 2, "patch_size_t": 1,
        "guidance_embeds": True, "text_embed_dim": 4096, "pooled_projection_dim": 768, "image_condition_type": None,
    }, {"qk_norm": "rms_norm"}),
    "LTX2VideoTransformer3DModel": Known(ltx2.ltx2, {
        "in_channels": 128, "out_channels": 128, "patch_size": 1, "patch_size_t": 1, "num_attention_heads": 32,
        "attention_head_dim": 128, "cross_attention_dim": 4096, "audio_in_channels": 128, "audio_out_channels": 128,
        "audio_num_attention_heads": 32, "audio_attention_head_dim": 64, "audio_cross_attention_dim": 2048,
        "num_layers": 48, "caption_channels": 3840, "attention_bias": True, "attention_out_bias": True,
    }, {**dict.fromkeys(("gated_attn", "cross_attn_mod", "audio_gated_attn", "audio_cross_attn_mod",
                         "perturbed_attn", "use_keyframes_abs_pos_embedding"), False),
        **dict.fromkeys(("use_prompt_embeddings", "ff_bias", "audio_ff_bias"), True),
        "qk_norm": "rms_norm_across_heads", "norm_elementwise_affine": False}),
    "LTXVideoTransformer3DModel": Known(cross.ltx, {
        "in_channels": 128, "out_channels": 128, "patch_size": 1, "patch_size_t": 1, "num_attention_heads": 32,
        "attention_head_dim": 64, "cross_attention_dim": 2048, "num_layers": 28, "caption_channels": 4096,
        "attention_bias": True, "attention_out_bias": True,
    }, {"qk_norm": "rms_norm_across_heads", "norm_elementwise_affine": False, "activation_fn": "gelu-approximate"}),
    "Lumina2Transformer2DModel": Known(cross.lumina2, {
        "patch_size": 2, "in_channels": 16, "out_channels": None, "hidden_size": 2304, "num_layers": 26,
        "num_refiner_layers": 2, "num_attention_heads": 24, "num_kv_heads": 8, "multiple_of": 256,
        "ffn_dim_multiplier": None, "cap_feat_dim": 1024,
    }, {}),
    "MochiTransformer3DModel": Known(joint.mochi, {
        "patch_size": 2, "num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 48,
        "pooled_projection_dim": 1536, "in_channels": 12, "out_channels": None, "text_embed_dim": 4096,
        "time_embed_dim": 256,
    }, {"qk_norm": "rms_norm", "activation_fn": "swiglu"}),
    "PixArtTransformer2DModel": Known(cross.pixart, {
        "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": 8, "num_layers": 28,
        "cross_attention_dim": 1152, "attention_bias": True, "sample_size": 128, "patch_size": 2,
        "use_additional_conditions": None, "caption_channels": None,
    }, {"norm_type": "ada_norm_single", "norm_elementwise_affine": False, "attention_type": "default",
        "activation_fn": "gelu-approximate"}),
    "QwenImageTransformer2DModel": Known(joint.qwen_image, {
        "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 60, "attention_head_dim": 128,
        "num_attention_heads": 24, "joint_attention_dim": 3584,
    }, {"use_additional_t_cond": False}),
    "SD3Transformer2DModel": Known(joint.sd3, {
        "patch_size": 2, "in_channels": 16, "num_layers": 18, "attention_head_dim": 64, "num_attention_heads": 18,
        "joint_attention_dim": 4096, "caption_projection_dim": 1152, "pooled_projection_dim": 2048,
        "out_channels": 16, "pos_embed_max_size": 96, "dual_attention_layers": [], "qk_norm": None,
    }, {}),
    "SanaTransformer2DModel": Known(cross.sana, {
        "in_channels": 32, "out_channels": 32, "num_attention_heads": 70, "attention_head_dim": 32, "num_layers": 20,
        "num_cross_attention_heads": 20, "cross_attention_head_dim": 112, "cross_attention_dim": 2240,
        "caption_channels": 2304, "mlp_ratio": 2.5, "attention_bias": False, "patch_size": 1,
        "guidance_embeds": False, "qk_norm": None,
    }, {"norm_elementwise_affine": False}),
    "UNet2DConditionModel": Known(unet.unet, {
        "in_channels": 4, "out_channels": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 1280,
        "transformer_layers_per_block": 1, "attention_head_dim": 8, "num_attention_heads": None,
        "use_linear_projection": False, "addition_embed_type": None, "time_cond_proj_dim": None, "conv_in_kernel": 3,
        "conv_out_kernel": 3, "projection_class_embeddings_input_dim": None,
    }, _UNET_PLAIN),
    "WanTransformer3DModel": Known(cross.wan, {
        "patch_size": [1, 2, 2], "num_attention_heads": 40, "attention_head_dim": 128, "in_channels": 16,
        "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 13824, "num_layers": 40,
        "cross_attn_norm": True, "image_dim": None, "added_kv_proj_dim": None, "pos_embed_seq_len": None,
    }, {"qk_norm": "rms_norm_across_heads"}),
    "ZImageTransformer2DModel": Known(cross.z_image, {
        "all_patch_size": [2], "all_f_patch_size": [1], "in_channels": 16, "dim": 3840, "n_layers": 30,
        "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30, "qk_norm": True, "cap_feat_dim": 2560,
    }, {"siglip_feat_dim": None}),
})  # fmt: skip
"""Class name -> how it is read."""
