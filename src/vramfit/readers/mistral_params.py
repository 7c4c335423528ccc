"""Reads repositories in Mistral's own layout: ``params.json`` beside ``consolidated.safetensors``, and no config.json.

Source: mistralai/mistral-inference:src/mistral_inference/args.py (TransformerArgs), transformer_layers.py; names as
huggingface/transformers:src/transformers/models/mistral/convert_mistral_weights_to_hf.py translates them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from vramfit.errors import UnsupportedModelError
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.readers.safetensors import Checkpoint

KNOWN = frozenset(
    {"dim", "n_layers", "head_dim", "hidden_dim", "n_heads", "n_kv_heads", "vocab_size", "norm_eps", "rope_theta",
     "moe", "sliding_window", "max_seq_len", "max_position_embeddings", "tied_embeddings", "model_parallel", "causal",
     "use_biases", "model_type"}
)  # fmt: skip
NAMES = (
    (re.compile(r"^tok_embeddings\."), "model.embed_tokens."),
    (re.compile(r"^norm\."), "model.norm."),
    (re.compile(r"^output\."), "lm_head."),
    (re.compile(r"^layers\."), "model.layers."),
    (re.compile(r"\.attention\.w([qkvo])\."), r".self_attn.\1_proj."),
    (re.compile(r"\.attention_norm\."), ".input_layernorm."),
    (re.compile(r"\.ffn_norm\."), ".post_attention_layernorm."),
    (re.compile(r"\.feed_forward\.w1\."), ".mlp.gate_proj."),
    (re.compile(r"\.feed_forward\.w2\."), ".mlp.down_proj."),
    (re.compile(r"\.feed_forward\.w3\."), ".mlp.up_proj."),
    (re.compile(r"\.(?:feed_forward|block_sparse_moe)\.(gate|experts)\."), r".block_sparse_moe.\1."),
)
"""Mistral's names -> transformers' names of the same tensors."""


def config_of(params: Mapping[str, object], name: str) -> dict[str, object]:
    """Return the ``config.json`` that a ``params.json`` stands for: Mistral, or Mixtral with experts.

    Raises:
        UnsupportedModelError: a field that says more than that, such as a vision encoder.
        InvalidValueError: a size that cannot be.
    """
    unknown = sorted(str(key) for key, value in params.items() if key not in KNOWN and value is not None)
    if unknown:
        raise UnsupportedModelError(
            f"{name}: params.json: {', '.join(unknown)[:200]}: expected a plain Mistral or Mixtral; "
            "name the repository of the same model in transformers' format, with a config.json"
        )
    fields = Fields(params, "params")
    config: dict[str, object] = {
        "model_type": "mistral",
        "hidden_size": fields.integer("dim"),
        "num_hidden_layers": fields.integer("n_layers", largest=LARGEST_LAYERS),
        "num_attention_heads": fields.integer("n_heads"),
        "num_key_value_heads": fields.optional("n_kv_heads") or fields.integer("n_heads"),
        "head_dim": fields.integer("head_dim"),
        "intermediate_size": fields.integer("hidden_dim"),
        "vocab_size": fields.integer("vocab_size", largest=LARGEST_VOCABULARY),
        "tie_word_embeddings": fields.flag("tied_embeddings", default=False),
        "sliding_window": fields.optional("sliding_window", largest=LARGEST_CONTEXT),
        "torch_dtype": "bfloat16",
    }
    longest = fields.optional("max_seq_len", largest=LARGEST_CONTEXT)
    longest = longest or fields.optional("max_position_embeddings", largest=LARGEST_CONTEXT)
    if longest is not None:
        config["max_position_embeddings"] = longest
    if fields.has("moe"):
        experts = fields.section("moe")
        config |= {
            "model_type": "mixtral",
            "num_local_experts": experts.integer("num_experts", largest=LARGEST_EXPERTS),
            "num_experts_per_tok": experts.integer("num_experts_per_tok", largest=LARGEST_EXPERTS),
        }
    return config


def renamed(checkpoint: Checkpoint) -> Checkpoint:
    """Return the headers with the names that transformers gives the tensors."""
    tensors = tuple(replace(tensor, name=_name(tensor.name)) for tensor in checkpoint.tensors)
    return replace(checkpoint, tensors=tensors)


def _name(name: str) -> str:
    for pattern, theirs in NAMES:
        name = pattern.sub(theirs, name)
    return name
