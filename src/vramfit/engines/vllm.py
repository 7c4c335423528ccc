"""vLLM, V1 engine: takes a fraction of the card, profiles itself, and makes the rest a pool of cache pages.

Budget: pool = fraction * total - weights - peak of the profiling pass - growth outside torch.
Read from the sources of 0.19.0: v1/worker/gpu_worker.py, determine_available_memory; utils/mem_utils.py,
memory_profiling; engine/arg_utils.py, get_batch_defaults; v1/worker/gpu_model_runner.py, profile_run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from vramfit.device import Device
from vramfit.engine import Engine, EngineProfile, Rank
from vramfit.engines.library import refuses_nothing
from vramfit.memory.activations import activations
from vramfit.memory.kv_cache import kv_cache, token_bytes
from vramfit.memory.logits import logits
from vramfit.memory.recurrent_state import recurrent_state
from vramfit.memory.runtime import runtime
from vramfit.memory.weights import weights
from vramfit.request import Inference
from vramfit.result import Breakdown, Choice, Quantity, Reading, Reservation
from vramfit.spec import ModelSpec
from vramfit.units import GIB

LARGE_BYTES = 70 * GIB
"""Cards from this size on get larger batches, the A100 excepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmFacts:
    """What changed between versions, as far as memory is concerned."""

    fraction: float
    """Default of ``gpu_memory_utilization``."""


PROFILES = (
    EngineProfile(
        name="vllm",
        version="0.19",
        checked="0.19.0",
        attention="flash",
        prefill_chunk_tokens=8192,
        prompt_logits=False,
        grown_cache=False,
        windowed_cache=True,
        latent_cache=True,
        experts_at_once=True,
    ),
)
FACTS = {"0.19": VllmFacts(fraction=0.9)}
"""By the version of the profile."""
KNOBS = frozenset({
    "max_num_seqs", "max_num_batched_tokens", "memory_fraction", "eager", "prefix_caching", "chunked_prefill",
    "block_tokens",
})  # fmt: skip


def defaults(
    model: ModelSpec, workload: Inference, engine: EngineProfile, device: Device | None
) -> tuple[Inference, tuple[Choice, ...]]:
    """Fill in the scheduler's limits and the fraction, as this version does on this device."""
    del model
    large = device is None or (device.total_bytes >= LARGE_BYTES and "a100" not in device.product.lower())
    found: dict[str, tuple[Any, str]] = {
        "max_num_seqs": (1024 if large else 256, "default on a card of this size"),
        "max_num_batched_tokens": (8192 if large else 2048, "default on a card of this size"),
        "memory_fraction": (FACTS[engine.version].fraction, "default of gpu_memory_utilization"),
        "block_tokens": (16, "default page"),
        "eager": (False, "CUDA graphs are captured"),
    }
    open_fields = {name: pair for name, pair in found.items() if getattr(workload, name) is None}
    choices = tuple(Choice(field=name, value=value, why=why) for name, (value, why) in open_fields.items())
    return replace(workload, **{name: value for name, (value, _) in open_fields.items()}), choices


def reservation(rank: Rank) -> Reservation | None:
    """Return the share of the card that this engine lets itself take; None without a card."""
    if rank.device is None or rank.workload.memory_fraction is None:
        return None
    total = rank.device.total_bytes
    return Reservation(
        limit_bytes=int(rank.workload.memory_fraction * total),
        outside=("runtime/cuda_context", "runtime/loaded_kernels"),
        formula=f"{rank.workload.memory_fraction} x {total:,} B",
    )


def readings(rank: Rank) -> Iterable[Reading]:
    """Yield the figures of the start-up log."""
    stored = sum(item.bytes for item in rank.items if item.name.startswith("weights/"))
    yield _reading(Quantity.WEIGHTS, stored, stored, stored, "sum of all weights")
    transient = tuple(item for item in rank.items if item.name.split("/")[0] in {"activations", "logits"})
    peak = Breakdown(rank="", num_ranks=1, items=transient).peak()
    yield _reading(
        Quantity.ACTIVATION_PEAK, peak.expected_bytes, peak.low_bytes, peak.high_bytes, "larger of forward and sampler"
    )
    taken = reservation(rank)
    if taken is None:
        return
    pool = taken.limit_bytes - stored - peak.expected_bytes
    yield _reading(Quantity.KV_CACHE, pool, pool, pool, "what is left of the fraction")
    per_token = sum(n * token_bytes(m, rank.workload) for layer, n in rank.shard.model.groups for m in layer.mixers)
    if per_token:
        tokens = pool // (per_token * (rank.workload.block_tokens or 1)) * (rank.workload.block_tokens or 1)
        yield _reading(Quantity.KV_CACHE_TOKENS, tokens, tokens, tokens, f"pool / {per_token:,} B per token")


def _reading(quantity: Quantity, value: int, low: int, high: int, formula: str) -> Reading:
    return Reading(quantity=quantity, value=value, low=low, high=high, formula=formula, source="vLLM 0.19.0")


ENGINE = Engine(
    profiles=PROFILES,
    components=(weights, kv_cache, recurrent_state, activations, logits),
    runtime=runtime,
    readings=readings,
    defaults=defaults,
    reservation=reservation,
    knobs=KNOBS,
    check=refuses_nothing,
)
