"""Softmax attention written in operators: projections, rotary embedding, and the kernel or its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.layer_kind import GroupedQuery
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.tape import Tape
from vramfit.memory.tape.writer import FP32, Writer
from vramfit.units import round_up

FLASH_ROWS, FLASH_COLUMNS = 128, 32
"""FlashAttention's scratch is padded so: Dao-AILab/flash-attention:csrc/flash_attn/flash_api.cpp, mha_bwd."""
EFFICIENT_ROWS = 32
"""Rows to which the memory-efficient kernel pads its statistics:
pytorch/pytorch:aten/src/ATen/native/transformers/cuda/mem_eff_attention/kernel_forward.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionForm:
    """What a block's tensors say about its attention beyond its kind."""

    fused: bool = False
    """Queries, keys and values come of one matrix."""
    bias: bool = False
    output_bias: bool = False
    norms: bool = False
    """Norms on queries and keys, head by head."""
    rotary: bool = True


def grouped_query(w: Writer, x: Value, hidden: int, facts: GroupedQuery, form: AttentionForm) -> Value:
    """Write grouped-query attention from the normed input to the output projection."""
    heads, groups, width = facts.num_attention_heads, facts.num_key_value_heads, facts.head_dim
    values = facts.v_head_dim or width
    q, k, v = _projections(w, x, hidden, (heads * width, groups * width, groups * values), form)
    if form.norms:
        q = w.norm(q, width)
        k = w.norm(k, width)
    if form.rotary:
        q, k = rotary(w, q, k, w.flow.tokens * width)
    attended = kernel(w, q, k, v, Heads(queries=heads, keys=groups, width=width, values=values))
    del q, k, v, x
    return w.scattered(attended, heads * values, hidden, bias=form.output_bias)


def _projections(
    w: Writer, x: Value, hidden: int, widths: tuple[int, int, int], form: AttentionForm
) -> tuple[Value, Value, Value]:
    fused = form.fused if w.style.fused_query_key_value is None else w.style.fused_query_key_value
    if not fused:
        q, k, v = w.gathered(x, hidden, widths, bias=form.bias)
        return op.view(w.t, q), op.view(w.t, k), op.view(w.t, v)
    (mixed,) = w.gathered(x, hidden, (sum(widths),), bias=form.bias)
    q, k, v = op.split(w.t, mixed, tuple(w.flow.tokens * width for width in widths))
    return q, k, v


def rotary(w: Writer, q: Value, k: Value, table: int) -> tuple[Value, Value]:
    """Write rotary embedding of queries and keys."""
    t = w.t
    if w.style.fused_rotary:
        return _turn_fused(t, q), _turn_fused(t, k)
    cos, sin = t.constant(table, q.each), t.constant(table, q.each)
    turned_q = _turn(t, q, cos, sin)
    turned_k = _turn(t, k, cos, sin)
    return turned_q, turned_k


def _turn_fused(t: Tape, x: Value) -> Value:
    return op.fused(t, (x,), t.new(x.elements, x.each), ())


def _turn(t: Tape, x: Value, cos: Value, sin: Value) -> Value:
    """Multiply by cosines, and add the halves, changed over, multiplied by sines."""
    return op.add(t, op.multiply(t, x, cos), op.multiply(t, _changed_over(t, x), sin))


def _changed_over(t: Tape, x: Value) -> Value:
    first, second = op.view(t, x, x.elements // 2), op.view(t, x, x.elements // 2)
    return op.join(t, (op.scale(t, second), first))


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """How many heads an attention kernel sees, and how wide they are."""

    queries: int
    keys: int
    width: int
    """Of a query and a key."""
    values: int
    """Width of a value."""


def kernel(w: Writer, q: Value, k: Value, v: Value, heads: Heads) -> Value:
    """Write softmax attention as the chosen implementation runs it."""
    t, flow = w.t, w.flow
    rows = flow.sequences * heads.queries * flow.sequence_tokens
    if w.style.autocast:
        q, k, v = (op.cast(t, x, flow.each) for x in (q, k, v))
    if flow.attention == "eager":
        return _steps(w, q, k, v, heads)
    efficient = flow.attention == "efficient" or q.each == FP32
    if heads.keys != heads.queries and (w.style.repeats_key_values or efficient):
        k, v = _repeated(t, k, heads), _repeated(t, v, heads)
        heads = replace(heads, keys=heads.queries)
    output = t.new(rows * heads.values, q.each)
    padded = round_up(flow.sequence_tokens, EFFICIENT_ROWS) if efficient else flow.sequence_tokens
    statistics = t.new(flow.sequences * heads.queries * padded, FP32)
    return op.attention(t, (q, k, v), output, statistics, backward_scratch(w, heads, efficient=efficient))


def _repeated(t: Tape, x: Value, heads: Heads) -> Value:
    return op.copy(t, x, x.elements // heads.keys * heads.queries)


def backward_scratch(w: Writer, heads: Heads, *, efficient: bool) -> int:
    """Bytes that the backward kernel takes for itself. [B]

        flash:     heads * sequences * ceil128(tokens) * 4 * (1 + ceil32(head_dim))
                   + sequences * keys * heads * (head_dim + v_head_dim) * bytes   where keys and values are grouped
        efficient: heads * sequences * tokens * 4 * (1 + head_dim), the second term for 16-bit formats only

    1: sums of rows; head_dim: the gradient of the queries, added up in fp32. Grouped keys and values get a gradient
    for every query head first.
    Source: Dao-AILab/flash-attention:csrc/flash_attn/flash_api.cpp, mha_bwd;
    pytorch/pytorch:aten/src/ATen/native/transformers/cuda/mem_eff_attention/kernel_backward.h.
    """
    flow = w.flow
    if efficient or flow.attention == "cudnn":
        wide = heads.width if flow.each != FP32 else 0
        return flow.sequences * heads.queries * flow.sequence_tokens * FP32 * (1 + wide)
    rows = flow.sequences * heads.queries * round_up(flow.sequence_tokens, FLASH_ROWS)
    expanded = flow.sequences * flow.key_tokens * heads.queries * (heads.width + heads.values) * flow.each
    return rows * FP32 * (1 + round_up(heads.width, FLASH_COLUMNS)) + (expanded if heads.keys != heads.queries else 0)


def _steps(w: Writer, q: Value, k: Value, v: Value, heads: Heads) -> Value:
    """Write attention with its scores: product, scale, mask, softmax in fp32, cast, product."""
    t, flow = w.t, w.flow
    if heads.keys != heads.queries:
        k, v = _repeated(t, k, heads), _repeated(t, v, heads)
    rows = flow.sequences * heads.queries * flow.sequence_tokens
    weights = op.scale(t, op.product(t, q, k, rows * flow.key_tokens))
    weights = op.scale(t, weights)
    weights = op.cast(t, op.of_output(t, op.cast(t, weights, FP32)), q.each)
    return op.copy(t, op.product(t, weights, v, rows * heads.values))
