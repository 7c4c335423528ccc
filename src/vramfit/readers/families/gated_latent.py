"""A.X-K2 and Hunyuan 4: DeepSeek V3.2's layers with gates of their own, and in Hunyuan several hidden streams.

Source: huggingface/transformers:src/transformers/models/axk2/ and models/hy_v4/, 5.23.0; names as in published files
(src/transformers/conversion_mapping.py).
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import FP32, Role
from vramfit.layer_kind import Experts, Latent
from vramfit.readers.families import deepseek
from vramfit.readers.families.decoder import Named, Tensors, linear
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

GATED = ("mlp.gate_proj.", "mlp.shared_experts.gate_proj.")
"""Matrices that Hunyuan 4 calls ``linear_gate``."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an A.X-K2 or a Hunyuan 4 configuration."""
    if fields.text("model_type") == "axk2":
        return _a_x_k2(fields, deepseek.read(fields, named))
    if not fields.has("indexer_types"):
        every = ["full" if i == 0 or i % 4 == 1 else "shared" for i in range(fields.num_layers)]
        fields.assume("indexer_types", "full in the first two layers and every fourth after")
        fields = Fields({**fields.values, "indexer_types": every}, fields.path, fields.assumed)
    return _hunyuan_4(fields, deepseek.read(fields, named))


def _a_x_k2(fields: Fields, spec: ModelSpec) -> ModelSpec:
    """Put gates of low rank around norms, and the output's gate into the matrix of the queries."""
    rank = fields.integer("gated_norm_rank", 16)
    turned = {id(layer): _gated_norms(layer, spec.hidden_size, rank) for layer in spec.layers}
    return replace(spec, layers=tuple(turned[id(layer)] for layer in spec.layers))


def _gated_norms(layer: Layer, hidden: int, rank: int) -> Layer:
    """Return a layer with a gate around its first norm and, where it has experts, around the second."""
    gated = ("input_layernorm", *(("post_attention_layernorm",) if isinstance(layer.feed_forward, Experts) else ()))
    tensors = tuple(t for t in layer.tensors if t.name.removesuffix(".weight") not in gated)
    around = tuple(
        t
        for name in gated
        for t in (
            Tensor(name=f"{name}.norm.weight", shape=(hidden,), role=Role.NORM),
            *linear(f"{name}.W_down", rank, hidden, Cut.WHOLE),
            *linear(f"{name}.W_up", hidden, rank, Cut.WHOLE),
        )
    )
    facts = layer.attention
    assert isinstance(facts, Latent)
    wide = facts.num_attention_heads * facts.v_head_dim
    return replace(layer, tensors=(*around, *(_with_gate(t, wide) for t in tensors)))


def _with_gate(tensor: Tensor, wide: int) -> Tensor:
    """Return the query's second matrix with the rows of the output's gate; it reads the rank twice."""
    if tensor.name != "self_attn.q_b_proj.weight":
        return tensor
    rows, columns = tensor.shape
    return replace(tensor, shape=(rows + wide, 2 * columns))


def _hunyuan_4(fields: Fields, spec: ModelSpec) -> ModelSpec:
    """Add gates, a score that no token has, and what mixes the streams of the hidden state."""
    hidden, streams = spec.hidden_size, fields.integer("hc_mult", 4, largest=64)
    turned = {id(layer): _with_streams(layer, hidden, streams) for layer in spec.layers}
    head = (*spec.head, *_mixing("model.hc_pre.hc_head.hc_head", streams, streams * hidden, 1))
    layers = tuple(turned[id(layer)] for layer in spec.layers)
    return replace(spec, layers=layers, head=head, residual_streams=streams)


def _with_streams(layer: Layer, hidden: int, streams: int) -> Layer:
    facts = layer.attention
    assert isinstance(facts, Latent)
    heads = facts.num_attention_heads
    return replace(
        layer,
        tensors=(
            *(_renamed(t) for t in layer.tensors),
            *linear("self_attn.linear_gate", heads * facts.v_head_dim, hidden, Cut.OUTPUTS),
            Tensor(name="self_attn.learnable_sink_param", shape=(heads,), role=Role.BIAS, cut=Cut.OUTPUTS),
            *_mixing("hc_pre.hc_attn_layer.hc", 2 * streams, streams * hidden, 2),
            *_mixing("hc_pre.hc_mlp_layer.hc", 2 * streams, streams * hidden, 2),
        ),
    )


def _renamed(tensor: Tensor) -> Tensor:
    if tensor.name.startswith(GATED):
        return replace(tensor, name=tensor.name.replace(".gate_proj.", ".linear_gate."))
    return tensor


def _mixing(name: str, outputs: int, inputs: int, scales: int) -> Tensors:
    return (
        Tensor(name=f"{name}_fn", shape=(outputs, inputs), role=Role.ROUTER, stored=FP32),
        Tensor(name=f"{name}_base", shape=(outputs,), role=Role.BIAS, stored=FP32),
        Tensor(name=f"{name}_scale", shape=(scales,), role=Role.BIAS, stored=FP32),
    )
