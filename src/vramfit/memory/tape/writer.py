"""Writes the small pieces that all blocks are made of: norms and linear layers in a framework's style."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.block_style import BlockStyle
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.flow import Flow
from vramfit.memory.tape.tape import Tape

FP32, BF16 = 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A tape with what decides how things are written on it."""

    t: Tape
    flow: Flow
    style: BlockStyle

    def weight(self, elements: int) -> Value:
        """Return a weight of this block."""
        return self.t.weight(elements, self.flow.weight_each)

    def linear(self, x: Value, inputs: int, outputs: int, *, bias: bool = False) -> Value:
        """Write a linear layer; under autocast input and weights are cast first."""
        weight = self.weight(inputs * outputs)
        offset = self.weight(outputs) if bias else None
        if self.style.autocast:
            x, weight = op.cast(self.t, x, self.flow.each), op.cast(self.t, weight, self.flow.each)
            offset = None if offset is None else op.cast(self.t, offset, self.flow.each)
        return op.linear(self.t, x, weight, outputs, offset)

    def gathered(self, x: Value, inputs: int, widths: tuple[int, ...], *, bias: bool = False) -> tuple[Value, ...]:
        """Write linear layers side by side that read the same input, all tokens of it."""
        if self.flow.share > 1 and not self.style.gathers_again:
            x = op.gather(self.t, x, self.flow.share)
        if self.style.autocast and not self.style.separate_casts:
            x = op.cast(self.t, x, self.flow.each)
        if self.flow.share > 1 and self.style.gathers_again:
            return tuple(
                op.gathered_linear(self.t, x, self.weight(inputs * width), width, self.flow.share) for width in widths
            )
        return tuple(self.linear(x, inputs, width, bias=bias) for width in widths)

    def scattered(self, x: Value, inputs: int, outputs: int, *, bias: bool = False) -> Value:
        """Write a linear layer whose output is summed over ranks, and under sequence parallelism divided."""
        y = self.linear(x, inputs, outputs, bias=bias)
        return op.copy(self.t, y, y.elements // self.flow.share) if self.flow.share > 1 else y

    def norm(self, x: Value, width: int, *, layer_norm: bool = False) -> Value:
        """Write a norm over rows of ``width``: in one kernel, or RMSNorm step by step in fp32."""
        t, rows = self.t, x.elements // width
        if layer_norm or self.style.fused_norm:
            return self._one_kernel(x, width, rows, layer_norm=layer_norm)
        given = x.each
        x = op.cast(t, x, FP32)
        variance = op.mean(t, op.square(t, x), rows)
        x = op.multiply(t, x, op.of_output(t, op.scale(t, variance)))
        return op.multiply(t, self.weight(width), op.cast(t, x, given))

    def _one_kernel(self, x: Value, width: int, rows: int, *, layer_norm: bool) -> Value:
        if self.style.autocast:
            x = op.cast(self.t, x, FP32)
        y = self.t.new(x.elements, x.each)
        statistics = self.t.new(rows * (2 if layer_norm else 1), FP32)
        vectors = (self.weight(width), self.weight(width)) if layer_norm else (self.weight(width),)
        return op.fused(self.t, (x, *vectors), y, (x, statistics))
