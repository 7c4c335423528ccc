"""One block of a model, written in operators on a tape."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vramfit.layer_kind import (
    Attention,
    Compressed,
    CrossAttention,
    Dense,
    FeedForward,
    GroupedQuery,
    Latent,
)
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.again import again
from vramfit.memory.tape.attention import cross, grouped_query
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.experts import experts
from vramfit.memory.tape.form import Arrangement, BlockForm, form_of
from vramfit.memory.tape.latent import latent
from vramfit.memory.tape.network import dense
from vramfit.memory.tape.recurrent import recurrent
from vramfit.memory.tape.writer import Writer
from vramfit.spec import Layer

Write = Callable[[Writer, Value], Value]


def block(layer: Layer, hidden: int, family: str) -> Write:
    """Return how a block is written: norms, mixers and network, as its arrangement has them."""
    form = form_of(layer, family)

    def write(w: Writer, x: Value) -> Value:
        if form.arrangement is Arrangement.PARALLEL:
            return _side_by_side(w, x, layer, hidden, form)
        for mixer in layer.mixers:
            w.t.module = "attention"
            x = _around(w, x, hidden, form, partial(_mixer, w, hidden, mixer, form))
        if layer.feed_forward is not None:
            w.t.module = "network"
            x = _around(w, x, hidden, form, partial(_network, w, hidden, layer.feed_forward, form))
        return x

    return write


def _side_by_side(w: Writer, x: Value, layer: Layer, hidden: int, form: BlockForm) -> Value:
    """Write attention and network that read the same input, each after a norm where there are two."""
    w.t.module = "attention"
    y = _norm(w, x, hidden, form)
    mixed = y
    for mixer in layer.mixers:
        mixed = _mixer(w, hidden, mixer, form, y)
    mixed = w.dropout(mixed) if w.flow.dropout else mixed
    w.t.module = "network"
    if form.num_norms > 1:
        y = _norm(w, x, hidden, form)
    if layer.feed_forward is None:
        return op.add(w.t, mixed, x)
    inner = _network(w, hidden, layer.feed_forward, form, y)
    inner = w.dropout(inner) if w.flow.dropout else inner
    return op.add(w.t, op.add(w.t, inner, mixed), x)


def _around(w: Writer, x: Value, hidden: int, form: BlockForm, inner: Callable[[Value], Value]) -> Value:
    """Norm, do something, and add it to what came, in the order of the arrangement."""
    order = form.arrangement
    y = _norm(w, x, hidden, form) if order in {Arrangement.BEFORE, Arrangement.BOTH} else x
    if w.flow.again("layernorm") and y is not x:
        w.t.forget(y)
    y = inner(y)
    if w.flow.dropout:
        y = w.dropout(y)
    if order in {Arrangement.BOTH, Arrangement.OUTPUTS}:
        y = _norm(w, y, hidden, form)
    x = op.add(w.t, x, y)
    return _norm(w, x, hidden, form) if order is Arrangement.AFTER else x


def _norm(w: Writer, x: Value, hidden: int, form: BlockForm) -> Value:
    return w.norm(x, hidden, form.norm)


def _mixer(w: Writer, hidden: int, facts: Attention, form: BlockForm, x: Value) -> Value:
    match facts:
        case GroupedQuery():
            return grouped_query(w, x, hidden, facts, form)
        case Latent():
            return latent(w, x, hidden, facts, form)
        case CrossAttention():
            return cross(w, x, hidden, facts, form)
        case Compressed():
            as_grouped = GroupedQuery(
                num_attention_heads=facts.num_attention_heads, num_key_value_heads=1, head_dim=facts.head_dim
            )
            return grouped_query(w, x, hidden, as_grouped, form)
        case _:
            return recurrent(w, x, hidden, facts, form)


def _network(w: Writer, hidden: int, facts: FeedForward, form: BlockForm, x: Value) -> Value:
    if isinstance(facts, Dense):
        if w.flow.again("mlp"):
            return again(w.t, lambda given: dense(w, given[0], hidden, facts, form), (x,))
        return dense(w, x, hidden, facts, form)
    if w.flow.again("moe"):
        return again(w.t, lambda given: experts(w, given[0], hidden, facts, form), (x,))
    return experts(w, x, hidden, facts, form)
