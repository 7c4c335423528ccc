"""What one training step of one rank costs, block by block: the door of this room."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from vramfit.block_style import BlockStyle
from vramfit.errors import UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import Experts
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.again import again
from vramfit.memory.tape.block import block
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.first import ID, First, write_first
from vramfit.memory.tape.flow import Flow
from vramfit.memory.tape.form import CAPPED_LOGITS, DROPPED, SCORES_DROPPED, WITHOUT_ROTARY, norm_of
from vramfit.memory.tape.head import Head, write_head
from vramfit.memory.tape.matrix import any_trains, projection
from vramfit.memory.tape.tape import Tape
from vramfit.memory.tape.walk import Walked, checkpoint, walk
from vramfit.memory.tape.writer import Norm, Writer
from vramfit.shard import Shard
from vramfit.spec import Layer, ModelSpec, Part, Tensor
from vramfit.step import BlockStep, StepCost
from vramfit.training import OWN_LOSSES, Training
from vramfit.units import ceil_div

MEMO = 4096
"""Distinct blocks whose costs are remembered."""


def step_cost(shard: Shard, training: Training, style: BlockStyle, *, worst_routing: bool = False) -> StepCost:
    """Return what each block of a rank keeps and takes for one micro-batch.

    Args:
        shard: the rank's part of the model, cut by every degree.
        training: the workload; what it leaves open is filled by ``style``.
        style: how the framework writes its blocks.
        worst_routing: whether all tokens go to the experts of this rank; False: routers are even.

    Raises:
        UnsupportedModelError: a model that is no stack of blocks over tokens.
    """
    _check_tokens(shard)
    if training.compile:
        style = _compiled(style)
    model, flow = shard.model, _flow(shard, training, style)
    if worst_routing:
        flow = replace(flow, worst_routing=True)
    walked = _walked_blocks(model, training, flow, style)
    head, held = None, 0
    if shard.last:
        norms_train = any_trains(t for t in model.head if t.role is Role.NORM)
        head, held = _head(_head_of(model, training, style), flow, style, norms_train=norms_train)
    wants = [w.keeps_input for w, _ in walked] + [head.keeps_input if head else False]
    first = _first(shard, flow, style, keeps_output=wants[0])
    first = _with_encoder(first, shard, flow, style)
    blocks: list[tuple[BlockStep, int]] = []
    first_layer = 0
    for number, (one, count) in enumerate(walked):
        name, after = f"layer {first_layer}" if len(walked) > 1 else "layers", wants[number + 1]
        first_layer += count
        inner = _step(name, one, keeps_output=one.keeps_input)
        last = inner if after == one.keeps_input else _step(name, one, keeps_output=after)
        if last == inner:
            blocks.append((inner, count))
        else:
            blocks += [(inner, count - 1)] * (count > 1) + [(last, 1)]
    part = next((part for part in model.parts if part.predicts and part.resident), None)
    if part is not None and shard.last:
        blocks += _prediction(part, model, _head_of(model, training, style), flow, style)
    return StepCost(
        embedding=first,
        blocks=tuple(blocks),
        head=None if head is None else _step("head", head, keeps_output=False),
        held_bytes=held,
    )


def _prediction(part: Part, model: ModelSpec, head: Head, flow: Flow, style: BlockStyle) -> list[tuple[BlockStep, int]]:
    """Return the blocks of a multi-token-prediction head: its inputs, its layers, and a loss of each depth.

    Every depth makes logits of its own, which wait for the backward pass as those of the model do.
    Source: NVIDIA/Megatron-LM:megatron/core/transformer/multi_token_prediction.py.
    """
    hidden, depth = model.hidden_size, part.depth
    layers = [_block(layer, hidden, model.family, flow, style, grows=True) for layer in part.layers]
    loss, _ = _head(head, flow, style, norms_train=True)
    inputs = _step("prediction input", _prediction_input(hidden, head.kind, flow, style), keeps_output=True)
    return [
        (inputs, 1),
        *[(inputs, depth - 1)] * (depth > 1),
        *((_step("prediction layer", one, keeps_output=True), 1) for one in layers),
        (_step("prediction loss", loss, keeps_output=False), depth),
    ]


@lru_cache(maxsize=MEMO)
def _prediction_input(hidden: int, kind: Norm, flow: Flow, style: BlockStyle) -> Walked:
    """Walk norms of the hidden state and of the shifted tokens' embedding, and the matrix over both."""
    t = Tape()
    t.fused_weight_gradients = style.fused_weight_gradients
    w = Writer(t=t, flow=flow, style=style)

    def write(t: Tape, box: list[Value]) -> Value:
        t.module = "prediction"
        shifted = t.new(box[0].elements, box[0].each)
        t.leaf(shifted, lambda _: None)
        both = op.join(t, (w.norm(shifted, hidden, kind), w.norm(box[0], hidden, kind)))
        del shifted
        return w.linear(both, 2 * hidden, hidden)

    return walk(t, write, flow.outer_tokens * hidden, flow.residual_each)


