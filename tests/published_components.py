"""Published configurations of diffusion components, cut down to fields that decide shapes, each with its source.

``parameters``: a published count and where it stands; None = none was found, and diffusers' own is the only witness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCRIPTS = "huggingface/diffusers:scripts/convert"
"""Where weights are loaded strictly into the class with the arguments given here; absent = class defaults."""


@dataclass(frozen=True)
class Published:
    """One component as published."""

    name: str
    cls: str
    values: dict[str, Any]
    source: str
    parameters: int | None = None
    counted_by: str = ""


_UNET_1: dict[str, Any] = {
    "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "in_channels": 4, "layers_per_block": 2, "out_channels": 4, "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
_UNET_XL: dict[str, Any] = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "in_channels": 4,
    "layers_per_block": 2, "out_channels": 4, "projection_class_embeddings_input_dim": 2816,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "use_linear_projection": True,
}  # fmt: skip
_REFINER: dict[str, Any] = {
    **_UNET_XL, "block_out_channels": [384, 768, 1536, 1536], "attention_head_dim": [6, 12, 24, 24],
    "cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560, "transformer_layers_per_block": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
_KL: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3,
    "latent_channels": 16, "layers_per_block": 2, "out_channels": 3, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_post_quant_conv": False, "use_quant_conv": False,
}  # fmt: skip

ALL = (
    Published(
        "Stable Diffusion 1.5", "UNet2DConditionModel", _UNET_1,
        "HDRJ-One/runwayml-stable-diffusion-v1-5@2e7465d:unet/config.json",
        859_520_964, "huggingface/diffusers@v0.42.1:src/diffusers/models/modeling_utils.py, num_parameters",
    ),
    Published(
        "Stable Diffusion 2.1", "UNet2DConditionModel",
        {**_UNET_1, "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True},
        "jack-op11/stable-diffusion-2-1-base@1f75838:unet/config.json",
    ),
    Published(
        "SDXL base", "UNet2DConditionModel", _UNET_XL,
        "PRITHIVSAKTHIUR/AI-Art-Generator-SDXL@a04712f:unet/config.json",
    ),
    Published(
        "SDXL refiner", "UNet2DConditionModel", _REFINER,
        "Stability-AI/generative-models@07bf825:configs/inference/sd_xl_refiner.yaml, translated",
    ),
    Published(
        "Stable Diffusion 3.5 large", "SD3Transformer2DModel",
        {"attention_head_dim": 64, "caption_projection_dim": 2432, "dual_attention_layers": [], "in_channels": 16,
         "joint_attention_dim": 4096, "num_attention_heads": 38, "num_layers": 38, "out_channels": 16, "patch_size": 2,
         "pooled_projection_dim": 2048, "pos_embed_max_size": 192, "qk_norm": "rms_norm", "sample_size": 128},
        "tenstorrent's loader of Comfy-Org/stable-diffusion-3.5-fp8, _LARGE_TRANSFORMER_CONFIG",
        # (16,292,561,536 B in 16 bit) / 2, less the buffer of 192 x 192 positions x 2,432
        16_292_561_536 // 2 - 192**2 * 2432,
        "RevL-Lambda-DevRel/Stable-Diffusion-3.5-Large@ddc2109:diffusion_pytorch_model.safetensors.index.json",
    ),
    Published(
        "FLUX.1 dev", "FluxTransformer2DModel",
        {"attention_head_dim": 128, "guidance_embeds": True, "in_channels": 64, "joint_attention_dim": 4096,
         "num_attention_heads": 24, "num_layers": 19, "num_single_layers": 38, "patch_size": 1,
         "pooled_projection_dim": 768},
        "edkamesh/FluX-optimized@2557da9:transformer/config.json (schnell), with guidance",
        11_901_408_320, "Hub metadata of black-forest-labs/FLUX.1-dev (gguf and safetensors totals)",
    ),
    Published("FLUX.1 autoencoder", "AutoencoderKL", _KL, "edkamesh/FluX-optimized@2557da9:vae/config.json"),
    Published(
        "PixArt sigma 1024", "PixArtTransformer2DModel",
        {"sample_size": 128, "num_layers": 28, "attention_head_dim": 72, "in_channels": 4, "out_channels": 8,
         "patch_size": 2, "attention_bias": True, "num_attention_heads": 16, "cross_attention_dim": 1152,
         "caption_channels": 4096, "use_additional_conditions": False},
        f"{SCRIPTS}_pixart_sigma_to_diffusers.py@1732580",
    ),
    Published("Wan 2.1 T2V 14B", "WanTransformer3DModel", {}, f"{SCRIPTS}_wan_to_diffusers.py@0122271"),
    Published(
        "Wan 2.1 I2V 14B", "WanTransformer3DModel",
        {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}, f"{SCRIPTS}_wan_to_diffusers.py@0122271",
    ),
    Published("Wan 2.1 autoencoder", "AutoencoderKLWan", {}, f"{SCRIPTS}_wan_to_diffusers.py@0122271"),
    Published(
        "CogVideoX 5B", "CogVideoXTransformer3DModel",
        {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
        f"{SCRIPTS}_cogvideox_to_diffusers.py@01337da",
        5_570_283_072, "a-r-r-o-w/finetrainers:docs/training/cogvideox.md (an earlier version), full fine-tuning log",
    ),
    Published("CogVideoX autoencoder", "AutoencoderKLCogVideoX", {}, f"{SCRIPTS}_cogvideox_to_diffusers.py@01337da"),
    Published(
        "HunyuanVideo", "HunyuanVideoTransformer3DModel", {}, f"{SCRIPTS}_hunyuan_video_to_diffusers.py@ff92747"
    ),
    Published(
        "HunyuanVideo autoencoder", "AutoencoderKLHunyuanVideo", {},
        f"{SCRIPTS}_hunyuan_video_to_diffusers.py@ff92747",
    ),
    Published(
        "LTX-Video 0.9", "LTXVideoTransformer3DModel", {}, f"{SCRIPTS}_ltx_to_diffusers.py@eec5b98",
        1_923_385_472, "a-r-r-o-w/finetrainers:docs/training/ltx_video.md (an earlier version), full fine-tuning log",
    ),
    Published("LTX-Video 0.9 autoencoder", "AutoencoderKLLTXVideo", {}, f"{SCRIPTS}_ltx_to_diffusers.py@eec5b98"),
    Published(
        "LTX-Video 0.9.1 autoencoder", "AutoencoderKLLTXVideo",
        {"decoder_block_out_channels": [256, 512, 1024], "decoder_layers_per_block": [5, 6, 7, 8],
         "decoder_spatio_temporal_scaling": [True, True, True], "decoder_inject_noise": [True, True, True, False],
         "upsample_residual": [True, True, True], "upsample_factor": [2, 2, 2], "timestep_conditioning": True},
        f"{SCRIPTS}_ltx_to_diffusers.py@eec5b98",
    ),
    Published(
        "Qwen-Image", "QwenImageTransformer2DModel",
        {"attention_head_dim": 128, "in_channels": 64, "joint_attention_dim": 3584, "num_attention_heads": 24,
         "num_layers": 60, "out_channels": 16, "patch_size": 2},
        "kohya-ss/musubi-tuner:src/musubi_tuner/qwen_image/qwen_image_model.py, create_model",
    ),
    Published(
        "Z-Image Turbo", "ZImageTransformer2DModel",
        {"all_f_patch_size": [1], "all_patch_size": [2], "cap_feat_dim": 2560, "dim": 3840, "in_channels": 16,
         "n_heads": 30, "n_kv_heads": 30, "n_layers": 30, "n_refiner_layers": 2, "qk_norm": True},
        "Makemake037/Text-to-Image-for-low-vram-system@0f7b46d:transformer/config.json",
    ),
)  # fmt: skip
