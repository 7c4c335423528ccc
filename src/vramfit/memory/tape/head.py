"""The end of a language model: final norm, output projection and loss, each way that frameworks write them."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.memory.tape import operator as op
from vramfit.memory.tape.engine import Gradients, Storage, Value
from vramfit.memory.tape.matrix import Matrix
from vramfit.memory.tape.tape import Tape
from vramfit.memory.tape.writer import FP32, Norm, Writer
from vramfit.units import ceil_div

LABEL = 8
"""Bytes of a label: int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the end of this rank's model looks like."""

    hidden: int
    vocabulary: int
    """Entries of the vocabulary on this rank."""
    loss: str
    chunk_tokens: int | None = None
    kind: Norm = Norm.NARROW
    normed: bool = True
    matrix: Matrix = Matrix()  # noqa: RUF009 - frozen
    pooled: bool = False
    """One position of each sequence is read, by small matrices: a classifier; there are no logits."""
    transformed: bool = False
    """A matrix as wide as the hidden state, its activation and a norm come before the projection (BERT)."""
    capped: bool = False
    """Logits pass a tanh (Gemma 2)."""
    shifts: bool = False
    """The model's own code copies the logits without the last position before the loss."""


def write_head(w: Writer, box: list[Value], head: Head, held: list[Value]) -> Value:
    """Write the end of a model; ``held`` gets what the caller holds until the backward pass is over."""
    t = w.t
    t.module = "final norm"
    x = box[0]
    if head.pooled:
        return _classifier(w, box, head)
    if head.transformed:
        x = op.activation(t, w.linear(x, head.hidden, head.hidden, Matrix(bias=True, trains=head.matrix.trains)))
    if head.normed:
        x = w.norm(x, head.hidden, head.kind)
    box.clear()
    t.module = "loss"
    if head.loss == "fused-linear":
        return _fused_linear(w, x, head)
    if head.loss == "chunked":
        return _chunked(w, x, head, held)
    (logits,) = w.gathered(x, head.hidden, (head.vocabulary,), (head.matrix,))
    if head.capped:
        logits = _capped(t, logits)
    if w.style.returns_fp32:
        logits = op.cast(t, logits, FP32)
    if w.style.holds_logits:
        held.append(logits)
    return _loss(w, logits, head)  # logits and x: variables of the model's own, alive until it returns


def _capped(t: Tape, logits: Value) -> Value:
    """Divide logits by a cap, take the tanh, and multiply by the cap."""
    return op.scale(t, op.of_output(t, op.scale(t, logits)))


def _classifier(w: Writer, box: list[Value], head: Head) -> Value:
    """Write a classifier over the first position of every sequence."""
    t = w.t
    first = op.part(t, box.pop(), w.flow.sequences * head.hidden)
    matrix = Matrix(bias=True, trains=head.matrix.trains)
    pooled = op.of_output(t, w.linear(first, head.hidden, head.hidden, matrix))
    return _entropy(t, w.linear(pooled, head.hidden, CLASSES, matrix), w.flow.sequences)


def _loss(w: Writer, logits: Value, head: Head) -> Value:
    """Write the loss of all logits at once."""
    t = w.t
    if w.style.compiles_loss and (w.flow.compiled or head.loss == "fused"):
        return _compiled(t, logits, w.flow.tokens)
    if head.loss == "fused" and w.style.fused_loss_overwrites:
        return _overwriting(t, logits, w.flow.tokens)
    if head.loss == "fused" or w.style.loss_in_place:
        return _in_place(t, logits, w.flow.tokens)
    if head.shifts or w.style.shifts_logits:
        logits = op.copy(t, logits)
    if (head.loss == "fp32" and not head.transformed) or w.style.autocast:
        logits = op.cast(t, logits, FP32)
    if w.style.divided_loss and w.flow.share > 1:
        return _divided(t, logits, w.flow.tokens)
    return _entropy(t, logits, w.flow.tokens)


def _compiled(t: Tape, logits: Value, rows: int) -> Value:
    """Write cross entropy as one compiled kernel each way, which keeps the logits as they are and two numbers a row."""
    return op.fused(t, (logits,), t.new(1, FP32), (logits, t.new(2 * rows, FP32)))


def _entropy(t: Tape, logits: Value, rows: int) -> Value:
    """Write cross entropy: logarithms of probabilities are kept; backward makes their gradient and the logits'."""
    likely = op.of_output(t, logits)
    return _pick(t, likely, rows)


def _pick(t: Tape, likely: Value, rows: int) -> Value:
    """Take the label's entry of every row and average; its gradient is a tensor of zeros and those entries."""
    size, each = likely.elements, likely.each
    labels = t.new(rows, LABEL)

    def derive(_arrived: list[Value | None], _saved: tuple[Storage, ...]) -> Gradients:
        return (t.new(size, each),)

    return t.record((likely,), t.new(1, FP32), derive, (likely, labels))


