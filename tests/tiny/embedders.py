"""Decoders that embed, score or label instead of writing."""

from __future__ import annotations

from tiny.case import Tiny

THREE = {"id2label": {"0": "no", "1": "perhaps", "2": "yes"}}
CASES = (
    Tiny("qwen3", {}, cls="Qwen3Model"),
    Tiny("qwen3", {"num_labels": 1}, cls="Qwen3ForSequenceClassification"),
    Tiny("qwen2", THREE, cls="Qwen2ForTokenClassification"),
    Tiny("llama", {"tie_word_embeddings": True}, cls="LlamaModel"),
    Tiny("llama", {"tie_word_embeddings": True, **THREE}, cls="LlamaForSequenceClassification"),
    Tiny("mistral", {"sliding_window": 8}, cls="MistralModel"),
    Tiny("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, cls="MixtralForSequenceClassification"),
    Tiny("gemma2", {"head_dim": 8}, cls="Gemma2Model"),
    Tiny("gemma3_text", {"head_dim": 8, "use_bidirectional_attention": True, "sliding_window": 8},
         cls="Gemma3TextModel"),
    Tiny("phi", {}, cls="PhiForSequenceClassification"),
    Tiny("gpt2", {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": 101, "n_positions": 30},
         cls="GPT2ForSequenceClassification", own=True),
    Tiny("gpt2", {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": 101, "n_positions": 30}, cls="GPT2Model",
         own=True),
)  # fmt: skip
