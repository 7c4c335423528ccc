"""Mixtures of experts, with latent attention too."""

from __future__ import annotations

from tiny.case import BASE, Tiny

EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
LATER = {**EXPERTS, "n_routed_experts": 4, "first_k_dense_replace": 1}
MIXTURES = (
    Tiny("afmoe", {"num_experts": 4, **EXPERTS, "num_dense_layers": 1, "num_hidden_layers": 5}),
    Tiny("aria_text", {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 3}),
    Tiny("cohere2_moe", {"num_experts": 4, "num_experts_per_tok": 2, "head_dim": 12, "num_hidden_layers": 6}),
    Tiny("cohere2_moe", {"num_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 2, "head_dim": 12,
                         "prefix_dense_sliding_window_pattern": 2, "prefix_dense_intermediate_size": 72,
                         "num_shared_experts": 2, "num_hidden_layers": 6, "attention_bias": True, "sliding_window": 7}),
    Tiny("dots1", {**LATER, "n_shared_experts": 2, "head_dim": 8, "sliding_window": None}),
    Tiny("dots1", {**LATER, "n_shared_experts": 1, "attention_bias": True, "sliding_window": None}),
    Tiny("ernie4_5_moe", {"moe_num_experts": 4, "moe_intermediate_size": 24, "moe_k": 2}),
    Tiny("ernie4_5_moe", {"moe_num_experts": 4, "moe_intermediate_size": 24, "moe_k": 2, "use_bias": True,
                          "num_hidden_layers": 6, "moe_layer_interval": 2, "moe_layer_end_index": 4}),
    Tiny("exaone_moe", {"num_experts": 4, **EXPERTS, "num_shared_experts": 2, "num_hidden_layers": 5}),
    Tiny("exaone_moe", {"num_experts": 4, **EXPERTS, "mlp_layer_types": ["sparse", "dense", "sparse"]}),
    Tiny("flex_olmo", {"num_experts": 4, "num_experts_per_tok": 2}),
    Tiny("flint", {"num_experts": 4, **EXPERTS, "num_hidden_layers": 9}),
    Tiny("flint", {"num_experts": 4, **EXPERTS, "mlp_only_layers": [2], "attention_bias": True, "head_dim": 12}),
    Tiny("glm4_moe", LATER),
    Tiny("glm4_moe", {**LATER, "use_qk_norm": True, "attention_bias": True, "head_dim": 24, "n_shared_experts": 2}),
    Tiny("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Tiny("granitemoeshared", {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 40}),
    Tiny("granitemoeshared", {"num_local_experts": 4, "num_experts_per_tok": 2,
         "shared_intermediate_size": 0, "attention_bias": True}),
    Tiny("granitemoe_swa", {"num_local_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 6}),
    Tiny("granitemoe_swa", {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 40,
                            "sliding_window": 9, "attention_bias": True}),
    Tiny("hunyuan_v1_dense", {"head_dim": 8}),
    Tiny("hunyuan_v1_moe", {"head_dim": 12, "num_experts": 4, "moe_topk": 2}),
    Tiny("hy_v3", {"num_experts": 4, **EXPERTS}),
    Tiny("hy_v3", {"num_experts": 4, **EXPERTS, "num_shared_experts": 2, "head_dim": 12, "attention_bias": True,
                   "mlp_bias": True, "mlp_layer_types": ["sparse", "dense", "sparse"]}),
    Tiny("kolibri1", {"num_experts": 4, **EXPERTS, "num_hidden_layers": 6}),
    Tiny("laguna", {"num_experts": 4, **EXPERTS, "shared_expert_intermediate_size": 40}),
    Tiny("laguna", {"num_experts": 4, **EXPERTS, "head_dim": 12, "gating": "per-element", "attention_bias": True,
                    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                    "num_attention_heads_per_layer": [4, 8, 6]}),
    Tiny("mellum", {"num_experts": 4, **EXPERTS, "attention_bias": True}),
    Tiny("mellum", {"num_experts": 4, **EXPERTS, "sliding_window": 7,
                    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}),
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
    Tiny("axk2", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1}),
    Tiny("axk2", {**RANKS, **EXPERTS, "n_routed_experts": 4, "n_shared_experts": 2, "index_head_dim": 12,
                  "index_n_heads": 5, "gated_norm_rank": 7, "mlp_layer_types": ["sparse", "dense", "sparse"]}),
    Tiny("hy_v4", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1}),
    Tiny("hy_v4", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 2, "hc_mult": 3,
                   "attention_bias": True, "indexer_types": ["full", "shared", "full"]}),
    Tiny("axk1", {**RANKS, **LATER, "n_shared_experts": 2}),
    Tiny("minicpm3", {**RANKS, "attention_bias": True}),
    Tiny("minicpm3", {k: v for k, v in RANKS.items() if k not in {"v_head_dim", "q_lora_rank"}}),
    Tiny("mistral4", {**RANKS, **LATER, "n_shared_experts": 1}, cls="Mistral4ForCausalLM"),
    Tiny("mistral4", {**RANKS, **EXPERTS, "n_routed_experts": 4, "n_shared_experts": 2, "attention_bias": True},
         cls="Mistral4ForCausalLM"),
    Tiny("youtu", {**RANKS, "q_lora_rank": None, "tie_word_embeddings": False}),
    Tiny("youtu", RANKS),
    Tiny("deepseek_v32", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 2}),
    Tiny("deepseek_v32", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1,
                          "attention_bias": True, "mlp_layer_types": ["sparse", "dense", "sparse"]}),
    Tiny("glm_moe_dsa", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1}),
    Tiny("glm_moe_dsa", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1,
                         "num_hidden_layers": 4, "indexer_types": ["full", "shared", "shared", "full"]}),
    Tiny("glm4_moe_lite", {**RANKS, **EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1}),
)  # fmt: skip
# transformers makes room for experts that do nothing in one of its two tensors, so it is asked without any.
LONGCAT = {"hidden_size": 64, "num_layers": 2, "num_attention_heads": 8, "vocab_size": 101, "ffn_hidden_size": 112,
           "n_routed_experts": 4, "expert_ffn_hidden_size": 24, "moe_topk": 2, "zero_expert_num": 0,
           **{k: v for k, v in RANKS.items() if "head_dim" in k or "rank" in k}}  # fmt: skip
