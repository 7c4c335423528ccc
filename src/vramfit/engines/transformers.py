"""Hugging Face transformers, ``generate`` with its default cache, by version.

Read from the sources of 4.44.2, 4.46.0, 4.51.3, 4.55.4, 4.57.1, 5.0.0, 5.14.0, 5.18.0 and 5.23.0:

- before 4.45 the model computes logits for the whole prompt and copies them to fp32
  (models/llama/modeling_llama.py: ``logits = logits.float()``); later only for the last token;
- before 4.45 some families keep rotary tables in every layer (``rotary_tables``);
- from 4.50 prompts may be fed in pieces (generation/utils.py, ``_prefill_chunking``), by default they are not;
- 4.55.4 keeps every token in sliding-window layers, 4.57.1 the window only (cache_utils.py, DynamicSlidingWindowLayer);
- from 5.0 routed tokens pass all experts in one grouped matrix product (integrations/moe.py);
- 5.14.0 caches latent attention expanded per head, 5.18.0 compressed (models/deepseek_v3/modeling_deepseek_v3.py).

AWQ files without a version are taken to be run by AutoAWQ's own ``from_quantized`` (0.1.6), as most published runs
were: fused layers, a cache as long as the new tokens, eager attention over fp32 scores.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.engine import EngineProfile
from vramfit.engines.library import COMPONENTS, library
from vramfit.engines.transformers_items import ITEMS, cache
from vramfit.memory.kv_cache import kv_cache

AWQ_UNPACKED_FROM = 1024
"""Tokens from which AWQ's kernel unpacks a matrix instead of reading it packed.
Source: casper-hansen/AutoAWQ@v0.2.6:awq/modules/linear/gemm.py, FP16_MATMUL_HEURISTIC_CONDITION."""

_BEFORE_4_45 = EngineProfile(
    name="transformers",
    version="4.38",
    checked="4.44.2",
    attention="sdpa",
    prefill_chunk_tokens=None,
    prompt_logits=True,
    grown_cache=True,
    windowed_cache=False,
    latent_cache=False,
    experts_at_once=False,
    unpacked_for=(("nf4", 2), ("nf4-dq", 2), ("int4", 1), ("awq-int4", AWQ_UNPACKED_FROM), ("mxfp4", 1)),
    not_counted=(
        "padding masks of batches with unequal prompts: up to 2 B x sequences x prompt x context",
        "cached blocks that the allocator gives back when memory runs short: nvidia-smi may show more than is needed",
    ),
)
_FROM_4_45 = replace(_BEFORE_4_45, version="4.45", checked="4.46.0", prompt_logits=False)
_FROM_4_50 = replace(_FROM_4_45, version="4.50", checked="4.51.3 and 4.55.4", prompts_may_be_cut=True)
_FROM_4_57 = replace(_FROM_4_50, version="4.57", checked="4.57.1", windowed_cache=True)
_FROM_5_0 = replace(_FROM_4_57, version="5.0", checked="5.0.0 and 5.14.0", experts_at_once=True)
_FROM_5_18 = replace(_FROM_5_0, version="5.18", checked="5.18.0 and 5.23.0", latent_cache=True)
_AUTO_AWQ = replace(
    _BEFORE_4_45,
    version="4.34",
    checked="AutoAWQ 0.1.6",
    attention="eager",
    grown_cache=False,
    unpacked_for=(),
    score_bytes=2 + 4 + 4,
    weight_format="awq-int4",
)
"""10 B per score: in fp16, their fp32 copy and its softmax (awq/modules/fused/attn.py, QuantAttentionFused.forward)."""

PROFILES = (_AUTO_AWQ, _BEFORE_4_45, _FROM_4_45, _FROM_4_50, _FROM_4_57, _FROM_5_0, _FROM_5_18)

ENGINE = replace(library(PROFILES), components=(*(cache if c is kv_cache else c for c in COMPONENTS), *ITEMS))
