"""Fields of published mixtures of experts that decide shapes, and what their publishers print of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hybrid_configs import DEEPSEEK_V3, GPT_OSS_120B, KIMI_K2
from published_configs import QWEN3_235B_A22B

Config = dict[str, Any]
_BF16: Config = {"torch_dtype": "bfloat16", "tie_word_embeddings": False}
_RANKS: Config = {"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
                  "v_head_dim": 128}  # fmt: skip
_FP8: Config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}

DEEPSEEK_V4_FLASH: Config = {
    **_BF16, "model_type": "deepseek_v4", "hidden_size": 4096, "num_hidden_layers": 43, "num_attention_heads": 64,
    "num_key_value_heads": 1, "head_dim": 512, "q_lora_rank": 1024, "o_lora_rank": 1024, "o_groups": 8,
    "qk_rope_head_dim": 64, "index_head_dim": 128, "index_n_heads": 64, "index_topk": 512, "sliding_window": 128,
    "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 6,
    "num_hash_layers": 3, "hc_mult": 4, "num_nextn_predict_layers": 1, "vocab_size": 129280, "expert_dtype": "fp4",
    "max_position_embeddings": 1048576, "compress_ratios": [0, 0, *[4, 128] * 20, 4, 0], "quantization_config": _FP8,
}  # fmt: skip
DEEPSEEK_V4_PRO: Config = {
    **DEEPSEEK_V4_FLASH, "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128, "q_lora_rank": 1536,
    "o_groups": 16, "moe_intermediate_size": 3072, "n_routed_experts": 384, "index_topk": 1024,
    "compress_ratios": [128, 128, *[4, 128] * 29, 4, 0],
}  # fmt: skip
ARCTIC: Config = {
    **_BF16, "model_type": "arctic", "hidden_size": 7168, "intermediate_size": 4864, "num_hidden_layers": 35,
    "num_attention_heads": 56, "num_key_value_heads": 8, "num_local_experts": 128, "num_experts_per_tok": 2,
    "moe_layer_frequency": 1, "use_residual": True, "vocab_size": 32000,
}  # fmt: skip
DBRX: Config = {
    **_BF16, "model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40, "max_seq_len": 32768,
    "vocab_size": 100352, "attn_config": {"kv_n_heads": 8, "clip_qkv": 8, "rope_theta": 500000},
    "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
}  # fmt: skip
HUNYUAN_LARGE: Config = {
    **_BF16, "model_type": "hunyuan", "hidden_size": 6400, "intermediate_size": 18304, "num_hidden_layers": 64,
    "num_attention_heads": 80, "num_key_value_heads": 8, "num_experts": 16, "moe_topk": 1, "num_shared_expert": 1,
    "use_mixed_mlp_moe": True, "use_cla": True, "cla_share_factor": 2, "use_qk_norm": True, "vocab_size": 128512,
    "tie_word_embeddings": True,
}  # fmt: skip
HUNYUAN_A13B: Config = {
    **_BF16, "model_type": "hunyuan_v1_moe", "hidden_size": 4096, "intermediate_size": 3072,
    "moe_intermediate_size": [3072] * 32, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "attention_head_dim": 128, "head_dim": 128, "num_experts": 64, "moe_topk": [8] * 32, "num_shared_expert": [1] * 32,
    "use_mixed_mlp_moe": True, "use_qk_norm": True, "vocab_size": 128167, "tie_word_embeddings": True,
}  # fmt: skip
LONGCAT_FLASH: Config = {
    **_BF16, **_RANKS, "model_type": "longcat_flash", "hidden_size": 6144, "num_layers": 28, "num_attention_heads": 64,
    "ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048, "n_routed_experts": 512, "zero_expert_num": 256,
    "moe_topk": 12, "vocab_size": 131072,
}  # fmt: skip
LING_LITE: Config = {
    **_BF16, "model_type": "bailing_moe", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 64, "num_experts_per_tok": 6,
    "num_shared_experts": 2, "moe_intermediate_size": 1408, "first_k_dense_replace": 0, "vocab_size": 126464,
}  # fmt: skip
LING_1T: Config = {
    **_BF16, "model_type": "bailing_moe_v2", "hidden_size": 8192, "intermediate_size": 18432, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "num_experts": 256, "num_experts_per_tok": 8,
    "num_shared_experts": 1, "moe_intermediate_size": 2048, "first_k_dense_replace": 4, "vocab_size": 157184,
    "use_qk_norm": True,
}  # fmt: skip
STEP_3_5_FLASH: Config = {
    **_BF16, "model_type": "step3p5", "hidden_size": 4096, "intermediate_size": 11264, "num_hidden_layers": 45,
    "num_attention_heads": 64, "num_attention_groups": 8, "head_dim": 128, "vocab_size": 128896, "moe_num_experts": 288,
    "moe_top_k": 8, "moe_intermediate_size": 1280, "share_expert_dim": 1280, "sliding_window": 512,
    "moe_layers_enum": ",".join(map(str, range(3, 45))),
    "layer_types": [*["full_attention", *["sliding_attention"] * 3] * 11, "full_attention"],
    "attention_other_setting": {"attention_type": "sliding_attention", "num_attention_heads": 96,
                                "num_attention_groups": 8, "head_dim": 128},
}  # fmt: skip
HY_V3: Config = {
    **_BF16, "model_type": "hy_v3", "hidden_size": 4096, "intermediate_size": 13312, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "num_experts": 192, "num_experts_per_tok": 8,
    "num_shared_experts": 1, "moe_intermediate_size": 1536, "first_k_dense_replace": 1, "vocab_size": 120832,
}  # fmt: skip
MISTRAL_SMALL_4: Config = {
    **_BF16, **_RANKS, "model_type": "mistral4", "hidden_size": 4096, "intermediate_size": 12288,
    "moe_intermediate_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 32, "n_shared_experts": 1,
    "n_routed_experts": 128, "num_experts_per_tok": 4, "first_k_dense_replace": 0, "kv_lora_rank": 256,
    "q_lora_rank": 1024, "qk_nope_head_dim": 64, "vocab_size": 131072,
}  # fmt: skip
A_X_K1: Config = {
    **_BF16, **_RANKS, "model_type": "axk1", "hidden_size": 7168, "intermediate_size": 18432,
    "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 64, "n_shared_experts": 1,
    "n_routed_experts": 192, "num_experts_per_tok": 8, "first_k_dense_replace": 1, "vocab_size": 163840,
}  # fmt: skip
MINIMAX_M2: Config = {
    **_BF16, "model_type": "minimax_m2", "hidden_size": 3072, "num_hidden_layers": 62, "num_attention_heads": 48,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 1536, "vocab_size": 200064,
    "num_local_experts": 256, "num_experts_per_tok": 8,
}  # fmt: skip
GLM_4_5: Config = {
    **_BF16, "model_type": "glm4_moe", "hidden_size": 5120, "intermediate_size": 12288, "num_hidden_layers": 92,
    "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": 128, "n_routed_experts": 160,
    "num_experts_per_tok": 8, "n_shared_experts": 1, "moe_intermediate_size": 1536, "first_k_dense_replace": 3,
    "use_qk_norm": True, "attention_bias": True, "vocab_size": 151552, "num_nextn_predict_layers": 1,
}  # fmt: skip
JETMOE_8B: Config = {
    **_BF16, "model_type": "jetmoe", "hidden_size": 2048, "num_hidden_layers": 24, "num_key_value_heads": 16,
    "kv_channels": 128, "intermediate_size": 5632, "vocab_size": 32000, "num_local_experts": 8,
    "num_experts_per_tok": 2, "tie_word_embeddings": True,
}  # fmt: skip
MINIMAX_M3: Config = {
    **_BF16, "model_type": "minimax_m3", "hidden_size": 6144, "num_hidden_layers": 60, "num_attention_heads": 64,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 3072, "dense_intermediate_size": 12288,
    "shared_intermediate_size": 3072, "n_shared_experts": 1, "num_local_experts": 128, "num_experts_per_tok": 4,
    "vocab_size": 200064, "moe_layer_freq": [0] * 3 + [1] * 57,
    "sparse_attention_config": {"sparse_attention_freq": [0] * 3 + [1] * 57, "sparse_num_index_heads": 4,
                                "sparse_index_dim": 128},
}  # fmt: skip
KIMI_K3: Config = {
    "model_type": "kimi_k3", "architectures": ["KimiK3ForConditionalGeneration"], "dtype": "bfloat16",
    "text_config": {
        **_RANKS, "model_type": "kimi_linear", "hidden_size": 7168, "num_hidden_layers": 93, "num_attention_heads": 96,
        "intermediate_size": 33792, "moe_intermediate_size": 3072, "num_experts": 896, "num_experts_per_token": 16,
        "num_shared_experts": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1, "routed_expert_hidden_size": 3584,
        "latent_moe_use_norm": True, "mla_use_nope": True, "mla_use_output_gate": True, "attn_res_block_size": 12,
        "vocab_size": 163840, "tie_word_embeddings": False,
        "linear_attn_config": {
            "full_attn_layers": [*range(4, 93, 4), 93], "kda_layers": [i for i in range(1, 93) if i % 4],
            "head_dim": 128, "num_heads": 96, "short_conv_kernel_size": 4, "use_full_rank_gate": True,
        },
    },
    "vision_config": {
        "vt_hidden_size": 1024, "vt_intermediate_size": 4096, "vt_num_attention_heads": 12, "vt_num_hidden_layers": 27,
        "qkv_hidden_size": 1536, "norm_type": "rmsnorm", "attn_bias": False, "linear_bias": False,
        "patch_embed_proj_bias": False, "mm_projector_type": "patchmergerv2", "merge_kernel_size": [2, 2],
        "patch_size": 14, "init_pos_emb_height": 64, "init_pos_emb_width": 64,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """What a publisher prints, in billions, and to what it is rounded."""

    config: Config
    total: float
    active: float
    to: tuple[float, float]
    """Unit of the last digit of both."""
    source: str
    embedded: bool = True
    """False: a token's parameters are counted without the token embedding."""


