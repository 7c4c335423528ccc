"""A small autograd over sizes: values that live while something refers to them, and a backward pass.

A block written in operators runs as PyTorch would run it: a storage is alive as long as a variable, a saved
tensor or an arriving gradient refers to it, and the meter reads what is alive. Nothing is computed but sizes.
Order of the backward pass, the moment saved tensors are let go and accumulation in place are those of
pytorch/pytorch:torch/csrc/autograd/engine.cpp and input_buffer.cpp (2.13).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from heapq import heappop, heappush


class Meter:
    """Bytes that are alive, and the most that were since the last ``restart``."""

    __slots__ = ("live", "most", "most_beside", "owners", "settled")

    def __init__(self) -> None:
        """Start with nothing."""
        self.live = 0
        self.settled = 0
        """Gradients of weights that stay until the optimizer's step."""
        self.most = 0
        self.most_beside = 0
        """Most that was alive beside those gradients."""
        self.owners: dict[str, int] = {}
        """Bytes alive, by the module that made them."""

    def restart(self) -> None:
        """Forget the most."""
        self.most, self.most_beside = self.live, self.live - self.settled


class Storage:
    """Bytes on the device; they are let go with the last reference."""

    __slots__ = ("hidden", "meter", "num_bytes", "owner")

    def __init__(self, num_bytes: int, meter: Meter, owner: str) -> None:
        """Take the bytes."""
        self.num_bytes, self.meter, self.owner, self.hidden = num_bytes, meter, owner, 0
        live = meter.live = meter.live + num_bytes
        meter.owners[owner] = meter.owners.get(owner, 0) + num_bytes
        meter.most = max(meter.most, live)
        meter.most_beside = max(meter.most_beside, live - meter.settled)

    def __del__(self) -> None:
        """Give the bytes back."""
        self._count(-self.num_bytes)

    def _count(self, num_bytes: int) -> None:
        meter = self.meter
        meter.live += num_bytes
        meter.owners[self.owner] += num_bytes
        meter.most = max(meter.most, meter.live)
        meter.most_beside = max(meter.most_beside, meter.live - meter.settled)

    def empty(self) -> None:
        """Give the bytes back although somebody refers to them: they are computed again before they are read."""
        self._count(-self.num_bytes)
        self.num_bytes, self.hidden = 0, self.num_bytes

    def refill(self) -> None:
        """Take them again."""
        self.num_bytes, self.hidden = self.hidden, 0
        self._count(self.num_bytes)


class Value:
    """A tensor: so many elements of so many bytes in a storage that other values may share."""

    __slots__ = ("each", "elements", "node", "place", "storage")

    def __init__(self, storage: Storage, elements: int, each: int, node: Node | None = None, place: int = 0) -> None:
        """Refer to a storage."""
        self.storage, self.elements, self.each, self.node, self.place = storage, elements, each, node, place
        # node: what made it, None = no gradient is wanted; place: which of that node's outputs it is

    def alias(self) -> Value:
        """Return another value of the same storage, as a gradient that is handed on."""
        return Value(self.storage, self.elements, self.each)


Gradients = tuple[Value | None, ...]
Derive = Callable[[list[Value | None], tuple[Storage, ...]], Gradients]
"""Makes the gradients of a node's inputs of those of its outputs; must not hold a value itself."""


class Node:
    """One step of the backward pass."""

    __slots__ = ("arrived", "derive", "feeds", "number", "refill", "saved")

    def __init__(self, number: int, feeds: tuple[tuple[Node, int] | None, ...], derive: Derive) -> None:
        """Take its place in the order: later nodes run earlier."""
        self.number, self.feeds, self.derive = number, feeds, derive
        self.saved: tuple[Storage, ...] = ()
        self.refill: Callable[[], None] | None = None
        """Computes again what was not saved; None = it was."""
        self.arrived: list[Value | None] = [None]


def feed(value: Value) -> tuple[Node, int] | None:
    """Return where the gradient of this value goes; None = nobody wants it."""
    return None if value.node is None else (value.node, value.place)


def run_backward(first: Node, place: int, gradient: list[Value], adds: Callable[[Value], Value]) -> None:
    """Run ``first`` and the nodes below it.

    Args:
        first: what made the output.
        place: which of its outputs it is.
        gradient: the output's gradient, alone in a list, which is emptied so that nobody else holds it.
        adds: makes a new value for a sum that cannot be made in place.
    """
    waits = _count_uses(first)
    first.arrived[place] = gradient.pop()
    ready = [(-first.number, first)]
    while ready:
        _, node = heappop(ready)
        arrived, node.arrived = node.arrived, [None] * len(node.arrived)
        if node.refill is not None:
            node.refill()
        gradients = list(node.derive(arrived, node.saved))
        node.saved = ()
        del arrived
        _hand_on(node, gradients, waits, ready, adds)
        del gradients


def _hand_on(
    node: Node,
    gradients: list[Value | None],
    waits: dict[Node, int],
    ready: list[tuple[int, Node]],
    adds: Callable[[Value], Value],
) -> None:
    gradients.reverse()
    for target in node.feeds:
        value = gradients.pop()
        if target is None:
            continue
        below, place = target
        if value is not None:
            old = below.arrived[place]
            if old is None:
                below.arrived[place] = value
            elif sys.getrefcount(old.storage) > 2:  # somebody else reads the sum so far: add out of place
                below.arrived[place] = adds(old)
            del old
        del value
        waits[below] -= 1
        if not waits[below]:
            heappush(ready, (-below.number, below))


def _count_uses(first: Node) -> dict[Node, int]:
    waits: dict[Node, int] = {first: 0}
    stack = [first]
    while stack:
        for target in stack.pop().feeds:
            if target is None:
                continue
            if target[0] in waits:
                waits[target[0]] += 1
            else:
                waits[target[0]] = 1
                stack.append(target[0])
    return waits
