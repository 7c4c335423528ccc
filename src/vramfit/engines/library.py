"""What every engine does unless it does otherwise: components, process, counters, no knobs of its own."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.device import Device
from vramfit.engine import Component, Engine, EngineProfile, Rank
from vramfit.memory.activations import activations, encoded_prompt, towers
from vramfit.memory.adapters import adapters
from vramfit.memory.kv_cache import growth, kv_cache
from vramfit.memory.logits import last_hidden, logits
from vramfit.memory.recurrent_state import recurrent_state
from vramfit.memory.runtime import allocator_rounding, runtime
from vramfit.memory.weights import staging, weights
from vramfit.request import Inference, Plan
from vramfit.result import Breakdown, Choice, Counter, Phase, Quantity, Reading, Reservation
from vramfit.spec import ModelSpec

COMPONENTS: tuple[Component, ...] = (
    weights,
    adapters,
    staging,
    kv_cache,
    growth,
    recurrent_state,
    activations,
    towers,
    encoded_prompt,
    last_hidden,
    logits,
    allocator_rounding,
)
"""Everything that occupies memory because of the model; one that does not apply yields nothing."""

PIPELINE: tuple[Component, ...] = (weights, staging, allocator_rounding)
"""What is counted of a diffusion pipeline; its denoising and decoding are named among what is not."""

COUNTERS = {
    Counter.ALLOCATED: Quantity.ALLOCATED_PEAK,
    Counter.RESERVED: Quantity.RESERVED_PEAK,
    Counter.PROCESS: Quantity.PROCESS_PEAK,
}


def library(profiles: tuple[EngineProfile, ...]) -> Engine:
    """Return an engine that takes what it needs and prints nothing but the counters of torch and the driver."""
    return Engine(
        profiles=profiles,
        components=COMPONENTS,
        runtime=runtime,
        readings=counters,
        defaults=no_knobs,
        reservation=takes_what_it_needs,
        check=refuses_nothing,
        knobs=frozenset(),
    )


def counters(rank: Rank) -> Iterable[Reading]:
    """Yield the stored weights and the peaks of torch's and the driver's counters. [B]"""
    breakdown = Breakdown(rank=rank.shard.label, num_ranks=rank.shard.num_ranks, items=rank.items)
    stored = [item for item in rank.items if item.name.startswith("weights/")]
    yield Reading(
        quantity=Quantity.WEIGHTS,
        value=sum(item.bytes for item in stored),
        low=sum(item.low_bytes for item in stored),
        high=sum(item.high_bytes for item in stored),
        formula="sum of all weights",
        source="tensor list",
    )
    loaded = breakdown.total(Phase.LOAD, Counter.ALLOCATED)
    yield Reading(
        quantity=Quantity.LOADED,
        value=loaded.expected_bytes,
        low=loaded.low_bytes,
        high=loaded.high_bytes,
        formula="everything allocated after loading",
        source="sum of the items alive in load",
    )
    for counter, quantity in COUNTERS.items():
        peak = breakdown.peak(counter)
        yield Reading(
            quantity=quantity,
            value=peak.expected_bytes,
            low=peak.low_bytes,
            high=peak.high_bytes,
            formula="largest phase",
            source=f"sum of the items that the {counter.value} counter shows",
        )


def no_knobs(
    model: ModelSpec, workload: Inference, engine: EngineProfile, device: Device | None
) -> tuple[Inference, tuple[Choice, ...]]:
    """Decide nothing more: a library has no knobs of its own."""
    del model, engine, device
    return workload, ()


def takes_what_it_needs(rank: Rank) -> Reservation | None:
    """Reserve nothing."""
    del rank
    return None


def refuses_nothing(model: ModelSpec, workload: Inference, plan: Plan) -> None:
    """Accept every plan that the model can be cut by."""
    del model, workload, plan
