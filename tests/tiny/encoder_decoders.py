"""Models that read with one stack and write with another."""

from __future__ import annotations

from tiny.case import Tiny
from vramfit.readers.families import bart, t5

SIDES = {
    "vocab_size": 101, "d_model": 48, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 6, "encoder_ffn_dim": 72, "decoder_ffn_dim": 80, "max_position_embeddings": 50,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    "num_experts": 4, "encoder_sparse_step": 2, "decoder_sparse_step": 2,
}  # fmt: skip
STACKS = {
    "vocab_size": 101, "d_model": 48, "d_kv": 10, "d_ff": 72, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 20, "num_experts": 4, "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
}  # fmt: skip


def stacked(kind: str, cls: str, **more: object) -> Tiny:
    """Return a case of T5's kin."""
    return Tiny(kind, {**STACKS, **more}, cls=cls, own=True)


GEMMA = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
    "intermediate_size": 72, "vocab_size": 101, "max_position_embeddings": 50, "sliding_window": 8,
}  # fmt: skip
SMALLER = {**GEMMA, "hidden_size": 36, "num_hidden_layers": 2, "head_dim": 10, "intermediate_size": 40}


def two_gemmas(**more: object) -> Tiny:
    """Return a case of T5Gemma with a smaller stack that writes."""
    values = {"encoder": GEMMA, "decoder": SMALLER, "vocab_size": 101, **more}
    return Tiny("t5gemma", values, cls="T5GemmaForConditionalGeneration", own=True)


CASES = (
    two_gemmas(),
    two_gemmas(tie_word_embeddings=False, encoder={**GEMMA, "attention_bias": True}),
    *(stacked(kind, cls) for kind, classes in t5.CLASSES.items() for cls in classes),
    *(Tiny(kind, SIDES, cls=cls, own=True) for kind, classes in bart.CLASSES.items() for cls in classes),
    Tiny("marian", {**SIDES, "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 90}, cls="MarianMTModel",
         own=True),
    stacked("t5", "T5ForConditionalGeneration", feed_forward_proj="gated-gelu"),
    stacked("longt5", "LongT5ForConditionalGeneration", encoder_attention_type="transient-global"),
    stacked("switch_transformers", "SwitchTransformersForConditionalGeneration", num_layers=6,
            num_sparse_encoder_layers=3, num_sparse_decoder_layers=2),
)  # fmt: skip
