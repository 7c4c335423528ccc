"""vLLM: takes a fraction of the card, profiles itself, and makes the rest a pool of cache pages.

    pool = fraction * total - weights - peak of the profiling pass - growth outside torch (- graphs, since 0.20)

Facts by version in ``vllm_facts``; read from v1/worker/gpu_worker.py, determine_available_memory, of every version
named there, and worker/worker.py, determine_num_available_blocks, of the first engine (V0).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from vramfit.device import Device
from vramfit.engine import Engine, EngineProfile, Rank
from vramfit.engines.open_field import fill
from vramfit.engines.vllm_cache import BLOCK_TOKENS, pages
from vramfit.engines.vllm_facts import LARGE_BYTES, LARGEST_BYTES, PROFILES, VllmFacts, facts_of
from vramfit.engines.vllm_peak import profiling_pass
from vramfit.engines.vllm_process import before_weights, cuda_graphs, non_torch, outside_torch, runtime
from vramfit.engines.vllm_weights import weights
from vramfit.errors import ImpossiblePlanError, UnsupportedModelError
from vramfit.layer_kind import GroupedQuery, Latent
from vramfit.memory.kv_cache import kv_cache
from vramfit.memory.recurrent_state import recurrent_state
from vramfit.request import Inference, Plan
from vramfit.result import Basis, Choice, Item, Phase, Quantity, Reading, Reservation, Total
from vramfit.shard import Shard
from vramfit.spec import ModelSpec
from vramfit.units import Size, ceil_div, is_array

KNOBS = frozenset({
    "max_num_seqs", "max_num_batched_tokens", "memory_fraction", "eager", "prefix_caching", "chunked_prefill",
    "block_tokens", "max_loras", "max_lora_rank",
})  # fmt: skip
LARGE_SEQUENCES, SEQUENCES = 1024, 256
LARGEST_TOKENS, LARGE_TOKENS, TOKENS = 16384, 8192, 2048
"""Defaults of a server. Source: vllm-project/vllm@v0.33.0:vllm/engine/arg_utils.py, get_batch_defaults."""
LONG_CONTEXT_TOKENS = 32768
"""Beyond it the first engine cuts prompts. Source: vllm-project/vllm@v0.6.6:vllm/engine/arg_utils.py."""
DEFAULT_LORA_RANK = 16


def defaults(
    model: ModelSpec, workload: Inference, engine: EngineProfile, device: Device | None
) -> tuple[Inference, tuple[Choice, ...]]:
    """Fill in the scheduler's limits and the fraction, as this version does on this device."""
    facts = facts_of(engine, workload, device)
    sequences, tokens, why = _batch_limits(model, workload, facts, device)
    found: dict[str, tuple[Any, str]] = {
        "max_num_seqs": (sequences, why),
        "max_num_batched_tokens": (tokens, why),
        "memory_fraction": (facts.fraction, "default of gpu_memory_utilization"),
        "block_tokens": (BLOCK_TOKENS, "default page"),
        "eager": (False, "CUDA graphs are captured"),
    }
    if workload.max_loras is not None:
        found["max_lora_rank"] = (DEFAULT_LORA_RANK, "default of max_lora_rank")
    return fill(workload, found)


def _batch_limits(
    model: ModelSpec, workload: Inference, facts: VllmFacts, device: Device | None
) -> tuple[int, int, str]:
    """Return the most sequences and tokens of one pass, and why.

    Whole prompts raise the tokens to the context; no more tokens than sequences can have, no more of these than tokens.
    """
    context = workload.context_tokens
    longest = int(context.max()) if is_array(context) else int(context)
    if facts.first_engine:
        sequences, tokens, why = SEQUENCES, TOKENS, "V0: whole prompts, at least 2,048 tokens"
        latent = any(isinstance(m, Latent) for layer, _ in model.groups for m in layer.mixers)
        cut = workload.chunked_prefill
        if cut is None:
            cut = longest > LONG_CONTEXT_TOKENS and not latent and model.image is None
    else:
        sequences, tokens = _of_card(facts, device)
        cut, why = workload.chunked_prefill is not False, "default of a server on a card of this size"
    tokens = tokens if cut else max(longest, tokens)
    if not facts.first_engine:
        tokens = min(tokens, (workload.max_num_seqs or sequences) * longest)
    return min(sequences, workload.max_num_batched_tokens or tokens), tokens, why


def _of_card(facts: VllmFacts, device: Device | None) -> tuple[int, int]:
    """Return a server's default sequences and tokens on a card."""
    total = device.total_bytes if device is not None else LARGE_BYTES
    a100 = device is not None and "a100" in device.product.lower() and facts.spares_a100
    if facts.large_tier and total >= LARGEST_BYTES:
        return LARGE_SEQUENCES, LARGEST_TOKENS
    return (LARGE_SEQUENCES, LARGE_TOKENS) if total >= LARGE_BYTES and not a100 else (SEQUENCES, TOKENS)


