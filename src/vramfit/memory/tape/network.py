"""Feed-forward networks written in operators."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.layer_kind import Dense
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.writer import Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkForm:
    """What a block's tensors say about its network beyond its kind."""

    fused: bool = False
    """Gate and up projections are one matrix."""
    bias: bool = False
    of_output: bool = False
    """The activation function keeps its output (ReLU) and not its input."""


def dense(w: Writer, x: Value, hidden: int, facts: Dense, form: NetworkForm) -> Value:
    """Write a network that all tokens pass."""
    width = facts.intermediate_size
    inner = _gated(w, x, hidden, width, form) if facts.gated else _plain(w, x, hidden, width, form)
    return w.scattered(inner, width, hidden, bias=form.bias)


def _plain(w: Writer, x: Value, hidden: int, width: int, form: NetworkForm) -> Value:
    (inner,) = w.gathered(x, hidden, (width,), bias=form.bias)
    return op.of_output(w.t, inner) if form.of_output else op.activation(w.t, inner)


def _gated(w: Writer, x: Value, hidden: int, width: int, form: NetworkForm) -> Value:
    t = w.t
    fused = form.fused if w.style.fused_gate_up is None else w.style.fused_gate_up
    if fused:
        (both,) = w.gathered(x, hidden, (2 * width,), bias=form.bias)
        if w.style.fused_activation:
            return op.fused(t, (both,), t.new(both.elements // 2, both.each), (both,))
        gate, up = op.split(t, both, (both.elements // 2,) * 2)
        del both
        return op.multiply(t, up, op.activation(t, gate))
    if w.style.fused_activation or (w.flow.share > 1 and not w.style.gathers_again):
        gate, up = w.gathered(x, hidden, (width, width), bias=form.bias)
        if w.style.fused_activation:
            return op.fused(t, (gate, up), t.new(gate.elements, gate.each), (gate, up))
        return op.multiply(t, op.activation(t, gate), up)
    return op.multiply(
        t,
        op.activation(t, w.gathered(x, hidden, (width,), bias=form.bias)[0]),
        w.gathered(x, hidden, (width,), bias=form.bias)[0],
    )
