"""Snowflake Arctic: a small network in every layer, and a mixture of many experts beside it.

Source: vllm-project/vllm@00db011:vllm/model_executor/models/arctic.py (names, shapes, which layers have experts);
names of a token's experts as in the published file (Snowflake/snowflake-arctic-instruct).
"""

from __future__ import annotations

from vramfit.layer_kind import Dense, Experts, FeedForward
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    grouped_query,
    is_tied,
    linear,
    routed_experts,
    router,
)
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec

BLOCK = "block_sparse_moe"


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an Arctic configuration."""
    hidden, every = fields.integer("hidden_size"), fields.integer("moe_layer_frequency", 2, largest=LARGEST_LAYERS)
    facts = grouped_query(fields, hidden)
    kinds = {}
    for sparse in (False, True):
        feed_forward, network = _experts(fields, hidden) if sparse else _dense(fields, hidden)
        tensors = (*block_norms(hidden), *attention_tensors(facts, hidden), *network)
        kinds[sparse] = Layer(attention=facts, feed_forward=feed_forward, tensors=tensors)
    layers = tuple(kinds[(i + 1) % every == 0] for i in range(fields.num_layers))
    return causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields))


def _dense(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    return Dense(intermediate_size=width), _network(f"{BLOCK}.mlp", hidden, width)


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    """Return router and experts, and the network beside them, as wide as the hidden state."""
    count, width = fields.integer("num_local_experts", largest=LARGEST_EXPERTS), fields.integer("intermediate_size")
    beside = fields.flag("use_residual", default=False, recorded=True)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=hidden if beside else 0,
    )
    residual = (*block_norms(hidden, ("residual_layernorm",)), *_network("residual_mlp", hidden, hidden))
    return facts, (
        router(f"{BLOCK}.gate", count, hidden),
        *routed_experts(count, hidden, width, prefix=BLOCK, names=("w1", "w3", "w2")),
        *(residual if beside else ()),
    )


def _network(name: str, hidden: int, width: int) -> Tensors:
    return (
        *linear(f"{name}.w1", width, hidden, Cut.OUTPUTS),
        *linear(f"{name}.w3", width, hidden, Cut.OUTPUTS),
        *linear(f"{name}.w2", hidden, width, Cut.INPUTS),
    )
