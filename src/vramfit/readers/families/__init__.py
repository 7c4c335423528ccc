"""One file per architecture; ``FAMILIES`` says which file reads a ``model_type``.

A file has a function ``read(fields, named) -> ModelSpec``. Where it reads more than a plain language model it says so:
``SECTIONS``: model_type -> nested sections it reads; ``CLASSES``: model_type -> names in ``architectures`` it reads.
"""

from __future__ import annotations

FAMILIES: dict[str, str] = {
    "bert": "bert",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "gemma3_text": "gemma",
    "gpt2": "gpt2",
    "gpt_oss": "gpt_oss",
    "jamba": "jamba",
    "kimi_k2": "deepseek",
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "mixtral",
    "nemotron_h": "nemotron_h",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3",
    "qwen3_next": "qwen3_next",
}
"""Hugging Face ``model_type`` -> module here with a function ``read``."""
