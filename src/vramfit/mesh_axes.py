"""Which candidates there are: every way to spread a number of devices over the degrees of a plan, and to cut a batch.

A candidate is refused as soon as a degree, a schedule or a way to divide states rules it out; the tally says why, and
counts what the refusal spared: candidates with the same degrees and other micro-batches, recomputation or schedules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vramfit.framework import Framework
from vramfit.frameworks.abilities import Abilities, divisions
from vramfit.layer_kind import Experts, GroupedQuery
from vramfit.mesh import Refusal
from vramfit.request import Plan
from vramfit.spec import ModelSpec

MOST_MICRO_BATCH = 64
MOST_PIECES = 8
"""Virtual stages are searched up to so many on each rank."""
DEGREES = ("dp_replicate", "dp_shard", "tp", "pp", "cp")
"""Degrees that take devices, in the order in which a mesh is written."""
DIVISIONS = ("zero_stage", "distributed_optimizer", "reshard_after_forward")
"""Fields of a plan that say how states are divided: the framework says which values there are."""
KEPT = ("sequence_parallel", "vocab_tp")
"""Fields of a plan that are not searched, and stay as they are given."""
V_SHAPED = frozenset({"zb-v", "v-half", "v-min", "dualpipe-v"})
"""Schedules with two pieces on each rank."""

Mesh = tuple[int, int, int, int, int]
"""A value for each of ``DEGREES``."""


@dataclass(slots=True)
class Tally:
    """How many candidates were refused, and why. The only thing here that changes."""

    found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def refuse(self, reason: str, count: int, example: str) -> int:
        """Count candidates of one reason, keep the first example; return how many there were before."""
        before, first = self.found.get(reason, (0, example))
        self.found[reason] = (before + count, first)
        return before

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """All reasons, most frequent first."""
        found = (Refusal(reason=r, num_candidates=n, example=text) for r, (n, text) in self.found.items())
        return tuple(sorted(found, key=lambda each: -each.num_candidates))

    @property
    def num_candidates(self) -> int:
        """All that were refused."""
        return sum(count for count, _ in self.found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What a search varies, for one model, framework and number of devices."""

    model: ModelSpec
    framework: Framework
    abilities: Abilities
    num_devices: int
    global_batch: int
    sequence_tokens: int
    fixed: Mapping[str, object]
    """Fields of the plan, ``micro_batch`` and ``recompute`` that are given: nothing else is tried for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A plan without its micro-batches, and the micro-batches and recomputations to try with it."""

    fields: Mapping[str, object]
    """What ``Plan`` is made of."""
    micro_batches: tuple[int, ...]
    sequences: int
    """Sequences of one step on one data-parallel rank."""
    recomputes: tuple[str, ...]

    def plan(self, micro_batch: int) -> Plan:
        """Return the plan with that micro-batch."""
        micro = {"micro_batches": self.sequences // micro_batch} if self.fields["pp"] != 1 else {}
        return Plan(**self.fields, **micro)  # type: ignore[arg-type]


def spreads(axes: Axes, tally: Tally) -> Iterator[Spread]:
    """Yield every spread that divides the model, the batch and the devices and that the framework can carry out."""
    recomputes = _of(axes, "recompute", axes.abilities.recomputes)
    for mesh in meshes(axes.num_devices):
        if not _wanted(axes, mesh):
            continue
        batches = micro_batches(axes, mesh)
        size = max(1, len(batches)) * len(recomputes)
        refused = mesh_refusal(axes, mesh)
        if refused is not None:
            tally.refuse(refused[0], size * max(1, len(_schedules(axes, mesh[3]))), refused[1])
            continue
        for ep, etp in _expert_degrees(axes, mesh):
            wrong = _expert_refusal(axes, mesh, ep, etp)
            if wrong is not None:
                tally.refuse(wrong[0], size, wrong[1])
                continue
            yield from _divided(axes, mesh, {"ep": ep, "etp": etp} if ep > 1 else {}, batches, recomputes, tally)


def _divided(
    axes: Axes,
    mesh: Mesh,
    experts: Mapping[str, object],
    batches: tuple[int, ...],
    recomputes: tuple[str, ...],
    tally: Tally,
) -> Iterator[Spread]:
    """Yield the spreads of one mesh: ways to divide states, schedules, pieces."""
    dp_replicate, dp_shard, tp, pp, cp = mesh
    sequences = axes.global_batch // (dp_replicate * dp_shard)
    ways = divisions(axes.framework, data_ranks=dp_replicate, shard_ranks=dp_shard * cp, tp=tp, pp=pp)
    for way in ways:
        if way and any(way.get(name) != axes.fixed[name] for name in DIVISIONS if name in axes.fixed):
            continue
        for schedule in _schedules(axes, pp):
            found = [b for b in batches if schedule is None or _enough(schedule, sequences // b, pp)]
            short = len(batches) - len(found)
            if short:
                text = f"{write(mesh)}: {_taken(schedule[0], pp)}" if schedule else ""
                tally.refuse("too few micro-batches for the schedule", short * len(recomputes), text)
            if not found:
                continue
            kept = {name: axes.fixed[name] for name in KEPT if name in axes.fixed}
            fields = dict(zip(DEGREES, mesh, strict=True)) | kept | dict(experts) | dict(way)
            if schedule is not None:
                fields |= {"pp_schedule": schedule[0], "virtual_stages": schedule[1]}
            yield Spread(fields=fields, micro_batches=tuple(found), sequences=sequences, recomputes=recomputes)


def meshes(num_devices: int) -> Iterator[Mesh]:
    """Yield every way to write a number of devices as a product of the five degrees.

    >>> len(list(meshes(4)))
    15
    """
    for dp_replicate in divisors(num_devices):
        rest = num_devices // dp_replicate
        for dp_shard in divisors(rest):
            left = rest // dp_shard
            for tp in divisors(left):
                for pp in divisors(left // tp):
                    yield dp_replicate, dp_shard, tp, pp, left // tp // pp


def divisors(number: int) -> tuple[int, ...]:
    """Return all divisors, smallest first.

    >>> divisors(12)
    (1, 2, 3, 4, 6, 12)
    """
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))


def write(mesh: Mesh) -> str:
    """Write a mesh with its degrees above 1.

    >>> write((1, 8, 2, 1, 1))
    'dp_shard 8, tp 2'
    """
    return ", ".join(f"{n} {v}" for n, v in zip(DEGREES, mesh, strict=True) if v > 1) or "one device"


def _wanted(axes: Axes, mesh: Mesh) -> bool:
    return all(axes.fixed.get(name, value) == value for name, value in zip(DEGREES, mesh, strict=True))


def _of(axes: Axes, name: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the given value, or all."""
    return (str(axes.fixed[name]),) if name in axes.fixed else values


def micro_batches(axes: Axes, mesh: Mesh) -> tuple[int, ...]:
    """Return the micro-batches to try: powers of two that divide what one data-parallel rank feeds in a step."""
    ranks = mesh[0] * mesh[1]
    if axes.global_batch % ranks:
        return ()
    sequences = axes.global_batch // ranks
    given = axes.fixed.get("micro_batch")
    if given is not None:
        return (int(str(given)),) if sequences % int(str(given)) == 0 else ()
    return tuple(2**n for n in range(MOST_MICRO_BATCH.bit_length()) if sequences % 2**n == 0)


def mesh_refusal(axes: Axes, mesh: Mesh) -> tuple[str, str] | None:
    """Return why a mesh cannot be, and an example in words; None = it can."""
    dp_replicate, dp_shard, tp, pp, cp = mesh
    name, layers = axes.framework.name, len(axes.model.layers)
    for degree, value in zip(DEGREES, mesh, strict=True):
        if value > 1 and degree not in axes.abilities.degrees:
            return f"{name} cannot", f"{write(mesh)}: {name} has no {degree}"
    if axes.global_batch % (dp_replicate * dp_shard) or not micro_batches(axes, mesh):
        return "does not divide the global batch", f"{write(mesh)}: {axes.global_batch} sequences"
    if pp > layers or (axes.abilities.even_stages and layers % pp):
        return "does not divide the layers", f"{write(mesh)}: {layers} layers"
    if axes.sequence_tokens % (2 * cp if cp > 1 else 1) or axes.sequence_tokens // cp % tp:
        return "does not divide the sequence", f"{write(mesh)}: {axes.sequence_tokens} tokens"
    for layer, _ in axes.model.groups:
        for mixer in layer.mixers:
            if isinstance(mixer, GroupedQuery) and mixer.num_key_value_heads % tp:
                return "does not divide heads or widths", f"{write(mesh)}: {mixer.num_key_value_heads} KV heads"
    return None


def _expert_degrees(axes: Axes, mesh: Mesh) -> Iterator[tuple[int, int | None]]:
    """Yield degrees of expert parallelism, and of tensor parallelism inside experts."""
    counts = {n.feed_forward.num_experts for n, _ in axes.model.groups if isinstance(n.feed_forward, Experts)}
    given = axes.fixed.get("ep")
    if not counts or "ep" not in axes.abilities.degrees:
        if given in {None, 1}:
            yield 1, None
        return
    ranks = axes.num_devices // mesh[3]
    for ep in divisors(ranks):
        if ep > max(counts) or (given is not None and ep != given):
            continue
        if ep == 1:
            yield 1, None
            continue
        for etp in {1, mesh[2]}:
            if axes.fixed.get("etp", etp) == etp:
                yield ep, etp


def _expert_refusal(axes: Axes, mesh: Mesh, ep: int, etp: int | None) -> tuple[str, str] | None:
    """Return why experts cannot be spread so; None = they can."""
    if ep == 1:
        return None
    counts = {n.feed_forward.num_experts for n, _ in axes.model.groups if isinstance(n.feed_forward, Experts)}
    wrong = next((count for count in counts if count % ep), None)
    if wrong is not None:
        return "does not divide the experts", f"{write(mesh)}, ep {ep}: {wrong} experts"
    ranks = axes.num_devices // mesh[3]
    if ranks % (ep * (etp or 1)):
        return "does not divide the experts", f"{write(mesh)}, ep {ep}, etp {etp}: {ranks} ranks of a stage"
    return None


def _schedules(axes: Axes, pp: int) -> tuple[tuple[str, int] | None, ...]:
    """Return (schedule, pieces on each rank) to try; one None without a pipeline."""
    if pp == 1:
        return (None,)
    layers = len(axes.model.layers)
    found: list[tuple[str, int]] = []
    for name in _of(axes, "pp_schedule", axes.abilities.schedules):
        most = MOST_PIECES if name == "interleaved-1f1b" else 2
        pieces = range(2, most + 1) if name == "interleaved-1f1b" or name in V_SHAPED else (1,)
        found += [
            (name, n)
            for n in pieces
            if n & (n - 1) == 0
            and axes.fixed.get("virtual_stages", n) == n
            and pp * n <= layers
            and not (axes.abilities.even_stages and layers % (pp * n))
        ]
    return tuple(found)


def _taken(schedule: str, pp: int) -> str:
    """Say how many micro-batches a schedule takes."""
    return f"{schedule} takes " + (
        f"{2 * pp} micro-batches or more" if schedule == "dualpipe-v" else f"multiples of {pp}"
    )


def _enough(schedule: tuple[str, int], micro_batches: int, pp: int) -> bool:
    """Say whether a schedule takes so many micro-batches.

    Source: NVIDIA/Megatron-LM:megatron/core/pipeline_parallel/schedules.py (a multiple of the stages, interleaved);
    pytorch/pytorch:torch/distributed/pipelining/schedules.py (DualPipeV: at least as many as pieces).
    """
    if schedule[0] == "interleaved-1f1b":
        return micro_batches % pp == 0
    return micro_batches >= 2 * pp if schedule[0] == "dualpipe-v" else True
