"""Runs one block forward and backward and reads the meter: what it keeps, and its peaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vramfit.memory.tape.engine import Gradients, Node, Storage, Value
from vramfit.memory.tape.tape import NOWHERE, Tape

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
        forward=forward - of_input,
        backward=max(0, backward - of_input),
        passing=max(0, passing - of_input),
        gradients=t.meter.settled,
        output=output,
        cached=cached,
    )


def checkpoint(t: Tape, write: Run, x: Value, *, whole: bool) -> Value:
    """Run a block keeping nothing but its input, and run it again when its backward needs something.

    Source: pytorch/pytorch:torch/utils/checkpoint.py, _checkpoint_without_reentrant_generator.

    Args:
        t: the tape.
        write: writes the block's operators.
        x: the block's input.
        whole: run all of it again before its backward begins, as the older reentrant checkpoint does; False: when the
            first saved tensor is needed, and only as far as the last of them.
    """
    if whole:
        return _reentrant(t, write, x)
    nodes: list[Node] = []
    saves, frame, counted = t.saves, t.frame, t.counted
    t.saves, t.frame = False, nodes
    y = write(t, x)
    t.saves, t.frame = saves, frame
    num_saved, elements, each, grows, storage = t.counted - counted, x.elements, x.each, x.node is not None, x.storage

    def refill() -> None:
        for node in nodes:
            node.refill = None
        inner = Value(storage, elements, each, NOWHERE if grows else None)
        refills, stop = t.refills, t.stop_after
        t.refills, t.stop_after = nodes[::-1], t.counted + num_saved
        write(t, inner)
        t.refills, t.stop_after = refills, stop
        t.cache.clear()
        nodes[0].saved = (*nodes[0].saved, storage)  # the input is held until the last of them has run

    for node in nodes:
        node.refill = refill
    return y


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
