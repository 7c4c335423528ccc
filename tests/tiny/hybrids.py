"""Decoders whose layers keep a state."""

from __future__ import annotations

from tiny.case import Tiny
from tiny.mixtures import EXPERTS

DELTA = {"head_dim": 12, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
         "linear_value_head_dim": 8, "num_hidden_layers": 4}  # fmt: skip
SHARED = {"num_experts": 4, **EXPERTS, "shared_expert_intermediate_size": 40}
MAMBA2 = {"mamba_n_heads": 12, "mamba_d_head": 16, "mamba_expand": 3, "mamba_d_state": 20, "mamba_n_groups": 3}
ZAMBA2 = {"layers_block_type": ["mamba", "hybrid"] * 3, "num_hidden_layers": 6, "n_mamba_heads": 8, "adapter_rank": 5,
          "num_key_value_heads": 8, "mamba_d_state": 20, "mamba_ngroups": 2}  # fmt: skip
FEW = {"num_experts": 3, "moe_intermediate_size": 24}
KIMI = {"num_hidden_layers": 5, "kv_lora_rank": 40, "qk_nope_head_dim": 12, "qk_rope_head_dim": 6, "v_head_dim": 10,
        "num_key_value_heads": 8, "num_experts_per_token": 2, **FEW}  # fmt: skip
