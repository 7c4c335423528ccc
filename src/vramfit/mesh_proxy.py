"""What one step of a candidate costs beside computing the model once: bytes over links, waiting, computing again.

Volumes are those of ring algorithms, counted for the busiest rank. A group that does not lie in one node counts with
all its bytes as between nodes. Ranks stand in torchtitan's and Megatron's order: tensor parallelism
innermost, then context, data, copies, and pipeline stages outermost.
Source: Shoeybi et al. 2019, arXiv:1909.08053, sec. 3; Korthikanti et al. 2022, arXiv:2205.05198, sec. 4.2;
Rajbhandari et al. 2020, arXiv:1910.02054, sec. 7; Narayanan et al. 2021, arXiv:2104.04473, sec. 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from vramfit.layer_kind import Compressed, CrossAttention, Experts, GroupedQuery, Latent
from vramfit.mesh import Links, Proxy
from vramfit.request import Plan
from vramfit.spec import Layer, ModelSpec, Tensor
from vramfit.units import ceil_div

RECOMPUTED = {"none": 0.0, "full": 1.0, "offload": 1.0}
"""Share of a forward pass that runs again; ``selective`` repeats attention, or every second matrix product."""
BUBBLE_PASSES = {"1f1b": 3.0, "gpipe": 3.0, "interleaved-1f1b": 3.0, "zb-h1": 1.0, "zb-v": 0.0, "dualpipe-v": 1.0,
                 "v-half": 1.5, "v-min": 2.0}  # fmt: skip
"""Forward passes of one stage that every other stage makes a rank wait for, with backward as two of them.
1f1b and gpipe: Narayanan et al. 2021, sec. 2.2 (divided by the pieces when interleaved); zb-h1: Qi et al. 2023,
arXiv:2401.10241, sec. 2.3; v-half, v-min: Qi et al. 2024, arXiv:2405.15362, sec. 3 (about half and two thirds of
1f1b); dualpipe-v: deepseek-ai/DualPipe:README.md, (PP/2 - 1)(F&B + B - 3W) with F = 1, B = 2, W = 1."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What of a model travels, whole and for one token; no slots: sums are kept."""

    model: ModelSpec
    """As it is trained: frozen tensors marked."""
    sequence_tokens: int
    compute_bytes: int
    """Bytes of an element of activations and gathered weights."""
    reduce_bytes: int
    """Bytes of an element of gradients as they travel."""
    selective_repeats_matrices: bool = False
    """What ``selective`` computes again: every second matrix product, or attention alone."""

    @cached_property
    def sublayers(self) -> int:
        """Mixers and feed-forward networks: each ends in one exchange of tensor parallelism in each direction."""
        return sum(n * (bool(layer.mixers) + (layer.feed_forward is not None)) for layer, n in self.model.groups)

    @cached_property
    def key_value_elements(self) -> int:
        """Elements of keys and values of one token in all layers: what ranks of context parallelism pass on."""
        return sum(n * _key_values(layer) for layer, n in self.model.groups)

    @cached_property
    def experts_per_token(self) -> int:
        """Experts that one token is sent to, all layers together."""
        return sum(
            n * layer.feed_forward.num_experts_per_tok
            for layer, n in self.model.groups
            if isinstance(layer.feed_forward, Experts)
        )

    @cached_property
    def weights(self) -> tuple[int, int, int, int]:
        """Parameters: all common ones, common ones that train, all of routed experts, those of them that train."""
        found = [0, 0, 0, 0]
        for tensor, count in self._tensors():
            place = 2 if tensor.experts else 0
            found[place] += count * tensor.num_parameters
            found[place + 1] += 0 if tensor.frozen else count * tensor.num_parameters
        return found[0], found[1], found[2], found[3]

    def _tensors(self) -> list[tuple[Tensor, int]]:
        model = self.model
        outside = [(t, 1) for t in (*model.embeddings, *model.head)]
        return [*outside, *((t, n) for layer, n in model.groups for t in layer.tensors)]

    @cached_property
    def attention_share(self) -> float:
        """Share of a forward pass that attention itself multiplies: scores and their product with values."""
        scores = sum(n * _score_elements(layer) for layer, n in self.model.groups)
        attention = 2 * 2 * scores * self.sequence_tokens / 2  # two products, 2 operations each, half of them masked
        return attention / (attention + 2 * self.model.num_active_parameters)

    def operations(self, tokens: int) -> float:
        """Operations of forward and backward for so many tokens: 6 for each active parameter, and attention's."""
        return 6 * self.model.num_active_parameters * tokens / (1 - self.attention_share)


