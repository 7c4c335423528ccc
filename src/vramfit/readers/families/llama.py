"""Llama 1 to 3 and Mistral: grouped-query attention and a gated network.

Source: huggingface/transformers:src/transformers/models/llama/ and models/mistral/.
"""

from __future__ import annotations

from vramfit.readers.families.decoder import (
    Named,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
)
from vramfit.readers.fields import LARGEST_CONTEXT, Fields
from vramfit.spec import Dense, Layer, ModelSpec

MISTRAL_WINDOW_TOKENS = 4096
"""Class default of Mistral's ``sliding_window``; version 0.1 has it, later files say null."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Llama or Mistral configuration."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    facts = grouped_query(fields, hidden, window=_window(fields))
    bias, mlp_bias = fields.flag("attention_bias", default=False), fields.flag("mlp_bias", default=False)
    layer = Layer(
        attention=facts,
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *block_norms(hidden),
            *attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias),
            *gated_mlp(hidden, width, bias=mlp_bias),
        ),
    )
    tied = fields.flag("tie_word_embeddings", default=False)
    return causal_model(fields, named, (layer,) * fields.num_layers, hidden_size=hidden, tied=tied)


def _window(fields: Fields) -> int | None:
    if fields.text("model_type") != "mistral":
        return None
    if "sliding_window" not in fields.values:
        return fields.integer("sliding_window", MISTRAL_WINDOW_TOKENS, largest=LARGEST_CONTEXT)
    return fields.optional("sliding_window", largest=LARGEST_CONTEXT)
