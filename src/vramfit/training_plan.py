"""Cuts a model into what one rank trains: degrees become facts of a shard, impossible plans are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.errors import ImpossiblePlanError, InvalidValueError
from vramfit.framework import Framework, Sharding
from vramfit.parallel import cut_model, stage_bounds, stage_model
from vramfit.request import Plan
from vramfit.result import Choice
from vramfit.shard import Shard
from vramfit.spec import ModelSpec

FSDP = frozenset({Sharding.FSDP1, Sharding.FSDP2})
TWO_PIECES = frozenset({"zb-v", "v-half", "v-min", "dualpipe-v"})
"""Schedules in which every rank holds two pieces, the second in reverse order: first and last share a rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How a framework carries out a plan."""

    plan: Plan
    """With every open field decided."""
    sharding: Sharding
    state_ranks: int
    expert_state_ranks: int
    zero_stage: int
    choices: tuple[Choice, ...]
    whole_groups: bool = False
    """Whether ranks also talk in one group of all, and in one of the copy of the model that they make up (Megatron)."""


def sharding_of(framework: Framework, plan: Plan) -> Sharding:
    """Return how states are divided: DeepSpeed's way where a framework hands plans with a ZeRO stage to it."""
    if plan.zero_stage is not None and framework.deepspeed:
        return Sharding.ZERO
    alone = plan.dp_shard * plan.cp == 1 and plan.zero_stage is None
    if framework.sharding in FSDP and alone:
        return Sharding.DDP if plan.dp_replicate > 1 else Sharding.NONE
    return framework.sharding


def cutting(framework: Framework, plan: Plan, steps: int) -> Cutting:
    """Decide the open fields of a plan.

    Args:
        framework: decides what is left open.
        plan: as asked.
        steps: gradient accumulation steps; with a pipeline they are its micro-batches.
    """
    sharding = sharding_of(framework, plan)
    stage = plan.zero_stage if plan.zero_stage is not None else framework.zero_stage
    data, reshards = plan.dp_shard * plan.cp, framework.reshard_after_forward and plan.pp == 1
    if sharding is Sharding.MEGATRON:
        divides = framework.distributed_optimizer if plan.distributed_optimizer is None else plan.distributed_optimizer
        data = plan.dp_replicate * plan.dp_shard * plan.cp if divides or plan.dp_shard > 1 else 1
        stage = 1 if data > 1 else 0
    elif sharding in {Sharding.NONE, Sharding.DDP}:
        data, stage = 1, 0
    elif sharding in FSDP and plan.zero_stage in {1, 2}:  # SHARD_GRAD_OP: divided between steps, whole within one
        stage, reshards = 3, False
    values: dict[str, tuple[object, str]] = {"zero_stage": (stage, f"how {framework.name} divides ({sharding})")}
    name = f"{framework.name}'s default"
    if plan.tp > 1:
        values["sequence_parallel"] = (framework.sequence_parallel, name)
    if plan.ep > 1:
        values["etp"] = (plan.tp if framework.expert_tensor_parallel else 1, name)
    if plan.pp > 1:
        schedule = plan.pp_schedule or framework.pp_schedule
        values["pp_schedule"] = (schedule, name)
        values["virtual_stages"] = (_pieces(schedule), f"{schedule} has so many")
        values["micro_batches"] = (max(plan.pp, steps), "one for each stage, or the accumulation steps")
    if sharding in FSDP:
        values["reshard_after_forward"] = (reshards, name)
    opened = {field: pair for field, pair in values.items() if getattr(plan, field) is None}
    choices = tuple(Choice(field=f"plan.{f}", value=v, why=why) for f, (v, why) in opened.items())
    told = {field: value for field, (value, _) in opened.items()}
    if sharding is not Sharding.ZERO:
        told.pop("zero_stage", None)  # a plan that names a stage asks for DeepSpeed where a framework hands over to it
    filled = replace(plan, **told)  # type: ignore[arg-type]
    return Cutting(
        plan=filled,
        sharding=sharding,
        state_ranks=data,
        expert_state_ranks=_expert_ranks(filled, data),
        zero_stage=stage,
        choices=choices,
        whole_groups=framework.sharding is Sharding.MEGATRON,
    )


def _pieces(schedule: str) -> int:
    return 2 if schedule in TWO_PIECES or schedule == "interleaved-1f1b" else 1


