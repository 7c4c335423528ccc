"""Dense decoders."""

from __future__ import annotations

from tiny.case import BIASED, Tiny

LATENT = {"kv_lora_rank": 20, "q_lora_rank": 28, "qk_rope_head_dim": 6, "qk_nope_head_dim": 10}

CASES = (
    *(Tiny(kind, {}) for kind in (
        "apertus", "arcee", "bitnet", "cohere", "cohere2", "diffllama", "ernie4_5", "exaone4", "gemma", "glm", "glm4",
        "granite", "hyperclovax", "internlm3", "iquestcoder", "jais2", "ministral3", "nanochat", "nemotron", "olmo",
        "olmo2", "olmo3", "phi", "seed_oss", "smollm3", "stablelm", "starcoder2",
    )),
    *(Tiny(kind, BIASED) for kind in (
        "arcee", "granite", "granite_swa", "hyperclovax", "internlm3", "iquestcoder", "smollm3", "nemotron", "seed_oss",
        "vaultgemma",
    )),
    Tiny("bitnet", {"attention_bias": True, "tie_word_embeddings": True}),
    Tiny("cwm", {"num_hidden_layers": 6, "sliding_window": 16, "mlp_bias": True}),
    Tiny("diffllama", {"attention_bias": True}),
    Tiny("granite_swa", {"num_hidden_layers": 6, "sliding_window": 16}),
    Tiny("helium", {"head_dim": 8, "attention_bias": True, "mlp_bias": True}),
    Tiny("hyperclovax", {"use_post_norm": False}),
    Tiny("jais2", {"attention_bias": False, "mlp_bias": False, "head_dim": 24}),
    Tiny("modernbert-decoder", {"num_hidden_layers": 5, "local_attention": 16}),
    Tiny("modernbert-decoder", {
        "norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True, "decoder_bias": False,
        "tie_word_embeddings": False, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }),
    Tiny("nanochat", {"attention_bias": True, "tie_word_embeddings": True}),
    Tiny("phi", {"qk_layernorm": True}),
    Tiny("stablelm", {"use_parallel_residual": True}),
    Tiny("stablelm", {"qk_layernorm": True}),
    Tiny("vaultgemma", {"num_hidden_layers": 5, "sliding_window": 16, "head_dim": 24}),
    Tiny("minicpm3", LATENT),
    Tiny("minicpm3", {**LATENT, "v_head_dim": 12, "q_lora_rank": None, "attention_bias": True,
                      "tie_word_embeddings": False}),
    Tiny("youtu", {**LATENT, "v_head_dim": 12}),
    Tiny("ministral", {"head_dim": 16}),
    Tiny("cohere", {"use_qk_norm": True}),
    Tiny("ernie4_5", {"use_bias": True}),
    Tiny("stablelm", {"use_qkv_bias": True}),
    Tiny("starcoder2", {"use_bias": False, "tie_word_embeddings": False, "sliding_window": 16}),
    Tiny("phi", {"tie_word_embeddings": True}),
    Tiny("gemma", {"tie_word_embeddings": False, "attention_bias": True}),
    Tiny("glm", {"attention_bias": False, "head_dim": 12}),
    Tiny("seed_oss", {"attention_out_bias": True}),
    Tiny("cohere2", {"num_hidden_layers": 6, "sliding_window": 16}),
    Tiny("olmo3", {"num_hidden_layers": 5, "layer_types": ["full_attention", *["sliding_attention"] * 4]}),
    Tiny("exaone4", {"num_hidden_layers": 5, "sliding_window": 16, "sliding_window_pattern": 2}),
    Tiny("ministral", {"sliding_window": 8, "head_dim": 16}),
)  # fmt: skip
