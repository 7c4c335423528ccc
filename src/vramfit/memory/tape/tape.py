"""The tape: makes values, remembers how they were made, and runs them backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vramfit.memory.tape.engine import Derive, Gradients, Meter, Node, Storage, Value, feed, run_backward


class Chooses(Protocol):
    """Decides which outputs are kept while all else is computed again."""

    def output(self, kind: str, make: Callable[[], Value]) -> Value:
        """Return an operator's output, kept or made."""
        ...


LEAF = 1 << 60
"""Leaves run as soon as their gradient is there, before any other node."""


def _empty(storage: Storage, nodes: list[Node]) -> None:
    def refill() -> None:
        for node in nodes:
            node.refill = None
        storage.refill()

    storage.empty()
    for node in nodes:
        node.refill = refill


NOWHERE = Node(0, (), lambda _arrived, _saved: ())
"""Stands for what made a value while a block is written again: its own nodes exist already."""


class Tape:
    """Where one block is written down; every operator adds to it."""

    def __init__(self, *, accumulates: bool = True) -> None:
        """Start a tape.

        Args:
            accumulates: weights' gradients stay in ``.grad``; False: the kernel adds them to a buffer held elsewhere.
        """
        self.meter = Meter()
        self.outside = Meter()
        """Meter of what is not this block's to count: weights, rotary tables, masks."""
        self.module = "block"
        """Module that owns what is made now."""
        self.accumulates = accumulates
        self.fused_weight_gradients = False
        """True: the kernel adds a matrix gradient to a buffer held elsewhere; none is made."""
        self.saves = True
        """False: under ``no_grad`` or checkpointing, nothing is remembered."""
        self.attributes: dict[int, int] = {}
        """Bytes by storage that an operator keeps as a plain attribute, which no backward pass lets go."""
        self.cache: list[Value] = []
        """Cast weights that autocast keeps until its region ends."""
        self.counted = 0
        """Times that something was saved, to know where a recomputation may stop."""
        self.stop_after: int | None = None
        self.frame: list[Node] | None = None
        """Nodes of a checkpoint that is being written, whose saved tensors come later."""
        self.refills: list[Node] | None = None
        """Those nodes in reverse, while the block is written again to give them what they need."""
        self.choice: Chooses | None = None
        """Decides which outputs a checkpoint keeps all the same; None = none of them."""
        self.gradients: list[Value] = []
        """Gradients of weights, held until the optimizer's step."""
        self._forgotten: dict[int, tuple[Storage, list[Node]]] = {}
        self._number = 0
        self._packed = 0

    def new(self, elements: int, each: int) -> Value:
        """Return a new tensor."""
        stopped = self.stop_after is not None and self.counted >= self.stop_after
        meter = self.outside if stopped else self.meter
        return Value(Storage(elements * each, meter, self.module), elements, each)

    def output(self, kind: str, elements: int, each: int) -> Value:
        """Return a new tensor, the output of a matrix product or a kernel, which a checkpoint may keep."""
        if self.choice is None or (self.saves and self.refills is None):
            return self.new(elements, each)
        return self.choice.output(kind, lambda: self.new(elements, each))

    def keep_first(self, *wanted: bool) -> None:
        """Count inputs that the next operator saves; autograd saves them before the operator runs."""
        self._packed = sum(wanted)
        self.counted += self._packed

    def constant(self, elements: int, each: int) -> Value:
        """Return a tensor that somebody else counts: a table, a mask."""
        return Value(Storage(elements * each, self.outside, "outside"), elements, each)

    def weight(self, elements: int, each: int, *, trains: bool = True) -> Value:
        """Return a weight; its gradient appears in its own format."""
        value = self.constant(elements, each)
        if trains:
            value.node = self._leaf(self._settle)
        return value

    def leaf(self, value: Value, take: Callable[[Value], None]) -> None:
        """Make a value want its gradient, which ``take`` gets."""
        value.node = self._leaf(take)

    def _leaf(self, take: Callable[[Value], None]) -> Node:
        def derive(arrived: list[Value | None], _saved: tuple[Storage, ...]) -> Gradients:
            if arrived[0] is not None:
                take(arrived[0])
            return ()

        self._number += 1
        return Node(LEAF + self._number, (), derive)

    def _settle(self, gradient: Value) -> None:
        if self.accumulates:
            self.gradients.append(gradient)
            self.meter.settled += gradient.storage.num_bytes

    def record(
        self,
        inputs: tuple[Value, ...],
        output: Value,
        derive: Derive,
        saved: tuple[Value | None, ...] = (),
        places: int = 1,
    ) -> Value:
        """Remember how ``output`` was made of ``inputs`` and what its backward needs of ``saved``."""
        for value in inputs:
            if value.node is not None:
                break
        else:
            return output
        kept = [value.storage for value in saved if value is not None]
        self.counted += len(kept) - self._packed
        self._packed = 0
        if self.refills is not None:
            output.node = NOWHERE
            if kept:
                self.refills.pop().saved = tuple(kept)
            return output
        self._number += 1
        node = Node(self._number, tuple([feed(value) for value in inputs]), derive)
        node.arrived = [None] * places
        if self.saves:
            node.saved = tuple(kept)
            for storage in kept if self._forgotten else ():
                if id(storage) in self._forgotten:
                    self._forgotten[id(storage)][1].append(node)
        elif kept and self.frame is not None:
            self.frame.append(node)
        output.node = node
        return output

    def forget(self, value: Value) -> None:
        """Give a value back when the forward pass is over, and compute it again before its backward reads it.

        Source: NVIDIA/Megatron-LM:megatron/core/tensor_parallel/random.py, CheckpointWithoutOutput.
        """
        if self.saves:
            self._forgotten[id(value.storage)] = (value.storage, [])

    def end_forward(self) -> None:
        """Empty what is forgotten until the backward pass."""
        for storage, nodes in self._forgotten.values():
            if nodes:
                _empty(storage, nodes)
        self._forgotten.clear()

    def backward(self, first: Node, place: int, gradient: list[Value]) -> None:
        """Run backward from an output of ``first``; the list is emptied."""
        run_backward(first, place, gradient, self._sum)

    def _sum(self, old: Value) -> Value:
        return self.new(old.elements, old.each)