def _expert_ranks(plan: Plan, data: int) -> int:
    """Return the ranks over which states of routed experts are divided: what is left of data ranks inside a group.

    All ranks of one pipeline stage, less those that hold other experts or other parts of the same ones.
    Source: NVIDIA/Megatron-LM:megatron/core/parallel_state.py (expert data parallel = world / (etp * ep * pp)).
    """
    if data == 1 or plan.ep == 1:
        return data
    inside = plan.tp if plan.etp is None else plan.etp
    ranks = data * plan.tp
    if ranks % (plan.ep * inside):
        raise ImpossiblePlanError(
            f"plan.ep: {plan.ep} x etp {inside} does not divide the {ranks} ranks of data, context and tensor "
            "parallelism: expected a divisor; lower ep or raise dp_shard"
        )
    return ranks // (plan.ep * inside)


def check_plan(model: ModelSpec, plan: Plan, device_count: int | None) -> None:
    """Refuse a plan that cannot be carried out, whatever the framework.

    Raises:
        ImpossiblePlanError: degrees that do not make up the devices, or do not divide experts or layers.
        InvalidValueError: fields that contradict one another.
    """
    if device_count is not None and device_count != plan.num_devices:
        degrees = ("dp_replicate", "dp_shard", "tp", "pp", "cp")
        product = " x ".join(f"{d} {getattr(plan, d)}" for d in degrees if getattr(plan, d) > 1) or "all degrees 1"
        raise ImpossiblePlanError(
            f"plan: {product} take {plan.num_devices} devices: expected {device_count} (device_count); "
            "change a degree or the count"
        )
    if plan.pp_schedule is not None and plan.pp == 1:
        raise InvalidValueError("plan.pp_schedule", plan.pp_schedule, "pp above 1 beside it")
    if plan.ep > 1 and not any(t.experts for layer, _ in model.groups for t in layer.tensors):
        raise ImpossiblePlanError(f"plan.ep: {plan.ep}: {model.name} has no experts; expected ep 1")
    sizes = plan.layers_per_stage
    if sizes is not None and (len(sizes) != plan.pp * (plan.virtual_stages or 1) and len(sizes) != plan.pp):
        raise ImpossiblePlanError(
            f"plan.layers_per_stage: {len(sizes)} entries: expected {plan.pp}, one for each stage"
        )
    if sizes is not None and sum(sizes) != len(model.layers):
        raise ImpossiblePlanError(
            f"plan.layers_per_stage: sums to {sum(sizes)}: expected {len(model.layers)}, the layers of {model.name}"
        )