def _divided(t: Tape, logits: Value, rows: int) -> Value:
    """Write cross entropy over logits that tensor-parallel ranks divide, as DTensor's handlers compute it.

    forward: logits less the largest, their powers, and logarithms of probabilities, which are kept
    backward: the labels' entries in zeros, probabilities, their sum, and that times the gradient of the loss

    Source: pytorch/pytorch:torch/distributed/tensor/parallel/loss.py, _log_softmax and
    _nll_loss_and_log_softmax_backward.
    """
    size, each = logits.elements, logits.each
    lowered = t.new(size, each)
    powers = t.new(size, each)
    del powers
    likely = t.new(size, each)
    labels = t.new(rows, LABEL)
    del lowered

    def derive(_arrived: list[Value | None], _saved: tuple[Storage, ...]) -> Gradients:
        entries = t.new(size, each)
        powers = t.new(size, each)
        both = t.new(size, each)
        del powers
        scaled = t.new(size, each)
        del entries, both
        return (scaled,)

    return t.record((logits,), t.new(1, FP32), derive, (likely, labels))


def _in_place(t: Tape, logits: Value, rows: int) -> Value:
    """Write a vocabulary-parallel loss: probabilities overwrite an fp32 copy of the logits, and their gradient these.

    Source: NVIDIA/Megatron-LM:megatron/core/tensor_parallel/cross_entropy.py.
    """
    wide = op.cast(t, logits, FP32)
    statistics = t.new(4 * rows, FP32)
    size = wide.elements

    def derive(_arrived: list[Value | None], saved: tuple[Storage, ...]) -> Gradients:
        return (Value(saved[0], size, FP32),)

    return t.record((wide,), t.new(rows, FP32), derive, (wide, statistics))


def _overwriting(t: Tape, logits: Value, rows: int) -> Value:
    """Write a loss whose gradient overwrites the logits in their own format.

    Source: NVIDIA/TransformerEngine:transformer_engine/pytorch/cross_entropy.py and triton/cross_entropy.py.
    """
    statistics = t.new(3 * rows, FP32)
    size, each = logits.elements, logits.each

    def derive(_arrived: list[Value | None], saved: tuple[Storage, ...]) -> Gradients:
        return (Value(saved[0], size, each),)

    return t.record((logits,), t.new(rows, FP32), derive, (logits, statistics))


def _chunked(w: Writer, x: Value, head: Head, held: list[Value]) -> Value:
    """Write the output projection and the loss chunk by chunk of tokens; all logits are there, their copies are not.

    Source: pytorch/torchtune:torchtune/modules/loss/ce_chunked_output_loss.py, which casts each piece to fp32;
    Lightning-AI/litgpt:litgpt/utils.py, chunked_cross_entropy, which does not.
    """
    t = w.t
    rows = w.flow.tokens
    chunk = min(rows, head.chunk_tokens or ceil_div(rows, CHUNKS))
    weight = w.weight(head.hidden * head.vocabulary, trains=head.matrix.trains)
    weight = w.cast_weight(weight) if w.style.autocast else weight
    logits = []
    for start in range(0, rows, chunk):
        piece = op.part(t, x, min(chunk, rows - start) * head.hidden)
        one = w.linear(piece, head.hidden, head.vocabulary, head.matrix, weight)
        logits.append(_capped(t, one) if head.capped else one)
    del x
    if w.style.holds_logits:
        held.extend(logits)
    return op.join(t, tuple(_of_chunk(w, one, one.elements // head.vocabulary) for one in logits))


def _of_chunk(w: Writer, logits: Value, rows: int) -> Value:
    """Write cross entropy of one chunk.

    Source: pytorch/torchtune:torchtune/training/_compile.py, compile_loss.
    """
    t = w.t
    if w.flow.compiled:
        return _compiled(t, logits, rows)
    return _entropy(t, op.cast(t, logits, FP32 if w.style.casts_chunks else w.flow.each), rows)


CLASSES = 2
"""Labels of a classifier when nothing says how many: transformers' num_labels."""
CHUNKS = 8
"""torchtune's num_output_chunks: torchtune/modules/loss/ce_chunked_output_loss.py."""


def _fused_linear(w: Writer, x: Value, head: Head) -> Value:
    """Write a loss that makes its gradients in the forward pass, a chunk of logits at a time.

    rows of a chunk = the power of two above tokens / ceil(vocabulary / hidden)

    Source: linkedin/Liger-Kernel:src/liger_kernel/ops/fused_linear_cross_entropy.py.
    """
    t, rows, hidden, vocabulary = w.t, w.flow.tokens, head.hidden, head.vocabulary
    weight = w.weight(hidden * vocabulary, trains=head.matrix.trains)
    trains, each, matrix_each = weight.node is not None, x.each, weight.each
    of_x = t.new(rows * hidden, each)
    of_w = t.new(hidden * vocabulary, matrix_each) if trains else None
    chunks = ceil_div(rows, 1 << (ceil_div(rows, ceil_div(vocabulary, hidden)) - 1).bit_length())
    for _ in range(min(chunks, 2)):
        logits = t.new(ceil_div(rows, chunks) * vocabulary, each)
        product = t.new(hidden * vocabulary, matrix_each) if trains else None
        del logits, product
    sizes = (rows * hidden, hidden * vocabulary)

    def derive(_arrived: list[Value | None], saved: tuple[Storage, ...]) -> Gradients:
        return Value(saved[0], sizes[0], each), Value(saved[1], sizes[1], matrix_each) if trains else None

    return t.record((x, weight), t.new(1, FP32), derive, (of_x, of_w))
