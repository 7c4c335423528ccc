"""Mixers that keep a state, written in operators as their published kernels save and compute again.

Sources: state-spaces/mamba:mamba_ssm/ops/triton/ssd_combined.py, MambaSplitConv1dScanCombinedFn, and
mamba_ssm/ops/selective_scan_interface.py, MambaInnerFn (checkpoint_lvl 1); fla-org/flash-linear-attention:
fla/ops/gated_delta_rule/chunk.py; huggingface/transformers:src/transformers/models/lfm2/modeling_lfm2.py.
"""

from __future__ import annotations

from vramfit.layer_kind import LinearAttention, Recurrence, Recurrent, ShortConvolution, StateSpace
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.form import BlockForm
from vramfit.memory.tape.writer import FP32, Writer
from vramfit.units import ceil_div

SCAN_CHUNK = 256
"""Tokens of one chunk of Mamba 2's scan: its default in published configurations."""
SCAN_STRIDE = 2048
"""Tokens after which Mamba 1's scan writes its state down: selective_scan.cpp."""
DELTA_CHUNK = 64
"""Tokens of one chunk of the gated delta rule."""


def recurrent(w: Writer, x: Value, hidden: int, facts: Recurrent, form: BlockForm) -> Value:
    """Write a mixer that keeps a state."""
    match facts:
        case StateSpace():
            return _state_space(w, x, hidden, facts, form)
        case LinearAttention():
            return _linear_attention(w, x, hidden, facts, form)
        case ShortConvolution():
            return _short_convolution(w, x, hidden, facts, form)
        case Recurrence():
            return _recurrence(w, x, hidden, facts, form)


def _state_space(w: Writer, x: Value, hidden: int, facts: StateSpace, form: BlockForm) -> Value:
    """Write Mamba: one kernel from the projection on; it keeps the projection and the scan's output."""
    t, tokens = w.t, w.flow.tokens
    inner = facts.num_heads * facts.head_dim
    groups = 2 * facts.num_groups * facts.state_size
    steps = facts.num_heads if facts.num_groups else 0
    width = 2 * inner + groups + steps
    (projected,) = w.gathered(x, hidden, (width,), (form.matrices["in"],))
    chunk = SCAN_CHUNK if facts.num_groups else SCAN_STRIDE
    states = w.flow.sequences * ceil_div(w.flow.sequence_tokens, chunk) * inner * facts.state_size * FP32
    convolved = tokens * (inner + groups) * projected.each
    vectors = w.vector(facts.conv_kernel * (inner + groups) + 3 * facts.num_heads + inner)
    scanned = t.new(tokens * inner, projected.each)
    small = t.new(tokens * max(1, facts.num_heads if facts.num_groups else 2 * facts.state_size), FP32)
    scratch = t.new(convolved + 2 * states, 1)
    y = t.new(tokens * inner, projected.each)
    del scratch
    y = op.fused(
        t, (projected, vectors), y, (projected, scanned, small), 2 * convolved + 2 * states + y.storage.num_bytes
    )
    del projected, scanned, small
    return w.scattered(y, inner, hidden, form.matrices["out"])


def _linear_attention(w: Writer, x: Value, hidden: int, facts: LinearAttention, form: BlockForm) -> Value:
    """Write a gated delta network: convolution, the rule over chunks, a gated norm."""
    t, tokens = w.t, w.flow.tokens
    keys, values = facts.num_key_heads * facts.key_head_dim, facts.num_value_heads * facts.value_head_dim
    mixed = 2 * keys + values
    (projected,) = w.gathered(x, hidden, (mixed + values,), (form.matrices["in"],))
    each = projected.each
    if facts.conv_kernel:
        filters = w.vector(mixed * facts.conv_kernel)
        convolved = op.fused(t, (projected, filters), t.new(tokens * mixed, each), (projected,))
    else:
        convolved = projected
    chunks = ceil_div(w.flow.sequence_tokens, DELTA_CHUNK) * w.flow.sequences
    states = chunks * facts.num_value_heads * facts.key_head_dim * facts.value_head_dim * each
    inverse = t.new(tokens * facts.num_value_heads * DELTA_CHUNK, each)
    gates = t.new(2 * tokens * facts.num_value_heads, FP32)
    scratch = t.new(states + 2 * tokens * values * each, 1)
    result = t.new(tokens * values, each)
    del scratch
    result = op.fused(
        t, (convolved,), result, (convolved, inverse, gates), 2 * states + 3 * tokens * (mixed + values) * each
    )
    del convolved, inverse, gates
    normed = op.fused(t, (result, projected), t.new(tokens * values, each), (result, projected))
    del result, projected
    return w.scattered(normed, values, hidden, form.matrices["out"])


def _short_convolution(w: Writer, x: Value, hidden: int, facts: ShortConvolution, form: BlockForm) -> Value:
    t = w.t
    (three,) = w.gathered(x, hidden, (3 * facts.width,), (form.matrices["in"],))
    size = three.elements // 3
    before, after, inner = op.split(t, three, (size, size, size))
    del three
    product = op.multiply(t, before, inner)
    convolved = op.fused(t, (product, w.vector(facts.width * facts.conv_kernel)), t.new(size, product.each), (product,))
    y = op.multiply(t, after, convolved)
    return w.scattered(y, facts.width, hidden, form.matrices["out"])


def _recurrence(w: Writer, x: Value, hidden: int, facts: Recurrence, form: BlockForm) -> Value:
    """Write RWKV or xLSTM: mixed inputs, their projections, the kernel over time, a gated norm."""
    t, width = w.t, facts.width
    parts = [w.linear(x, hidden, width, form.matrices["in"]) for _ in range(4)]
    states = w.flow.sequences * ceil_div(w.flow.sequence_tokens, DELTA_CHUNK) * facts.state_elements * FP32
    y = t.new(parts[0].elements, parts[0].each)
    y = op.fused(t, tuple(parts), y, tuple(parts), 2 * states)
    y = op.multiply(t, op.activation(t, w.linear(x, hidden, width, form.matrices["in"])), y)
    return w.scattered(y, width, hidden, form.matrices["out"])
