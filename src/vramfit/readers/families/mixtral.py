"""Mixtral: Mistral's attention, eight experts of which two see each token.

Source: huggingface/transformers:src/transformers/models/mixtral/; names as in the published files.
"""

from __future__ import annotations

from vramfit.readers.families.decoder import (
    Named,
    attention_tensors,
    block_norms,
    causal_model,
    grouped_query,
    routed_experts,
    router,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, Fields
from vramfit.spec import Experts, Layer, ModelSpec


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Mixtral configuration."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    experts = fields.integer("num_local_experts", 8, largest=LARGEST_EXPERTS)
    facts = grouped_query(fields, hidden, window=fields.optional("sliding_window", largest=LARGEST_CONTEXT))
    layer = Layer(
        attention=facts,
        feed_forward=Experts(
            num_experts=experts,
            num_experts_per_tok=fields.integer("num_experts_per_tok", 2, largest=experts),
            moe_intermediate_size=width,
        ),
        tensors=(
            *block_norms(hidden),
            *attention_tensors(facts, hidden),
            router("block_sparse_moe.gate", experts, hidden),
            *routed_experts(experts, hidden, width, prefix="block_sparse_moe", names=("w1", "w3", "w2")),
        ),
    )
    tied = fields.flag("tie_word_embeddings", default=False)
    return causal_model(fields, named, (layer,) * fields.num_layers, hidden_size=hidden, tied=tied)
