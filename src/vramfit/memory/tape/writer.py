"""Writes the small pieces that all blocks are made of: norms, linear layers and dropout in a framework's style."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vramfit.block_style import BlockStyle
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.flow import Flow
from vramfit.memory.tape.matrix import Matrix
from vramfit.memory.tape.tape import Tape

FP32 = 4

PLAIN = Matrix()
"""A trained matrix without a bias or an adapter."""


class Norm(StrEnum):
    """How a norm is written."""

    MEAN = "mean"  # LayerNorm, with mean and bias: one kernel
    NARROW = "narrow"  # RMSNorm in fp32, cast back before the product with its weight: Llama
    COPIED = "copied"  # the product is in fp32 too, with a copy of the weight: Gemma
    WIDE = "wide"  # the product is in fp32, with the weight as it is: OLMo 2
    WRITTEN_OUT = "written out"  # LayerNorm without bias, step by step in fp32: Cohere
    MIXED = "mixed"  # the input is scaled as it came, by an fp32 scale: T5


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A tape with what decides how things are written on it."""

    t: Tape
    flow: Flow
    style: BlockStyle
    vectors_train: bool = True
    """Whether norms and other vectors of the block are trained."""

    def weight(self, elements: int, *, trains: bool = True, each: int | None = None) -> Value:
        """Return a weight of this block."""
        return self.t.weight(elements, each or self.flow.weight_each, trains=trains)

    def vector(self, elements: int) -> Value:
        """Return a weight of a norm or another vector."""
        return self.weight(elements, trains=self.vectors_train)

    def linear(self, x: Value, inputs: int, outputs: int, matrix: Matrix = PLAIN, weight: Value | None = None) -> Value:
        """Write a linear layer, with the adapter beside it; under autocast input and weights are cast first.

        ``weight``: one that other layers use too; None = its own.
        """
        y = self._base(x, inputs, outputs, matrix, weight)
        if not matrix.rank:
            return y
        given = y.each
        if matrix.packed:
            y = op.copy(self.t, y)  # peft clones the output of a 4-bit layer
        return op.cast(self.t, self._adapted(x, y, inputs, outputs, matrix), given)

    def _base(self, x: Value, inputs: int, outputs: int, matrix: Matrix, weight: Value | None) -> Value:
        t, each = self.t, self.flow.each
        if matrix.packed:
            narrow = op.cast(t, x, self.flow.packed_each)
            style = self.style
            y = op.packed_linear(
                t, narrow, inputs, outputs, keeps_input=style.packed_keeps_input, twice=style.unpacks_twice
            )
            return op.cast(t, y, each)
        weight = weight or self.weight(inputs * outputs, trains=matrix.trains)
        offset = self.weight(outputs, trains=matrix.bias_trains) if matrix.bias else None
        if self.style.autocast:
            x, weight = op.cast(t, x, each), self.cast_weight(weight)
            offset = None if offset is None else self.cast_weight(offset)
        return op.linear(t, x, weight, outputs, offset)

    def cast_weight(self, weight: Value) -> Value:
        """Cast a weight; of trained ones autocast keeps the copy until its region ends."""
        copy = op.cast(self.t, weight, self.flow.each)
        if copy is not weight and weight.node is not None:
            self.t.cache.append(copy)
        return copy

    def _adapted(self, x: Value, y: Value, inputs: int, outputs: int, matrix: Matrix) -> Value:
        """Add ``B(A(dropout(x))) * scale``; input and weights in the adapter's format, or cast by autocast.

        Source: huggingface/peft:src/peft/tuners/lora/layer.py and bnb.py, Linear.forward.
        """
        t, each = self.t, max(matrix.adapter_each, self.flow.each)
        first, second = self.weight(inputs * matrix.rank, each=each), self.weight(matrix.rank * outputs, each=each)
        if self.style.autocast:
            if not matrix.packed:
                x = op.cast(t, x, each)
            x = self.dropout(x) if self.flow.adapter_dropout else x
            x, first, second = op.cast(t, x, self.flow.each), self.cast_weight(first), self.cast_weight(second)
        else:
            x = op.cast(t, x, each)
            x = self.dropout(x) if self.flow.adapter_dropout else x
        if matrix.magnitude:
            return self._with_magnitude(y, op.linear(t, x, first, matrix.rank), second, inputs, outputs)
        if self.style.fused_adapter:
            return op.add(t, y, op.linear(t, op.linear(t, x, first, matrix.rank), second, outputs))
        added = op.scale(t, op.linear(t, op.linear(t, x, first, matrix.rank), second, outputs))
        if matrix.packed and not self.style.autocast:
            added = op.cast(t, added, y.each)
        return op.add(t, y, added)

    def _with_magnitude(self, y: Value, inner: Value, second: Value, inputs: int, outputs: int) -> Value:
        """Write DoRA: the norm of the whole matrix is made anew, and both results are scaled by magnitudes.

        Source: huggingface/peft:src/peft/tuners/lora/dora.py, DoraLinearLayer.forward.
        """
        t, each = self.t, inner.each
        identity = t.new(inputs * inputs, each)
        product = t.new(outputs * inputs, each)
        unpacked = t.new(outputs * inputs, each)
        scaled = t.new(outputs * inputs, each)
        both = t.new(outputs * inputs, each)
        del identity, product, unpacked, scaled, both
        size = op.of_output(t, self.weight(outputs, each=each))
        result = op.linear(t, inner, second, outputs)
        base = op.multiply(t, op.scale(t, size), y)
        return op.add(t, y, op.add(t, base, op.scale(t, op.multiply(t, size, result))))

    def gathered(self, x: Value, inputs: int, outputs: tuple[int, ...], matrices: tuple[Matrix, ...]) -> list[Value]:
        """Write linear layers side by side that read the same input, all tokens of it."""
        t, ranks = self.t, self.flow.share
        if ranks > 1 and not self.style.gathers_again:
            x = op.gather(t, x, ranks)
        if self.style.autocast and not self.style.separate_casts:
            x = op.cast(t, x, self.flow.each)
        if ranks > 1 and self.style.gathers_again and not matrices[0].rank and not matrices[0].packed:
            weights = [self.weight(inputs * width, trains=m.trains) for width, m in zip(outputs, matrices, strict=True)]
            return [op.gathered_linear(t, x, w, n, ranks) for w, n in zip(weights, outputs, strict=True)]
        if ranks > 1 and self.style.gathers_again:
            x = op.gather(t, x, ranks)
        return [self.linear(x, inputs, width, m) for width, m in zip(outputs, matrices, strict=True)]

    def scattered(self, x: Value, inputs: int, outputs: int, matrix: Matrix) -> Value:
        """Write a linear layer whose output is summed over ranks, and under sequence parallelism divided."""
        y = self.linear(x, inputs, outputs, matrix)
        return op.copy(self.t, y, y.elements // self.flow.share) if self.flow.share > 1 else y

    def dropout(self, x: Value) -> Value:
        """Write dropout: a mask of one byte an element is kept."""
        mask = self.t.new(x.elements, 1)
        return op.fused(self.t, (x,), self.t.new(x.elements, x.each), (mask,))

    def norm(self, x: Value, width: int, kind: Norm) -> Value:
        """Write a norm over rows of ``width``: in one kernel, or RMSNorm step by step in fp32."""
        t, rows = self.t, x.elements // width
        if kind is Norm.MEAN or self.style.fused_norm:
            return self._one_kernel(x, width, rows, with_mean=kind is Norm.MEAN)
        given = x.each
        if kind is Norm.COPIED or self.style.wide_norm:
            weight = op.scale(t, op.cast(t, self.vector(width), FP32))
            return op.cast(t, op.multiply(t, self._normed(x, rows), weight), given)
        if kind is Norm.WRITTEN_OUT:
            return op.cast(t, op.multiply(t, op.cast(t, self.vector(width), FP32), self._centred(x, rows)), given)
        if kind is Norm.WIDE:
            return op.cast(t, op.multiply(t, self.vector(width), self._normed(x, rows)), given)
        x = self._normed(x, rows, mixed=kind is Norm.MIXED)
        return op.multiply(t, self.vector(width), op.cast(t, x, given))

    def _normed(self, x: Value, rows: int, *, mixed: bool = False) -> Value:
        t = self.t
        wide = op.cast(t, x, FP32)
        variance = op.mean(t, op.square(t, wide), rows)
        scale = op.of_output(t, op.scale(t, variance))
        if mixed:
            del wide
            return op.multiply(t, x, scale)
        return op.multiply(t, wide, scale)

    def _centred(self, x: Value, rows: int) -> Value:
        """Divide what lies off the mean by its deviation; the difference is made twice."""
        t = self.t
        wide = op.cast(t, x, FP32)
        variance = op.mean(t, op.square(t, op.scale(t, wide)), rows)
        return op.multiply(t, op.scale(t, wide), op.of_output(t, op.scale(t, variance)))

    def _one_kernel(self, x: Value, width: int, rows: int, *, with_mean: bool) -> Value:
        if self.style.autocast:
            x = op.cast(self.t, x, FP32)
        y = self.t.new(x.elements, x.each)
        statistics = self.t.new(rows * (2 if with_mean else 1), FP32)
        vectors = (self.vector(width), self.vector(width)) if with_mean else (self.vector(width),)
        return op.fused(self.t, (x, *vectors), y, (x, statistics))
