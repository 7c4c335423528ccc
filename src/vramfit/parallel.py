"""Cuts a model into what one GPU holds.

Tensor parallelism divides matrices and heads, pipeline parallelism divides the layers into
stages. Laws: ``tp = 1, pp = 1`` is the identity; shards add up to the whole plus what is repeated.
Source: Shoeybi et al. 2019, arXiv:1909.08053, sec. 3 (tensor); Narayanan et al. 2021, arXiv:2104.04473 (pipeline).
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import ImpossiblePlanError
from vramfit.formats import Role
from vramfit.layer_kind import (
    Attention,
    Compressed,
    CrossAttention,
    Dense,
    Experts,
    FeedForward,
    GroupedQuery,
    Latent,
    LinearAttention,
    Recurrence,
    ShortConvolution,
    StateSpace,
)
from vramfit.request import Plan
from vramfit.shard import Shard
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor
from vramfit.units import ceil_div


def shards(model: ModelSpec, plan: Plan) -> tuple[Shard, ...]:
    """Return one shard per distinct rank of the plan, first stage first.

    Raises:
        ImpossiblePlanError: more stages than layers, or a degree that does not divide heads or widths.
    """
    if model.components:
        return (_whole(model, plan),)
    bounds = stage_bounds(len(model.layers), plan.pp)
    cut = cut_model(model, plan.tp, vocab_tp=plan.vocab_tp)
    kinds: dict[object, Shard] = {}
    for stage, (start, end) in enumerate(bounds):
        piece = stage_model(cut, start, end, first=stage == 0, last=stage == plan.pp - 1)
        key = (piece.embeddings, piece.groups, piece.head) if plan.pp > 1 else None
        known = kinds.get(key)
        ranks = plan.tp * plan.dp_replicate + (known.num_ranks if known else 0)
        label = known.label.split(" (")[0] + f", {stage}" if known else _label(stage, plan)
        kinds[key] = Shard(
            label=label,
            num_ranks=ranks,
            model=piece,
            first=stage == 0,
            last=stage == plan.pp - 1,
            vocab_size=model.vocab_size or 0,
            num_peers=plan.tp - 1 + min(plan.pp - 1, 2),
        )
    return tuple(kinds.values())


def _whole(model: ModelSpec, plan: Plan) -> Shard:
    """Return the one shard of a diffusion pipeline, which is copied and not divided."""
    if plan.tp * plan.pp > 1:
        raise ImpossiblePlanError(
            f"plan: tp {plan.tp}, pp {plan.pp}: expected 1 and 1: this version does not divide diffusion pipelines; "
            "dp_replicate gives each device a copy"
        )
    ranks = plan.dp_replicate
    return Shard(label=_label(0, plan), num_ranks=ranks, model=model, first=True, last=True, num_peers=0)


def _label(stage: int, plan: Plan) -> str:
    if plan.num_devices == 1:
        return "the only rank"
    return "every rank" if plan.pp == 1 else f"stage {stage}"


def stage_bounds(num_layers: int, pp: int) -> tuple[tuple[int, int], ...]:
    """Return (first, last + 1) layer of every stage.

    What does not divide goes to the stages before the last, which also has the output projection
    (as vLLM does it: vllm/distributed/utils.py, get_pp_indices).

    >>> stage_bounds(10, 4)
    ((0, 2), (2, 5), (5, 8), (8, 10))
    """
    if pp > num_layers:
        raise ImpossiblePlanError(
            f"plan.pp: {pp}: expected at most {num_layers}, the number of layers; lower pp or raise tp"
        )
    sizes = [num_layers // pp] * pp
    for i in range(num_layers % pp):
        sizes[-(i + 2)] += 1
    ends = [sum(sizes[: i + 1]) for i in range(pp)]
    return tuple((end - size, end) for end, size in zip(ends, sizes, strict=True))


def stage_model(model: ModelSpec, start: int, end: int, *, first: bool, last: bool) -> ModelSpec:
    """Keep the layers of one stage; embeddings, parts and head stay with the end stages."""
    resident = tuple(p for p in model.parts if p.resident)
    if first and last:
        return model if resident == model.parts else replace(model, parts=resident)
    head = model.head if last else ()
    if last and model.tied:
        head = (model.embeddings[0], *head)
    return replace(
        model,
        layers=_with_shared(model.layers, start, end),
        embeddings=model.embeddings if first else (),
        head=head,
        parts=tuple(part for part in resident if (last if part.predicts else first)),
    )


def _with_shared(layers: tuple[Layer, ...], start: int, end: int) -> tuple[Layer, ...]:
    """Return the layers of one stage; parameters shared with a block of an earlier stage are held once more.

    The first block that uses them holds them. Where adapters of other uses come along they are counted too:
    they are parts of the shared block in the file.
    """
    held: set[int] = set()
    stage = list(layers[start:end])
    for i, layer in enumerate(stage):
        owner = layer.shared_with
        if owner is not None and owner < start and owner not in held:
            held.add(owner)
            stage[i] = replace(layer, tensors=(*layer.tensors, *layer.shared))
    return tuple(stage)


def cut_model(model: ModelSpec, tp: int, *, vocab_tp: bool = True, etp: int | None = None, ep: int = 1) -> ModelSpec:
    """Divide every matrix by the tensor-parallel degree, equal layers once.

    Args:
        model: the whole model.
        tp: ranks that divide every matrix.
        vocab_tp: whether they divide the vocabulary too.
        etp: ranks that divide the matrices of routed experts; None = ``tp``.
        ep: ranks over which routed experts are handed out.

    Raises:
        ImpossiblePlanError: a degree that does not divide heads, widths or experts.
    """
    if tp == 1 and ep == 1 and etp in {None, 1}:
        return model
    cut: dict[int, Layer] = {}
    for layer in model.layers:
        if id(layer) not in cut:
            cut[id(layer)] = _cut_layer(layer, tp, etp, ep)
    outside = tp if vocab_tp else 1
    return replace(
        model,
        layers=tuple(cut[id(layer)] for layer in model.layers),
        embeddings=tuple(_cut_tensor(t, outside, None) for t in model.embeddings),
        head=tuple(_cut_tensor(t, outside, None) for t in model.head),
        vocab_size=None if model.vocab_size is None else ceil_div(model.vocab_size, outside),
        parts=tuple(
            _cut_part(part, tp, etp, ep) if part.encodes or (part.predicts and part.resident) else _cut_tower(part, tp)
            for part in model.parts
        ),
    )


def _cut_part(part: Part, tp: int, etp: int | None = None, ep: int = 1) -> Part:
    """Divide an encoder or a prediction head as the layers are; what stands around them is small and stays whole."""
    cut = {id(layer): _cut_layer(layer, tp, etp, ep) for layer in part.layers}
    return replace(part, layers=tuple(cut[id(layer)] for layer in part.layers))


def _cut_tower(part: Part, tp: int) -> Part:
    """Divide the matrices of a tower's layers; one of a pipeline, or whose heads or widths do not divide, stays whole.

    Outputs are divided where they can be, else inputs: one rank's share is the same. Servers divide towers so
    (vllm-project/vllm@v0.19.0:vllm/model_executor/models/siglip.py, pixtral.py, qwen2_5_vl.py).
    """
    if part.component or not part.resident:
        return part
    try:
        layers = {id(layer): _cut_layer(_with_cuts(layer, tp), tp) for layer in part.layers}
    except ImpossiblePlanError:
        return part
    return replace(part, layers=tuple(layers[id(layer)] for layer in part.layers))


def _with_cuts(layer: Layer, tp: int) -> Layer:
    """Name how the matrices of a tower's layer are divided, where its reader does not."""
    cut = {True: Cut.OUTPUTS, False: Cut.INPUTS}
    return replace(
        layer,
        tensors=tuple(
            replace(t, cut=cut[t.shape[0] % tp == 0])
            if t.cut is Cut.WHOLE and t.role is Role.LINEAR and len(t.shape) > 1
            else t
            for t in layer.tensors
        ),
    )


