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


def hearing(kind: str, cls: str, text: dict[str, Any], tower: dict[str, Any], **more: object) -> Tiny:
    """Return a case of a language model with an encoder of sound."""
    values = {"text_config": {**TEXT, **text}, "audio_config": tower, "tie_word_embeddings": False, **more}
    return Tiny(kind, values, cls=f"{cls}ForConditionalGeneration", own=True)


def own(kind: str, cls: str, **values: object) -> Tiny:
    """Return a case with a configuration of its own."""
    return Tiny(kind, dict(values), cls=cls, own=True)


SIGLIP_BARE = {**SIGLIP, "vision_use_head": False}
GLM_TOWER = {"depth": 2, "hidden_size": 48, "num_heads": 4, "intermediate_size": 72, "out_hidden_size": 64,
             "image_size": 56, "patch_size": 14}  # fmt: skip
SAM = {"hidden_size": 48, "output_channels": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
       "patch_size": 16, "window_size": 3, "global_attn_indexes": [1], "mlp_dim": 100}  # fmt: skip
LISTENER = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192,
            "num_mel_bins": 20, "max_source_positions": 30, "vocab_size": 50}  # fmt: skip

SEEING = (
    seeing("llava_next_video", "LlavaNextVideo", {"model_type": "llama"}, CLIP),
    seeing("llava_onevision", "LlavaOnevision", {"model_type": "qwen2"}, SIGLIP_BARE),
    seeing("video_llava", "VideoLlava", {"model_type": "llama"}, CLIP),
    seeing("vipllava", "VipLlava", {"model_type": "llama"}, CLIP, vision_feature_layers=[-2, -1]),
    seeing("vipllava", "VipLlava", {"model_type": "llama"}, CLIP),
    seeing("idefics2", "Idefics2", {"model_type": "mistral", "head_dim": 8}, {**TOWER, "model_type": "idefics2_vision"},
           perceiver_config={"resampler_n_latents": 6, "resampler_depth": 2, "resampler_n_heads": 4,
           "resampler_head_dim": 12, "num_key_value_heads": 2, "hidden_size": 64, "model_type": "idefics2_perceiver"}),
    seeing("aya_vision", "AyaVision", {"model_type": "cohere2"}, SIGLIP_BARE, adapter_layer_norm_eps=1e-6,
           alignment_intermediate_size=80, downsample_factor=2),
    seeing("cohere2_vision", "Cohere2Vision", {"model_type": "cohere2"}, SIGLIP_BARE, alignment_intermediate_size=80,
           tie_word_embeddings=True),
    seeing("got_ocr2", "GotOcr2", {"model_type": "qwen2"}, {**SAM, "model_type": ""}),
    seeing("glm4v", "Glm4v", {"model_type": "glm4v_text", "head_dim": 8}, {**GLM_TOWER, "model_type": "glm4v_vision"}),
    seeing("glm46v", "Glm46V", {"model_type": "glm4v_text", "head_dim": 8},
           {**GLM_TOWER, "model_type": "glm4v_vision", "attention_bias": True}),
    seeing("glm4v_moe", "Glm4vMoe", {"model_type": "glm4v_moe_text", "head_dim": 8, **EXPERTS, "n_routed_experts": 4,
           "n_shared_experts": 1, "first_k_dense_replace": 1}, {**GLM_TOWER, "model_type": "glm4v_moe_vision"}),
    seeing("glm_ocr", "GlmOcr", {"model_type": "glm_ocr_text", "head_dim": 8},
           {**GLM_TOWER, "model_type": "glm_ocr_vision"}),
    seeing("ovis2", "Ovis2", {"model_type": "qwen2"}, {**TOWER, "model_type": "ovis2_vision_model", "vocab_size": 30,
           "hidden_stride": 2, "num_visual_indicator_tokens": 5}, hidden_size=64, vocab_size=101),
    seeing("lighton_ocr", "LightOnOcr", {"model_type": "qwen3", "head_dim": 8}, PIXTRAL, tie_word_embeddings=True),
    seeing("paddleocr_vl", "PaddleOCRVL", {"model_type": "paddleocr_vl_text", "head_dim": 16},
           {**TOWER, "model_type": "paddleocr_vl_vision"}, tie_word_embeddings=True),
    seeing("video_llama_3", "VideoLlama3", {"model_type": "qwen2"}, {**TOWER, "model_type": "video_llama_3_vision"}),
    seeing("deepseek_vl", "DeepseekVL", {"model_type": "llama"}, SIGLIP),
    seeing("deepseek_vl_hybrid", "DeepseekVLHybrid", {"model_type": "llama"}, SIGLIP,
           high_res_vision_config={**SAM, "model_type": "sam_vision_model"}),
)  # fmt: skip
VQ = {"embed_dim": 8, "num_embeddings": 20, "base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1,
      "latent_channels": 16}  # fmt: skip