DBRX = {"d_model": 64, "n_heads": 8, "n_layers": 3, "vocab_size": 101, "max_seq_len": 50,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0},
        "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2}}  # fmt: skip
JETMOE = {"hidden_size": 64, "num_hidden_layers": 3, "num_key_value_heads": 2, "intermediate_size": 112,
          "vocab_size": 101, "num_local_experts": 4, "num_experts_per_tok": 2}  # fmt: skip
M3 = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 12, "num_hidden_layers": 4,
      "dense_intermediate_size": 200, "shared_intermediate_size": 40}  # fmt: skip
V4 = {"head_dim": 32, "q_lora_rank": 48, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
      "intermediate_size": 24, "num_hidden_layers": 6, "o_groups": 2, "o_lora_rank": 20, "index_n_heads": 5,
      "index_head_dim": 12, "num_key_value_heads": 1, "num_nextn_predict_layers": 0}  # fmt: skip
KIMI = {
    "tie_word_embeddings": False, "projection_hidden_size": 48,
    "text_config": {**BASE, **RANKS, **LATER, "n_shared_experts": 1, "model_type": "deepseek_v3"},
    "vision_config": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80,
                      "pos_emb_height": 6, "pos_emb_width": 6, "patch_size": 7, "merge_kernel_size": [2, 3]},
}  # fmt: skip
ODD = (
    Tiny("dbrx", DBRX, own=True),
    Tiny("deepseek_v4", V4),
    Tiny("deepseek_v4", {**V4, "compress_ratios": [0, 0, 4, 128, 4, 0, 0], "hc_mult": 3, "num_hash_layers": 1,
                         "sliding_window": 8, "num_nextn_predict_layers": 1}),
    Tiny("deepseek_v4", {**V4, "mlp_layer_types": ["moe", "hash_moe", *["moe"] * 4], "layer_types": [
        "sliding_attention", *["compressed_sparse_attention"] * 3, *["heavily_compressed_attention"] * 2]}),
    Tiny("doge", {"sliding_window": 9}),
    Tiny("doge", {"is_moe": True, "num_experts": 17, "num_experts_per_tok": 3, "attention_bias": True,
                  "mlp_bias": True}),
    Tiny("jetmoe", {**JETMOE, "kv_channels": 12, "tie_word_embeddings": False}, own=True),
    Tiny("jetmoe", JETMOE, own=True),
    Tiny("kimi_k25", KIMI, own=True, cls="Kimi_K25ForConditionalGeneration"),
    Tiny("longcat_flash", LONGCAT, own=True),
    Tiny("longcat_flash", {**LONGCAT, "attention_bias": True, "q_lora_rank": 24}, own=True),
    Tiny("minimax_m3_vl_text", M3),
    Tiny("minimax_m3_vl_text", {**M3, "moe_layer_freq": [0, 1, 1, 1], "sparse_attention_config": {
        "sparse_attention_freq": [0, 1, 0, 1], "sparse_num_index_heads": 3, "sparse_index_dim": 20}}),
)  # fmt: skip
OTHERS = (
    Tiny("llama4_text", {"num_local_experts": 4, "intermediate_size_mlp": 200, "head_dim": 8, "num_hidden_layers": 5}),
    Tiny("llama4_text", {"num_local_experts": 4, "intermediate_size_mlp": 200, "head_dim": 12, "num_hidden_layers": 5,
                         "interleave_moe_layer_step": 2, "attention_chunk_size": 16, "attention_bias": True}),
    Tiny("mimo_v2_flash", {"n_routed_experts": 4, **EXPERTS, "head_dim": 24, "v_head_dim": 16, "sliding_window": 8,
                           "num_hidden_layers": 7}),
)  # fmt: skip

CASES = (*MIXTURES, *LATENT, *ODD, *OTHERS)
