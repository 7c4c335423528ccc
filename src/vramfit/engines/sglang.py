"""SGLang: weights and pools within a static fraction of what is free before loading; the rest for activations.

    pools = free after loading - free before loading * (1 - mem_fraction_static)

Nothing is profiled: activations and CUDA graphs must find room in what the fraction leaves. Read from the sources
named in ``sglang_budget``: srt/model_executor/model_runner.py, load_model, profile_max_num_token (0.4.6, 0.5.6);
srt/mem_cache/kv_cache_configurator.py, _profile_available_bytes (0.5.23); srt/mem_cache/memory_pool.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from vramfit.device import Device
from vramfit.engine import Engine, EngineProfile, Rank
from vramfit.engines import sglang_budget as budget
from vramfit.engines.communicators import SGLANG_BYTES, runtime_with
from vramfit.engines.open_field import fill
from vramfit.engines.pool import Cell, cell, reading, starting_with, tokens_readings
from vramfit.engines.refusal import refuse_pipelines
from vramfit.engines.served_weights import allocations, reserved_bytes, rotary_table_bytes, segment_ends
from vramfit.engines.span import Span, exact, share, span
from vramfit.errors import ImpossiblePlanError
from vramfit.layer_kind import GroupedQuery, Latent
from vramfit.memory.activations import activations, towers
from vramfit.memory.adapters import adapters
from vramfit.memory.kv_cache import kv_cache
from vramfit.memory.logits import logits
from vramfit.memory.recurrent_state import recurrent_state
from vramfit.memory.weights import weights
from vramfit.request import Inference, Plan
from vramfit.result import ALWAYS, Basis, Choice, Counter, Item, Phase, Quantity, Reading, Reservation, exactly
from vramfit.shard import Shard
from vramfit.spec import ModelSpec, Part
from vramfit.units import MIB, count_of

_BASE = EngineProfile(
    name="sglang",
    version="0.4",
    checked="0.3.6, 0.4.1 and 0.4.3",
    attention="flashinfer",
    prefill_chunk_tokens=8192,
    windowed_cache=False,
    not_counted=("draft models, data-parallel attention and DeepEP buffers: vramfit's plan does not speak of them",),
)
_WINDOWS = replace(_BASE, windowed_cache=True)
PROFILES = (
    _BASE,
    replace(_BASE, version="0.4.6", checked="0.4.6"),
    replace(_BASE, version="0.4.7", checked="0.4.7"),
    replace(_BASE, version="0.4.8", checked="0.4.9"),
    replace(_WINDOWS, version="0.5", checked="0.5.2"),
    replace(_WINDOWS, version="0.5.3", checked="0.5.3 and 0.5.4"),
    replace(_WINDOWS, version="0.5.6", checked="0.5.6"),
    replace(_WINDOWS, version="0.5.9", checked="0.5.9"),
    replace(_WINDOWS, version="0.5.12", checked="0.5.12 and 0.5.16"),
    replace(_WINDOWS, version="0.5.23", checked="0.5.23"),
)
KNOBS = frozenset({
    "max_num_seqs", "max_num_batched_tokens", "memory_fraction", "eager", "prefix_caching", "chunked_prefill",
    "block_tokens",
})  # fmt: skip
LEAST_REQUESTS, MOST_REQUESTS = 2048, 4096
"""Bounds of the default of ``max_running_requests``; between them 512 times the contexts that the pool holds.
Source: srt/model_executor/model_runner.py, init_memory_pool, 0.5.6."""
SPARE_POSITIONS = 4
"""Columns of the table of requests beyond the context. Source: the same, ReqToTokenPool."""
INDEX_BYTES = 4
"""The table holds int32."""
RESERVE_PER_GRAPH_BYTES = budget.GRAPH_MIB * MIB
PREFIX_REQUEST_STATES = 3
"""States held for each running request when finished prefixes stay in the cache.
Source: srt/mem_cache, MAMBA_CACHE_SIZE_MAX_RUNNING_REQUESTS_RATIO, 0.5.6."""
FIXED_STATES = 512
"""States that are allocated where finished prefixes do not stay and no limit of requests is set.
Source: srt/model_executor/model_runner.py, handle_max_mamba_cache, 0.5.6."""
OUTSIDE = (
    "runtime/cuda_context", "runtime/loaded_kernels", "runtime/collectives", "runtime/cublas_workspace",
    "runtime/cuda_graphs", "runtime/request_table", "activations/", "logits/",
)  # fmt: skip
"""Taken before the fraction is measured, or left room for by it."""
SOURCE = "sgl-project/sglang:python/sglang/srt/model_executor/model_runner.py, profile_max_num_token"


def defaults(
    model: ModelSpec, workload: Inference, engine: EngineProfile, device: Device | None
) -> tuple[Inference, tuple[Choice, ...]]:
    """Fill in the scheduler's limits as this version does on this card; the fraction depends on the plan too."""
    del model
    tier = budget.tier(budget.FACTS[engine.version], device)
    card = "a card of this size" if device is not None else "an 80 GB card: none is named"
    found = {
        "max_num_batched_tokens": (tier.chunk_tokens, f"default of chunked_prefill_size on {card}"),
        "max_num_seqs": (LEAST_REQUESTS, "default of max_running_requests; up to 4,096 where the pool is large"),
        "block_tokens": (1, "default of page_size; some attention backends take 64 or 128"),
        "eager": (False, "CUDA graphs are captured"),
        "prefix_caching": (True, "finished prefixes stay in the radix tree"),
        "chunked_prefill": (True, "long prompts are cut into passes"),
    }
    return fill(workload, found)


