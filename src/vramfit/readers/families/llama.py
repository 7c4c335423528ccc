"""Llama 1 to 3 and Mistral: grouped-query attention and a gated network.

Source: huggingface/transformers:src/transformers/models/llama/ and models/mistral/.
"""

from __future__ import annotations

from vramfit.layer_kind import Dense
from vramfit.readers.families.decoder import (
    Named,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    is_tied,
    window_tokens,
)
from vramfit.readers.fields import Fields
from vramfit.spec import Layer, ModelSpec

MISTRAL_WINDOW_TOKENS = 4096
"""Class default of Mistral's ``sliding_window``; version 0.1 has it, later files say null."""
MISTRAL_KV_HEADS = 8
"""Class default of Mistral's ``num_key_value_heads``; Llama has as many as heads."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Llama or Mistral configuration."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    mistral = fields.text("model_type") == "mistral"
    window = window_tokens(fields, MISTRAL_WINDOW_TOKENS) if mistral else None
    facts = grouped_query(fields, hidden, window=window, default_kv=MISTRAL_KV_HEADS if mistral else None)
    bias = not mistral and fields.flag("attention_bias", default=False)
    mlp_bias = not mistral and fields.flag("mlp_bias", default=False)
    layer = Layer(
        attention=facts,
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *block_norms(hidden),
            *attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias),
            *gated_mlp(hidden, width, bias=mlp_bias),
        ),
    )
    return causal_model(fields, named, (layer,) * fields.num_layers, hidden_size=hidden, tied=is_tied(fields))