def _check_tokens(shard: Shard) -> None:
    model = shard.model
    mixes = any(layer.mixers or layer.feed_forward for layer, _ in model.groups)
    reads = not shard.first or any(t.role is Role.EMBEDDING for t in model.embeddings)
    if not (mixes and reads):
        raise UnsupportedModelError(
            f"{model.name} ({model.family}): expected blocks that read tokens; `vramfit trace` runs any module"
        )


def _walked_blocks(model: ModelSpec, training: Training, flow: Flow, style: BlockStyle) -> list[tuple[Walked, int]]:
    """Walk every distinct block; where nothing below is trained, the first that is keeps less than those after it."""
    hidden, family = model.hidden_size, model.family
    grows = _first_grows(model, training, style)
    walked: list[tuple[Walked, int]] = []
    for layer, count in _runs(model.layers):
        left = count
        if not grows and any_trains(layer.tensors):
            walked.append((_block(layer, hidden, family, flow, style, grows=False), 1))
            grows, left = True, count - 1
        if left:
            walked.append((_block(layer, hidden, family, flow, style, grows=grows), left))
    if style.graph_outlives:
        walked = [(_with_graph_before(one), count) for one, count in walked]
    if _goes_to_host(training):
        walked = [(_on_host(one), count) for one, count in walked]
    return walked


def _with_graph_before(walked: Walked) -> Walked:
    """Return a block with what the graph of the micro-batch before still holds: attributes of its operators."""
    if not walked.attribute_bytes:
        return walked
    return replace(walked, kept=(*walked.kept, ("micro-batch before", walked.attribute_bytes)))


def _goes_to_host(training: Training) -> bool:
    """Say whether what blocks keep waits on the host: inputs of checkpoints, or all saved tensors."""
    return training.recompute == "offload" or (
        training.offload is not None and training.offload.activations is not None
    )


def _on_host(walked: Walked) -> Walked:
    """Return a block whose kept tensors are away between its passes; both of them hold all of it."""
    inputs = walked.input_bytes
    return replace(
        walked,
        kept=(),
        keeps_input=False,
        forward=walked.forward + inputs,
        backward=walked.backward + inputs,
        passing=walked.passing + inputs,
    )


def _flow(shard: Shard, training: Training, style: BlockStyle) -> Flow:
    assert training.sequence_tokens is not None, "the caller fills in the sequence"
    each = 4 if training.precision == "fp32" or _is_wide(shard.model) else 2
    weight_each = 4 if style.autocast else each
    adapter = training.adapter
    family = shard.model.family
    routed = any(isinstance(layer.feed_forward, Experts) for layer, _ in shard.model.groups)
    return Flow(
        sequences=training.micro_batch,
        sequence_tokens=ceil_div(training.sequence_tokens, shard.sequence_ranks),
        key_tokens=training.sequence_tokens,
        share=shard.tensor_ranks if shard.sequence_parallel else 1,
        each=each,
        weight_each=weight_each,
        residual_each=4 if style.autocast or style.fp32_residual else each,
        attention=training.attention or style.default_attention,
        recompute=training.recompute or "none",
        modules=training.recompute_modules or (() if style.selects_operators else ("core_attn",)),
        compiled=bool(training.compile),
        adapter_dropout=bool(adapter is not None and adapter.dropout),
        dropout=family in DROPPED if style.dropout is None else style.dropout and not routed,
        score_dropout=family in SCORES_DROPPED if style.dropout is None else style.dropout and not routed,
        source_tokens=training.sequence_tokens,
        expert_ranks=shard.expert_ranks,
        expert_tensor_ranks=shard.expert_tensor_ranks,
    )


def _is_wide(model: ModelSpec) -> bool:
    """Say whether the base is packed and everything beside it fp32: what flows between matrices is fp32 then."""
    packed = any(_packed(t) for layer, _ in model.groups for t in layer.tensors)
    plain = [t.held for t in model.embeddings if t.role is Role.EMBEDDING]
    return packed and any(held is not None and held.name == "fp32" for held in plain)


