"""The way of the data for training, in one file: decide, mark, cut, count, walk over time. Read this first.

config.json --read--> ModelSpec --marked--> what is trained --cut by Plan--> Shard --formulas and walk--> Breakdown
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vramfit.device import Device
from vramfit.errors import UnsupportedModelError
from vramfit.estimate import layer_name
from vramfit.framework import Band
from vramfit.memory.model_states import (
    Setting,
    master_weights,
    on_host,
    optimizer_states,
    rounding,
    step_temporaries,
    weights,
)
from vramfit.memory.unit import standing_buffers
from vramfit.request import Plan
from vramfit.result import (
    WHILE_TRAINING,
    Basis,
    Breakdown,
    Counter,
    Item,
    ModelSummary,
    Phase,
    Total,
    exactly,
)
from vramfit.shard import Shard
from vramfit.spec import ModelSpec
from vramfit.step import StepCost
from vramfit.timeline import PART_TITLES, Moment, Timeline
from vramfit.training import Training
from vramfit.training_choices import Decided, decide
from vramfit.training_model import as_trained, with_prediction
from vramfit.training_objective import GENERATING, as_scored, objective_items, per_pass, while_generating
from vramfit.training_plan import Cutting, check_plan, cutting, training_shards
from vramfit.training_process import process_items
from vramfit.training_reading import readings
from vramfit.training_result import TrainingEstimate
from vramfit.training_walk import Alive, Walk, runs_of
from vramfit.units import ceil_div, format_bytes

PER_STEP = (Phase.ROLLOUT, Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.OPTIMIZER, Phase.EVALUATION, Phase.SAVE)
TAPE = "memory/tape: what autograd saves for each operator of each layer kind"
LOW_PERCENT, HIGH_PERCENT = 85, 140
"""Band of what a step keeps and works with around the expected figure. Fitted: it holds 45 of the 60 runs that print
allocated or active bytes, and was chosen on them (docs/decisions.md); the others are looked at one by one."""
NOT_COUNTED = (
    "other processes and displays on the same device",
    "data loaders, and host memory other than offloaded states",
    "inputs other than text: image, audio and video tokens",
)


def estimate_training(
    model: ModelSpec,
    training: Training,
    plan: Plan | None = None,
    device: Device | None = None,
    device_count: int | None = None,
) -> TrainingEstimate:
    """Return what each rank of the plan holds over one training step, and why.

    Args:
        model: as ``read_model`` returns it.
        training: what is to be done; open fields are decided and listed in ``choices``.
        plan: how it is cut over devices; None = one device.
        device: decides the CUDA context and library workspaces; None = as on the largest known card.
        device_count: devices in all, when the plan should make them up.

    Raises:
        VramfitError: a workload or plan that is impossible for this model.
    """
    decided, cut, marked, settings = settings_of(model, training, plan or Plan(), device_count)
    ranks = [_rank(setting, device) for setting in settings]
    trained = {id(t): t for t in (*marked.embeddings, *marked.head)}
    return TrainingEstimate(
        model=_summary(model),
        trained_parameters=_trained(marked) + sum(t.num_parameters for t in trained.values() if not t.frozen),
        training=decided.training,
        plan=cut.plan,
        choices=(*decided.choices, *cut.choices),
        breakdowns=tuple(breakdown for breakdown, _ in ranks),
        timelines=tuple(timeline for _, timeline in ranks),
        hosts=tuple((*on_host(setting), *activations_on_host(setting)) for setting in settings),
        why=_why(ranks),
        not_counted=(*NOT_COUNTED, *decided.framework.not_counted, *model.not_counted),
        assumptions=decided.assumptions,
    )


def settings_of(
    model: ModelSpec, training: Training, plan: Plan, device_count: int | None = None
) -> tuple[Decided, Cutting, ModelSpec, tuple[Setting, ...]]:
    """Return what was decided, how the plan is carried out, the model as it trains, and every distinct rank."""
    _check_model(model)
    check_plan(model, plan, device_count)
    decided = decide(model, training, plan)
    cut = cutting(decided.framework, plan, decided.training.gradient_accumulation_steps or 1)
    scored = as_scored(model, decided.training.objective)
    framework = decided.framework
    scored = with_prediction(scored) if framework.trains_prediction else scored
    marked = as_trained(scored, decided.training, wide_base=framework.wide_base, packs_head=framework.packs_head)
    return decided, cut, marked, tuple(setting_of(s, decided, cut) for s in training_shards(marked, cut))


def _check_model(model: ModelSpec) -> None:
    """Refuse what has no tokens to learn from.

    Raises:
        UnsupportedModelError: a diffusion pipeline, or a model that reads images alone.
    """
    if model.components or not model.vocab_size:
        what = "a diffusion pipeline" if model.components else "without a vocabulary"
        raise UnsupportedModelError(
            f"{model.name}: is {what}: expected a model that reads tokens; "
            "`vramfit trace` counts the training of any PyTorch module"
        )


def setting_of(shard: Shard, decided: Decided, cut: Cutting) -> Setting:
    """Return one rank and everything decided about how it trains."""
    return Setting(
        shard=shard,
        training=per_pass(decided.training),
        framework=decided.framework,
        recipe=decided.recipe,
        sharding=cut.sharding,
        reshards=cut.plan.reshard_after_forward is not False,
    )


def _trained(model: ModelSpec) -> int:
    layers = sum(n * t.num_parameters for layer, n in model.groups for t in layer.tensors if not t.frozen)
    return layers + sum(part.num_parameters for part in model.parts if part.resident and not _frozen(part.tensors))


def _frozen(tensors: tuple[object, ...]) -> bool:
    return all(getattr(t, "frozen", False) for t in tensors)


def _summary(model: ModelSpec) -> ModelSummary:
    kinds: dict[str, int] = {}
    for layer, times in model.groups:
        name = layer_name(layer)
        kinds[name] = kinds.get(name, 0) + times
    return ModelSummary(
        name=model.name,
        family=model.family,
        parameters=model.num_parameters,
        active_parameters=model.num_active_parameters,
        layers=kinds,
        evidence=model.evidence,
    )


def walk_of(setting: Setting) -> Walk:
    """Return one micro-batch of a rank, ready to be walked through."""
    step = step_of(setting)
    return Walk(setting=setting, runs=runs_of(step, setting), held_bytes=step.held_bytes)


def step_of(setting: Setting) -> StepCost:
    """Return what the blocks of a rank keep and take for one micro-batch."""
    from vramfit.memory.tape.cost import step_cost  # noqa: PLC0415 - the largest room, paid for when it is needed

    style = replace(setting.framework.style, autocast=setting.recipe.autocast)
    return step_cost(setting.shard, setting.training, style)


def activations_on_host(setting: Setting) -> Iterator[Item]:
    """Yield what of the activations waits on the host: what is kept without offloading, less what stays. [B]"""
    training, offload = setting.training, setting.offload
    if training.recompute != "offload" and not offload.activations:
        return
    recompute = "full" if training.recompute == "offload" else training.recompute
    stays = replace(training, recompute=recompute, offload=replace(offload, activations=None))
    here, plain = walk_of(setting), walk_of(replace(setting, training=stays))
    size = ceil_div(setting.shard.in_flight * (plain.kept_by_all - here.kept_by_all), setting.shard.pieces)
    if size > 0:
        yield exactly(
            "host/activations", size, (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD),
            "inputs of checkpoints, or saved tensors, between forward and backward",
            "pytorch/pytorch:torch/autograd/graph.py, save_on_cpu", Basis.DERIVED,
        )  # fmt: skip


def _rank(setting: Setting, device: Device | None) -> tuple[Breakdown, Timeline]:
    """Count one distinct rank: what stands, what the step holds at its worst moments, and what the process takes."""
    items, timeline = count_rank(setting, device)
    return on_device(items, setting, device), timeline


def count_rank(setting: Setting, device: Device | None) -> tuple[tuple[Item, ...], Timeline]:
    """Count what torch allocates on one distinct rank; only an engine that generates beside it asks for the device."""
    walk = walk_of(setting)
    standing = (*standing_items(setting), *objective_items(walk, device))
    moments = (*walk.moments(), *other_moments(walk))
    standing = while_generating(standing, setting.training.objective)
    timeline = Timeline(rank=setting.shard.label, moments=tuple(_moment(m, standing) for m in moments))
    found = {phase: [m for m in moments if m.phase is phase] for phase in PER_STEP}
    worst = {phase: max(each, key=lambda m: m.total_bytes) for phase, each in found.items() if each}
    return (*standing, *_at_worst(worst, setting)), timeline


def on_device(items: tuple[Item, ...], setting: Setting, device: Device | None) -> Breakdown:
    """Add what the process and the allocator take on a device to what was counted of a rank."""
    items = (*items, *process_items(setting, device))
    items = while_generating((*items, _fragmentation(items, setting)), setting.training.objective)
    counted = Breakdown(rank=setting.shard.label, num_ranks=setting.shard.num_ranks, items=items)
    return replace(counted, readings=tuple(readings(counted, setting, device)))


def standing_items(setting: Setting) -> Iterator[Item]:
    """Yield what is there whatever the step does at the moment."""
    yield from weights(setting)
    yield from master_weights(setting)
    yield from optimizer_states(setting)
    yield from step_temporaries(setting)
    yield from rounding(setting)
    for buffer in standing_buffers(setting):
        yield exactly(buffer.name, buffer.bytes, WHILE_TRAINING, buffer.formula, buffer.source, Basis.DERIVED)


def other_moments(walk: Walk) -> Iterator[Alive]:
    """Yield the moments outside forward and backward: the step, an evaluation, a checkpoint."""
    setting = walk.setting
    between = walk.between_steps
    yield Alive(
        phase=Phase.OPTIMIZER, label="optimizer step", kept=(), working=("none", 0),
        gradients=walk.all_gradients, buffers=(),
    )  # fmt: skip
    largest = max(walk.runs, key=lambda run: run.block.forward_bytes)
    yield Alive(
        phase=Phase.EVALUATION, label="evaluation", kept=(),
        working=(f"{largest.block.name}_without_gradients", largest.block.forward_bytes),
        gradients=between, buffers=(),
    )  # fmt: skip
    if setting.training.objective in GENERATING:
        layer = max((run.block.forward_bytes for run in walk.runs if not run.loss), default=0)
        yield Alive(
            phase=Phase.ROLLOUT, label="generating sequences", kept=(), working=("layers_without_gradients", layer),
            gradients=between, buffers=(),
        )  # fmt: skip
    yield Alive(
        phase=Phase.SAVE, label="saving a checkpoint", kept=(), working=("none", 0), gradients=between, buffers=()
    )


def _moment(alive: Alive, standing: tuple[Item, ...]) -> Moment:
    """Return what is allocated at one moment, by first words."""
    parts: dict[str, int] = {}
    for item in standing:
        if alive.phase in item.phases and item.counter is Counter.ALLOCATED:
            name = item.name.partition("/")[0]
            parts[name] = parts.get(name, 0) + item.bytes
    parts["gradients"] = alive.gradients
    parts["activations"] = sum(size for _, size in alive.kept)
    parts["autocast"] = alive.cached
    parts["working"] = alive.working[1]
    for buffer in alive.buffers:
        parts["buffers"] = parts.get("buffers", 0) + buffer.bytes
    return Moment(
        phase=alive.phase, label=alive.label, parts=tuple((name, size) for name, size in parts.items() if size)
    )


def _at_worst(worst: dict[Phase, Alive], setting: Setting) -> Iterator[Item]:
    """Yield the items of each phase's worst moment; equal ones of several phases are one."""
    found: dict[tuple[str, int], list[Phase]] = {}
    said: dict[tuple[str, int], tuple[str, str]] = {}
    for phase, alive in worst.items():
        for name, size, formula, source in _named(alive, setting):
            if size:
                found.setdefault((name, size), []).append(phase)
                said.setdefault((name, size), (formula, source))
    for (name, size), phases in found.items():
        formula, source = said[name, size]
        varies = name.partition("/")[0] in {"activations", "working"}
        low, high = band_of(size) if varies else (size, size)
        yield Item(
            name=name, bytes=size, low_bytes=low, high_bytes=high, phases=tuple(phases),
            basis=Basis.DERIVED, formula=formula, source=source,
        )  # fmt: skip


