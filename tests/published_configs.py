"""Published configurations, cut down to the fields that decide memory, and the published count of each.

Counts: the parameter count of the Hub's safetensors metadata unless a comment says otherwise.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def llama(hidden: int, layers: int, heads: int, kv: int, width: int, vocab: int, **more: object) -> Config:
    """Return a Llama-like configuration; ``more`` adds or replaces fields."""
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": width,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **more,
    }


SIGLIP: Config = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}

LLAMA_1_7B = llama(4096, 32, 32, 32, 11008, 32000)
LLAMA_3_1_8B = llama(4096, 32, 32, 8, 14336, 128256)
LLAMA_3_1_70B = llama(8192, 80, 64, 8, 28672, 128256)
LLAMA_3_1_405B = llama(16384, 126, 128, 8, 53248, 128256)
LLAMA_3_2_1B = llama(2048, 16, 32, 8, 8192, 128256, head_dim=64, tie_word_embeddings=True)
MISTRAL_7B_V0_1 = llama(4096, 32, 32, 8, 14336, 32000, model_type="mistral", sliding_window=4096)
MISTRAL_NEMO = llama(5120, 40, 32, 8, 14336, 131072, model_type="mistral", head_dim=128, sliding_window=None)
MIXTRAL_8X7B = llama(
    4096, 32, 32, 8, 14336, 32000, model_type="mixtral", num_local_experts=8, num_experts_per_tok=2, sliding_window=None
)
QWEN2_5_0_5B = llama(
    896, 24, 14, 2, 4864, 151936, model_type="qwen2", tie_word_embeddings=True, use_sliding_window=False,
    sliding_window=32768, max_window_layers=21,
)  # fmt: skip
QWEN2_5_7B = llama(3584, 28, 28, 4, 18944, 152064, model_type="qwen2", use_sliding_window=False)
QWEN3_0_6B = llama(1024, 28, 16, 8, 3072, 151936, model_type="qwen3", head_dim=128, tie_word_embeddings=True)
QWEN3_32B = llama(5120, 64, 64, 8, 25600, 151936, model_type="qwen3", head_dim=128)
QWEN3_235B_A22B = llama(
    4096, 94, 64, 4, 12288, 151936, model_type="qwen3_moe", head_dim=128, num_experts=128, num_experts_per_tok=8,
    moe_intermediate_size=1536, decoder_sparse_step=1, mlp_only_layers=[],
)  # fmt: skip
QWEN3_30B_A3B = llama(
    2048, 48, 32, 4, 6144, 151936, model_type="qwen3_moe", head_dim=128, num_experts=128, num_experts_per_tok=8,
    moe_intermediate_size=768, decoder_sparse_step=1, mlp_only_layers=[],
)  # fmt: skip
GEMMA_2_27B = llama(
    4608, 46, 32, 16, 36864, 256000, model_type="gemma2", head_dim=128, sliding_window=4096, tie_word_embeddings=True
)
GEMMA_3_1B = llama(
    1152, 26, 4, 1, 6912, 262144, model_type="gemma3_text", head_dim=256, sliding_window=512, tie_word_embeddings=True
)
GEMMA_3_4B: Config = {
    # As published, and that is little: heads, vocabulary and head_dim are class defaults.
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
    "vision_config": SIGLIP,
}
GEMMA_3_27B: Config = {
    **GEMMA_3_4B,
    "text_config": {
        "model_type": "gemma3_text",
        "head_dim": 128,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "sliding_window": 1024,
    },
}
PHI_3_MINI_4K = llama(3072, 32, 32, 32, 8192, 32064, model_type="phi3", sliding_window=2047)
PHI_4_MINI = llama(
    3072, 32, 24, 8, 8192, 200064, model_type="phi3", sliding_window=262144, tie_word_embeddings=True,
    partial_rotary_factor=0.75,
)  # fmt: skip
GPT2: Config = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}
GPT2_XL: Config = {**GPT2, "n_embd": 1600, "n_head": 25, "n_layer": 48}
BERT_BASE: Config = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}

PUBLISHED: dict[str, tuple[Config, int]] = {
    "Llama 1 7B": (LLAMA_1_7B, 6_738_415_616),
    "Llama 3.1 8B": (LLAMA_3_1_8B, 8_030_261_248),
    "Llama 3.1 70B": (LLAMA_3_1_70B, 70_553_706_496),
    "Llama 3.1 405B": (LLAMA_3_1_405B, 405_853_388_800),
    "Llama 3.2 1B": (LLAMA_3_2_1B, 1_235_814_400),
    "Mistral 7B v0.1": (MISTRAL_7B_V0_1, 7_241_732_096),
    "Mistral Nemo": (MISTRAL_NEMO, 12_247_782_400),
    "Mixtral 8x7B": (MIXTRAL_8X7B, 46_702_792_704),
    "Qwen2.5 0.5B": (QWEN2_5_0_5B, 494_032_768),
    "Qwen2.5 7B": (QWEN2_5_7B, 7_615_616_512),
    "Qwen3 0.6B": (QWEN3_0_6B, 596_049_920),
    "Qwen3 32B": (QWEN3_32B, 32_762_123_264),
    "Qwen3 30B A3B": (QWEN3_30B_A3B, 30_532_122_624),
    "Qwen3 235B A22B": (QWEN3_235B_A22B, 235_093_634_560),
    "Gemma 2 27B": (GEMMA_2_27B, 27_227_128_320),
    "Gemma 3 1B": (GEMMA_3_1B, 999_885_952),
    "Gemma 3 4B": (GEMMA_3_4B, 4_300_079_472),
    "Gemma 3 27B": (GEMMA_3_27B, 27_432_406_640),
    "Phi-3 mini 4k": (PHI_3_MINI_4K, 3_821_079_552),
    "Phi-4 mini": (PHI_4_MINI, 3_836_021_760),
    "GPT-2": (GPT2, 124_439_808),
    "GPT-2 XL": (GPT2_XL, 1_557_611_200),
    "BERT base, masked language model": (BERT_BASE, 109_514_298),
    "BERT base, bare": ({**BERT_BASE, "architectures": ["BertModel"]}, 109_482_240),
    # Bare plus a classifier of 2 x 768 and its 2 biases:
    "BERT base, classifier": ({**BERT_BASE, "architectures": ["BertForSequenceClassification"]}, 109_483_778),
}