def _packed(t: Tensor) -> bool:
    return t.held is not None and not t.held.is_plain


def _first_grows(model: ModelSpec, training: Training, style: BlockStyle) -> bool:
    """Say whether the first block's input wants a gradient: the embedding trains, or a checkpoint needs it to.

    Where nothing below is trained, peft makes the embedding's output want one under gradient checkpointing
    (enable_input_require_grads).
    """
    if any_trains(model.embeddings) or not model.embeddings:
        return True
    return training.recompute not in {None, "none"} and style.checkpoint_needs_gradient


def _compiled(style: BlockStyle) -> BlockStyle:
    """Return the style of compiled blocks: chains of elementwise operators are one kernel each, which keeps its inputs.

    What goes into a matrix product is kept: the partitioner does not compute it again
    (pytorch/pytorch:torch/_functorch/partitioners.py, is_materialized_backwards), and repeated keys and values are
    made again from what was repeated. Llama-2 7B: 32.2 bytes per token and hidden unit in a layer; torchtitan's runs of
    2024-03 differ by 30.7 + 2 between no and full recomputation.
    """
    return replace(style, fused_norm=True, fused_activation=True, fused_rotary=True, repeats_key_values=False)


def _runs(layers: tuple[Layer, ...]) -> list[tuple[Layer, int]]:
    """Group equal neighbours."""
    runs: list[tuple[Layer, int]] = []
    for layer in layers:
        if runs and (runs[-1][0] is layer or runs[-1][0] == layer):
            runs[-1] = (layer, runs[-1][1] + 1)
        else:
            runs.append((layer, 1))
    return runs


def _step(name: str, walked: Walked, *, keeps_output: bool) -> BlockStep:
    kept = walked.kept + ((("output", walked.output),) if keeps_output else ())
    return BlockStep(
        name=name,
        kept=kept,
        forward_bytes=walked.forward,
        backward_bytes=walked.backward,
        passing_bytes=walked.passing,
        gradient_bytes=walked.gradients,
        output_bytes=walked.output,
        cached_bytes=walked.cached,
    )


@lru_cache(maxsize=MEMO)
def _block(layer: Layer, hidden: int, family: str, flow: Flow, style: BlockStyle, *, grows: bool) -> Walked:
    t = Tape()
    t.fused_weight_gradients = style.fused_weight_gradients
    vectors = any(not s.frozen for s in layer.tensors if s.role not in {Role.ADAPTER, Role.LINEAR, Role.EXPERT})
    w = Writer(t=t, flow=flow, style=style, vectors_train=vectors)
    write = block(layer, hidden, family)

    def run(t: Tape, box: list[Value]) -> Value:
        x = box[0]  # the loop over layers holds it too
        if flow.recompute in {"full", "offload"}:
            return checkpoint(t, lambda _, x: write(w, x), x, whole=style.reentrant)
        if flow.recompute == "selective" and not flow.modules and style.selects_operators:
            return again(t, lambda inputs: write(w, inputs[0]), (x,), outputs=True)
        return write(w, x)

    return walk(t, run, flow.outer_tokens * hidden, flow.residual_each, grows=grows)


def _is_norm_bias(t: Tensor) -> bool:
    return t.role is Role.BIAS and ("norm" in t.name.lower() or "ln_f" in t.name)


def _head_of(model: ModelSpec, training: Training, style: BlockStyle) -> Head:
    norms = [t for t in model.head if t.role is Role.NORM]
    matrices = (*model.head, *(model.embeddings if model.tied else ()))
    projects = model.tied or any(t.role is Role.HEAD for t in model.head)
    return Head(
        hidden=model.hidden_size,
        vocabulary=model.vocab_size or 0,
        loss=training.loss or style.default_loss,
        chunk_tokens=training.loss_chunk_tokens,
        kind=norm_of(model.family, with_bias=any(_is_norm_bias(t) for t in model.head)),
        normed=bool(norms),
        pooled=not model.generates and not projects,
        transformed=not model.generates and any(t.role is Role.LINEAR for t in model.head),
        capped=model.family in CAPPED_LOGITS,
        matrix=projection(matrices),
        shifts=model.family in OWN_LOSSES,
    )