def activations(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield what the profiling pass found to be its peak, which stays free for every later pass. [B]"""
    peak = profiling_pass(shard, workload, facts_of(engine, workload), None).total
    yield Item(
        name="activations/profiling_pass",
        bytes=peak.expected_bytes,
        low_bytes=peak.low_bytes,
        high_bytes=peak.high_bytes,
        phases=(Phase.PREFILL, Phase.SAMPLE, Phase.DECODE),
        basis=Basis.DERIVED,
        formula=f"larger of a pass of {workload.max_num_batched_tokens:,} tokens and of sampling for "
        f"{workload.max_num_seqs:,} sequences",
        source="vllm-project/vllm:vllm/v1/worker/gpu_model_runner.py, profile_run",
    )


def adapters(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the slots of adapters, filled or not. [B]

        max_loras * rank * (inputs + outputs) * 2   of every linear layer of the blocks

    Source: vllm-project/vllm@v0.19.0:vllm/lora/layers/base_linear.py, create_lora_weights.
    """
    del engine
    if workload.max_loras is None:
        return
    sides = sum(
        times * (tensor.shape[0] + tensor.shape[-1])
        for layer, times in shard.model.groups
        for tensor in layer.tensors
        if len(tensor.shape) == 2 and tensor.role.value == "linear"
    )
    rank = workload.max_lora_rank or DEFAULT_LORA_RANK
    size = workload.max_loras * rank * sides * 2
    yield Item(
        name="weights/adapter_slots",
        bytes=size,
        low_bytes=size,
        high_bytes=size * 11 // 10,
        phases=(Phase.LOAD, Phase.PREFILL, Phase.SAMPLE, Phase.DECODE),
        basis=Basis.DERIVED,
        formula=f"{workload.max_loras} slots x rank {rank} x {sides:,} rows and columns x 2 B",
        source="vllm-project/vllm:vllm/lora/layers/base_linear.py",
    )


def reservation(rank: Rank) -> Reservation | None:
    """Return the share of the card that this engine lets itself take; None without a card."""
    if rank.device is None or rank.workload.memory_fraction is None:
        return None
    facts, total = facts_of(rank.engine, rank.workload, rank.device), rank.device.total_bytes
    outside = () if facts.counts_context else ("runtime/cuda_context", "runtime/collectives")
    return Reservation(
        limit_bytes=int(rank.workload.memory_fraction * total),
        outside=(*outside, *(() if facts.counts_graphs else ("runtime/cuda_graphs",))),
        formula=f"{rank.workload.memory_fraction} x {total:,} B",
    )


def readings(rank: Rank) -> Iterable[Reading]:
    """Yield the figures of the start-up log."""
    facts = facts_of(rank.engine, rank.workload, rank.device)
    stored = [item for item in rank.items if item.name.startswith("weights/")]
    held = Total(
        low_bytes=sum(i.low_bytes for i in stored),
        expected_bytes=sum(i.bytes for i in stored),
        high_bytes=sum(i.high_bytes for i in stored),
    )
    held = replace(held, low_bytes=held.low_bytes * 997 // 1000, high_bytes=held.high_bytes * 1004 // 1000)
    peak = profiling_pass(rank.shard, rank.workload, facts, rank.device).total
    outside = non_torch(rank.shard, facts, rank.device)
    graphs = cuda_graphs(rank.shard, rank.workload, facts)
    source = f"vLLM {rank.engine.checked}"
    for quantity, size, formula in (
        (Quantity.WEIGHTS, held, "sum of all weights"),
        (Quantity.ACTIVATION_PEAK, peak, "larger of forward and sampler"),
        (Quantity.NON_TORCH, outside, "growth outside torch"),
        (Quantity.BEFORE_WEIGHTS, before_weights(rank.shard, rank.device), "context and communicators"),
        (Quantity.CUDA_GRAPHS, graphs, "captured graphs"),
    ):
        if quantity is not Quantity.CUDA_GRAPHS or size.expected_bytes:
            yield _reading(quantity, size, formula, source)
    taken = reservation(rank)
    if taken is None:
        return
    counted = (held, peak, outside, *((graphs,) if facts.counts_graphs else ()))
    pool = Total(
        low_bytes=taken.limit_bytes - sum(t.high_bytes for t in counted),
        expected_bytes=taken.limit_bytes - sum(t.expected_bytes for t in counted),
        high_bytes=taken.limit_bytes - sum(t.low_bytes for t in counted),
    )
    yield from _capacities(rank, facts, pool, source)


def _capacities(rank: Rank, facts: VllmFacts, pool: Total, source: str) -> Iterable[Reading]:
    """Yield the pool, and what it holds in tokens and requests."""
    yield _reading(Quantity.KV_CACHE, pool, "fraction of the card, less all of the above", source)
    cut = pages(rank.shard.model, rank.workload, facts)
    if cut is None or not cut.block_bytes:
        return
    context = rank.workload.context_tokens
    per_request = cut.blocks_of_request(context, rank.workload.max_num_batched_tokens or 0)
    blocks = [cut.blocks(b) for b in (pool.expected_bytes, pool.low_bytes, pool.high_bytes)]
    requests = [n / per_request for n in blocks]
    tokens: list[Size] = [n // cut.num_groups * cut.block_tokens for n in blocks]
    if facts.tokens_by_concurrency:
        tokens = [_whole(r * context) for r in requests]
    formula = f"{blocks[0]:,} blocks of {cut.block_tokens} tokens"
    yield _counts(Quantity.KV_CACHE_TOKENS, tokens, formula, source)
    yield _counts(Quantity.REQUESTS_AT_CONTEXT, requests, f"{formula} / {per_request} a request", source)


def _whole(size: Size) -> Size:
    """Round down, element by element when it is an array."""
    return size.astype(int) if hasattr(size, "astype") else int(size)


def _reading(quantity: Quantity, size: Total, formula: str, source: str) -> Reading:
    return Reading(
        quantity=quantity, value=size.expected_bytes, low=size.low_bytes, high=size.high_bytes, formula=formula,
        source=source,
    )  # fmt: skip


def _counts(quantity: Quantity, counts: list[Any], formula: str, source: str) -> Reading:
    value, low, high = counts
    return Reading(quantity=quantity, value=value, low=low, high=high, formula=formula, source=source)


def check(model: ModelSpec, workload: Inference, plan: Plan) -> None:
    """Refuse what vLLM refuses before it loads anything.

    Raises:
        UnsupportedModelError: a diffusion pipeline, which has no layers to batch.
        ImpossiblePlanError: heads that tp does not divide, more stages than layers, a batch smaller than the context
            where prompts are not cut, or more sequences than tokens in a pass.
    """
    if not model.layers:
        raise UnsupportedModelError(
            f"workload.engine: 'vllm': {model.name:.100}: expected a model that generates or encodes text; take engine "
            "diffusers or generic for a pipeline"
        )
    mixers = [m for layer, _ in model.groups for m in layer.mixers if isinstance(m, GroupedQuery | Latent)]
    for number in sorted({m.num_attention_heads for m in mixers}):
        if number % plan.tp:
            raise ImpossiblePlanError(
                f"plan.tp: {plan.tp}: total number of attention heads ({number}) must be divisible by tensor parallel "
                "size; take a divisor and divide the layers with pp"
            )
    if plan.pp > len(model.layers):
        raise ImpossiblePlanError(
            f"plan.pp: {plan.pp}: expected at most {len(model.layers)}, the number of layers; lower pp or raise tp"
        )
    tokens, sequences = workload.max_num_batched_tokens, workload.max_num_seqs
    if tokens is not None and sequences is not None and tokens < sequences:
        raise ImpossiblePlanError(
            f"workload.max_num_batched_tokens: {tokens}: expected at least max_num_seqs ({sequences}); raise one or "
            "lower the other"
        )
    context = workload.context_tokens
    if workload.chunked_prefill is False and tokens is not None and not is_array(context) and context > tokens:
        raise ImpossiblePlanError(
            f"workload.max_num_batched_tokens: {tokens}: smaller than the context ({context}), and prompts are not "
            "cut; expected at least the context, or chunked_prefill"
        )


def whole_blocks(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the rests of pages that the cache items do not show: sequences end inside a block. [B]

    half a block of every table, per sequence; up to a whole one
    """
    cut = pages(shard.model, workload, facts_of(engine, workload))
    if cut is None or not cut.block_bytes:
        return
    size = workload.batch * cut.block_bytes * cut.num_groups
    yield Item(
        name="kv_cache/page_ends",
        bytes=ceil_div(size, 2),
        low_bytes=0 * size,
        high_bytes=size,
        phases=(Phase.PREFILL, Phase.SAMPLE, Phase.DECODE),
        basis=Basis.DERIVED,
        formula=f"half a block of {cut.block_tokens} tokens per sequence and table",
        source="vllm-project/vllm:vllm/v1/core/kv_cache_utils.py",
    )


ENGINE = Engine(
    profiles=PROFILES,
    components=(weights, adapters, kv_cache, whole_blocks, recurrent_state, activations, outside_torch),
    runtime=runtime,
    readings=readings,
    defaults=defaults,
    reservation=reservation,
    knobs=KNOBS,
    check=check,
)
