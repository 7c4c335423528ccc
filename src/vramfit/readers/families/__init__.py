"""One file per architecture; ``FAMILIES`` says which file reads a ``model_type``.

A file has a function ``read(fields, named) -> ModelSpec``. Where it reads more than a plain language model it says so:
``SECTIONS``: model_type -> nested sections it reads; ``CLASSES``: model_type -> names in ``architectures`` it reads.
"""

from __future__ import annotations

FAMILIES: dict[str, str] = {
    "apertus": "uniform",
    "arcee": "uniform",
    "bert": "bert",
    "cohere": "uniform",
    "cohere2": "uniform",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "ernie4_5": "uniform",
    "exaone4": "uniform",
    "gemma": "uniform",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "gemma3_text": "gemma",
    "glm": "uniform",
    "glm4": "uniform",
    "gpt2": "gpt2",
    "gpt_oss": "gpt_oss",
    "granite": "uniform",
    "jamba": "jamba",
    "kimi_k2": "deepseek",
    "llama": "llama",
    "ministral": "uniform",
    "ministral3": "uniform",
    "mistral": "llama",
    "mixtral": "mixtral",
    "nemotron": "uniform",
    "nemotron_h": "nemotron_h",
    "olmo": "uniform",
    "olmo2": "uniform",
    "olmo3": "uniform",
    "phi": "uniform",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3",
    "qwen3_next": "qwen3_next",
    "seed_oss": "uniform",
    "smollm3": "uniform",
    "stablelm": "uniform",
    "starcoder2": "uniform",
}
"""Hugging Face ``model_type`` -> module here with a function ``read``."""
