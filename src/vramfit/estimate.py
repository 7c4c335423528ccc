"""The way of the data, in one file: understand, cut, count, sum over time. Read this first.

config.json --read--> ModelSpec --cut by Plan--> Shard --formulas--> Breakdown --against Device--> Fit
"""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import dataclass, replace

from vramfit.device import Device
from vramfit.engine import Rank
from vramfit.engines.library import PIPELINE
from vramfit.engines.profile import find_engine
from vramfit.layer_kind import Dense, Experts, GroupedQuery
from vramfit.memory.kv_cache import mixer_kind, model_bytes_per_token
from vramfit.memory.weights import weight_bytes
from vramfit.parallel import shards
from vramfit.request import Inference, Plan, refuse_training_plan
from vramfit.result import Breakdown, Estimate, Item, ModelSummary, Phase
from vramfit.shard import Shard
from vramfit.spec import Layer, ModelSpec
from vramfit.understand import Understood, understand

ENCODER_PHASES = (Phase.LOAD, Phase.PREFILL)
PIPELINE_PHASES = (Phase.LOAD,)

OTHER_INPUTS = "inputs other than text: image, audio and video tokens"
NOT_COUNTED = (
    "other processes and displays on the same device",
    OTHER_INPUTS,
    "host memory",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Items of every distinct rank of a plan, before the device adds its own."""

    understood: Understood
    plan: Plan
    ranks: tuple[tuple[Shard, tuple[Item, ...]], ...]


def count(understood: Understood, plan: Plan) -> Counted:
    """Cut the model and count what each distinct rank holds, whatever the device."""
    refuse_training_plan(plan)
    engine, workload, profile = find_engine(understood.workload.engine), understood.workload, understood.engine
    engine.check(understood.model, workload, plan)
    ranks = []
    for shard in shards(understood.model, plan):
        counted = PIPELINE if shard.model.components and not engine.pipelines else engine.components
        items = [item for component in counted for item in component(shard, workload, profile)]
        ranks.append((shard, tuple(items)))
    return Counted(understood=understood, plan=plan, ranks=tuple(ranks))


def breakdowns(counted: Counted, device: Device | None) -> tuple[Breakdown, ...]:
    """Add what the process takes on that device and what the engine may take; one breakdown per distinct rank."""
    engine = find_engine(counted.understood.workload.engine)
    found = []
    for shard, items in counted.ranks:
        alive = (*items, *engine.runtime(shard, device))
        alive = alive if engine.pipelines else _while_running(alive, shard.model)
        reservation = engine.reservation(_rank(counted, shard, alive, device))
        found.append(Breakdown(rank=shard.label, num_ranks=shard.num_ranks, items=alive, reservation=reservation))
    return tuple(found)


def readings(counted: Counted, ranks: tuple[Breakdown, ...], device: Device | None) -> tuple[Breakdown, ...]:
    """Add what the engine would print, rank by rank."""
    engine = find_engine(counted.understood.workload.engine)
    pairs = zip(counted.ranks, ranks, strict=True)
    return tuple(
        replace(found, readings=tuple(engine.readings(_rank(counted, shard, found.items, device))))
        for (shard, _), found in pairs
    )


def _rank(counted: Counted, shard: Shard, items: tuple[Item, ...], device: Device | None) -> Rank:
    understood = counted.understood
    return Rank(
        shard=shard,
        items=items,
        model=understood.model,
        workload=understood.workload,
        engine=understood.engine,
        plan=counted.plan,
        device=device,
    )


def _while_running(items: tuple[Item, ...], model: ModelSpec) -> tuple[Item, ...]:
    """Leave out the phases that an encoder does not have, and those of a pipeline that are not counted."""
    if model.generates:
        return items
    phases = PIPELINE_PHASES if model.components else ENCODER_PHASES
    kept = (replace(item, phases=tuple(p for p in item.phases if p in phases)) for item in items)
    return tuple(item for item in kept if item.phases)


def _not_by_engine(understood: Understood) -> tuple[str, ...]:
    """Name what the reader of a pipeline leaves to engines, unless this one counts it."""
    return () if find_engine(understood.workload.engine).pipelines else understood.model.not_counted


def estimate(model: ModelSpec, workload: Inference, plan: Plan | None = None, device: Device | None = None) -> Estimate:
    """Return what each rank of the plan holds over time, and why.

    Sizes of the workload may be integer arrays; the items' bytes are then arrays too.

    Args:
        model: as ``read_model`` returns it.
        workload: what the model is to do; open fields are decided and listed in ``choices``.
        plan: how it is cut over devices; None = one device.
        device: decides the CUDA context and library workspaces; None = as on the largest known card.

    Raises:
        VramfitError: a workload or plan that is impossible for this model.
    """
    understood = understand(model, workload, device)
    counted = count(understood, plan or Plan())
    return summarise(understood, readings(counted, breakdowns(counted, device), device))


def summarise(understood: Understood, ranks: tuple[Breakdown, ...]) -> Estimate:
    """Put the breakdowns together with the model and the request as understood."""
    model = understood.model
    return Estimate(
        model=ModelSummary(
            name=model.name,
            family=model.family,
            parameters=model.num_parameters,
            active_parameters=model.num_active_parameters,
            layers=_kinds(model),
            evidence=model.evidence,
        ),
        weights_bytes=weight_bytes(model),
        kv_bytes_per_token=model_bytes_per_token(model, understood.workload, latent=understood.engine.latent_cache),
        choices=understood.choices,
        breakdowns=ranks,
        not_counted=(*_always(model), *understood.engine.not_counted, *_not_by_engine(understood), *_left_out(model)),
        assumptions=understood.assumptions,
    )


def _kinds(model: ModelSpec) -> dict[str, int]:
    """Count the layers of each kind."""
    kinds: Tally[str] = Tally(component.class_name for component in model.components)
    for layer, times in model.groups:
        kinds[layer_name(layer)] += times
    return dict(kinds)


def layer_name(layer: Layer) -> str:
    """Name a kind of layer for people.

    >>> layer_name(Layer(attention=None, feed_forward=Dense(intermediate_size=4), tensors=()))
    'dense'
    """
    mixes = [
        f"sliding window {mixer.window_tokens:,}"
        if isinstance(mixer, GroupedQuery) and mixer.window_tokens is not None
        else mixer_kind(mixer).replace("_", " ")
        for mixer in layer.mixers
    ]
    transforms = {Dense: "dense", Experts: "experts"}.get(type(layer.feed_forward))
    return " + ".join((*mixes, *([transforms] if transforms else []))) or "stage of images"


def _always(model: ModelSpec) -> tuple[str, ...]:
    """Name what no estimate counts; images are counted where a model reads nothing else, or has a tower of its own.

    They are what a pipeline makes, and its own lines speak of them.
    """
    images = model.vocab_size is None or any(part.input_tokens is not None for part in model.parts)
    images = images or bool(model.components)
    return tuple(text for text in NOT_COUNTED if not images or text != OTHER_INPUTS)


def _left_out(model: ModelSpec) -> tuple[str, ...]:
    """Name the parts of the checkpoint that a plain load leaves on disk."""
    return tuple(
        f"{part.name}: {part.num_parameters:,} parameters, loaded only when asked for"
        for part in model.parts
        if not part.resident
    )
