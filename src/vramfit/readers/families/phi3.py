"""Phi-3, Phi-3.5 and Phi-4: query, key and value in one matrix, gate and up in another.

Source: huggingface/transformers:src/transformers/models/phi3/.
"""

from __future__ import annotations

from vramfit.layer_kind import Dense
from vramfit.readers.families.decoder import (
    Named,
    block_norms,
    causal_model,
    grouped_query,
    is_tied,
    linear,
    window_tokens,
)
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, Layer, ModelSpec


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Phi-3 configuration."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    fields.refuse("attention_bias", "Phi-3's attention has no bias in transformers")
    facts = grouped_query(fields, hidden, window=window_tokens(fields))
    query = facts.num_attention_heads * facts.head_dim
    fused = query + 2 * facts.num_key_value_heads * facts.head_dim
    layer = Layer(
        attention=facts,
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *block_norms(hidden),
            *linear("self_attn.qkv_proj", fused, hidden, Cut.QUERY_KEY_VALUE),
            *linear("self_attn.o_proj", hidden, query, Cut.INPUTS),
            *linear("mlp.gate_up_proj", 2 * width, hidden, Cut.OUTPUTS),
            *linear("mlp.down_proj", hidden, width, Cut.INPUTS),
        ),
    )
    return causal_model(fields, named, (layer,) * fields.num_layers, hidden_size=hidden, tied=is_tied(fields))
