"""What comes before the blocks: token embeddings, positions, a norm and dropout, with their large gradients."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.memory.tape import operator as op
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.writer import Norm, Writer

ID = 8
"""Bytes of a token's number, a label or a position: int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """Tables that are looked up and what follows them."""

    hidden: int
    tables: tuple[tuple[int, bool], ...]
    """Elements of each table, and whether it trains; the token table first."""
    norm: bool = False
    kind: Norm = Norm.NARROW
    shared: bool = False
    """The token table is the output projection too, whose gradient is there already."""

    @property
    def shared_elements(self) -> int:
        """Elements of a gradient that the head has left already."""
        return self.tables[0][0] if self.shared and self.tables and self.tables[0][1] else 0


def write_first(w: Writer, first: First, batch: Value) -> Value:
    """Write the embedding; ``batch`` are the token numbers, which its backward needs."""
    t, tokens = w.t, w.flow.outer_tokens
    t.module = "embedding"
    x = None
    for place, (elements, trains) in enumerate(first.tables):
        table = w.weight(elements, trains=trains)
        rows = tokens if place == 0 else w.flow.sequence_tokens
        found = op.looked_up(t, table, rows * first.hidden, w.flow.residual_each, batch)
        x = found if x is None else op.add_rows(t, x, found)
        del found
    assert x is not None
    if first.norm:
        x = w.norm(x, first.hidden, first.kind)
    return w.dropout(x) if w.flow.dropout else x