def _cut_layer(layer: Layer, tp: int, etp: int | None = None, ep: int = 1) -> Layer:
    inside = tp if etp is None else etp
    return replace(
        layer,
        attention=_cut_attention(layer.attention, tp),
        beside=_cut_attention(layer.beside, tp),
        feed_forward=_cut_feed_forward(layer.feed_forward, tp, inside),
        tensors=tuple(_cut_either(t, tp, inside, ep, layer.attention) for t in layer.tensors),
        shared=tuple(_cut_either(t, tp, inside, ep, layer.attention) for t in layer.shared),
        shared_with=layer.shared_with,
    )


def _cut_either(tensor: Tensor, tp: int, etp: int, ep: int, attention: Attention | None) -> Tensor:
    """Divide a tensor of routed experts by their own degrees, any other by ``tp``."""
    if not tensor.experts:
        return _cut_tensor(tensor, tp, attention)
    return _hand_out(_cut_tensor(tensor, etp, attention), ep)


def _hand_out(tensor: Tensor, ep: int) -> Tensor:
    """Return the routed experts of one rank out of ``ep``."""
    if tensor.experts % ep:
        raise ImpossiblePlanError(
            f"plan.ep: {ep} does not divide the experts ({tensor.experts}): expected a divisor; try "
            f"{_divisor_below(tensor.experts, ep)}"
        )
    experts = tensor.experts // ep
    if tensor.copies > 1:
        return replace(tensor, copies=experts, experts=experts)
    shape = (tensor.shape[0] // ep, *tensor.shape[1:]) if tensor.shape[0] == tensor.experts else tensor.shape
    return replace(tensor, shape=shape, experts=experts)


def _divided(value: int, tp: int, what: str) -> int:
    if value % tp:
        raise ImpossiblePlanError(
            f"plan.tp: {tp} does not divide {what} ({value}): expected a divisor; try {_divisor_below(value, tp)} "
            "and divide the layers with pp"
        )
    return value // tp


def _divisor_below(value: int, tp: int) -> int:
    return next(d for d in range(tp, 0, -1) if value % d == 0)


def heads_per_rank(num_key_value_heads: int, tp: int) -> int:
    """Return the KV heads that one rank holds: at least one, repeated when there are more ranks than heads.

    >>> heads_per_rank(8, 4), heads_per_rank(8, 16)
    (2, 1)
    """
    if tp % num_key_value_heads and num_key_value_heads % tp:
        raise ImpossiblePlanError(
            f"plan.tp: {tp} and num_key_value_heads ({num_key_value_heads}): expected one to divide the other; "
            f"try {_divisor_below(num_key_value_heads, tp)}"
        )
    return max(1, num_key_value_heads // tp)


def _cut_attention(attention: Attention | None, tp: int) -> Attention | None:  # noqa: PLR0911 - one per kind
    match attention:
        case GroupedQuery() | CrossAttention():
            heads = _divided(attention.num_attention_heads, tp, "num_attention_heads")
            return replace(
                attention,
                num_attention_heads=heads,
                num_key_value_heads=heads_per_rank(attention.num_key_value_heads, tp),
            )
        case Latent() | Compressed():
            return replace(
                attention, num_attention_heads=_divided(attention.num_attention_heads, tp, "num_attention_heads")
            )
        case StateSpace():
            return replace(
                attention,
                num_heads=_divided(attention.num_heads, tp, "state-space heads"),
                num_groups=ceil_div(attention.num_groups, tp),
            )
        case LinearAttention():
            return replace(
                attention,
                num_key_heads=_divided(attention.num_key_heads, tp, "linear_num_key_heads"),
                num_value_heads=_divided(attention.num_value_heads, tp, "linear_num_value_heads"),
            )
        case ShortConvolution():
            return replace(attention, width=_divided(attention.width, tp, "channels of the short convolution"))
        case Recurrence():
            return replace(
                attention,
                num_heads=_divided(attention.num_heads, tp, "heads of the recurrence"),
                width=_divided(attention.width, tp, "channels of the recurrence"),
                state_elements=_divided(attention.state_elements, tp, "elements of the recurrence"),
            )
        case None:
            return None


def _cut_feed_forward(feed_forward: FeedForward | None, tp: int, etp: int) -> FeedForward | None:
    match feed_forward:
        case Dense():
            return replace(
                feed_forward, intermediate_size=_divided(feed_forward.intermediate_size, tp, "intermediate_size")
            )
        case Experts():
            return replace(
                feed_forward,
                moe_intermediate_size=_divided(feed_forward.moe_intermediate_size, etp, "moe_intermediate_size"),
                shared_intermediate_size=_divided(
                    feed_forward.shared_intermediate_size, tp, "shared expert's intermediate size"
                ),
            )
        case None:
            return None


def _cut_tensor(tensor: Tensor, tp: int, attention: Attention | None) -> Tensor:
    """Return the tensor as one rank holds it."""
    if tp == 1 or tensor.cut is Cut.WHOLE:
        return tensor
    shape = list(tensor.shape)
    match tensor.cut:
        case Cut.OUTPUTS:
            shape[0] = _divided(shape[0], tp, f"outputs of {tensor.name}")
        case Cut.INPUTS:
            shape[-1] = _divided(shape[-1], tp, f"inputs of {tensor.name}")
        case Cut.VOCABULARY:
            shape[0] = ceil_div(shape[0], tp)
        case Cut.KEY_VALUE_HEADS:
            heads = _grouped_query(attention).num_key_value_heads
            shape[0] = shape[0] // heads * heads_per_rank(heads, tp)
        case Cut.QUERY_KEY_VALUE:
            facts = _grouped_query(attention)
            heads = facts.num_attention_heads + 2 * facts.num_key_value_heads
            kept = facts.num_attention_heads // tp + 2 * heads_per_rank(facts.num_key_value_heads, tp)
            shape[0] = shape[0] // heads * kept
        case Cut.SECOND:
            shape[1] = _divided(shape[1], tp, f"inputs of {tensor.name}")
    return replace(tensor, shape=tuple(shape))


def _grouped_query(attention: Attention | None) -> GroupedQuery | CrossAttention:
    assert isinstance(attention, GroupedQuery | CrossAttention)
    return attention
