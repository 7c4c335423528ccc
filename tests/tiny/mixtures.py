"""Mixtures of experts, with latent attention too."""

from __future__ import annotations

from tiny.case import Tiny

EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
LATER = {**EXPERTS, "n_routed_experts": 4, "first_k_dense_replace": 1}
MIXTURES = (
    Tiny("afmoe", {"num_experts": 4, **EXPERTS, "num_dense_layers": 1, "num_hidden_layers": 5}),
    Tiny("dots1", {**LATER, "n_shared_experts": 2, "head_dim": 8, "sliding_window": None}),
    Tiny("dots1", {**LATER, "n_shared_experts": 1, "attention_bias": True, "sliding_window": None}),
    Tiny("ernie4_5_moe", {"moe_num_experts": 4, "moe_intermediate_size": 24, "moe_k": 2}),
    Tiny("ernie4_5_moe", {"moe_num_experts": 4, "moe_intermediate_size": 24, "moe_k": 2, "use_bias": True,
                          "num_hidden_layers": 6, "moe_layer_interval": 2, "moe_layer_end_index": 4}),
    Tiny("exaone_moe", {"num_experts": 4, **EXPERTS, "num_shared_experts": 2, "num_hidden_layers": 5}),
    Tiny("exaone_moe", {"num_experts": 4, **EXPERTS, "mlp_layer_types": ["sparse", "dense", "sparse"]}),
    Tiny("flex_olmo", {"num_experts": 4, "num_experts_per_tok": 2}),
    Tiny("glm4_moe", LATER),
    Tiny("glm4_moe", {**LATER, "use_qk_norm": True, "attention_bias": True, "head_dim": 24, "n_shared_experts": 2}),
    Tiny("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Tiny("granitemoeshared", {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 40}),
    Tiny("granitemoeshared", {"num_local_experts": 4, "num_experts_per_tok": 2,
         "shared_intermediate_size": 0, "attention_bias": True}),
    Tiny("hunyuan_v1_dense", {"head_dim": 8}),
    Tiny("hunyuan_v1_moe", {"head_dim": 12, "num_experts": 4, "moe_topk": 2}),
    Tiny("hy_v3", {"num_experts": 4, **EXPERTS, "num_shared_experts": 2, "head_dim": 12}),
    Tiny("hy_v3", {"num_experts": 4, **EXPERTS, "mlp_layer_types": ["sparse", "dense", "sparse"], "mlp_bias": True,
                   "attention_bias": True}),
    Tiny("minimax_m2", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Tiny("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    Tiny("phimoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Tiny("phimoe", {"num_local_experts": 4, "num_experts_per_tok": 2, "attention_bias": True, "lm_head_bias": True,
                    "sliding_window": 8}),
    Tiny("qwen2_moe", {"num_experts": 4, **EXPERTS, "shared_expert_intermediate_size": 40}),
    Tiny("qwen2_moe", {"num_experts": 4, **EXPERTS, "decoder_sparse_step": 2, "num_hidden_layers": 5,
                       "mlp_only_layers": [3], "qkv_bias": False, "shared_expert_intermediate_size": 40}),
    Tiny("solar_open", {"n_routed_experts": 4, **EXPERTS}),
)  # fmt: skip

RANKS = {"kv_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 20, "q_lora_rank": 48,
         "num_key_value_heads": 8, "n_group": 1, "topk_group": 1}  # fmt: skip
LATENT = (
    Tiny("deepseek_v32", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 2}),
    Tiny("deepseek_v32", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1,
                          "attention_bias": True, "mlp_layer_types": ["sparse", "dense", "sparse"]}),
    Tiny("glm_moe_dsa", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1}),
    Tiny("glm_moe_dsa", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1,
                         "num_hidden_layers": 4, "indexer_types": ["full", "shared", "shared", "full"]}),
    Tiny("glm4_moe_lite", {**RANKS, **EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1}),
)  # fmt: skip
OTHERS = (
    Tiny("llama4_text", {"num_local_experts": 4, "intermediate_size_mlp": 200, "head_dim": 8, "num_hidden_layers": 5}),
    Tiny("llama4_text", {"num_local_experts": 4, "intermediate_size_mlp": 200, "head_dim": 12, "num_hidden_layers": 5,
                         "interleave_moe_layer_step": 2, "attention_chunk_size": 16, "attention_bias": True}),
    Tiny("mimo_v2_flash", {"n_routed_experts": 4, **EXPERTS, "head_dim": 24, "v_head_dim": 16, "sliding_window": 8,
                           "num_hidden_layers": 7}),
)  # fmt: skip

CASES = (*MIXTURES, *LATENT, *OTHERS)
