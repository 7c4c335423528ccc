"""Runs one block forward and backward and reads the meter: what it keeps, and its peaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vramfit.memory.tape.again import again
from vramfit.memory.tape.engine import Gradients, Storage, Value
from vramfit.memory.tape.tape import Tape

Run = Callable[[Tape, Value], Value]
Take = Callable[[Tape, list[Value]], Value]
"""Writes a block whose input lies alone in a list: who empties it lets the input go as soon as nothing needs it."""
INPUT = "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """What the meter read. [B]"""

    kept: tuple[tuple[str, int], ...]
    """By module, without input and output."""
    keeps_input: bool
    input_bytes: int = 0
    """Its input, where it is kept."""
    attribute_bytes: int = 0
    """What operators keep as plain attributes: it lives as long as the graph."""
    forward: int
    backward: int
    passing: int
    """Peaks, measured without the input where it is kept."""
    gradients: int
    output: int
    cached: int = 0
    """Cast copies of weights that stay until autocast's region ends although nothing keeps them for the backward."""


def walk(t: Tape, write: Take, elements: int, each: int, *, grows: bool = True) -> Walked:
    """Run a block whose input has so many elements of so many bytes.

    Args:
        t: an empty tape.
        write: writes the block's operators.
        elements: of the input.
        each: bytes of one of them.
        grows: the input wants a gradient.
    """
    t.module = INPUT
    x = t.new(elements, each)
    if grows:
        t.leaf(x, lambda _: None)
    box = [x]
    del x
    y = write(t, box)
    box.clear()
    forward, output, elements, each = t.meter.most, y.storage.num_bytes, y.elements, y.each
    node, place = y.node, y.place
    del y
    t.end_forward()
    cached = t.meter.live
    t.cache.clear()
    cached -= t.meter.live
    kept = {owner: size for owner, size in t.meter.owners.items() if size}
    of_input = kept.pop(INPUT, 0)
    backward = passing = 0
    if node is not None:
        t.meter.restart()
        t.backward(node, place, [t.new(elements, each)])
        backward, passing = t.meter.most, t.meter.most_beside
    return Walked(
        kept=tuple(kept.items()),
        keeps_input=of_input > 0,
        input_bytes=of_input,
        attribute_bytes=sum(t.attributes.values()),
        forward=forward - of_input,
        backward=max(0, backward - of_input),
        passing=max(0, passing - of_input),
        gradients=t.meter.settled,
        output=output,
        cached=cached,
    )


def checkpoint(t: Tape, write: Run, x: Value, *, whole: bool) -> Value:
    """Run a block keeping nothing but its input, and run it again in its backward pass.

    Args:
        t: the tape.
        write: writes the block's operators.
        x: the block's input.
        whole: run all of it again before its backward begins, as the older reentrant checkpoint does; False: when the
            first saved tensor is needed, and only as far as the last of them.
    """
    return _reentrant(t, write, x) if whole else again(t, lambda inputs: write(t, inputs[0]), (x,))


def _reentrant(t: Tape, write: Run, x: Value) -> Value:
    saves = t.saves
    t.saves = False
    y = write(t, x)
    t.saves = saves
    elements, each, grows = x.elements, x.each, x.node is not None

    def derive(arrived: list[Value | None], saved: tuple[Storage, ...]) -> Gradients:
        found: list[Value] = []
        inner = Value(saved[0], elements, each)
        if grows:
            t.leaf(inner, found.append)
        again = write(t, inner)
        t.cache.clear()
        node = again.node
        assert node is not None
        t.backward(node, again.place, [g.alias() for g in arrived if g is not None])
        return (found.pop() if found else None,)

    return t.record((x,), y.alias(), derive, (x,))