def band_of(size: int) -> tuple[int, int]:
    """Return low and high of what a step keeps or works with. [B]"""
    return size * LOW_PERCENT // 100, size * HIGH_PERCENT // 100


def _named(alive: Alive, setting: Setting) -> Iterator[tuple[str, int, str, str]]:
    at = f"at {alive.label}"
    tokens = f"{setting.training.micro_batch} x {setting.training.sequence_tokens:,} tokens"
    for name, size in alive.kept:
        yield f"activations/{name}", size, f"{tokens}, {at}", TAPE
    yield f"working/{alive.working[0]}", alive.working[1], f"{tokens}, {at}", TAPE
    yield (
        "gradients",
        alive.gradients,
        f"in {setting.recipe.gradient_format}, {at}",
        f"{setting.framework.name}'s recipe",
    )
    yield (
        "autocast/cached_weights", alive.cached, "16-bit copies that nothing needs until autocast ends",
        "pytorch/pytorch:aten/src/ATen/autocast_mode.cpp",
    )  # fmt: skip
    for buffer in alive.buffers:
        yield buffer.name, buffer.bytes, buffer.formula, buffer.source


def _fragmentation(items: tuple[Item, ...], setting: Setting) -> Item:
    """Return what the caching allocator holds beyond what is allocated at the peak, by the framework's band. [B]

        ratio * (allocated at the peak - loaded before the first step)

    What is loaded first lies without holes; all else shares what the allocator caches. Where only lengths make
    holes, what the optimizer step holds takes the place of what is loaded.
    """
    band = setting.framework.fragmented_by(setting.sharding)
    counted = Breakdown(rank="", num_ranks=1, items=items)
    steady = counted.total(band.without, Counter.ALLOCATED).expected_bytes
    lost = fragmented(counted.peak(Counter.ALLOCATED), steady, band)
    return Item(
        name="runtime/fragmentation",
        bytes=lost.expected_bytes,
        low_bytes=lost.low_bytes,
        high_bytes=lost.high_bytes,
        phases=WHILE_TRAINING,
        basis=Basis.MEASURED,
        formula=f"{100 * band.expected_ratio:.0f} % of {band.of}, "
        f"{100 * band.low_ratio:.0f} to {100 * band.high_ratio:.0f} % seen",
        source=band.source,
        counter=Counter.RESERVED,
    )