def training_shards(model: ModelSpec, cut: Cutting) -> tuple[Shard, ...]:
    """Return one shard for each distinct rank, first stage first.

    Raises:
        ImpossiblePlanError: a degree that does not divide heads, widths, experts or layers.
    """
    plan = cut.plan
    kinds: dict[object, Shard] = {}
    for stage in stages_of(model, plan):
        flight = in_flight(plan, stage.number)
        key = (*stage.content, flight)
        known = kinds.get(key)
        label = known.label.split(" (")[0] + f", {stage.number}" if known else _label(stage.number, plan)
        ranks = plan.num_devices // plan.pp + (known.num_ranks if known else 0)
        kinds[key] = shard_of(stage, cut, vocab_size=model.vocab_size or 0, flight=flight, label=label, num_ranks=ranks)
    return tuple(kinds.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one rank of the pipeline holds, whatever the schedule makes it hold at once."""

    number: int
    model: ModelSpec
    first: bool
    last: bool

    @property
    def content(self) -> tuple[object, ...]:
        """Equal for stages that hold the same."""
        return self.model.embeddings, self.model.groups, self.model.head


def stages_of(model: ModelSpec, plan: Plan) -> tuple[Stage, ...]:
    """Return every stage of the pipeline, its matrices divided.

    Raises:
        ImpossiblePlanError: a degree that does not divide heads, widths, experts or layers.
    """
    narrowed = cut_model(model, plan.tp, vocab_tp=plan.vocab_tp, etp=plan.etp, ep=plan.ep)
    folded = plan.pp_schedule in TWO_PIECES
    return tuple(
        Stage(number=i, model=piece, first=i == 0, last=i == (0 if folded else plan.pp - 1))
        for i, piece in enumerate(_pieces_of(narrowed, plan))
    )


def shard_of(stage: Stage, cut: Cutting, *, vocab_size: int, flight: int, label: str, num_ranks: int) -> Shard:
    """Return the shard of a stage."""
    plan = cut.plan
    return Shard(
        label=label,
        num_ranks=num_ranks,
        model=stage.model,
        first=stage.first,
        last=stage.last,
        vocab_size=vocab_size,
        num_peers=plan.num_devices - 1,
        num_groups=_groups(cut, tied=stage.model.tied),
        tensor_ranks=plan.tp,
        sequence_parallel=bool(plan.sequence_parallel) and plan.tp > 1,
        sequence_ranks=plan.cp,
        expert_ranks=plan.ep,
        expert_tensor_ranks=plan.tp if plan.etp is None else plan.etp,
        state_ranks=cut.state_ranks,
        expert_state_ranks=cut.expert_state_ranks,
        zero_stage=cut.zero_stage,
        in_flight=flight,
        pieces=plan.virtual_stages or 1,
    )


def _groups(cut: Cutting, *, tied: bool) -> int:
    """Return the process groups that a rank exchanges data in, each with a communicator of its own.

    One for every degree; Megatron's start time and barriers go through the group of all ranks, its norm of gradients
    through all ranks of one copy of the model, and a tied embedding through first and last stage
    (NVIDIA/Megatron-LM:megatron/core/parallel_state.py, megatron/training/training.py, core/optimizer/clip_grads.py).
    """
    plan = cut.plan
    degrees = sum(degree > 1 for degree in (plan.dp_replicate * plan.dp_shard, plan.tp, plan.pp, plan.cp, plan.ep))
    if not cut.whole_groups:
        return degrees
    return degrees + 1 + (plan.tp * plan.pp > 1) + (tied and plan.pp > 1)


def _label(stage: int, plan: Plan) -> str:
    if plan.num_devices == 1:
        return "the only rank"
    return "every rank" if plan.pp == 1 else f"stage {stage}"


def _pieces_of(model: ModelSpec, plan: Plan) -> list[ModelSpec]:
    """Return what every pipeline rank holds, all its pieces together."""
    if plan.pp == 1:
        return [stage_model(model, 0, len(model.layers), first=True, last=True)]
    bounds = _bounds(len(model.layers), plan)
    count = len(bounds)
    if count == plan.pp:
        return [stage_model(model, a, b, first=i == 0, last=i == count - 1) for i, (a, b) in enumerate(bounds)]
    stages = []
    for rank in range(plan.pp):
        held = [i for i in range(count) if _holder(i, plan) == rank]
        layers = tuple(layer for i in held for layer in model.layers[bounds[i][0] : bounds[i][1]])
        whole = stage_model(model, 0, len(model.layers), first=0 in held, last=count - 1 in held)
        stages.append(replace(whole, layers=layers))
    return stages


def _holder(piece: int, plan: Plan) -> int:
    """Return the rank that holds a piece: round and round, or down and up again in V-shaped schedules."""
    turn, place = divmod(piece, plan.pp)
    return plan.pp - 1 - place if turn % 2 and plan.pp_schedule in TWO_PIECES else place


def _bounds(num_layers: int, plan: Plan) -> tuple[tuple[int, int], ...]:
    """Return (first, last + 1) layer of every piece of the pipeline."""
    sizes = plan.layers_per_stage
    count = plan.pp * (plan.virtual_stages or 1)
    if sizes is None:
        if count > num_layers:
            raise ImpossiblePlanError(
                f"plan: pp {plan.pp} x virtual_stages {plan.virtual_stages or 1} are {count} pieces: expected at most "
                f"{num_layers}, the number of layers; lower one of them"
            )
        return stage_bounds(num_layers, count)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple((end - size, end) for end, size in zip(ends, sizes, strict=True))


def in_flight(plan: Plan, stage: int) -> int:
    """Return the forward passes of one piece whose activations a stage holds at worst.

        gpipe        all micro-batches
        1f1b, zb-h1  the stages from here to the end
        interleaved  pp * (V - 1) + 2 * (pp - stage) - 1, over all V pieces
        zb-v         2 * pp of half a stage, on every rank
        v-half       pp + 2 of half a stage;  v-min  2 * ceil((pp + 4) / 3) of half a stage
        dualpipe-v   2 * pp + 1

    never more than the micro-batches of all pieces. Source: Narayanan et al. 2021, arXiv:2104.04473, sec. 2.2;
    NVIDIA/Megatron-LM:megatron/core/pipeline_parallel/schedules.py (warm-up micro-batches);
    Qi et al. 2024, arXiv:2405.15362, table 1 (in stages' activations: p, (p + 2) // 2, (p + 4) // 3).

    >>> in_flight(Plan(pp=4, pp_schedule="1f1b", micro_batches=8), 0)
    4
    """
    if plan.pp == 1:
        return 1
    pieces, micro, pp = plan.virtual_stages or 1, plan.micro_batches or plan.pp, plan.pp
    match plan.pp_schedule:
        case "gpipe":
            held = micro * pieces
        case "interleaved-1f1b":
            held = pp * (pieces - 1) + 2 * (pp - stage) - 1
        case "zb-v":
            held = 2 * pp
        case "v-half":
            held = 2 * ((pp + 2) // 2)
        case "v-min":
            held = 2 * ((pp + 4) // 3)
        case "dualpipe-v":
            held = 2 * pp + 1
        case _:
            held = pp - stage
    return min(held, micro * pieces)
