"""Decoders with names of their own."""

from __future__ import annotations

from typing import Any

from tiny.case import Tiny

WIDE = {"ffn_dim": 112}
NEO: dict[str, Any] = {
    "hidden_size": 64, "num_layers": 4, "num_heads": 4, "vocab_size": 101, "max_position_embeddings": 50,
    "attention_types": [[["global", "local"], 1], [["local"], 2]], "window_size": 16, "intermediate_size": 112,
}  # fmt: skip
MPT = {"d_model": 48, "n_heads": 4, "n_layers": 3, "vocab_size": 101, "max_seq_len": 40}

CASES = (
    *(Tiny(kind, {}) for kind in (
        "biogpt", "bloom", "codegen", "falcon", "gpt-sw3", "gpt_bigcode", "gpt_neox", "gptj", "openai-gpt", "persimmon",
    )),
    Tiny("biogpt", {"tie_word_embeddings": False}),
    Tiny("bloom", {"n_embed": 48, "tie_word_embeddings": False}),
    Tiny("codegen", {"n_inner": 72}),
    Tiny("ctrl", {"dff": 72}),
    Tiny("ctrl", {"dff": 72, "tie_word_embeddings": False}),
    Tiny("falcon", {"bias": True, "tie_word_embeddings": False}),
    Tiny("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    Tiny("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1, "bias": True}),
    Tiny("falcon", {"multi_query": False, "alibi": True, "parallel_attn": False, "bias": True}),
    Tiny("falcon", {"multi_query": False, "ffn_hidden_size": 96}),
    Tiny("falcon", {"parallel_attn": False}),
    Tiny("gpt_bigcode", {"multi_query": False, "n_inner": 72}),
    Tiny("gpt_neo", NEO, own=True),
    Tiny("gpt_neo", {**NEO, "intermediate_size": None, "tie_word_embeddings": False}, own=True),
    Tiny("gpt_neox", {"attention_bias": False, "tie_word_embeddings": True}),
    Tiny("gpt_neox_japanese", {"intermediate_multiple_size": 3}),
    Tiny("gptj", {"n_inner": 72, "tie_word_embeddings": True}),
    Tiny("mpt", MPT, own=True),
    Tiny("mpt", {**MPT, "tie_word_embeddings": False}, own=True),
    Tiny("openai-gpt", {"tie_word_embeddings": False}),
    Tiny("opt", WIDE),
    Tiny("opt", {**WIDE, "word_embed_proj_dim": 24, "do_layer_norm_before": False}),
    Tiny("opt", {**WIDE, "word_embed_proj_dim": 24, "tie_word_embeddings": False}),
    Tiny("persimmon", {"qk_layernorm": False, "tie_word_embeddings": True}),
    Tiny("xglm", WIDE),
    Tiny("xglm", {**WIDE, "tie_word_embeddings": False}),
)  # fmt: skip
