"""Dense decoders."""

from __future__ import annotations

from tiny.case import BIASED, Tiny

CASES = (
    *(Tiny(kind, {}) for kind in (
        "apertus", "arcee", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "glm", "glm4", "granite", "ministral3",
        "nemotron", "olmo", "olmo2", "olmo3", "phi", "seed_oss", "smollm3", "stablelm", "starcoder2",
    )),
    *(Tiny(kind, BIASED) for kind in ("arcee", "granite", "smollm3", "nemotron", "seed_oss")),
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
