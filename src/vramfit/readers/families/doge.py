"""Doge: a learned mask over values, scaled residuals, and in some models experts of one row each.

Source: huggingface/transformers:src/transformers/models/doge/, 5.23.0.
"""

from __future__ import annotations

from math import isqrt

from vramfit.formats import Role
from vramfit.layer_kind import Dense, Experts, FeedForward, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    is_tied,
    linear,
    router,
    window_tokens,
)
from vramfit.readers.fields import LARGEST_EXPERTS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Doge configuration."""
    hidden = fields.integer("hidden_size")
    facts = grouped_query(fields, hidden, window=window_tokens(fields))
    feed_forward, network = _network(fields, hidden)
    residuals = ("input_residual", "post_attention_residual")
    layer = Layer(
        attention=facts,
        feed_forward=feed_forward,
        tensors=(
            *block_norms(hidden),
            *(Tensor(name=name, shape=(hidden,), role=Role.NORM) for name in residuals),
            *_attention(fields, facts, hidden),
            *network,
        ),
    )
    return causal_model(fields, named, (layer,) * fields.num_layers, hidden_size=hidden, tied=is_tied(fields))


def _attention(fields: Fields, facts: GroupedQuery, hidden: int) -> Tensors:
    """Return the projections, and what turns values into a score of how long a token is seen."""
    bias, heads = fields.flag("attention_bias", default=False), facts.num_key_value_heads
    return (
        *attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias, qk_norm=True),
        *linear("self_attn.dt_proj", heads, heads * facts.head_dim, Cut.WHOLE, bias=bias),
        Tensor(name="self_attn.A", shape=(heads,), role=Role.STATE),
    )


def _network(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    """Return the network of a layer; with experts it is the one that every token passes."""
    width, bias = fields.integer("intermediate_size"), fields.flag("mlp_bias", default=False)
    shared = gated_mlp(hidden, width, bias=bias)
    if not fields.flag("is_moe", default=False):
        return Dense(intermediate_size=width), shared
    count = fields.integer("num_experts", 16384, largest=LARGEST_EXPERTS)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", 64, largest=count),
        moe_intermediate_size=1,
        shared_intermediate_size=width,
        gated=False,
    )
    rows = tuple(
        Tensor(name=f"mlp.{name}.weight", shape=(count, hidden), role=Role.EXPERT, experts=count)
        for name in ("down_embed", "up_embed")
    )
    return facts, (*shared, router("mlp.router_gate", 2 * isqrt(count), hidden), *rows)
