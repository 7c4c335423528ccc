"""What llama.cpp has in its code, not in a file's metadata: which architectures there are and how each attends.

Source: ggml-org/llama.cpp:gguf-py/gguf/constants.py (MODEL_ARCH_NAMES of gguf 0.19.0), src/models/*.cpp
(load_arch_hparams: set_swa_pattern, n_swa), src/llama-model.cpp (create_memory), src/llama-hparams.cpp.
"""

from __future__ import annotations

ENCODERS = frozenset(
    [
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    ]
)
"""Architectures that choose no tokens."""

CACHELESS = frozenset({"dream", "llada", "llada-moe", "rnd1"})
"""Diffusion language models: every token attends to every other at each step, so nothing is kept."""

DELTA = frozenset({"qwen3next", "qwen35", "qwen35moe"})
"""Architectures whose ``ssm`` keys describe gated delta networks."""

WKV = frozenset({"rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
"""RWKV: a matrix of ``wkv.head_size`` squared per head, and ``token_shift_count`` earlier inputs."""
TOKEN_SHIFTS = 2
"""``token_shift_count`` where the metadata has none (src/llama-hparams.h)."""

STATES = frozenset(
    [
        "falcon-h1",
        "granitehybrid",
        "jamba",
        "kimi-linear",
        "lfm2",
        "lfm2moe",
        "mamba",
        "mamba2",
        "nemotron_h",
        "nemotron_h_moe",
        "plamo2",
    ]
)
"""The other architectures with recurrent layers, which their tensors show."""

UNREAD = {
    "clip": "a projector for images or sound, which goes beside a language model: give the model's own file",
    "wavtokenizer-dec": "a decoder of sound without blocks of a language model",
}
"""Architectures that are named by llama.cpp and refused here, and why."""

_DECODERS = frozenset(
    [
        "afmoe",
        "apertus",
        "arcee",
        "arctic",
        "baichuan",
        "bailingmoe",
        "bailingmoe2",
        "bitnet",
        "bloom",
        "chameleon",
        "chatglm",
        "codeshell",
        "cogvlm",
        "cohere2",
        "command-r",
        "dbrx",
        "deci",
        "deepseek",
        "deepseek2",
        "deepseek2-ocr",
        "dots1",
        "ernie4_5",
        "ernie4_5-moe",
        "exaone",
        "exaone-moe",
        "exaone4",
        "falcon",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3n",
        "gemma4",
        "glm-dsa",
        "glm4",
        "glm4moe",
        "gpt-oss",
        "gpt2",
        "gptj",
        "gptneox",
        "granite",
        "granitemoe",
        "grok",
        "grovemoe",
        "hunyuan-dense",
        "hunyuan-moe",
        "hunyuan_vl",
        "internlm2",
        "jais",
        "jais2",
        "llama",
        "llama4",
        "maincoder",
        "mimo2",
        "minicpm",
        "minicpm3",
        "minimax-m2",
        "mistral3",
        "mistral4",
        "mpt",
        "nemotron",
        "olmo",
        "olmo2",
        "olmoe",
        "openelm",
        "orion",
        "paddleocr",
        "pangu-embedded",
        "phi2",
        "phi3",
        "phimoe",
        "plamo",
        "plamo3",
        "plm",
        "qwen",
        "qwen2",
        "qwen2moe",
        "qwen2vl",
        "qwen3",
        "qwen3moe",
        "qwen3vl",
        "qwen3vlmoe",
        "refact",
        "seed_oss",
        "smallthinker",
        "smollm3",
        "stablelm",
        "starcoder",
        "starcoder2",
        "step35",
        "t5",
        "xverse",
    ]
)
READ = frozenset().union(_DECODERS, ENCODERS, CACHELESS, DELTA, WKV, STATES)
"""Every architecture that is read."""

WINDOWS = {
    "gemma2": (2, False), "gemma3": (6, False), "gemma-embedding": (6, False), "gemma3n": (5, False),
    "gpt-oss": (2, False), "cohere2": (4, False), "olmo2": (4, False), "exaone4": (4, False), "exaone-moe": (4, False),
    "llama4": (4, False), "afmoe": (4, False), "plamo3": (8, False),
    "smallthinker": (4, True), "modern-bert": (3, True),
}  # fmt: skip
"""Architecture -> (period, whether the full layer is the first of each period); ``set_swa_pattern`` of each.
An architecture that is not here and has no pattern in its metadata attends to everything, as in llama.cpp."""

WINDOW_TOKENS = {"gemma2": 4096, "llama4": 8192, "exaone-moe": 128}
"""``n_swa`` where the metadata has none."""
FIXED_WINDOW_TOKENS = {"smallthinker": 4096}
"""``n_swa`` whatever the metadata says, as long as it names a window."""

SHARES_FROM = {"gemma3n": 20}
"""First layer that reads earlier layers' caches (``n_layer_kv_from_start``), where the metadata does not say."""
