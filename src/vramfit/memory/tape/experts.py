"""Mixtures of experts written in operators: router, dispatch, experts, combination."""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.layer_kind import Experts
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.form import Activation, BlockForm
from vramfit.memory.tape.matrix import Matrices
from vramfit.memory.tape.network import activated, gate_of, gated, plain
from vramfit.memory.tape.writer import FP32, Writer

INDEX = 8
"""Bytes of an index: int64."""


def experts(w: Writer, x: Value, hidden: int, facts: Experts, form: BlockForm) -> Value:
    """Write a mixture of experts; routed tokens are those of an even router unless the flow says worst.

    Source: huggingface/transformers:src/transformers/integrations/moe.py, grouped_mm_experts_forward;
    NVIDIA/Megatron-LM:megatron/core/transformer/moe/token_dispatcher.py, MoEAlltoAllTokenDispatcher;
    pytorch/torchtitan:torchtitan/models/moe.py, MoE.forward, and distributed/expert_parallel.py, expert_parallel.
    """
    t = w.t
    wide = (form.wide_router and not w.style.weighs_wide) or w.style.fp32_router
    weights = _router(w, x, hidden, facts, wide=wide)
    if form.narrow_weights:
        weights = op.cast(t, weights, x.each)
    routed = _routed(w, x, weights, hidden, facts, form)
    del weights
    if not facts.shared_intermediate_size:
        return routed
    tensors = tuple(s for s in form.matrices.tensors if s.role is not Role.EXPERT and "shared" in s.name)
    own = replace(form, matrices=Matrices(tensors=tensors))
    width = facts.shared_intermediate_size
    inner = gated(w, x, hidden, width, own) if facts.gated else plain(w, x, hidden, width, own)
    shared = w.scattered(inner, width, hidden, own.matrices["down"])
    del inner
    return op.add(t, routed, shared)


def _router(w: Writer, x: Value, hidden: int, facts: Experts, *, wide: bool) -> Value:
    """Write the router: scores of all experts in fp32, and the weights of those chosen."""
    t, rows = w.t, w.flow.outer_tokens
    weight = w.weight(hidden * facts.num_experts, trains=w.vectors_train)
    if wide:
        x = op.cast(t, x, FP32)
        weight = op.cast(t, weight, FP32)
    elif w.style.autocast:
        x, weight = op.cast(t, x, w.flow.each), op.cast(t, weight, w.flow.each)
    scores = op.of_output(t, op.cast(t, op.linear(t, x, weight, facts.num_experts, kind="router"), FP32))
    chosen = rows * facts.num_experts_per_tok
    index = t.new(chosen, INDEX)
    return op.fused(t, (scores,), t.new(chosen, FP32), (index,))


def _routed(w: Writer, x: Value, weights: Value, hidden: int, facts: Experts, form: BlockForm) -> Value:
    t, flow = w.t, w.flow
    inputs, width = facts.latent_size or hidden, facts.moe_intermediate_size
    rows = flow.routed_tokens(facts)
    local = max(1, facts.num_experts // flow.expert_ranks)
    own = Matrices(tensors=tuple(s for s in form.matrices.tensors if s.role is Role.EXPERT))
    trains = own["down"].trains
    if facts.latent_size:
        x = w.linear(x, hidden, inputs)
    if w.style.autocast:
        x = op.cast(t, x, flow.each)
    sent = _sent(w, x, weights, rows, sorts=flow.expert_ranks > 1 and local > 1, form=form)
    first = w.weight(local * inputs * width * (2 if facts.gated else 1), trains=trains)
    last = w.weight(local * inputs * width, trains=trains)
    if w.style.autocast:
        first, last = op.cast(t, first, flow.each), op.cast(t, last, flow.each)
    inner = op.linear_of_experts(t, sent, first, rows * width * (2 if facts.gated else 1))
    if w.style.weighs_activations:
        inner = _weighed_activation(w, inner, weights, rows * width, form, gated=facts.gated)
    else:
        inner = gate_of(w, inner, form) if facts.gated else activated(w, inner, form.activation)
    if flow.again("moe_act"):
        t.forget(inner)
    result = op.linear_of_experts(t, inner, last, rows * inputs)
    del inner
    if w.style.pads_groups:
        result = op.copy(t, result)
    result = op.cast(t, _together(w, result, weights, rows, x.elements, form), flow.each)
    return w.linear(result, inputs, hidden) if facts.latent_size else result


def _sent(w: Writer, x: Value, weights: Value, rows: int, *, sorts: bool, form: BlockForm) -> Value:
    """Write the way of tokens to experts, and the router's weights where they are multiplied in before these."""
    t = w.t
    order = t.new(rows, INDEX)
    sent = op.fused(t, (x,), t.new(rows * x.elements // w.flow.outer_tokens, x.each), (order,))
    if sorts:
        sent = op.copy(t, sent)  # what arrives lies by sender, and is sorted by expert
    if w.style.pads_groups:  # a row of zeros is put below, from which the padding is taken
        sent = op.copy(t, op.copy(t, sent))
    return _weighed_wide(w, sent, weights) if w.style.weighs_wide and form.weighs_inputs else sent


def _weighed_wide(w: Writer, x: Value, weights: Value) -> Value:
    """Multiply by the router's weights in fp32 and cast back."""
    return op.cast(w.t, op.multiply(w.t, op.cast(w.t, x, FP32), weights), w.flow.each)


def _weighed_activation(
    w: Writer, inner: Value, weights: Value, elements: int, form: BlockForm, *, gated: bool
) -> Value:
    """Write the activation with the router's weights; only gated ones have a kernel that weighs."""
    t = w.t
    if gated:
        return op.fused(t, (inner, weights), t.new(elements, inner.each), (inner, weights))
    acted = op.square(t, op.of_output(t, inner)) if form.activation is Activation.SQUARED else op.activation(t, inner)
    return op.cast(t, op.multiply(t, acted, weights), w.flow.each)


def _together(w: Writer, result: Value, weights: Value, rows: int, elements: int, form: BlockForm) -> Value:
    """Write the way back: outputs of experts, weighed unless they were before, are summed for every token."""
    t = w.t
    back = t.new(rows, INDEX)
    if w.style.weighs_activations:
        return op.fused(t, (result,), t.new(elements, result.each), (back,))
    if not w.style.weighs_wide:
        weighted = op.multiply(t, result, weights)
    else:
        weighted = result if form.weighs_inputs else _weighed_wide(w, result, weights)
    weighted = op.fused(t, (weighted,), t.new(weighted.elements, weighted.each), (back,))
    return op.summed(t, weighted, elements)
