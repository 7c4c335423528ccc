"""What batches of different lengths cost: a step of Llama-3.2-3B traced at one length, and at lengths that vary.

Run: python examples/lengths_that_differ.py   (needs torch and transformers, no GPU; about a minute)

Sequences have at most 768 tokens, four to a batch, sorted within buckets of twenty batches and padded to the longest of
their batch; the cache is emptied every ten steps. So does huggingface/peft:method_comparison/MetaMathQA/run.py, whose
full fine-tuning of this model reserved at most 38,868,615,168 B. The lengths themselves are drawn here, not read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from vramfit.trace import VirtualGPU

LONGEST, BATCH, BATCHES, EMPTIED_EVERY = 768, 4, 20, 10
MODEL = LlamaConfig(
    hidden_size=3072,
    intermediate_size=8192,
    num_hidden_layers=28,
    num_attention_heads=24,
    num_key_value_heads=8,
    head_dim=128,
    vocab_size=128256,
    tie_word_embeddings=True,
)


def padded_lengths(buckets: int) -> Iterator[int]:
    """Yield the length of every batch: log-normal lengths, median 221 tokens, sorted within each bucket."""
    draw = random.Random(1)  # noqa: S311 - lengths, no secrets
    for _ in range(buckets):
        lengths = sorted(min(LONGEST, int(draw.lognormvariate(5.4, 0.45))) for _ in range(BATCH * BATCHES))
        batches = lengths[BATCH - 1 :: BATCH]
        draw.shuffle(batches)
        yield from batches


def reserved_bytes(lengths: list[int]) -> int:
    """Return what torch reserves at most over steps of such lengths."""
    with VirtualGPU("h100-sxm-80gb") as gpu:
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cuda"):
            model = LlamaForCausalLM(MODEL)
        torch.set_default_dtype(torch.float32)
        optimizer = torch.optim.AdamW(model.parameters())
        for step, length in enumerate(lengths, 1):
            tokens = torch.ones(BATCH, length, dtype=torch.long, device="cuda")
            model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % EMPTIED_EVERY == 0:
                torch.cuda.empty_cache()
    return gpu.report().reserved_peak_bytes


if __name__ == "__main__":
    print(f"every batch {LONGEST} tokens long  {reserved_bytes([LONGEST] * 3):>14,} B reserved")
    print(f"lengths that differ           {reserved_bytes(list(padded_lengths(2))):>14,} B reserved")