KDA = {"num_heads": 3, "head_dim": 14, "short_conv_kernel_size": 3, "full_attn_layers": [2, 5], "kda_layers": [1, 3, 4]}
LFM = ["conv", "full_attention", "conv"]
CASES = (
    Tiny("bailing_hybrid", {**KIMI, "num_experts_per_tok": 2, "head_dim": 14, "layer_group_size": 2, "n_group": 1,
                            "topk_group": 1, "num_local_experts": 3, "n_shared_experts": 2, "num_mtp_layers": 0}),
    Tiny("bamba", {**MAMBA2, "attn_layer_indices": [1], "mamba_proj_bias": True, "mlp_bias": True}),
    Tiny("bamba", {**MAMBA2, "mamba_d_head": "auto", "attention_bias": True, "mamba_conv_bias": False,
                   "attn_layer_indices": [0, 2]}),
    Tiny("falcon_h1", {**MAMBA2, "mamba_d_ssm": 192, "mamba_rms_norm": True, "head_dim": 24, "projectors_bias": True}),
    Tiny("falcon_h1", {**MAMBA2, "mamba_d_ssm": None, "mamba_proj_bias": True, "mlp_bias": True,
                       "attention_bias": True}),
    Tiny("falcon_mamba", {"state_size": 12, "time_step_rank": 7, "use_bias": True, "tie_word_embeddings": False,
                          "intermediate_size": 128}),
    Tiny("granitemoehybrid", {**MAMBA2, "layer_types": ["mamba", "attention", "mamba"], "num_local_experts": 3,
                              "num_experts_per_tok": 2, "shared_intermediate_size": 40}),
    Tiny("granitemoehybrid", {**MAMBA2, "layer_types": ["attention"] * 3, "num_local_experts": 0,
                              "attention_bias": True, "shared_intermediate_size": 40, "tie_word_embeddings": True}),
    Tiny("kimi_linear", {**KIMI, "linear_attn_config": KDA}),
    Tiny("kimi_linear", {**KIMI, "linear_num_heads": 3, "linear_head_dim": 14, "num_shared_experts": 2,
                         "layer_types": ["linear_attention", "full_attention"] * 2 + ["linear_attention"],
                         "mlp_layer_types": ["dense"] * 2 + ["sparse"] * 3}),
    Tiny("lfm2", {"layer_types": LFM, "conv_L_cache": 5, "block_ffn_dim_multiplier": 1.3, "block_multiple_of": 48}),
    Tiny("lfm2", {"full_attn_idxs": [0], "block_auto_adjust_ff_dim": False, "block_ff_dim": 120, "conv_bias": True,
                  "tie_embedding": False}),
    Tiny("lfm2_moe", {**FEW, "num_experts_per_tok": 2, "layer_types": LFM, "num_dense_layers": 1}),
    Tiny("lfm2_moe", {**FEW, "num_experts_per_tok": 2, "layer_types": LFM, "num_dense_layers": 0, "conv_bias": True,
                      "use_expert_bias": False}),
    Tiny("lfm3", {"head_dim": 12, "sliding_window": 9, "attention_bias": True, "num_hidden_layers": 5,
                  "conv_L_cache": 5}),
    Tiny("lfm3", {"layer_types": ["full_attention", "conv", "sliding_attention"], "use_sandwich_norm": False,
                  "use_attention_gate": False, "conv_bias": True, "head_dim": 10, "tie_word_embeddings": False}),
    Tiny("mamba", {"state_size": 12, "expand": 3, "conv_kernel": 5, "intermediate_size": 192}),
    Tiny("mamba", {"use_bias": True, "use_conv_bias": False, "time_step_rank": 9, "tie_word_embeddings": False,
                   "intermediate_size": 128}),
    Tiny("mamba2", {"num_heads": 12, "head_dim": 16, "expand": 3, "state_size": 20, "n_groups": 3,
                    "intermediate_size": 192}),
    Tiny("mamba2", {"num_heads": 8, "head_dim": 16, "use_bias": True, "use_conv_bias": False, "n_groups": 1,
                    "conv_kernel": 3, "tie_word_embeddings": True, "intermediate_size": 128}),
    Tiny("minimax", {"num_local_experts": 3, "head_dim": 12, "block_size": 10}),
    Tiny("minimax", {"num_local_experts": 3, "block_size": 6,
                     "layer_types": ["linear_attention", "linear_attention", "full_attention"]}),
    Tiny("olmo_hybrid", {"num_hidden_layers": 4, "linear_num_key_heads": 4, "linear_num_value_heads": 4,
                         "linear_key_head_dim": 10, "linear_value_head_dim": 10, "linear_conv_kernel_dim": 3}),
    Tiny("olmo_hybrid", {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 12,
                         "linear_value_head_dim": 6, "attention_bias": True}),
    Tiny("qwen3_5_text", DELTA),
    Tiny("qwen3_5_text", {**DELTA, "attention_bias": True, "layer_types": ["full_attention", "linear_attention"] * 2}),
    Tiny("qwen3_5_moe_text", {**DELTA, **SHARED}),
    Tiny("recurrent_gemma", {"lru_width": 72, "attention_window_size": 9, "conv1d_width": 5}),
    Tiny("recurrent_gemma", {"block_types": ["attention", "recurrent"], "attention_bias": True,
                             "tie_word_embeddings": False}),
    Tiny("rwkv", {}),
    Tiny("rwkv", {"intermediate_size": None, "tie_word_embeddings": True}),
    Tiny("xlstm", {"hidden_size": 128, "num_heads": 2}),
    Tiny("xlstm", {"hidden_size": 128, "num_heads": 4, "use_bias": True, "qk_dim_factor": 1.0, "ffn_proj_factor": 1.3,
                   "ffn_round_up_to_multiple_of": 10}),
    Tiny("zamba", {"num_hidden_layers": 12, "attn_layer_period": 3, "attn_layer_offset": 2, "mamba_d_state": 12}),
    Tiny("zamba", {"num_hidden_layers": 5, "n_mamba_heads": 4, "attention_head_dim": 12, "mamba_dt_rank": 7,
                   "mamba_proj_bias": True, "mamba_conv_bias": False,
                   "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "hybrid"]}),
    Tiny("zamba2", {**ZAMBA2, "num_mem_blocks": 2, "use_shared_attention_adapter": True}),
    Tiny("zamba2", {**ZAMBA2, "add_bias_linear": True, "intermediate_size": None}),
)  # fmt: skip
