"""Softmax attention written in operators: projections, rotary embedding, and the kernel or its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.layer_kind import CrossAttention, GroupedQuery
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.again import again
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.form import BlockForm
from vramfit.memory.tape.matrix import Matrices, Matrix
from vramfit.memory.tape.tape import Tape
from vramfit.memory.tape.writer import FP32, Writer
from vramfit.units import round_up

FLASH_ROWS, FLASH_COLUMNS = 128, 32
"""FlashAttention's scratch is padded so: Dao-AILab/flash-attention:csrc/flash_attn/flash_api.cpp, mha_bwd."""
EFFICIENT_ROWS = 32
"""Rows to which the memory-efficient kernel pads its statistics:
pytorch/pytorch:aten/src/ATen/native/transformers/cuda/mem_eff_attention/kernel_forward.h."""
WIDEST_FLASH = 256
"""Widest head that FlashAttention 2 takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """How many heads an attention kernel sees, and how wide they are."""

    queries: int
    keys: int
    width: int
    """Of a query and a key."""
    values: int
    """Width of a value."""
    key_tokens: int
    masked: bool = False
    """An explicit mask goes in, which FlashAttention does not take."""
    capped: bool = False
    """Scores pass a tanh."""
    biased: bool = False
    """A bias of every head, query and key goes in."""
    narrow: bool = False
    """Their softmax is in their own format."""


def grouped_query(w: Writer, x: Value, hidden: int, facts: GroupedQuery, form: BlockForm) -> Value:
    """Write grouped-query attention from the normed input to the output projection."""
    width, values = facts.head_dim, facts.v_head_dim or facts.head_dim
    heads = Heads(
        queries=facts.num_attention_heads,
        keys=facts.num_key_value_heads,
        width=width,
        values=values,
        key_tokens=w.flow.key_tokens,
        masked=form.biased_scores or (facts.window_tokens is not None and facts.window_tokens < w.flow.key_tokens),
        biased=form.biased_scores,
        capped=form.capped_scores,
        narrow=form.narrow_softmax,
    )
    q, k, v = _projections(w, x, hidden, heads, form.matrices)
    if form.scaled_queries and not w.style.fused_rotary:
        q = op.scale(w.t, q)
    if form.query_norms:
        rows = (heads.queries * width, heads.keys * width) if form.whole_query_norms else (width, width)
        q = w.norm(q, rows[0], form.norm)
        k = w.norm(k, rows[1], form.norm)
    if form.rotary:
        q, k = _turned(w, q, k, form, width)
    q, k, v = _laid_out(w, q, k, v, turned=form.rotary)
    attended = kernel(w, q, k, v, heads)
    del q, k, v, x
    joined = form.joined_queries or w.style.joins_queries
    if joined and form.rotary and not w.style.fused_rotary:
        attended = op.copy(w.t, attended)
    return w.scattered(attended, heads.queries * values, hidden, form.matrices["attention output"])


def _turned(w: Writer, q: Value, k: Value, form: BlockForm, width: int) -> tuple[Value, Value]:
    """Write rotary embedding in the family's format."""
    if not form.wide_rotary or w.style.fused_rotary:
        return rotary(w, q, k, w.flow.sequence_tokens * width)
    each = q.each
    wide_q, wide_k = rotary(w, op.cast(w.t, q, FP32), op.cast(w.t, k, FP32), w.flow.sequence_tokens * width)
    return op.cast(w.t, wide_q, each), op.cast(w.t, wide_k, each)


def _laid_out(w: Writer, q: Value, k: Value, v: Value, *, turned: bool) -> tuple[Value, Value, Value]:
    """Copy what is still a part of the one projection, where the kernel wants each by itself."""
    if not w.style.lays_out_heads:
        return q, k, v
    t = w.t
    return (q, k, op.copy(t, v)) if turned else (op.copy(t, q), op.copy(t, k), op.copy(t, v))


def cross(w: Writer, x: Value, hidden: int, facts: CrossAttention, form: BlockForm) -> Value:
    """Write attention to another stream, whose values every block reads and nobody here counts."""
    t, tokens = w.t, facts.source_tokens or w.flow.source_tokens
    heads = Heads(
        queries=facts.num_attention_heads,
        keys=facts.num_key_value_heads,
        width=facts.head_dim,
        values=facts.head_dim,
        key_tokens=tokens,
        masked=True,
    )
    (q,) = w.gathered(x, hidden, (heads.queries * heads.width,), (form.matrices["query"],))
    source = t.constant(w.flow.sequences * tokens * hidden, w.flow.each)
    t.leaf(source, lambda _: None)
    size = heads.keys * heads.width
    k = w.linear(source, hidden, size, form.matrices["key"])
    v = w.linear(source, hidden, size, form.matrices["value"])
    del source
    attended = kernel(w, op.view(t, q), op.view(t, k), op.view(t, v), heads)
    del q, k, v, x
    return w.scattered(attended, heads.queries * heads.values, hidden, form.matrices["attention output"])


def _projections(w: Writer, x: Value, hidden: int, heads: Heads, matrices: Matrices) -> tuple[Value, Value, Value]:
    t = w.t
    widths = (heads.queries * heads.width, heads.keys * heads.width, heads.keys * heads.values)
    fused = w.style.fused_query_key_value
    if fused is None:
        fused = not matrices.has("query") and matrices.has("query_key_value")
    if not fused:
        uses = tuple(matrices[use] for use in ("query", "key", "value"))
        q, k, v = w.gathered(x, hidden, widths, uses)
        return op.laid_out(t, q), op.laid_out(t, k), op.view(t, v)
    use = matrices["query_key_value"] if matrices.has("query_key_value") else merged(matrices, "query", "value")
    (mixed,) = w.gathered(x, hidden, (sum(widths),), (use,))
    if w.style.pads_adapters:
        mixed = _padded(w, mixed, widths, matrices)
    q, k, v = op.split(t, mixed, tuple(w.flow.tokens * width for width in widths))
    return q, k, v


