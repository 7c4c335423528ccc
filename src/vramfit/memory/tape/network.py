"""Feed-forward networks that all tokens pass, written in operators."""

from __future__ import annotations

from vramfit.layer_kind import Dense
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.attention import merged
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.form import Activation, BlockForm
from vramfit.memory.tape.writer import Writer


def dense(w: Writer, x: Value, hidden: int, facts: Dense, form: BlockForm) -> Value:
    """Write a network that all tokens pass."""
    width = facts.intermediate_size
    inner = gated(w, x, hidden, width, form) if facts.gated else plain(w, x, hidden, width, form)
    if form.network_dropout and w.flow.dropout:
        inner = w.dropout(inner)
    return w.scattered(inner, width, hidden, form.matrices["down"])


def plain(w: Writer, x: Value, hidden: int, width: int, form: BlockForm) -> Value:
    """Write one matrix and the activation function."""
    (inner,) = w.gathered(x, hidden, (width,), (form.matrices["up"],))
    return activated(w, inner, form.activation)


def activated(w: Writer, x: Value, activation: Activation) -> Value:
    """Write an activation function."""
    t = w.t
    match activation:
        case Activation.OUTPUT:
            return op.of_output(t, x)
        case Activation.SQUARED:
            return op.activation(t, x) if w.style.fused_activation else op.square(t, op.of_output(t, x))
        case Activation.WRITTEN_OUT if not w.style.fused_activation:
            return _written_out(w, x)
        case _:
            return op.activation(t, x)


def _written_out(w: Writer, x: Value) -> Value:
    """Write ``0.5 * x * (1 + tanh(c * (x + d * x**3)))``.

    Source: huggingface/transformers:src/transformers/activations.py, NewGELUActivation.
    """
    t = w.t
    half = op.scale(t, x)
    inner = op.add(t, x, op.scale(t, op.square(t, x)))
    return op.multiply(t, half, op.scale(t, op.of_output(t, op.scale(t, inner))))


def gated(w: Writer, x: Value, hidden: int, width: int, form: BlockForm) -> Value:
    """Write gate and up projections, the activation function and their product."""
    t, matrices = w.t, form.matrices
    fused = matrices.has("gate_up") if w.style.fused_gate_up is None else w.style.fused_gate_up
    if fused:
        use = matrices["gate_up"] if matrices.has("gate_up") else merged(matrices, "gate", "up")
        (both,) = w.gathered(x, hidden, (2 * width,), (use,))
        return gate_of(w, both, form)
    both_are = matrices["gate_up"] if matrices.has("gate_up") else None
    of_gate, of_up = both_are or matrices["gate"], both_are or matrices["up"]
    if w.style.fused_activation or (w.flow.share > 1 and not w.style.gathers_again):
        gate, up = w.gathered(x, hidden, (width, width), (of_gate, of_up))
        if w.style.fused_activation:
            return op.fused(t, (gate, up), t.new(gate.elements, gate.each), (gate, up))
        return op.multiply(t, activated(w, gate, form.activation), up)
    return op.multiply(
        t,
        activated(w, w.gathered(x, hidden, (width,), (of_gate,))[0], form.activation),
        w.gathered(x, hidden, (width,), (of_up,))[0],
    )


def gate_of(w: Writer, both: Value, form: BlockForm) -> Value:
    """Write the product of activated gate and up projection, which lie in one tensor."""
    t = w.t
    if w.style.fused_activation:
        return op.fused(t, (both,), t.new(both.elements // 2, both.each), (both,))
    gate, up = op.split(t, both, (both.elements // 2,) * 2)
    return op.multiply(t, up, activated(w, gate, form.activation))
