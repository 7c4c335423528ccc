"""Mixtral: Mistral's attention, eight experts of which two see each token.

Source: huggingface/transformers:src/transformers/models/mixtral/; names as in the published files.
"""

from __future__ import annotations

from vramfit.layer_kind import Experts
from vramfit.readers.families.decoder import (
    Named,
    attention_tensors,
    block_norms,
    causal_model,
    grouped_query,
    is_tied,
    routed_experts,
    router,
    window_tokens,
)
from vramfit.readers.fields import LARGEST_EXPERTS, Fields
from vramfit.spec import Layer, ModelSpec

KV_HEADS, EXPERTS, EXPERTS_PER_TOKEN = 8, 8, 2
"""Class defaults in transformers."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Mixtral configuration."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    name = "num_experts" if fields.has("num_experts") else "num_local_experts"
    experts = fields.integer(name, EXPERTS, largest=LARGEST_EXPERTS)
    facts = grouped_query(fields, hidden, window=window_tokens(fields), default_kv=KV_HEADS)
    layer = Layer(
        attention=facts,
        feed_forward=Experts(
            num_experts=experts,
            num_experts_per_tok=fields.integer("num_experts_per_tok", EXPERTS_PER_TOKEN, largest=experts),
            moe_intermediate_size=width,
        ),
        tensors=(
            *block_norms(hidden),
            *attention_tensors(facts, hidden),
            router("block_sparse_moe.gate", experts, hidden),
            *routed_experts(experts, hidden, width, prefix="block_sparse_moe", names=("w1", "w3", "w2")),
        ),
    )
    return causal_model(fields, named, (layer,) * fields.num_layers, hidden_size=hidden, tied=is_tied(fields))