def _padded(w: Writer, mixed: Value, widths: tuple[int, ...], matrices: Matrices) -> Value:
    """Keep the product of adapters on some of queries, keys and values, which was padded to the width of all.

    Source: Lightning-AI/litgpt:litgpt/lora.py, LoRAQKVLinear.zero_pad; pytorch/pytorch:tools/autograd/derivatives.yaml,
    index_copy, which saves its source.
    """
    own = [n for n, use in zip(widths, ("query", "key", "value"), strict=True) if matrices[use].rank]
    if len(own) in {0, len(widths)}:
        return mixed
    source = w.t.new(w.flow.tokens * sum(own), w.flow.each)
    return op.fused(w.t, (mixed,), mixed.alias(), (source,))


def merged(matrices: Matrices, first: str, second: str) -> Matrix:
    """Return what a framework's one matrix is where the checkpoint has several."""
    one, two = matrices[first], matrices[second]
    return one if one.rank >= two.rank else two


def rotary(w: Writer, q: Value, k: Value, table: int) -> tuple[Value, Value]:
    """Write rotary embedding of queries and keys."""
    t = w.t
    if w.style.fused_rotary:
        turned = op.fused(t, (q,), t.new(q.elements, q.each), ())
        return turned, op.fused(t, (k,), t.new(k.elements, k.each), ())
    cos, sin = t.constant(table, q.each), t.constant(table, q.each)
    turned_q = _turn(t, q, cos, sin)
    turned_k = _turn(t, k, cos, sin)
    return turned_q, turned_k


def _turn(t: Tape, x: Value, cos: Value, sin: Value) -> Value:
    """Multiply by cosines, and add the halves, changed over, multiplied by sines."""
    return op.add(t, op.multiply(t, x, cos), op.multiply(t, _changed_over(t, x), sin))


def _changed_over(t: Tape, x: Value) -> Value:
    first, second = op.view(t, x, x.elements // 2), op.view(t, x, x.elements // 2)
    return op.join(t, (op.scale(t, second), first))


def kernel(w: Writer, q: Value, k: Value, v: Value, heads: Heads) -> Value:
    """Write softmax attention as the chosen implementation runs it."""
    t, flow = w.t, w.flow
    rows = flow.sequences * heads.queries * flow.sequence_tokens
    if w.style.autocast:
        q, k, v = (op.cast(t, x, flow.each) for x in (q, k, v))
    if flow.attention == "eager" or (heads.capped and flow.attention != "flash"):  # sdpa has no cap for scores
        if flow.again("core_attn"):
            return again(t, lambda x: _steps(w, x[0], x[1], x[2], heads), (q, k, v))
        return _steps(w, q, k, v, heads)
    efficient = _takes_efficient(w, q, heads)
    if heads.keys != heads.queries and (w.style.repeats_key_values or efficient or heads.width != heads.values):
        k, v = _repeated(t, k, heads), _repeated(t, v, heads)
        heads = replace(heads, keys=heads.queries)
    output = t.output("kernel", rows * heads.values, q.each)
    padded = round_up(flow.sequence_tokens, EFFICIENT_ROWS) if efficient else flow.sequence_tokens
    statistics = t.output("kernel", flow.sequences * heads.queries * padded, FP32)
    kept: tuple[Value, ...] = (statistics,)
    scratch = backward_scratch(w, heads, efficient=efficient)
    if heads.biased:
        size = heads.queries * flow.sequence_tokens * heads.key_tokens
        kept, scratch = (statistics, t.new(size, q.each)), scratch + size * q.each
    return op.attention(t, (q, k, v), output, kept, scratch)


def _takes_efficient(w: Writer, q: Value, heads: Heads) -> bool:
    """Say whether the memory-efficient kernel runs: asked for, in fp32, or where ``sdpa`` gets what flash cannot take.

    Source: pytorch/pytorch:aten/src/ATen/native/transformers/cuda/sdp_utils.cpp.
    """
    if w.flow.attention == "efficient" or q.each == FP32:
        return True
    return w.flow.attention == "sdpa" and (heads.masked or heads.width != heads.values or heads.width > WIDEST_FLASH)


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
    expanded = flow.sequences * heads.key_tokens * heads.queries * (heads.width + heads.values) * flow.each
    return rows * FP32 * (1 + round_up(heads.width, FLASH_COLUMNS)) + (expanded if heads.keys != heads.queries else 0)


def _steps(w: Writer, q: Value, k: Value, v: Value, heads: Heads) -> Value:
    """Write attention with its scores: product, scale, mask, softmax in fp32, cast, dropout, product."""
    t, flow = w.t, w.flow
    if heads.keys != heads.queries:
        k, v = _repeated(t, k, heads), _repeated(t, v, heads)
    rows = flow.sequences * heads.queries * flow.sequence_tokens
    weights = op.product(t, q, k, rows * heads.key_tokens)
    if w.style.fused_softmax:
        weights = op.of_output(t, weights)
    else:
        weights = op.scale(t, weights)
        if heads.capped:
            weights = op.scale(t, op.of_output(t, op.scale(t, weights)))
        weights = op.scale(t, weights)
        wide = q.each if heads.narrow and not w.style.autocast else FP32
        weights = op.cast(t, op.of_output(t, op.cast(t, weights, wide)), q.each)
    if flow.score_dropout:
        weights = w.dropout(weights)
    return op.copy(t, op.product(t, weights, v, rows * heads.values))
