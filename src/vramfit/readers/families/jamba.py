"""Jamba: Mamba 1 with one attention layer in eight, experts in every other layer.

Source: huggingface/transformers:src/transformers/models/jamba/; names as in the published files, which have one
matrix per expert.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.layer_kind import Attention, Dense, Experts, FeedForward
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    is_tied,
    routed_experts,
    router,
)
from vramfit.readers.families.state_space import (
    LARGEST_EXPANSION,
    LARGEST_KERNEL,
    inner_norms,
    mamba1,
    mamba1_facts,
    step_rank,
)
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Layer, ModelSpec

KEY_VALUE_HEADS = 8
"""Class default in transformers."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Jamba configuration."""
    fields.refuse("sliding_window", "a window that transformers does not read")
    if not fields.flag("mamba_inner_layernorms", default=True):
        raise UnsupportedModelError(
            f"{fields.at('mamba_inner_layernorms')}: False: expected true; without these norms no published model says "
            "what the shapes are, so no number is given"
        )
    hidden, num = fields.integer("hidden_size"), fields.num_layers
    count = fields.integer("num_experts", 16, largest=LARGEST_EXPERTS)
    attends = _periodic(fields, "attn_layer", 8, 4, num)
    sparse = tuple(s and count > 1 for s in _periodic(fields, "expert_layer", 2, 1, num))
    keys = tuple(zip(attends, sparse, strict=True))
    kinds: dict[tuple[bool, bool], Layer] = {}
    for key in dict.fromkeys(keys):
        attention, mixing = _attention(fields, hidden) if key[0] else _mamba(fields, hidden)
        feed_forward, transforming = _experts(fields, hidden, count) if key[1] else _dense(fields, hidden)
        norms = block_norms(hidden, ("input_layernorm", "pre_ff_layernorm"))
        kinds[key] = Layer(attention=attention, feed_forward=feed_forward, tensors=(*mixing, *transforming, *norms))
    layers = tuple(kinds[key] for key in keys)
    return causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields), final_norm="final_layernorm")


def _periodic(fields: Fields, what: str, period: int, offset: int, num: int) -> tuple[bool, ...]:
    """Return for every layer whether ``layer % period == offset``."""
    period = fields.integer(f"{what}_period", period, largest=LARGEST_LAYERS)
    name = f"{what}_offset"
    offset = fields.integer(name, offset, largest=LARGEST_LAYERS, smallest=0)
    if offset >= period:
        raise InvalidValueError(fields.at(name), offset, f"less than {what}_period ({period})")
    return tuple(i % period == offset for i in range(num))


def _attention(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    facts = grouped_query(fields, hidden, default_kv=KEY_VALUE_HEADS)
    return facts, attention_tensors(facts, hidden)


def _mamba(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    inner = hidden * fields.integer("mamba_expand", 2, largest=LARGEST_EXPANSION)
    state, kernel = fields.integer("mamba_d_state", 16), fields.integer("mamba_d_conv", 4, largest=LARGEST_KERNEL)
    rank, bias = step_rank(fields, hidden), fields.flag("mamba_proj_bias", default=False)
    conv_bias = fields.flag("mamba_conv_bias", default=True)
    facts = mamba1_facts(inner, state, kernel)
    tensors = mamba1("mamba", hidden, facts, rank, bias=bias, conv_bias=conv_bias)
    return facts, (*tensors, *inner_norms("mamba", rank, state))


def _dense(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    return Dense(intermediate_size=width), gated_mlp(hidden, width, prefix="feed_forward")


def _experts(fields: Fields, hidden: int, count: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", 2, largest=count),
        moe_intermediate_size=width,
    )
    return facts, (
        router("feed_forward.router", count, hidden),
        *routed_experts(count, hidden, width, prefix="feed_forward"),
    )
