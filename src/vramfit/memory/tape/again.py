"""Parts of a block that are computed again in the backward pass, and outputs that are kept all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from vramfit.memory.tape.engine import Node, Value
from vramfit.memory.tape.tape import NOWHERE, Tape

Written = TypeVar("Written")


def again(
    t: Tape, write: Callable[[tuple[Value, ...]], Written], inputs: tuple[Value, ...], *, outputs: bool = False
) -> Written:
    """Write a part that keeps nothing but its inputs, and is written again when its backward needs something.

    It stops with the last tensor that is needed. Source: pytorch/pytorch:torch/utils/checkpoint.py,
    _checkpoint_without_reentrant_generator; with ``outputs`` create_selective_checkpoint_contexts.

    Args:
        t: the tape.
        write: writes the operators.
        inputs: what they read.
        outputs: keep the outputs of attention kernels and of every second matrix product, and take them from there.
    """
    nodes: list[Node] = []
    before = t.saves, t.frame, t.choice
    counted = t.counted
    t.saves, t.frame, t.choice = False, nodes, Choice() if outputs else None
    result = write(inputs)
    choice = t.choice
    t.saves, t.frame, t.choice = before
    num_saved = t.counted - counted
    shapes = [(x.storage, x.elements, x.each, x.node is not None) for x in inputs]

    def refill() -> None:
        for node in nodes:
            node.refill = None
        inner = tuple(Value(s, elements, each, NOWHERE if grows else None) for s, elements, each, grows in shapes)
        before = t.refills, t.stop_after, t.choice
        t.refills, t.stop_after, t.choice = nodes[::-1], t.counted + num_saved, choice
        if choice is not None:
            choice.replays()
        write(inner)
        t.refills, t.stop_after, t.choice = before
        t.cache.clear()
        nodes[0].saved = (*nodes[0].saved, *(shape[0] for shape in shapes))  # held until the last of them has run

    for node in nodes:
        node.refill = refill
    return result


class Choice:
    """Which outputs are kept: those of attention kernels, and every second matrix product, the first included.

    Those of a router do not count, and grouped products of experts are none of them.
    Source: pytorch/torchtitan:torchtitan/distributed/activation_checkpoint.py, and torchtitan/config/job_config.py
    (per_op_sac_force_recompute_mm_shapes_by_fqns).
    """

    __slots__ = ("kept", "products", "replaying")

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.kept: list[Value] = []
        self.products = 0
        self.replaying = False

    def replays(self) -> None:
        """Hand the kept outputs out from now on."""
        self.replaying, self.products = True, 0
        self.kept.reverse()

    def output(self, kind: str, make: Callable[[], Value]) -> Value:
        """Return the output of an operator: made now and kept if it is one of those, or as it was kept."""
        self.products += kind == "product"
        if kind == "router" or (kind == "product" and self.products % 2 == 0):
            return make()
        if self.replaying:
            return self.kept.pop()
        value = make()
        self.kept.append(Value(value.storage, value.elements, value.each))
        return value