def fragmented(peak: Total, steady: int, band: Band) -> Total:
    """Return what the allocator holds beside an allocated peak; ``steady``: what the band has no share of. [B]"""
    return Total(
        low_bytes=int(max(0, peak.low_bytes - steady) * band.low_ratio),
        expected_bytes=int(max(0, peak.expected_bytes - steady) * band.expected_ratio),
        high_bytes=int(max(0, peak.high_bytes - steady) * band.high_ratio),
    )


def _why(ranks: list[tuple[Breakdown, Timeline]]) -> str:
    """Say in one sentence where the peak of the heaviest rank is and what makes it."""
    found, timeline = max(ranks, key=lambda pair: pair[0].peak().expected_bytes)
    peak = timeline.peak
    parts = sorted(peak.parts, key=lambda part: -part[1])
    said = " and ".join(f"{PART_TITLES.get(name, name)} ({format_bytes(size)})" for name, size in parts[:2])
    who = "" if len(ranks) == 1 else f" on {found.rank}, the heaviest rank"
    other = max((m for m in timeline.moments if m.phase is not peak.phase), key=lambda m: m.total_bytes, default=None)
    then = "" if other is None else f"; {other.label} comes next with {format_bytes(other.total_bytes)}"
    return f"The peak is at {peak.label}{who}, where {said} are largest{then}."
