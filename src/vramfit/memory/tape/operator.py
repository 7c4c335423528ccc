"""Operators: what each makes, what autograd saves of it, and what its backward makes on the way.

Saved tensors are those of pytorch/pytorch:tools/autograd/derivatives.yaml (2.13); what a backward pass holds at once
is read in torch/csrc/autograd/FunctionsManual.cpp.
"""

from __future__ import annotations

from vramfit.memory.tape.engine import Gradients, Storage, Value
from vramfit.memory.tape.tape import Tape

FP32 = 4
Arrived = list[Value | None]
Saved = tuple[Storage, ...]


def linear(t: Tape, x: Value, weight: Value, outputs: int, bias: Value | None = None, kind: str = "product") -> Value:
    """Multiply by a matrix; keeps its input where the matrix trains, the matrix where the input wants a gradient.

    ``kind``: what selective recomputation goes by.
    """
    t.keep_first(weight.node is not None, x.node is not None)
    y = t.output(kind, x.elements * outputs // (weight.elements // outputs), x.each)
    size, each, matrix, matrix_each = x.elements, x.each, weight.elements, weight.each
    to_x, to_w = x.node is not None, weight.node is not None and not t.fused_weight_gradients
    to_b, bias_each = (False, 0) if bias is None else (bias.node is not None, bias.each)

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        of_b = t.new(outputs, bias_each) if to_b else None
        of_x = t.new(size, each) if to_x else None
        return of_x, t.new(matrix, matrix_each) if to_w else None, of_b

    inputs = (x, weight) if bias is None else (x, weight, bias)
    return t.record(inputs, y, derive, (x if weight.node else None, weight if to_x else None))


def add(t: Tape, a: Value, b: Value) -> Value:
    """Add two tensors of one shape; keeps nothing, and hands the gradient itself on to both."""
    y = t.new(a.elements, max(a.each, b.each))
    to_a, to_b, each_a, each_b = a.node is not None, b.node is not None, a.each, b.each

    def derive(arrived: Arrived, _saved: Saved) -> Gradients:
        (g,) = arrived
        assert g is not None
        of_a = (g.alias() if g.each == each_a else t.new(g.elements, each_a)) if to_a else None
        of_b = (g.alias() if g.each == each_b else t.new(g.elements, each_b)) if to_b else None
        return of_a, of_b

    return t.record((a, b), y, derive)


def multiply(t: Tape, a: Value, b: Value) -> Value:
    """Multiply element by element, the smaller one repeated; each is kept where the other wants a gradient."""
    t.keep_first(b.node is not None, a.node is not None)
    y = t.new(max(a.elements, b.elements), max(a.each, b.each))
    to_a, to_b, each_a, each_b, size_a, size_b = a.node, b.node, a.each, b.each, a.elements, b.elements
    want_a, want_b, full, each = to_a is not None, to_b is not None, y.elements, y.each
    del to_a, to_b

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        of_a = t.new(full, each) if want_a else None
        of_b = t.new(full, each) if want_b else None
        if of_a is not None and (size_a, each_a) != (full, each):
            of_a = t.new(size_a, each_a)
        if of_b is not None and (size_b, each_b) != (full, each):
            of_b = t.new(size_b, each_b)
        return of_a, of_b

    return t.record((a, b), y, derive, (a if want_b else None, b if want_a else None))


def scale(t: Tape, x: Value) -> Value:
    """Multiply by a number, or add one: keeps nothing."""
    return _pointwise(t, x, t.new(x.elements, x.each), None)


def cast(t: Tape, x: Value, each: int) -> Value:
    """Change the format; the same tensor where it has it already."""
    return x if x.each == each else _pointwise(t, x, t.new(x.elements, each), None)


def activation(t: Tape, x: Value) -> Value:
    """Apply a function that keeps its input (SiLU, GELU, square)."""
    t.keep_first(x.node is not None)
    return _pointwise(t, x, t.new(x.elements, x.each), x)


def of_output(t: Tape, x: Value) -> Value:
    """Apply a function that keeps its output (ReLU, sigmoid, tanh, reciprocal root)."""
    y = t.new(x.elements, x.each)
    return _pointwise(t, x, y, y)


def _pointwise(t: Tape, x: Value, y: Value, kept: Value | None) -> Value:
    size, each = x.elements, x.each

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        return (t.new(size, each),)

    return t.record((x,), y, derive, (kept,))


def square(t: Tape, x: Value) -> Value:
    """Raise to the second power; its backward makes the power below it and its double on the way."""
    size, each = x.elements, x.each

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        power = t.new(size, each)
        double = t.new(size, each)
        of_x = t.new(size, each)
        del power, double
        return (of_x,)

    t.keep_first(x.node is not None)
    return t.record((x,), t.new(size, each), derive, (x,))


def mean(t: Tape, x: Value, rows: int) -> Value:
    """Average over each row; its backward writes the whole tensor out."""
    return _pointwise(t, x, t.new(rows, x.each), None)


def view(t: Tape, x: Value, elements: int | None = None) -> Value:
    """Look at a tensor in another shape, or at a part of it; a part's gradient is written into zeros of the whole."""
    y = Value(x.storage, x.elements if elements is None else elements, x.each)
    size, each, whole = x.elements, x.each, y.elements == x.elements

    def derive(arrived: Arrived, _saved: Saved) -> Gradients:
        (g,) = arrived
        return (g.alias() if whole and g is not None else t.new(size, each),)

    return t.record((x,), y, derive)


def join(t: Tape, parts: tuple[Value, ...]) -> Value:
    """Put tensors behind one another; their gradients are views."""
    y = t.new(sum(part.elements for part in parts), parts[0].each)
    sizes = tuple(part.elements for part in parts)

    def derive(arrived: Arrived, _saved: Saved) -> Gradients:
        (g,) = arrived
        assert g is not None
        return tuple(Value(g.storage, size, g.each) for size in sizes)

    return t.record(parts, y, derive)


def copy(t: Tape, x: Value, elements: int | None = None) -> Value:
    """Lay a tensor out anew, or repeat it."""
    return _pointwise(t, x, t.new(elements or x.elements, x.each), None)


def fused(t: Tape, inputs: tuple[Value, ...], output: Value, kept: tuple[Value, ...], scratch: int = 0) -> Value:
    """One kernel over some inputs: keeps what is said, and needs ``scratch`` bytes while it runs backward."""
    shapes = tuple((v.elements, v.each) if v.node is not None else None for v in inputs)

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        gradients = tuple(None if shape is None else t.new(*shape) for shape in shapes)
        if scratch:
            t.new(scratch, 1)
        return gradients

    return t.record(inputs, output, derive, kept)


def gather(t: Tape, x: Value, ranks: int) -> Value:
    """Gather the tokens of all ranks; its backward scatters their gradient."""
    return _pointwise(t, x, t.new(x.elements * ranks, x.each), None)


def gathered_linear(t: Tape, x: Value, weight: Value, outputs: int, ranks: int) -> Value:
    """Gather, then multiply; keeps this rank's share of the input and gathers it again for the weight's gradient."""
    inputs = weight.elements // outputs
    t.keep_first(weight.node is not None, x.node is not None)
    whole = t.new(x.elements * ranks, x.each)
    y = t.new(whole.elements // inputs * outputs, x.each)
    del whole
    size, each, matrix, matrix_each = x.elements, x.each, weight.elements, weight.each
    to_x, to_w, makes = x.node is not None, weight.node is not None, not t.fused_weight_gradients

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        again = t.new(size * ranks, each) if to_w else None
        of_x = t.new(size * ranks, each) if to_x else None
        of_w = t.new(matrix, matrix_each) if to_w and makes else None
        del again
        return t.new(size, each) if of_x is not None else None, of_w

    return t.record((x, weight), y, derive, (x if to_w else None, weight if to_x else None))


def attention(
    t: Tape, queries_keys_values: tuple[Value, Value, Value], output: Value, kept: tuple[Value, ...], scratch: int
) -> Value:
    """Run an attention kernel: keeps queries, keys, values, its output and what else is said."""
    shapes = tuple((x.elements, x.each) for x in queries_keys_values)
    wants = tuple(x.node is not None for x in queries_keys_values)

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        gradients = tuple(t.new(*shape) for shape in shapes)
        if scratch:
            t.new(scratch, 1)
        return tuple(g if wanted else None for g, wanted in zip(gradients, wants, strict=True))

    return t.record(queries_keys_values, output, derive, (*queries_keys_values, output, *kept))


def split(t: Tape, x: Value, sizes: tuple[int, ...]) -> tuple[Value, ...]:
    """Look at parts of a tensor side by side; their gradients are put together at once."""
    parts = tuple(Value(x.storage, size, x.each) for size in sizes)
    if x.node is None:
        return parts
    size, each = x.elements, x.each

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        return (t.new(size, each),)

    t.record((x,), parts[0], derive, places=len(parts))
    for place, part in enumerate(parts):
        part.node, part.place = parts[0].node, place
    return parts


def product(t: Tape, a: Value, b: Value, elements: int) -> Value:
    """Multiply two batches of matrices; each is kept for the other's gradient."""
    shapes = tuple((v.elements, v.each) if v.node is not None else None for v in (a, b))

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        return tuple(None if shape is None else t.new(*shape) for shape in shapes)

    t.keep_first(b.node is not None, a.node is not None)
    return t.record((a, b), t.new(elements, a.each), derive, (a if shapes[1] else None, b if shapes[0] else None))


def part(t: Tape, x: Value, elements: int) -> Value:
    """Look at some rows of a tensor; their gradient is written into zeros of the whole."""
    return view(t, x, elements)


def packed_linear(
    t: Tape, x: Value, inputs: int, outputs: int, *, keeps_input: bool = False, twice: bool = False
) -> Value:
    """Multiply by a frozen matrix that is stored packed: each pass unpacks it for itself.

    Up to bitsandbytes 0.42 the input is kept, although nothing needs it. ``twice``: it is unpacked in another format
    than the input's and cast.
    Source: bitsandbytes-foundation/bitsandbytes:bitsandbytes/autograd/_functions.py, MatMul4Bit.
    """
    unpacked = _unpacked(t, inputs * outputs, x.each, twice=twice)
    y = t.new(x.elements // inputs * outputs, x.each)
    del unpacked
    size, each = x.elements, x.each
    if keeps_input and t.saves:
        t.attributes[id(x.storage)] = x.storage.num_bytes

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        again = _unpacked(t, inputs * outputs, each, twice=twice)
        of_x = t.new(size, each)
        del again
        return (of_x,)

    return t.record((x,), y, derive, (x,) if keeps_input else ())


def _unpacked(t: Tape, elements: int, each: int, *, twice: bool) -> Value:
    first = t.new(elements, each)
    return t.new(elements, each) if twice else first


def laid_out(t: Tape, x: Value) -> Value:
    """Look at the heads of a tensor; the gradient comes back in another order and is laid out anew."""
    y = Value(x.storage, x.elements, x.each)
    size, each = x.elements, x.each

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        return (t.new(size, each),)

    return t.record((x,), y, derive)


def spread(t: Tape, own: Value, shared: Value, elements: int) -> Value:
    """Write a tensor of every head's own part and a part that all heads share; the shared gradient is a sum."""
    y = t.new(elements, own.each)
    sizes, each = (own.elements, shared.elements), own.each
    wants = (own.node is not None, shared.node is not None)

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        return tuple(t.new(size, each) if wanted else None for size, wanted in zip(sizes, wants, strict=True))

    return t.record((own, shared), y, derive)


def linear_of_experts(t: Tape, x: Value, weight: Value, elements: int) -> Value:
    """Multiply the tokens of each expert by its matrix, all matrices in one weight."""
    t.keep_first(weight.node is not None, x.node is not None)
    y = t.new(elements, x.each)
    size, each, matrix, matrix_each = x.elements, x.each, weight.elements, weight.each
    to_x, to_w = x.node is not None, weight.node is not None
    makes = to_w and not t.fused_weight_gradients

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        of_x = t.new(size, each) if to_x else None
        return of_x, t.new(matrix, matrix_each) if makes else None

    return t.record((x, weight), y, derive, (x if to_w else None, weight if to_x else None))


def summed(t: Tape, x: Value, elements: int) -> Value:
    """Sum over an axis; the gradient is read again and again and not written out."""
    y = t.new(elements, x.each)

    def derive(arrived: Arrived, _saved: Saved) -> Gradients:
        (g,) = arrived
        assert g is not None
        return (g.alias(),)

    return t.record((x,), y, derive)


def looked_up(t: Tape, table: Value, elements: int, each: int, numbers: Value) -> Value:
    """Look rows of a table up; keeps their numbers, and its backward makes a gradient as large as the table."""
    size, table_each = table.elements, table.each

    def derive(_arrived: Arrived, _saved: Saved) -> Gradients:
        return (t.new(size, table_each),)

    return t.record((table,), t.new(elements, each), derive, (numbers,))


def add_rows(t: Tape, x: Value, row: Value) -> Value:
    """Add a tensor that is repeated for every sequence; its gradient is a sum over them."""
    y = t.new(x.elements, x.each)
    size, to_x, to_row = row.elements, x.node is not None, row.node is not None

    def derive(arrived: Arrived, _saved: Saved) -> Gradients:
        (g,) = arrived
        assert g is not None
        summed = t.new(size, g.each) if size != g.elements else g.alias()
        return g.alias() if to_x else None, summed if to_row else None

    return t.record((x, row), y, derive)
