"""An idealised runtime: what any well-made server needs, and nothing that only one of them adds.

Flash attention, a cache allocated once, latent attention cached compressed, sliding windows
honoured, logits for the last token of each sequence, prompts processed in passes of 8192 tokens.
"""

from __future__ import annotations

from vramfit.engine import EngineProfile
from vramfit.engines.library import library

PREFILL_CHUNK_TOKENS = 8192
"""Tokens of one prefill pass. Source: default of ``max_num_batched_tokens`` in vLLM on large cards
(vllm-project/vllm:vllm/engine/arg_utils.py, 0.19) and of ``chunked_prefill_size`` in SGLang 0.5."""

PROFILES = (
    EngineProfile(
        name="generic",
        version="1",
        checked="a definition, not a program: vLLM's and SGLang's common behaviour",
        attention="flash",
        prefill_chunk_tokens=PREFILL_CHUNK_TOKENS,
        not_counted=(
            "CUDA graphs, block rounding and prefix-cache bookkeeping: each engine has its own, generic has none",
        ),
    ),
)

ENGINE = library(PROFILES)
