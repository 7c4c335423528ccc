"""The small autograd lets go, adds and orders as PyTorch's engine does."""

from __future__ import annotations

from vramfit.memory.tape import operator as op
from vramfit.memory.tape.again import again
from vramfit.memory.tape.engine import Value, run_backward
from vramfit.memory.tape.tape import Tape


def leaf(t: Tape, elements: int) -> Value:
    """Return an input that wants its gradient."""
    x = t.new(elements, 1)
    t.leaf(x, lambda _: None)
    return x


def backward(t: Tape, y: Value) -> None:
    """Run backward from a value with a gradient of its size."""
    assert y.node is not None
    t.backward(y.node, y.place, [t.new(y.elements, y.each)])


def test_a_value_dies_with_its_last_reference() -> None:
    """Bytes are given back when nobody refers to them, saved tensors included."""
    t = Tape()
    x = leaf(t, 100)
    y = op.activation(t, x)
    del x
    assert 200 == t.meter.live  # the activation keeps its input
    del y
    assert 0 == t.meter.live


def sums(t: Tape, y: Value) -> int:
    """Run backward and count the sums of gradients that needed a new value."""
    made: list[int] = []

    def adds(old: Value) -> Value:
        made.append(old.elements)
        return t.new(old.elements, old.each)

    assert y.node is not None
    run_backward(y.node, y.place, [t.new(y.elements, y.each)], adds)
    return len(made)


def test_a_sum_of_gradients_is_made_in_place() -> None:
    """A value used twice gets one gradient, and the second is added to the first."""
    t = Tape()
    x = leaf(t, 100)
    assert 0 == sums(t, op.add(t, op.scale(t, x), op.scale(t, x)))


def test_a_sum_is_made_anew_where_somebody_else_reads_the_gradient() -> None:
    """The gradient of a sum is one tensor for both of its terms; while one waits, the other cannot be added to."""
    t = Tape()
    x = leaf(t, 100)
    first = op.scale(t, x)
    second = op.add(t, first, op.scale(t, x))
    assert 1 == sums(t, op.add(t, second, second))


def test_gradients_of_weights_stay_and_can_be_told_apart() -> None:
    """What stays is counted as settled; the peak beside it is what an accumulating step needs."""
    t = Tape()
    x, weight = leaf(t, 100), t.weight(400, 1)
    y = op.linear(t, x, weight, 40)
    t.meter.restart()
    backward(t, y)
    assert 400 == t.meter.settled
    assert t.meter.most_beside < t.meter.most + 1


def test_a_part_that_is_computed_again_keeps_its_inputs_only() -> None:
    """Forward leaves the input; backward computes what was saved, and no more."""
    t = Tape()
    x = leaf(t, 100)

    def write(inputs: tuple[Value, ...]) -> Value:
        return op.activation(t, op.activation(t, inputs[0]))

    y = again(t, write, (x,))
    del x
    assert 200 == t.meter.live  # input and output
    t.meter.restart()
    backward(t, y)
    assert 500 == t.meter.most  # input, output, its gradient, the activation made again, a gradient inside
    del y


def test_what_is_forgotten_comes_back_before_it_is_read() -> None:
    """A value given back after the forward pass is counted again in the backward pass."""
    t = Tape()
    x = leaf(t, 100)
    y = op.activation(t, x)
    t.forget(y)
    z = op.activation(t, y)
    del y
    assert 300 == t.meter.live
    t.end_forward()
    assert 200 == t.meter.live
    t.meter.restart()
    backward(t, z)
    assert 500 == t.meter.most  # input, output, its gradient, what came back, a gradient inside
