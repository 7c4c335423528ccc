"""The model that Megatron-LM's own flags describe, as the ``config.json`` of a model of the same shape.

Source of defaults: NVIDIA/Megatron-LM:megatron/training/arguments.py, validate_args.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vramfit.training_files.key import count
from vramfit.units import ceil_div

MODEL_FLAGS = frozenset(
    {
        "num-layers", "hidden-size", "ffn-hidden-size", "num-attention-heads", "group-query-attention",
        "num-query-groups", "kv-channels", "max-position-embeddings", "position-embedding-type", "swiglu",
        "normalization", "vocab-size", "padded-vocab-size", "make-vocab-size-divisible-by", "num-experts",
        "moe-router-topk", "moe-ffn-hidden-size", "untie-embeddings-and-output-weights", "disable-bias-linear",
        "add-qkv-bias", "squared-relu", "multi-latent-attention", "moe-shared-expert-intermediate-size",
        "tokenizer-type", "rotary-base", "rotary-percent", "use-rotary-position-embeddings", "qk-layernorm",
    }
)  # fmt: skip
REFUSED = ("multi-latent-attention", "moe-shared-expert-intermediate-size", "heterogeneous-layers-config-path",
           "hybrid-layer-pattern", "hybrid-override-pattern", "moe-layer-freq", "squared-relu")  # fmt: skip
"""What makes another kind of model than those below; such a model has to be named."""
GPT2_VOCABULARY = 50_257
"""Of ``GPT2BPETokenizer``."""
ROUNDING = 128
"""``make-vocab-size-divisible-by`` when it is not given."""


def config_of(flags: Mapping[str, Any], where: str) -> Mapping[str, object] | None:
    """Return the configuration; None = the flags describe no model, or one that has to be named.

    >>> found = config_of({"num-layers": "2", "hidden-size": "96", "num-attention-heads": "4", "swiglu": True,
    ...                    "normalization": "RMSNorm", "vocab-size": "1000"}, "x.sh")
    >>> found["model_type"], found["intermediate_size"], found["vocab_size"]
    ('llama', 256, 1024)
    """
    sizes = {name: count(f"{where}: {name}", flags.get(name)) for name in _SIZES}
    layers, hidden, heads = sizes["num-layers"], sizes["hidden-size"], sizes["num-attention-heads"]
    vocabulary = _vocabulary(flags, sizes)
    if layers is None or hidden is None or heads is None or vocabulary is None or any(f in flags for f in REFUSED):
        return None
    gated = "swiglu" in flags
    inner = sizes["ffn-hidden-size"] or (int(4 * hidden * 2 / 3 / 64) * 64 if gated else 4 * hidden)
    config: dict[str, object] = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": sizes["num-query-groups"] or heads if "group-query-attention" in flags else heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": sizes["max-position-embeddings"] or sizes["seq-length"] or 1,
        "tie_word_embeddings": "untie-embeddings-and-output-weights" not in flags,
    }
    if sizes["kv-channels"] is not None:
        config["head_dim"] = sizes["kv-channels"]
    return _kind(flags, sizes, config)


_SIZES = (
    "num-layers", "hidden-size", "ffn-hidden-size", "num-attention-heads", "num-query-groups", "kv-channels",
    "vocab-size", "padded-vocab-size", "make-vocab-size-divisible-by", "max-position-embeddings", "seq-length",
    "num-experts", "moe-router-topk", "moe-ffn-hidden-size", "tensor-model-parallel-size",
)  # fmt: skip


def _kind(
    flags: Mapping[str, Any], sizes: Mapping[str, int | None], config: dict[str, object]
) -> Mapping[str, object] | None:
    """Add what makes it a model of one family: gated with RMSNorm, mixtures of those, plain with LayerNorm."""
    norm = str(flags.get("normalization", "LayerNorm"))
    if "swiglu" in flags and norm == "RMSNorm":
        if sizes["num-experts"] is not None:
            inner = sizes["moe-ffn-hidden-size"] or config["intermediate_size"]
            return {
                **config, "model_type": "mixtral", "num_local_experts": sizes["num-experts"],
                "num_experts_per_tok": sizes["moe-router-topk"] or 2, "intermediate_size": inner,
            }  # fmt: skip
        return {**config, "model_type": "llama", "attention_bias": "add-qkv-bias" in flags}
    if "swiglu" in flags or norm != "LayerNorm" or sizes["num-experts"] is not None:
        return None
    learned = str(flags.get("position-embedding-type", "learned_absolute")) == "learned_absolute"
    if (
        learned
        and "use-rotary-position-embeddings" not in flags
        and config["num_key_value_heads"] == config["num_attention_heads"]
    ):
        return {
            "model_type": "gpt2", "n_embd": config["hidden_size"], "n_layer": config["num_hidden_layers"],
            "n_head": config["num_attention_heads"], "n_inner": config["intermediate_size"],
            "n_positions": config["max_position_embeddings"], "vocab_size": config["vocab_size"],
            "tie_word_embeddings": config["tie_word_embeddings"],
        }  # fmt: skip
    return {**config, "model_type": "starcoder2", "use_bias": "disable-bias-linear" not in flags}


def _vocabulary(flags: Mapping[str, Any], sizes: Mapping[str, int | None]) -> int | None:
    """Return the vocabulary as it is stored, rounded up; None = it stands in a tokenizer's file."""
    if sizes["padded-vocab-size"] is not None:
        return sizes["padded-vocab-size"]
    found = sizes["vocab-size"]
    if found is None:
        if flags.get("tokenizer-type") != "GPT2BPETokenizer":
            return None
        found = GPT2_VOCABULARY
    step = (sizes["make-vocab-size-divisible-by"] or ROUNDING) * (sizes["tensor-model-parallel-size"] or 1)
    return int(ceil_div(found, step)) * step
