"""Phi-4-mini-flash (SambaY): Mamba and windowed attention below, and above one full attention whose cache all read.

Source: microsoft/Phi-4-mini-flash-reasoning:modeling_phi4flash.py; Ren et al. 2025, arXiv:2507.06607. The derived bytes
equal ``total_size`` of its model.safetensors.index.json, which also says what is stored in fp32.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.formats import FP32, Role
from vramfit.layer_kind import Attention, Dense, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, causal_model, grouped_query, is_tied, linear, norm
from vramfit.readers.families.state_space import (
    LARGEST_EXPANSION,
    LARGEST_KERNEL,
    mamba1,
    mamba1_facts,
    step_rank,
)
from vramfit.readers.fields import LARGEST_CONTEXT, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

MAMBA_EVERY = 2
"""Every second layer attends; ``mb_per_layer`` of the published model, and all that its code can do."""
SMALLEST = 4
"""Fewest layers for which the two halves have both kinds."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Phi-4-mini-flash configuration."""
    if fields.integer("mb_per_layer", MAMBA_EVERY) != MAMBA_EVERY:
        raise InvalidValueError(fields.at("mb_per_layer"), fields.values["mb_per_layer"], f"{MAMBA_EVERY}")
    for name in ("mlp_bias", "lm_head_bias"):
        fields.refuse(name, "biases that the published model does not have")
    hidden, width, num = fields.integer("hidden_size"), fields.integer("intermediate_size"), fields.num_layers
    if num % SMALLEST:
        raise InvalidValueError(fields.at("num_hidden_layers"), num, f"a multiple of {SMALLEST}, for two equal halves")
    kinds: dict[str, Layer] = {}
    keys = tuple(_kind(i, num) for i in range(num))
    for kind in dict.fromkeys(keys):
        mixer, mixing = _mixer(fields, hidden, kind)
        tensors = (
            *norm("input_layernorm", hidden, bias=True),
            *norm("post_attention_layernorm", hidden, bias=True),
            *mixing,
            *linear("mlp.fc1", 2 * width, hidden, Cut.OUTPUTS),
            *linear("mlp.fc2", hidden, width, Cut.INPUTS),
        )
        kinds[kind] = Layer(attention=mixer, feed_forward=Dense(intermediate_size=width), tensors=tensors)
    layers = tuple(kinds[kind] for kind in keys)
    spec = causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields, default=True))
    projection = tuple(t for t in spec.head if t.role is Role.HEAD)
    return replace(spec, head=(*norm("model.final_layernorm", hidden, bias=True), *projection))


def _kind(layer: int, num: int) -> str:
    """Return the kind of a layer: the one after the middle is the last to keep anything."""
    last = num // 2 + 1
    if layer % MAMBA_EVERY == 0:
        return "mamba" if layer < last else "memory"
    if layer == last:
        return "full"
    return "window" if layer < last else "reads"


def _mixer(fields: Fields, hidden: int, kind: str) -> tuple[Attention | None, Tensors]:
    match kind:
        case "mamba":
            return _mamba(fields, hidden)
        case "memory":
            inner = hidden * fields.integer("mamba_expand", 2, largest=LARGEST_EXPANSION)
            gate = linear("attn.in_proj", inner, hidden, Cut.OUTPUTS)
            return None, (*gate, *linear("attn.out_proj", hidden, inner, Cut.INPUTS))
        case _:
            return _attention(fields, hidden, kind)


def _mamba(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return Mamba 1, whose decays the file has in fp32."""
    inner = hidden * fields.integer("mamba_expand", 2, largest=LARGEST_EXPANSION)
    kernel = fields.integer("mamba_d_conv", 4, largest=LARGEST_KERNEL)
    facts = mamba1_facts(inner, fields.integer("mamba_d_state", 16), kernel)
    bias, conv_bias = fields.flag("mamba_proj_bias", default=False), fields.flag("mamba_conv_bias", default=True)
    tensors = mamba1("attn", hidden, facts, step_rank(fields, hidden), bias=bias, conv_bias=conv_bias)
    return facts, tuple(replace(t, stored=FP32) if t.name == "attn.A_log" else t for t in tensors)


def _attention(fields: Fields, hidden: int, kind: str) -> tuple[Attention, Tensors]:
    """Return differential attention; layers that read the shared cache project queries only."""
    window = fields.integer("sliding_window", 2047, largest=LARGEST_CONTEXT)
    facts = grouped_query(fields, hidden, window=window if kind == "window" else None)
    reads = kind == "reads"
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    into = linear("attn.Wqkv", q if reads else q + 2 * kv, hidden, _cut(reads=reads), bias=True)
    mixed: GroupedQuery = replace(facts, shares_cache=reads)
    return mixed, (
        *into,
        *linear("attn.out_proj", hidden, q, Cut.INPUTS, bias=True),
        *(
            Tensor(name=f"attn.inner_cross_attn.lambda_{x}", shape=(facts.head_dim,), role=Role.NORM, stored=FP32)
            for x in ("q1", "k1", "q2", "k2")
        ),
        *norm("attn.inner_cross_attn.subln", 2 * facts.head_dim),
    )


def _cut(*, reads: bool) -> Cut:
    return Cut.OUTPUTS if reads else Cut.QUERY_KEY_VALUE
