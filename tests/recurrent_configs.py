"""Fields of published configurations that decide shapes: state spaces, linear attention and hybrids, by repository."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

MAMBA_1_4B: Config = {
    "model_type": "mamba", "hidden_size": 2048, "num_hidden_layers": 48, "state_size": 16, "expand": 2,
    "conv_kernel": 4, "time_step_rank": 128, "intermediate_size": 4096, "vocab_size": 50280,
    "tie_word_embeddings": True, "torch_dtype": "float32",
}  # fmt: skip
MAMBA_2_8B: Config = {
    **MAMBA_1_4B, "hidden_size": 2560, "num_hidden_layers": 64, "time_step_rank": 160, "intermediate_size": 5120,
}  # fmt: skip
CODESTRAL_MAMBA_7B: Config = {
    "model_type": "mamba2", "hidden_size": 4096, "num_hidden_layers": 64, "num_heads": 128, "head_dim": 64,
    "state_size": 128, "n_groups": 8, "expand": 2, "conv_kernel": 4, "vocab_size": 32768, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}  # fmt: skip
FALCON_MAMBA_7B: Config = {
    "model_type": "falcon_mamba", "hidden_size": 4096, "num_hidden_layers": 64, "state_size": 16, "expand": 2,
    "conv_kernel": 4, "time_step_rank": 256, "intermediate_size": 8192, "vocab_size": 65024,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
GRANITE_4_H_TINY: Config = {
    "model_type": "granitemoehybrid", "hidden_size": 1536, "intermediate_size": 512, "num_hidden_layers": 40,
    "num_attention_heads": 12, "num_key_value_heads": 4, "num_local_experts": 64, "num_experts_per_tok": 6,
    "shared_intermediate_size": 1024, "mamba_n_heads": 48, "mamba_d_head": 64, "mamba_d_state": 128,
    "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2, "vocab_size": 100352, "tie_word_embeddings": True,
    "layer_types": ["attention" if i in {5, 15, 25, 35} else "mamba" for i in range(40)], "torch_dtype": "bfloat16",
}  # fmt: skip
FALCON_H1_05B: Config = {
    "model_type": "falcon_h1", "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 36,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "mamba_d_ssm": 1536, "mamba_n_heads": 24,
    "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4, "vocab_size": 32784,
    "mamba_rms_norm": False, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
ZAMBA2_2_7B: Config = {
    "model_type": "zamba2", "hidden_size": 2560, "num_hidden_layers": 54, "mamba_d_state": 64, "mamba_ngroups": 1,
    "n_mamba_heads": 80, "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 10240,
    "num_mem_blocks": 2, "adapter_rank": 128, "use_shared_attention_adapter": False, "vocab_size": 32000,
    "layers_block_type": ["hybrid" if i in {6, 12, 18, 24, 30, 36, 42, 47, 51} else "mamba" for i in range(54)],
    "torch_dtype": "bfloat16",
}  # fmt: skip
LFM2_1_2B: Config = {
    "model_type": "lfm2", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "block_ff_dim": 12288, "block_multiple_of": 256, "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0, "conv_L_cache": 3, "vocab_size": 65536, "full_attn_idxs": [2, 5, 8, 10, 12, 14],
    "tie_embedding": True, "torch_dtype": "bfloat16",
}  # fmt: skip
LFM2_8B_A1B: Config = {
    "model_type": "lfm2_moe", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 7168, "moe_intermediate_size": 1792, "num_experts": 32,
    "num_experts_per_tok": 4, "num_dense_layers": 2, "conv_L_cache": 3, "vocab_size": 65536, "use_expert_bias": True,
    "layer_types": ["full_attention" if i in {2, 6, 10, 14, 18, 21} else "conv" for i in range(24)],
    "torch_dtype": "bfloat16",
}  # fmt: skip
RECURRENT_GEMMA_2B: Config = {
    "model_type": "recurrent_gemma", "hidden_size": 2560, "num_hidden_layers": 26, "num_attention_heads": 10,
    "num_key_value_heads": 1, "intermediate_size": 15360, "vocab_size": 256000, "lru_width": 2560,
    "attention_window_size": 2048, "block_types": ["recurrent", "recurrent", "attention"], "torch_dtype": "bfloat16",
}  # fmt: skip
RWKV7_1_5B: Config = {
    "model_type": "rwkv7", "hidden_size": 2048, "num_hidden_layers": 24, "head_dim": 64, "intermediate_size": 8192,
    "decay_low_rank_dim": 96, "a_low_rank_dim": 96, "v_low_rank_dim": 64, "gate_low_rank_dim": 256,
    "vocab_size": 65536, "tie_word_embeddings": False, "torch_dtype": "float32", "value_dim": [2048] * 24,
}  # fmt: skip
RWKV6_7B: Config = {
    "model_type": "rwkv6", "hidden_size": 4096, "attention_hidden_size": 4096, "num_hidden_layers": 32,
    "head_size": 64, "head_size_divisor": 8, "intermediate_size": None, "vocab_size": 65536,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "architectures": ["Rwkv6ForCausalLM"],
}  # fmt: skip
MINIMAX_TEXT_01: Config = {
    "model_type": "minimax_text_01", "hidden_size": 6144, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9216, "num_local_experts": 32,
    "num_experts_per_tok": 2, "shared_intermediate_size": 0, "vocab_size": 200064, "tie_word_embeddings": False,
    "attn_type_list": ([0] * 7 + [1]) * 10, "architectures": ["MiniMaxText01ForCausalLM"], "torch_dtype": "bfloat16",
}  # fmt: skip
KIMI_LINEAR_48B: Config = {
    "model_type": "kimi_linear", "hidden_size": 2304, "num_hidden_layers": 27, "num_attention_heads": 32,
    "num_key_value_heads": 32, "intermediate_size": 9216, "moe_intermediate_size": 1024, "num_experts": 256,
    "num_experts_per_token": 8, "num_shared_experts": 1, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "linear_attn_config": {
        "full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "head_dim": 128, "num_heads": 32, "short_conv_kernel_size": 4,
        "kda_layers": [i for i in range(1, 28) if i not in {4, 8, 12, 16, 20, 24, 27}],
    },
    "vocab_size": 163840, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
XLSTM_7B: Config = {
    "model_type": "xlstm", "embedding_dim": 4096, "hidden_size": 4096, "num_blocks": 32, "num_heads": 8,
    "qk_dim_factor": 0.5, "v_dim_factor": 1.0, "ffn_proj_factor": 2.667, "ffn_round_up_to_multiple_of": 64,
    "vocab_size": 50304, "torch_dtype": "float32",
}  # fmt: skip
PHI_4_MINI_FLASH: Config = {
    "model_type": "phi4flash", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
    "num_attention_heads": 40, "num_key_value_heads": 20, "sliding_window": 512, "mb_per_layer": 2, "mlp_bias": False,
    "lm_head_bias": False, "vocab_size": 200064, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "architectures": ["Phi4FlashForCausalLM"],
}  # fmt: skip
PLAMO_2_1B: Config = {
    "model_type": "plamo2", "hidden_size": 2048, "hidden_size_per_head": 128, "num_hidden_layers": 16,
    "num_attention_heads": 16, "num_key_value_heads": 1, "intermediate_size": 8192, "mamba_num_heads": 32,
    "mamba_step": 2, "mamba_d_state": 64, "mamba_d_conv": 4, "mamba_enabled": True, "n_expert": None,
    "attention_window_size": 2048, "vocab_size": 100000, "torch_dtype": "float32",
}  # fmt: skip
HYMBA_1_5B: Config = {
    "model_type": "hymba", "hidden_size": 1600, "intermediate_size": 5504, "num_hidden_layers": 32,
    "num_attention_heads": 25, "num_key_value_heads": 5, "sliding_window": 1024, "global_attn_idx": [0, 15, 31],
    "kv_reuse_group": [*([i, i + 1] for i in range(1, 14, 2)), [16, 17, 18], *([i, i + 1] for i in range(19, 30, 2))],
    "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_dt_rank": 100, "mamba_expand": 2, "mamba_inner_layernorms": True,
    "num_memory_tokens": 128, "num_mamba": 1, "num_experts": 1, "attn_hidden_size": -1, "kq_head_dim": -1,
    "kq_norm": "none", "v_head_dim": 128, "vocab_size": 32001, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
RING_MINI_LINEAR: Config = {
    "model_type": "bailing_moe_linear", "hidden_size": 2048, "intermediate_size": 5120, "num_hidden_layers": 20,
    "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128, "layer_group_size": 5,
    "moe_intermediate_size": 512, "num_experts": 256, "num_shared_experts": 1, "num_experts_per_tok": 8,
    "first_k_dense_replace": 1, "use_qk_norm": True, "moe_router_enable_expert_bias": True, "vocab_size": 157184,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
