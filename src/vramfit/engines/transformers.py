"""Hugging Face transformers, ``generate`` with its default cache, by version.

Read from the sources of 4.44.2, 4.55.4, 4.57.1, 5.0.0, 5.14.0, 5.18.0 and 5.23.0:

- before 4.45 the model computes logits for the whole prompt and copies them to fp32
  (models/llama/modeling_llama.py: ``logits = logits.float()``); later only for the last token;
- 4.55.4 keeps every token in sliding-window layers, 4.57.1 the window only (cache_utils.py, DynamicSlidingWindowLayer);
- from 5.0 routed tokens pass all experts in one grouped matrix product (integrations/moe.py);
- 5.14.0 caches latent attention expanded per head, 5.18.0 compressed (models/deepseek_v3/modeling_deepseek_v3.py).
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.engine import EngineProfile
from vramfit.engines.library import library

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
    not_counted=(
        "padding masks of batches with unequal prompts: up to 2 B x sequences x prompt x context",
        "cached blocks that the allocator gives back when memory runs short: nvidia-smi may show more than is needed",
    ),
)
_FROM_4_45 = replace(_BEFORE_4_45, version="4.45", checked="4.55.4", prompt_logits=False)
_FROM_4_57 = replace(_FROM_4_45, version="4.57", checked="4.57.1", windowed_cache=True)
_FROM_5_0 = replace(_FROM_4_57, version="5.0", checked="5.0.0 and 5.14.0", experts_at_once=True)
_FROM_5_18 = replace(_FROM_5_0, version="5.18", checked="5.18.0 and 5.23.0", latent_cache=True)

PROFILES = (_BEFORE_4_45, _FROM_4_45, _FROM_4_57, _FROM_5_0, _FROM_5_18)

ENGINE = library(PROFILES)
