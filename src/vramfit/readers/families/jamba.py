"""Jamba: Mamba 1 with one attention layer in eight, experts in every other layer.

Source: huggingface/transformers:src/transformers/models/jamba/; names as in the published files.
"""

from __future__ import annotations

from math import ceil

from vramfit.formats import Role
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    linear,
    norm,
    routed_experts,
    router,
)
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Attention, Cut, Dense, Experts, FeedForward, Layer, ModelSpec, StateSpace, Tensor


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Jamba configuration."""
    hidden, num = fields.integer("hidden_size"), fields.num_layers
    count = fields.integer("num_experts", 16, largest=LARGEST_EXPERTS)
    attends = _periodic(fields, "attn_layer", 8, 4, num)
    sparse = tuple(s and count > 1 for s in _periodic(fields, "expert_layer", 2, 1, num))
    keys = tuple(zip(attends, sparse, strict=True))
    kinds: dict[tuple[bool, bool], Layer] = {}
    for key in dict.fromkeys(keys):
        attention, mixing = _attention(fields, hidden) if key[0] else _mamba(fields, hidden)
        feed_forward, transforming = _feed_forward(fields, hidden, count if key[1] else 1)
        norms = block_norms(hidden, ("input_layernorm", "pre_ff_layernorm"))
        kinds[key] = Layer(attention=attention, feed_forward=feed_forward, tensors=(*mixing, *transforming, *norms))
    return causal_model(
        fields,
        named,
        tuple(kinds[k] for k in keys),
        hidden_size=hidden,
        tied=fields.flag("tie_word_embeddings", default=False),
        final_norm="final_layernorm",
    )


def _periodic(fields: Fields, what: str, period: int, offset: int, num: int) -> tuple[bool, ...]:
    """Return for every layer whether ``layer % period == offset``."""
    period = fields.integer(f"{what}_period", period, largest=LARGEST_LAYERS)
    offset = fields.integer(f"{what}_offset", offset, largest=LARGEST_LAYERS, smallest=0)
    return tuple(i % period == offset for i in range(num))


def _attention(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    facts = grouped_query(fields, hidden)
    return facts, attention_tensors(facts, hidden)


def _mamba(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    inner = hidden * fields.integer("mamba_expand", 2, largest=64)
    state, kernel = fields.integer("mamba_d_state", 16), fields.integer("mamba_d_conv", 4, largest=1024)
    rank = (
        ceil(hidden / 16) if fields.values.get("mamba_dt_rank") in {None, "auto"} else fields.integer("mamba_dt_rank")
    )
    conv_bias, proj_bias = fields.flag("mamba_conv_bias", default=True), fields.flag("mamba_proj_bias", default=False)
    bias = Tensor(name="mamba.conv1d.bias", shape=(inner,), role=Role.BIAS, cut=Cut.OUTPUTS)
    facts = StateSpace(num_heads=inner, head_dim=1, state_size=state, conv_kernel=kernel, num_groups=0)
    return facts, (
        Tensor(name="mamba.A_log", shape=(inner, state), role=Role.STATE, cut=Cut.OUTPUTS),
        Tensor(name="mamba.D", shape=(inner,), role=Role.STATE, cut=Cut.OUTPUTS),
        Tensor(name="mamba.conv1d.weight", shape=(inner, 1, kernel), role=Role.CONVOLUTION, cut=Cut.OUTPUTS),
        *((bias,) if conv_bias else ()),
        *linear("mamba.in_proj", 2 * inner, hidden, Cut.OUTPUTS, bias=proj_bias),
        *linear("mamba.x_proj", rank + 2 * state, inner, Cut.INPUTS),
        *linear("mamba.dt_proj", inner, rank, Cut.OUTPUTS, bias=True),
        *linear("mamba.out_proj", hidden, inner, Cut.INPUTS, bias=proj_bias),
        *norm("mamba.dt_layernorm", rank),
        *norm("mamba.b_layernorm", state),
        *norm("mamba.c_layernorm", state),
    )


def _feed_forward(fields: Fields, hidden: int, count: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    if count == 1:
        return Dense(intermediate_size=width), gated_mlp(hidden, width, prefix="feed_forward")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", 2, largest=count),
        moe_intermediate_size=width,
    )
    return facts, (
        router("feed_forward.router", count, hidden),
        *routed_experts(count, hidden, width, prefix="feed_forward"),
    )