def _key_values(layer: Layer) -> int:
    total = 0
    for mixer in layer.mixers:
        match mixer:
            case GroupedQuery():
                total += mixer.num_key_value_heads * (mixer.head_dim + (mixer.v_head_dim or mixer.head_dim))
            case CrossAttention():
                total += 2 * mixer.num_key_value_heads * mixer.head_dim
            case Latent():
                total += mixer.num_attention_heads * (
                    mixer.qk_nope_head_dim + mixer.qk_rope_head_dim + mixer.v_head_dim
                )
            case Compressed():
                total += mixer.head_dim
            case _:
                pass  # a recurrence passes its state on, which does not grow with the tokens
    return total


def _score_elements(layer: Layer) -> int:
    total = 0
    for mixer in layer.mixers:
        match mixer:
            case GroupedQuery() | CrossAttention() | Compressed():
                total += mixer.num_attention_heads * mixer.head_dim
            case Latent():
                total += mixer.num_attention_heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim)
            case _:
                pass
    return total


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes that the busiest rank sends. [B]"""

    inside: float
    between: float

    def time(self, links: Links) -> float:
        """Return how long the links take for them. [s]"""
        return self.inside / links.inside_bytes_per_second + self.between / links.between_bytes_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanges:
    """What a plan exchanges in one step, whatever its micro-batch; times are over the time of the matrices."""

    waiting: Sent
    passing: Sent
    """For one forward pass."""
    once: Sent
    waiting_ratio: float
    passing_ratio: float
    """For one forward pass."""
    once_ratio: float
    again: float
    """Share of a forward pass that runs twice."""

    def proxy(self, plan: Plan, passes: int) -> Proxy:
        """Return what one step of so many forward passes costs."""
        return Proxy(
            inside_bytes=round(self.waiting.inside + self.once.inside + passes * self.passing.inside),
            between_bytes=round(self.waiting.between + self.once.between + passes * self.passing.between),
            bubble_ratio=bubble_ratio(plan, passes),
            recompute_ratio=self.again,
            waiting_ratio=self.waiting_ratio,
            passing_ratio=passes * self.passing_ratio,
            once_ratio=self.once_ratio,
            passes=passes,
        )


def exchanges(traffic: Traffic, links: Links, plan: Plan, *, sequences: int, recompute: str, divided: int) -> Exchanges:
    """Return what the busiest rank sends in one step.

    Args:
        traffic: the model.
        links: how many devices a node has, and how fast they exchange.
        plan: without open degrees but its micro-batches.
        sequences: of one step on one data-parallel rank.
        recompute: what backward computes again.
        divided: what data ranks divide: 0 nothing, 1 states, 2 gradients too, 3 weights too.
    """
    again = recompute_ratio(traffic, recompute)
    tokens = sequences * traffic.sequence_tokens
    matrices = traffic.operations(tokens) / (plan.tp * plan.pp * plan.cp) / links.matrix_operations_per_second
    waiting = _sum(_waiting(traffic, plan, tokens // plan.cp, 1 + again), links)
    passing = _sum(_passing(traffic, plan, divided), links)
    once = _sum(_once(traffic, plan, divided), links)
    return Exchanges(
        waiting=waiting,
        passing=passing,
        once=once,
        waiting_ratio=waiting.time(links) / matrices,
        passing_ratio=passing.time(links) / matrices,
        once_ratio=once.time(links) / matrices,
        again=again,
    )


Rings = list[tuple[float, int]]
"""Bytes of one rank, and the ranks in a row that its group spans."""


def _sum(rings: Rings, links: Links) -> Sent:
    inside = sum(size for size, span in rings if span <= links.node_devices)
    return Sent(inside, sum(size for size, span in rings if span > links.node_devices))


def _share(ranks: int) -> float:
    """Part of a buffer that a rank of a ring sends once."""
    return (ranks - 1) / ranks


def _waiting(traffic: Traffic, plan: Plan, tokens: int, forwards: float) -> Rings:
    """Return what matrices wait for, for so many tokens of a rank.

    tp  2 * (tp - 1) / tp * sublayers * (forwards + 1) * tokens * hidden     an all-reduce each way
    cp  (cp - 1) * keys and values * (forwards + 2)                          theirs and their gradients, in a ring
    ep  2 * (ep - 1) / ep * experts per token * (forwards + 1) * tokens * hidden / tp   there and back
    pp  2 * pieces * tokens * hidden / tp                                    a block's output and its gradient
    """
    size = traffic.compute_bytes
    stream, passes = tokens * traffic.model.hidden_size * size, forwards + 1
    rings: Rings = []
    if plan.tp > 1:
        rings.append((2 * _share(plan.tp) * ceil_div(traffic.sublayers, plan.pp) * passes * stream, plan.tp))
    if plan.cp > 1:
        keys = ceil_div(traffic.key_value_elements, plan.pp * plan.tp) * tokens * size
        rings.append(((plan.cp - 1) * keys * (forwards + 2), plan.tp * plan.cp))
    if plan.ep > 1:
        routed = ceil_div(traffic.experts_per_token, plan.pp) * stream / plan.tp
        rings.append((2 * _share(plan.ep) * routed * passes, plan.tp * plan.ep))
    if plan.pp > 1:
        rings.append((2 * (plan.virtual_stages or 1) * stream / plan.tp, plan.num_devices))
    return rings


def _held(traffic: Traffic, plan: Plan) -> tuple[float, float]:
    """Return the bytes of weights of one rank as they are gathered, and of its gradients as they travel."""
    common, common_trained, routed, routed_trained = traffic.weights
    experts = plan.ep * (plan.tp if plan.etp is None else plan.etp) * plan.pp
    ranks = plan.tp * plan.pp
    return (
        (common / ranks + routed / experts) * traffic.compute_bytes,
        (common_trained / ranks + routed_trained / experts) * traffic.reduce_bytes,
    )


def _passing(traffic: Traffic, plan: Plan, divided: int) -> Rings:
    """Return what travels in every forward pass and its backward.

        ZeRO 3, FSDP  (d - 1) / d * (weights, twice where they are given back after forward, + gradients)
        ZeRO 2        (d - 1) / d * gradients

    Under a pipeline gradients add up whole and travel once a step, and weights that are not given back stay
    (pytorch/pytorch:torch/distributed/pipelining/stage.py, backward_maybe_with_nosync).
    """
    shards = plan.dp_shard * plan.cp
    if shards == 1 or divided < 2:
        return []
    weights, gradients = _held(traffic, plan)
    gathers = 0
    if divided >= 3:
        stays = plan.reshard_after_forward is False
        gathers = 2 if not stays else 1 if plan.pp == 1 else 0
    return [(_share(shards) * (gathers * weights + (gradients if plan.pp == 1 else 0)), plan.tp * shards)]


def _once(traffic: Traffic, plan: Plan, divided: int) -> Rings:
    """Return what travels once in every step.

    over dp_shard      (d - 1) / d * (gradients and updated weights; ZeRO 2: updated weights; ZeRO 3: nothing,
                       under a pipeline gradients, and weights that stay)
    over dp_replicate  (d - 1) / d * (gradients and updated weights, or gradients twice), of its share
    """
    weights, gradients = _held(traffic, plan)
    trained = gradients * traffic.compute_bytes / traffic.reduce_bytes if divided else gradients
    shards = plan.dp_shard * plan.cp
    rings: Rings = []
    if shards > 1 and divided < 3:
        rings.append((_share(shards) * (trained + (gradients if divided < 2 else 0)), plan.tp * shards))
    if shards > 1 and divided >= 3 and plan.pp > 1:
        stays = weights if plan.reshard_after_forward is False else 0
        rings.append((_share(shards) * (gradients + stays), plan.tp * shards))
    if plan.dp_replicate > 1:
        part = shards if divided >= 2 else 1
        second = gradients if divided >= 2 else trained
        rings.append((_share(plan.dp_replicate) * (gradients + second) / part, plan.tp * shards * plan.dp_replicate))
    return rings


def bubble_ratio(plan: Plan, accumulation: int) -> float:
    """Return the share of a step in which a pipeline rank waits.

        stages - 1 rounds of waiting against 3 passes (forward 1, backward 2) of every micro-batch

    >>> round(bubble_ratio(Plan(pp=4, pp_schedule="1f1b"), 13), 4)
    0.1875
    """
    if plan.pp == 1:
        return 0.0
    pieces = plan.virtual_stages or 1
    each = BUBBLE_PASSES[plan.pp_schedule or "1f1b"] / (pieces if plan.pp_schedule == "interleaved-1f1b" else 1)
    waits = (plan.pp - 1) * each
    return waits / (3 * accumulation + waits)


def recompute_ratio(traffic: Traffic, recompute: str) -> float:
    """Return the share of a forward pass that runs a second time."""
    share = traffic.attention_share
    return RECOMPUTED.get(recompute, (1 - share) / 2 if traffic.selective_repeats_matrices else share)