PUBLISHED: dict[str, Published] = {
    "DeepSeek-V3": Published(DEEPSEEK_V3, 671, 37, (1, 1), "arXiv:2412.19437, abstract"),
    "DeepSeek-V4-Flash": Published(DEEPSEEK_V4_FLASH, 284, 13, (1, 1), "deepseek-ai/DeepSeek-V4-Flash, card"),
    "DeepSeek-V4-Pro": Published(DEEPSEEK_V4_PRO, 1600, 49, (100, 1), "deepseek-ai/DeepSeek-V4-Pro, card"),
    "Kimi K2": Published(KIMI_K2, 1000, 32, (100, 1), "arXiv:2507.20534, table 2", embedded=False),
    "Kimi K3": Published(KIMI_K3, 2800, 104, (100, 1), "arXiv:2607.24653, abstract", embedded=False),
    "gpt-oss-120b": Published(GPT_OSS_120B, 116.83, 5.13, (0.01, 0.01), "arXiv:2508.10925, table 1", embedded=False),
    "MiniMax-M2": Published(MINIMAX_M2, 230, 10, (10, 1), "MiniMaxAI/MiniMax-M2, card", embedded=False),
    "Qwen3-235B-A22B": Published(QWEN3_235B_A22B, 235, 22, (1, 1), "arXiv:2505.09388, table 2"),
    "Arctic": Published(ARCTIC, 480, 17, (10, 1), "Snowflake/snowflake-arctic-instruct, card"),
    "DBRX": Published(DBRX, 132, 36, (1, 1), "databricks/dbrx-instruct, card"),
    "JetMoE-8B": Published(JETMOE_8B, 8, 2.2, (1, 0.1), "arXiv:2404.07413, abstract", embedded=False),
    "Hunyuan-Large": Published(HUNYUAN_LARGE, 389, 52, (1, 1), "arXiv:2411.02265, abstract"),
    "Hunyuan-A13B": Published(HUNYUAN_A13B, 80, 13, (1, 1), "tencent/Hunyuan-A13B-Instruct, card"),
    "LongCat-Flash": Published(LONGCAT_FLASH, 560, 31.3, (1, 0.1), "arXiv:2509.01322: 18.6 to 31.3", embedded=False),
    "Ling-lite": Published(LING_LITE, 16.8, 2.75, (0.1, 0.01), "inclusionAI/Ling-lite, card"),
    "Ling-1T": Published(LING_1T, 1000, 50, (100, 1), "inclusionAI/Ling-1T, card", embedded=False),
    "Step-3.5-Flash": Published(STEP_3_5_FLASH, 196, 11, (1, 1), "stepfun-ai/Step-3.5-Flash, card", embedded=False),
    "Hunyuan 3": Published(HY_V3, 295, 21, (1, 1), "tencent/Hy3-preview, card"),
    "Mistral Small 4": Published(MISTRAL_SMALL_4, 119, 6, (1, 1), "mistralai, card", embedded=False),
    "A.X-K1": Published(A_X_K1, 519, 33, (1, 1), "skt/A.X-K1, card"),
}
