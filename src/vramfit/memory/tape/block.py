"""One block of a model, written in operators on a tape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vramfit.errors import UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import Attention, Dense, FeedForward, GroupedQuery
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.attention import AttentionForm, grouped_query
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.network import NetworkForm, dense
from vramfit.memory.tape.writer import Writer
from vramfit.spec import Layer

Write = Callable[[Writer, Value], Value]
QUERIES = frozenset({"q_proj", "q", "query", "wq", "q_lin", "to_q"})
FUSED_GATES = frozenset({"gate_up_proj", "gate_and_up_proj", "w13"})
QUERY_NORMS = frozenset({"q_norm", "q_layernorm", "query_layernorm", "q_ln", "query_norm"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockForm:
    """What a block's tensors say about how it is put together."""

    attention: AttentionForm
    network: NetworkForm
    layer_norm: bool = False
    """Norms subtract the mean and have biases; False: RMSNorm."""
    norms_after: bool = False
    """Outputs of attention and network are normed too, before they are added (Gemma 2)."""


def form_of(layer: Layer) -> BlockForm:
    """Read a block's form off the names of its tensors."""
    names = {t.name.rsplit(".", 1)[0].rsplit(".", 1)[-1] for t in layer.tensors}
    biased = {t.name.rsplit(".", 1)[0].rsplit(".", 1)[-1] for t in layer.tensors if t.role is Role.BIAS}
    plain_norms = [
        t for t in layer.tensors if t.role is Role.NORM and "attn" not in t.name and t.name.endswith("weight")
    ]
    fused = not names & QUERIES
    return BlockForm(
        attention=AttentionForm(
            fused=fused,
            bias=bool(biased & QUERIES) or (fused and any("qkv" in n or "query_key_value" in n for n in biased)),
            output_bias=bool(biased & {"o_proj", "out_proj", "dense", "wo"}),
            norms=bool(names & QUERY_NORMS),
        ),
        network=NetworkForm(
            fused=bool(names & FUSED_GATES), bias=bool(biased & {"gate_proj", "up_proj", "fc1", "dense_h_to_4h"})
        ),
        layer_norm=any(t.role is Role.BIAS and "norm" in t.name for t in layer.tensors),
        norms_after=len(plain_norms) == 4,
    )


def block(layer: Layer, hidden: int) -> Write:
    """Return how a block is written: norm, mixer, sum, norm, network, sum."""
    form = form_of(layer)

    def write(w: Writer, x: Value) -> Value:
        for mixer in layer.mixers:
            w.t.module = "attention"
            x = _around(w, x, hidden, form, partial(_mixer, w, hidden, mixer, form))
        if layer.feed_forward is not None:
            network = layer.feed_forward
            w.t.module = "network"
            x = _around(w, x, hidden, form, partial(_network, w, hidden, network, form))
        return x

    return write


def _around(w: Writer, x: Value, hidden: int, form: BlockForm, inner: Callable[[Value], Value]) -> Value:
    """Norm, do something, and add it to what came."""
    y = w.norm(x, hidden, layer_norm=form.layer_norm)
    y = inner(y)
    if form.norms_after:
        y = w.norm(y, hidden, layer_norm=form.layer_norm)
    return op.add(w.t, x, y)


def _mixer(w: Writer, hidden: int, facts: Attention, form: BlockForm, x: Value) -> Value:
    if isinstance(facts, GroupedQuery):
        return grouped_query(w, x, hidden, facts, form.attention)
    raise UnsupportedModelError(f"training: {type(facts).__name__} layers: expected kinds whose activations are known")


def _network(w: Writer, hidden: int, facts: FeedForward, form: BlockForm, x: Value) -> Value:
    if isinstance(facts, Dense):
        return dense(w, x, hidden, facts, form.network)
    raise UnsupportedModelError(f"training: {type(facts).__name__} layers: expected kinds whose activations are known")