LISTENER_OMNI = {"d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 72,
                 "num_mel_bins": 20, "output_dim": 64}  # fmt: skip
KOSMOS = {"vocab_size": 101, "max_position_embeddings": 50, "embed_dim": 64, "layers": 3, "ffn_dim": 112,
          "attention_heads": 8}  # fmt: skip
FIRST_EYE = {"embed_dim": 48, "image_size": 56, "patch_size": 14, "intermediate_size": 72, "num_hidden_layers": 2,
             "num_attention_heads": 4}  # fmt: skip
THINKER_2_5 = {"text_config": TEXT, "audio_config": LISTENER_OMNI,
               "vision_config": {k: v for k, v in QWEN_TOWER.items() if k != "num_position_embeddings"}}  # fmt: skip
TALKER_2_5 = {**TEXT, "head_dim": 16, "embedding_size": 64, "hidden_size": 40, "num_hidden_layers": 2}
PARTS = (
    own("mllama", "MllamaForConditionalGeneration",
        text_config={**TEXT, "num_hidden_layers": 5, "cross_attention_layers": [1, 3], "pad_token_id": 0,
                     "model_type": "mllama_text_model", "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        vision_config={"hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "num_global_layers": 3,
                       "attention_heads": 4, "image_size": 56, "patch_size": 14, "vision_output_dim": 144,
                       "intermediate_layers_indices": [0, 1], "max_num_tiles": 2,
                       "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]], "model_type": "mllama_vision_model"}),
    own("janus", "JanusForConditionalGeneration", text_config={**TEXT, "model_type": "llama"},
        vision_config={"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56,
                       "patch_size": 14, "mlp_ratio": 2, "projection_dim": 64, "model_type": "janus_vision_model"},
        vq_config={**VQ, "projection_dim": 64, "num_hidden_layers": 3, "image_token_embed_dim": 64, "num_patches": 4,
                   "model_type": "janus_vqgan"}),
    own("idefics", "IdeficsForVisionText2Text", **{**TEXT, "num_key_value_heads": 8, "num_hidden_layers": 4},
        additional_vocab_size=3, cross_layer_interval=2, qk_layer_norms=True, use_resampler=True,
        vision_config=FIRST_EYE,
        perceiver_config={"use_resampler": True, "resampler_n_latents": 6, "resampler_depth": 2, "resampler_n_heads": 4,
                          "resampler_head_dim": 12, "qk_layer_norms_perceiver": True}),
    own("idefics", "IdeficsForVisionText2Text", **{**TEXT, "num_key_value_heads": 8}, vision_config=FIRST_EYE),
    own("florence2", "Florence2ForConditionalGeneration",
        text_config={"model_type": "bart", "d_model": 64, "encoder_layers": 2, "decoder_layers": 3,
                     "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 72,
                     "decoder_ffn_dim": 80, "vocab_size": 101, "max_position_embeddings": 25},
        vision_config={"depths": [1, 1, 2, 1], "embed_dim": [8, 16, 24, 32], "num_heads": [2, 2, 4, 4],
                       "num_groups": [2, 2, 4, 4], "projection_dim": 64, "model_type": "florence_vision"}),
    own("kosmos-2", "Kosmos2ForConditionalGeneration", text_config=KOSMOS, vision_config=TOWER, latent_query_num=6),
    own("kosmos-2.5", "Kosmos2_5ForConditionalGeneration", text_config=KOSMOS, vision_config={
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16, "intermediate_size": 72,
        "patch_embed_hidden_size": 40, "max_num_patches": 30}),
    own("phi4_multimodal", "Phi4MultimodalForCausalLM", **BASE, vision_config={**TOWER, "crop_size": 56},
        audio_config={"hidden_size": 48, "intermediate_size": 36, "num_blocks": 2, "num_attention_heads": 4,
                      "ext_pw_out_channel": 48, "nemo_conv_channels": 40, "input_size": 21,
                      "depthwise_separable_out_channel": 48, "depthwise_multiplier": 2}),
    own("chameleon", "ChameleonForConditionalGeneration", **TEXT, vocabulary_map={"<image>": 3},
        vq_config={**VQ, "channel_multiplier": [2, 1], "resolution": 32, "attn_resolutions": [16]}),
    own("qwen2_5_omni", "Qwen2_5OmniForConditionalGeneration", thinker_config=THINKER_2_5, talker_config=TALKER_2_5),
    own("qwen2_5_omni", "Qwen2_5OmniForConditionalGeneration", thinker_config=THINKER_2_5, talker_config=TALKER_2_5,
        enable_audio_output=False),
    own("qwen3_omni_moe", "Qwen3OmniMoeForConditionalGeneration",
        thinker_config={"text_config": {**TEXT, "head_dim": 8, "num_experts": 4, **EXPERTS},
                        "vision_config": {**QWEN_TOWER, "deepstack_visual_indexes": [0]},
                        "audio_config": {**LISTENER_OMNI, "downsample_hidden_size": 12}},
        talker_config={"thinker_hidden_size": 64, "num_code_groups": 5, "spatial_merge_size": 2,
                       "text_config": {**TEXT, "hidden_size": 40, "num_experts": 4, **EXPERTS, "head_dim": 12,
                                       "shared_expert_intermediate_size": 28},
                       "code_predictor_config": {**TEXT, "hidden_size": 40, "num_hidden_layers": 2,
                                                 "num_code_groups": 5, "head_dim": 12}},
        code2wav_config={"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4,
                         "intermediate_size": 44, "num_hidden_layers": 2, "num_quantizers": 5, "codebook_size": 11,
                         "decoder_dim": 48}),
)  # fmt: skip
QFORMER = {"hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 52,
           "encoder_hidden_size": 48, "cross_attention_frequency": 2, "vocab_size": 33,
           "max_position_embeddings": 17}  # fmt: skip
CONFORMER = {"input_dim": 20, "num_layers": 2, "hidden_dim": 48, "feedforward_mult": 2, "num_heads": 4, "dim_head": 8,
             "output_dim": 9, "context_size": 10, "max_pos_emb": 11, "conv_kernel_size": 3, "conv_expansion_factor": 2,
             "model_type": "granite_speech_encoder"}  # fmt: skip
QUERYING = (
    own("blip-2", "Blip2ForConditionalGeneration", qformer_config=QFORMER, num_query_tokens=5,
        vision_config={**TOWER, "model_type": "blip_2_vision_model"}, text_config={**TEXT, "model_type": "llama"}),
    own("instructblipvideo", "InstructBlipVideoForConditionalGeneration", qformer_config=QFORMER, num_query_tokens=5,
        vision_config={**TOWER, "model_type": "instructblipvideo_vision_model"},
        text_config={**TEXT, "model_type": "llama"}),
    own("instructblip", "InstructBlipForConditionalGeneration", qformer_config=QFORMER, num_query_tokens=5,
        vision_config={**TOWER, "model_type": "instructblip_vision_model"},
        text_config={**TEXT, "model_type": "llama"}),
    own("granite_speech", "GraniteSpeechForConditionalGeneration", encoder_config=CONFORMER, downsample_rate=2,
        window_size=6, text_config={**TEXT, "model_type": "granite"},
        projector_config={**QFORMER, "model_type": "blip_2_qformer", "cross_attention_frequency": 1}),
)  # fmt: skip
OTHERS = (
    own("qwen2_5_omni_thinker", "Qwen2_5OmniThinkerForConditionalGeneration", **THINKER_2_5),
    own("qwen3_omni_moe_thinker", "Qwen3OmniMoeThinkerForConditionalGeneration",
        text_config={**TEXT, "head_dim": 8, "num_experts": 4, **EXPERTS}, vision_config=QWEN_TOWER,
        audio_config={**LISTENER_OMNI, "downsample_hidden_size": 12}),
    seeing("glmga", "Glm46V", {"model_type": "glm4v_text", "head_dim": 8}, {**GLM_TOWER, "model_type": "glm4v_vision"}),
    seeing("pp_chart2table", "GotOcr2", {"model_type": "qwen2"}, {**SAM, "model_type": ""}),
    seeing("aria", "Aria", {"model_type": "aria_text", "moe_num_experts": 4, "moe_topk": 2, "pad_token_id": 0,
           "moe_num_shared_experts": 3, "head_dim": 8}, {**TOWER, "model_type": "idefics3_vision"},
           projector_patch_to_query_dict={"16": 8}),
)  # fmt: skip
HEARING = (
    hearing("qwen2_audio", "Qwen2Audio", {"model_type": "qwen2"}, {"d_model": 48, "encoder_layers": 2,
            "encoder_attention_heads": 4, "encoder_ffn_dim": 72, "num_mel_bins": 20, "max_source_positions": 30,
            "model_type": "qwen2_audio_encoder"}),
    hearing("qwen3_asr", "Qwen3ASR", {"model_type": "qwen3", "head_dim": 8},
            {**LISTENER_OMNI, "downsample_hidden_size": 12}, tie_word_embeddings=True),
    hearing("voxtral", "Voxtral", {"model_type": "llama"}, {**LISTENER, "model_type": "voxtral_encoder"}),
    hearing("voxtral_realtime", "VoxtralRealtime", {"model_type": "voxtral_realtime_text", "head_dim": 8,
            "sliding_window": 16}, {**LISTENER, "head_dim": 16, "model_type": "voxtral_realtime_encoder"},
            downsample_factor=4, tie_word_embeddings=True),
    hearing("audioflamingo3", "AudioFlamingo3", {"model_type": "qwen2"},
            {**LISTENER, "model_type": "audioflamingo3_encoder"}),
)  # fmt: skip

CASES = (
    *SEEING,
    *OTHERS,
    *PARTS,
    *QUERYING,
    *HEARING,
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