@lru_cache(maxsize=MEMO)
def _head(head: Head, flow: Flow, style: BlockStyle, *, norms_train: bool) -> tuple[Walked, int]:
    """Walk the head; also return what the caller holds of it until the whole backward pass is over."""
    t = Tape()
    t.fused_weight_gradients = style.fused_weight_gradients
    w = Writer(t=t, flow=flow, style=style, vectors_train=norms_train)
    held: list[Value] = []
    walked = walk(t, lambda _, box: write_head(w, box, head, held), flow.outer_tokens * head.hidden, flow.residual_each)
    return walked, sum(value.storage.num_bytes for value in held)


def _first(shard: Shard, flow: Flow, style: BlockStyle, *, keeps_output: bool) -> BlockStep:
    """Return the cost of the embedding, or of what arrives from the stage before, with what all blocks share.

    ids and labels: 2 * tokens * 8; cosines and sines: 2 * tokens of a sequence * head_dim * bytes
    """
    model = shard.model
    width = max((getattr(m, "head_dim", 0) for layer, _ in model.groups for m in layer.mixers), default=0)
    turns = not style.fused_rotary and model.family not in WITHOUT_ROTARY
    tables = 2 * flow.sequence_tokens * width * flow.residual_each if turns else 0
    if shard.first:
        walked = _embedding(_first_of(model, shared=model.tied and shard.last), flow, style)
    else:
        output = flow.outer_tokens * model.hidden_size * flow.residual_each
        walked = Walked(
            kept=(), keeps_input=True, forward=output, backward=output, passing=output, gradients=0, output=output
        )
    batch = 2 * flow.tokens * ID
    step = _step("embedding" if shard.first else "input", walked, keeps_output=keeps_output)
    beside = tuple((name, size) for name, size in (("batch", batch), ("rotary tables", tables)) if size)
    return replace(
        step,
        kept=(*beside, *step.kept),
        forward_bytes=step.forward_bytes + batch + tables,
        backward_bytes=step.backward_bytes + batch + tables,
        passing_bytes=walked.passing + batch + tables,
    )


def _with_encoder(first: BlockStep, shard: Shard, flow: Flow, style: BlockStyle) -> BlockStep:
    """Put the encoder of an encoder-decoder before the blocks: it runs first, and backward last.

    Its output is kept for all blocks, and so is the sum of the gradients that they send back.
    """
    model = shard.model
    encoder = next((part for part in model.parts if part.encodes and part.resident), None)
    if encoder is None or not shard.first:
        return first
    hidden = encoder.hidden_size or model.hidden_size
    output = flow.outer_tokens * hidden * flow.residual_each
    kept: dict[str, int] = {"encoder output": output}
    forward, backward, passing, gradients = output, output, output, 0
    for layer, count in _runs(encoder.layers):
        one = _block(layer, hidden, model.family, flow, style, grows=True)
        step = _step("encoder", one, keeps_output=one.keeps_input)
        before = sum(kept.values()) + (count - 1) * step.kept_bytes
        forward = max(forward, before + step.forward_bytes)
        backward = max(backward, before + step.backward_bytes)
        passing = max(passing, before + one.passing)
        gradients += count * step.gradient_bytes
        for name, size in step.kept:
            kept[f"encoder {name}"] = kept.get(f"encoder {name}", 0) + count * size
    both = {**dict(first.kept), **kept}
    return replace(
        first,
        kept=tuple(both.items()),
        forward_bytes=max(first.forward_bytes, first.kept_bytes + forward),
        backward_bytes=max(first.backward_bytes, first.kept_bytes + backward),
        passing_bytes=max(first.passing_bytes or 0, first.kept_bytes + passing),
        gradient_bytes=first.gradient_bytes + gradients,
    )


def _first_of(model: ModelSpec, *, shared: bool) -> First:
    tables = [t for t in model.embeddings if t.role is Role.EMBEDDING]
    norms = [t for t in model.embeddings if t.role is Role.NORM]
    return First(
        hidden=model.hidden_size,
        tables=tuple((t.num_parameters, not t.frozen) for t in tables),
        norm=bool(norms),
        kind=norm_of(model.family, with_bias=any(t.role is Role.BIAS for t in model.embeddings)),
        shared=shared,
    )


@lru_cache(maxsize=MEMO)
def _embedding(first: First, flow: Flow, style: BlockStyle) -> Walked:
    t = Tape()
    w = Writer(t=t, flow=flow, style=style, vectors_train=any(trains for _, trains in first.tables))
    walked = walk(t, lambda _t, box: write_first(w, first, box[0]), 0, 1, grows=False)
    return replace(walked, gradients=walked.gradients - first.shared_elements * flow.weight_each)