def check(model: ModelSpec, workload: Inference, plan: Plan) -> None:
    """Refuse a chunk that does not end with a page, as the server does when it starts."""
    del plan
    refuse_pipelines(model, "sglang")
    chunk, page = workload.max_num_batched_tokens or 0, workload.block_tokens or 1
    if workload.chunked_prefill and chunk % page:
        raise ImpossiblePlanError(
            f"workload.max_num_batched_tokens: {chunk}: expected a multiple of block_tokens ({page}): SGLang asserts "
            f"chunked_prefill_size % page_size == 0; take {chunk // page * page or page}"
        )


def windows(model: ModelSpec, engine: EngineProfile) -> EngineProfile:
    """Return the profile for this model: some families' window layers keep everything."""
    facts = budget.FACTS[engine.version]
    listed = facts.windowed
    kept = not model.family.startswith("llama4") if listed is None else model.family in listed
    return replace(engine, windowed_cache=engine.windowed_cache and kept)


def cache(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the cache that the asked sequences need. [B]"""
    return kv_cache(shard, workload, windows(shard.model, engine))


def passes(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the activations of a prefill pass and a decode step; a prompt is cut where chunks are on. [B]"""
    chunk = workload.max_num_batched_tokens if workload.chunked_prefill else None
    return activations(shard, workload, replace(engine, prefill_chunk_tokens=chunk))


def absorbed_sizes(shard: Shard) -> tuple[int, ...]:
    """Bytes of the copies that latent attention multiplies by instead of its up-projection, two for each layer. [B]

        kv_lora_rank * heads * qk_nope_head_dim, and * v_head_dim: 8 bit where the projection is, else 16 bit

    Both are made contiguous, so they lie beside ``kv_b_proj``. Source:
    sgl-project/sglang@v0.5.6:python/sglang/srt/models/deepseek_v2.py, post_load_weights (w_kc, w_vc).
    """
    found: list[int] = []
    scheme = shard.model.scheme
    for layer in shard.model.layers:
        formats = [scheme.format_of(t).name for t in layer.tensors if "kv_b_proj" in t.name]
        element = 1 if formats and formats[0].startswith("fp8") else 2
        for a in layer.mixers:
            if isinstance(a, Latent):
                rows = element * a.kv_lora_rank * a.num_attention_heads
                found += [rows * a.qk_nope_head_dim, rows * a.v_head_dim]
    return tuple(found)


def absorbed(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the copies of latent attention's up-projection. [B]"""
    del workload, engine
    sizes = absorbed_sizes(shard)
    if sizes:
        yield exactly(
            "weights/absorbed_projection",
            sum(sizes),
            ALWAYS,
            f"w_kc and w_vc of {len(sizes) // 2} layers, copies of kv_b_proj",
            "sgl-project/sglang@v0.5.6:python/sglang/srt/models/deepseek_v2.py, post_load_weights",
            Basis.DERIVED,
        )


def tables(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the table of requests and their tokens, and what loading takes beyond the tensors. [B]

        (requests + 1) * (context + 4) * 4 B      a slot number for each position of each request

    At 131,072 tokens and 2,048 requests: 1 GiB.
    """
    del engine
    if not shard.model.generates:
        return
    requests, positions = workload.max_num_seqs or LEAST_REQUESTS, workload.context_tokens + SPARE_POSITIONS
    size = (requests + 1) * positions * INDEX_BYTES
    yield Item(
        name="runtime/request_table",
        bytes=size,
        low_bytes=size,
        high_bytes=size * (MOST_REQUESTS if requests == LEAST_REQUESTS else requests) // requests,
        phases=ALWAYS,
        basis=Basis.DERIVED,
        formula=f"({requests:,} + 1) requests x ({count_of(workload.context_tokens, 'token')} + "
        f"{SPARE_POSITIONS}) x 4 B",
        source="sgl-project/sglang@v0.5.6:python/sglang/srt/mem_cache/memory_pool.py, ReqToTokenPool",
    )
    yield segment_ends((*allocations(shard), *absorbed_sizes(shard)))
    rotary = rotary_table_bytes(shard, shard.model.max_position_embeddings, 4)
    yield Item(
        name="runtime/rotary_table",
        bytes=rotary,
        low_bytes=0,
        high_bytes=rotary,
        phases=ALWAYS,
        basis=Basis.DERIVED,
        formula="positions x rotary width x 4 B",
        source="sgl-project/sglang@v0.5.6:python/sglang/srt/layers/rotary_embedding.py",
    )


def graphs(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the CUDA graphs by the server's own allowance: 2 MiB for each sequence of the largest batch. [B]

    The batch is that of cards on which the chunk of prefill is the default one.
    """
    if workload.eager or not shard.model.generates:
        return
    facts = budget.FACTS[engine.version]
    chunk = workload.max_num_batched_tokens or 0
    tier = next((t for t in reversed(facts.tiers) if t.chunk_tokens <= chunk), facts.tiers[0])
    batch = tier.graph_batch if shard.num_peers < 3 else tier.graph_batch_wide
    size = RESERVE_PER_GRAPH_BYTES * batch
    yield Item(
        name="runtime/cuda_graphs",
        bytes=size,
        low_bytes=size // 4,
        high_bytes=3 * size,
        phases=(Phase.PREFILL, Phase.SAMPLE, Phase.DECODE),
        basis=Basis.ASSUMED,
        formula=f"2 MiB x {batch}, what the server itself sets aside",
        source="sgl-project/sglang@v0.5.6:python/sglang/srt/server_args.py, _handle_gpu_memory_settings",
        counter=Counter.PROCESS,
    )


def before(rank: Rank) -> Span:
    """What is gone before weights load: context and communicators; kernels come in with the first passes. [B]"""
    return span(starting_with(rank.items, "runtime/cuda_context", "runtime/collectives"))


def loaded(rank: Rank) -> Span:
    """What the log calls "mem usage" of loading: segments of the weights and the table of positions. [B]

    low: bytes of tensors; expected: whole segments; high: with the kernels that loading brings in
    """
    stored = sum(item.bytes for item in starting_with(rank.items, "weights/"))
    rotary = rotary_table_bytes(rank.shard, rank.model.max_position_embeddings, 4)
    segments = max(stored, reserved_bytes((*allocations(rank.shard), *absorbed_sizes(rank.shard)))) + rotary
    kernels = span(starting_with(rank.items, "runtime/loaded_kernels"))
    return Span(low=stored, expected=segments, high=segments + kernels.expected)


def fraction(rank: Rank) -> float | None:
    """Return ``mem_fraction_static``: as asked, else this version's default for card and plan; None without a card."""
    work, device = rank.workload, rank.device
    if device is None or work.memory_fraction is not None:
        return work.memory_fraction
    facts = budget.FACTS[rank.engine.version]
    latent = any(isinstance(m, Latent) for layer, _ in rank.model.groups for m in layer.mixers)
    chunk = work.max_num_batched_tokens or 0
    found = budget.fraction(facts, device, rank.plan, chunk, latent=latent, eager=bool(work.eager))
    tower = next((part for part in rank.model.parts if part.resident and "vision" in part.name), None)
    if tower is None:
        return found
    return found * budget.vision_factor(facts, *_tower_size(tower, rank.model.family))


def _tower_size(tower: Part, family: str) -> tuple[int, int]:
    """Layers and width of a vision tower as the server reads them from the configuration.

    Qwen's towers have a ``depth`` and no ``num_hidden_layers``, so the server takes CLIP's 24.
    """
    layers = budget.VISION_LAYERS if family.startswith("qwen") else len(tower.layers)
    mixers = [m for layer in tower.layers[:1] for m in layer.mixers if isinstance(m, GroupedQuery)]
    width = mixers[0].num_attention_heads * mixers[0].head_dim if mixers else budget.VISION_HIDDEN
    return layers, tower.hidden_size or width


def reservation(rank: Rank) -> Reservation | None:
    """Return what weights and pools may take: the fraction of what is free before loading; None without a card."""
    part = fraction(rank)
    if rank.device is None or part is None:
        return None
    free = before(rank).left_of(rank.device.total_bytes).expected
    said = "asked" if rank.workload.memory_fraction is not None else f"default on this card with {rank.plan.tp} ranks"
    return Reservation(
        limit_bytes=int(share(part) * free),
        outside=OUTSIDE,
        formula=f"mem_fraction_static {part:.4g} ({said}) x {free:,} B free before loading",
    )


def pools(rank: Rank) -> Span | None:
    """What is left for cache and states together; None without a card. [B]"""
    part = fraction(rank)
    if rank.device is None or part is None:
        return None
    free = before(rank).left_of(rank.device.total_bytes).times(share(part))
    used = loaded(rank)
    return Span(
        low=max(0, free.low - used.high),
        expected=max(0, free.expected - used.expected),
        high=max(0, free.high - used.low),
    )


def split(rank: Rank, one: Cell, whole: Span) -> tuple[Span, Fraction]:
    """Return what the cache gets, and what a token of it costs, window layers at their ratio.

    cache = pools / (1 + 0.9), states the rest, where layers keep a state
    bytes per token = full layers + 0.8 * window layers
    """
    facts = budget.FACTS[rank.engine.version]
    if one.state_bytes and facts.state_ratio is not None:
        if rank.workload.prefix_caching:
            whole = whole.times(1 / (1 + share(facts.state_ratio)))
        else:
            whole = exact((rank.workload.max_num_seqs or FIXED_STATES) * one.state_bytes).left_of(whole.expected)
    per_token = Fraction(one.full_bytes) + share(facts.window_ratio or 1.0) * one.window_bytes
    if not one.full_bytes:
        per_token = Fraction(one.window_bytes)
    return whole, per_token


def readings(rank: Rank) -> Iterable[Reading]:
    """Yield the figures of the start-up log; keys and values are printed apart there and are one figure here."""
    used = loaded(rank)
    yield reading(Quantity.WEIGHTS, used, "whole segments of fused weights + table of positions", SOURCE)
    if rank.device is None:
        return
    yield reading(Quantity.BEFORE_WEIGHTS, before(rank), "context + communicators", SOURCE)
    captured = span(starting_with(rank.items, "runtime/cuda_graphs"))
    yield reading(Quantity.CUDA_GRAPHS, captured, "2 MiB for each sequence of the largest batch", SOURCE)
    whole = pools(rank)
    one = cell(rank.shard, rank.workload, windows(rank.model, rank.engine))
    if whole is None or not one.pages or not rank.model.generates:
        return
    left, per_token = split(rank, one, whole)
    if per_token:
        yield from tokens_readings(rank, left, per_token, rank.workload.block_tokens or 1, SOURCE)
    if one.state_bytes:
        states = Span(low=whole.low - left.low, expected=whole.expected - left.expected, high=whole.high - left.high)
        yield reading(Quantity.RECURRENT_STATE, states, "pools less cache", SOURCE)


ENGINE = Engine(
    profiles=PROFILES,
    components=(weights, absorbed, adapters, cache, recurrent_state, passes, towers, logits, tables, graphs),
    runtime=runtime_with(SGLANG_BYTES),
    readings=readings,
    defaults=defaults,
    reservation=reservation,
    knobs=KNOBS,
    check=check,
)
