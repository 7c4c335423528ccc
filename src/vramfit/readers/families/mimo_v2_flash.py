"""MiMo-V2-Flash: narrow windows with sinks, values narrower than keys, more KV heads where a layer slides.

Source: huggingface/transformers:src/transformers/models/mimo_v2_flash/; the fields of the published file, whose code
is not in transformers, are named ``swa_*``, ``hybrid_layer_pattern`` and ``moe_layer_freq``.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import FP32, Role
from vramfit.layer_kind import Dense, Experts, FeedForward, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    is_tied,
    linear,
    routed_experts,
    router,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

FULL_EVERY = 6
"""Beside the first layer; where no field names the layers."""
FLAGS = (0, 1)


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a MiMo-V2-Flash configuration."""
    hidden = fields.integer("hidden_size")
    fields.refuse("add_full_attention_sink_bias", "sinks in full layers, which no published model has")
    per_layer = tuple(zip(_slides(fields), _sparse(fields), strict=True))
    kinds: dict[tuple[bool, bool], Layer] = {}
    for slides, sparse in dict.fromkeys(per_layer):
        facts = _attention_facts(fields, slides=slides)
        feed_forward, network = _experts(fields, hidden) if sparse else _dense(fields, hidden)
        tensors = (*block_norms(hidden), *_attention(fields, facts, hidden, slides=slides), *network)
        kinds[slides, sparse] = Layer(attention=facts, feed_forward=feed_forward, tensors=tensors)
    return causal_model(fields, named, tuple(kinds[key] for key in per_layer), hidden_size=hidden, tied=is_tied(fields))


def _ones(fields: Fields, name: str) -> tuple[bool, ...] | None:
    """Return a list of zeros and ones, one per layer, or None when the field is absent."""
    value, num = fields.values.get(name), fields.num_layers
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != num or any(flag not in FLAGS for flag in value):
        raise InvalidValueError(fields.at(name), value, f"a list of {num} zeros and ones")
    return tuple(flag == 1 for flag in value)


def _slides(fields: Fields) -> tuple[bool, ...]:
    num = fields.num_layers
    told = fields.layers_with("sliding_attention", "full_attention")
    if told is not None:
        return told
    return _ones(fields, "hybrid_layer_pattern") or tuple(i != 0 and (i + 1) % FULL_EVERY != 0 for i in range(num))


def _sparse(fields: Fields) -> tuple[bool, ...]:
    num = fields.num_layers
    told = fields.layers_with("sparse", "dense", "mlp_layer_types")
    if told is not None:
        return told
    return _ones(fields, "moe_layer_freq") or tuple(i != 0 for i in range(num))


def _attention_facts(fields: Fields, *, slides: bool) -> GroupedQuery:
    """Return the facts of one kind of layer; sliding ones have twice the KV heads where no field counts them."""
    heads, kv = fields.integer("num_attention_heads"), fields.integer("num_key_value_heads")
    width, values = fields.integer("head_dim", 192), fields.integer("v_head_dim", 128)
    if not slides:
        return GroupedQuery(num_attention_heads=heads, num_key_value_heads=kv, head_dim=width, v_head_dim=values)
    return GroupedQuery(
        num_attention_heads=fields.optional("swa_num_attention_heads") or heads,
        num_key_value_heads=fields.optional("swa_num_key_value_heads") or 2 * kv,
        head_dim=fields.optional("swa_head_dim") or width,
        v_head_dim=fields.optional("swa_v_head_dim") or values,
        window_tokens=fields.integer("sliding_window", 128, largest=LARGEST_CONTEXT),
    )


def _attention(fields: Fields, facts: GroupedQuery, hidden: int, *, slides: bool) -> Tensors:
    heads, kv = facts.num_attention_heads, facts.num_key_value_heads
    bias, values = fields.flag("attention_bias", default=False), facts.v_head_dim or facts.head_dim
    sink = Tensor(name="self_attn.attention_sink_bias", shape=(heads,), role=Role.STATE, cut=Cut.OUTPUTS)
    has_sink = slides and fields.flag("add_swa_attention_sink_bias", default=True)
    return (
        *linear("self_attn.q_proj", heads * facts.head_dim, hidden, Cut.OUTPUTS, bias=bias),
        *linear("self_attn.k_proj", kv * facts.head_dim, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear("self_attn.v_proj", kv * values, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear("self_attn.o_proj", hidden, heads * values, Cut.INPUTS),
        *((sink,) if has_sink else ()),
    )


def _dense(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    return Dense(intermediate_size=width), gated_mlp(hidden, width)


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    count = fields.integer("n_routed_experts", largest=LARGEST_EXPERTS)
    width = fields.integer("moe_intermediate_size")
    fields.refuse("n_shared_experts", "a shared expert, which no published model has")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
    )
    name = "mlp.gate.e_score_correction_bias"
    correction = Tensor(name=name, shape=(count,), role=Role.BIAS, stored=FP32, buffer=True)
    return facts, (router("mlp.gate", count, hidden), correction, *routed_experts(count, hidden, width))
