"""Gemma 3n and 4."""

from __future__ import annotations

from typing import Any

from tiny.case import Tiny

TEXT: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 10, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 112, "vocab_size": 101, "vocab_size_per_layer_input": 90, "hidden_size_per_layer_input": 12,
    "max_position_embeddings": 50, "sliding_window": 16, "pad_token_id": 0,
}  # fmt: skip
THREE = {**TEXT, "laurel_rank": 6, "altup_num_inputs": 3, "num_kv_shared_layers": 3}
FOUR = {**TEXT, "global_head_dim": 24}
BARE = {**FOUR, "hidden_size_per_layer_input": 0}
EXPERTS = {"enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 20}
KEYS = {"attention_k_eq_v": True, "num_global_key_value_heads": 1}
VISION = {
    "model_type": "gemma4_vision", "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "position_embedding_size": 40, "patch_size": 8,
}  # fmt: skip
AUDIO = {"model_type": "gemma4_audio", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "subsampling_conv_channels": [16, 12], "output_proj_dims": 40, "conv_kernel_size": 3}  # fmt: skip


def seeing(text: dict[str, Any], **more: object) -> Tiny:
    """Return a case of Gemma 4 with towers."""
    values = {"text_config": {"model_type": "gemma4_text", **text}, **more}
    return Tiny("gemma4", values, cls="Gemma4ForConditionalGeneration", own=True)


CASES = (
    Tiny("gemma3n_text", THREE, own=True),
    Tiny("gemma3n_text", {**THREE, "num_kv_shared_layers": 0, "tie_word_embeddings": False, "attention_bias": True,
                          "intermediate_size": [96, 112] * 5}, own=True),
    Tiny("gemma4_text", FOUR, own=True),
    Tiny("gemma4_text", {**FOUR, "num_kv_shared_layers": 3, "use_double_wide_mlp": True}, own=True),
    Tiny("gemma4_text", {**BARE, **EXPERTS, **KEYS, "tie_word_embeddings": False}, own=True),
    Tiny("gemma4_text", {**BARE, "attention_bias": True, "num_global_key_value_heads": 1}, own=True),
    Tiny("gemma4_text", {**FOUR, **KEYS, "num_kv_shared_layers": 4}, own=True),
    Tiny("gemma4_unified_text", {**BARE, **KEYS, "num_kv_shared_layers": 3, "use_double_wide_mlp": True}, own=True),
    Tiny("gemma4_unified_text", {k: v for k, v in FOUR.items() if k != "sliding_window"}, own=True),
    Tiny("gemma4_unified", {
        "text_config": {"model_type": "gemma4_unified_text", **BARE},
        "vision_config": {"mm_embed_dim": 48, "mm_posemb_size": 20, "patch_size": 4, "output_proj_dims": 40},
        "audio_config": {"audio_embed_dim": 28}, "tie_word_embeddings": False,
    }, cls="Gemma4UnifiedForConditionalGeneration", own=True),
    seeing({**BARE, **EXPERTS, **KEYS}, vision_config={**VISION, "standardize": True}),
    seeing(FOUR, vision_config={**VISION, "use_clipped_linears": True}, audio_config=AUDIO, tie_word_embeddings=False),
    seeing(FOUR, vision_config=VISION, audio_config={**AUDIO, "use_clipped_linears": False}),
)  # fmt: skip
