"""Text Generation Inference: a warm-up prefill of the largest batch, and every free block after it for the cache.

    cache = share * total - everything taken by context, weights and the warm-up, whose blocks of torch stay reserved

The warm-up asks for log-probabilities of every prompt token. Read from the tags 1.0.3, 1.4.0, 2.0.0, 2.2.0, 2.3.0,
3.0.0, 3.1.0, 3.3.6: server/text_generation_server/models/flash_causal_lm.py, warmup; models/globals.py;
launcher/src/main.rs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vramfit.device import Device
from vramfit.engine import Engine, EngineProfile, Rank
from vramfit.engines.communicators import runtime_with
from vramfit.engines.open_field import fill
from vramfit.engines.pool import cell, reading, set_aside, starting_with, tokens_readings
from vramfit.engines.refusal import refuse_encoders, refuse_pipelines
from vramfit.engines.served_weights import allocations, reserved_bytes, segment_ends
from vramfit.engines.span import Span, exact, share, span
from vramfit.errors import ImpossiblePlanError
from vramfit.layer_kind import Dense, Experts, GroupedQuery
from vramfit.memory.adapters import adapters
from vramfit.memory.kv_cache import kv_cache
from vramfit.memory.logits import logits
from vramfit.memory.recurrent_state import recurrent_state
from vramfit.memory.runtime import COLLECTIVE_BYTES
from vramfit.memory.weights import weights
from vramfit.request import Inference, Plan
from vramfit.result import ALWAYS, Basis, Choice, Counter, Item, Phase, Quantity, Reading, Reservation, exactly
from vramfit.shard import Shard
from vramfit.spec import ModelSpec
from vramfit.units import GIB, MIB, Size, ceil_div, is_array, round_up


@dataclass(frozen=True, slots=True, kw_only=True)
class TgiFacts:
    """What changed between versions, as far as memory is concerned."""

    of_total: float
    """Share of the card that may be filled."""
    of_free: float
    """Share of what is free after the warm-up that becomes cache."""
    page_tokens: int
    chunks: bool = False
    """True: prompts longer than the largest pass are cut."""
    by_compute: bool = False
    """True: the largest pass is what the card computes in a second; False: the longest input and 50 tokens."""
    modules_bytes: int = 0
    """What extension modules take beyond torch's own kernels. [B]"""
    workspace_bytes: int = 0
    """Buffer of the attention kernels. [B]"""
    prompt_logprobs: bool = True
    """True: the warm-up's logits are those of every prompt token; False: of the last ones (REQUEST_LOGPROBS)."""


MODULES_BYTES = GIB
"""What nvidia-smi shows of one run of 2.2.0 on an A10G beyond context, kernels, weights, cache and graphs
(validation/serving.jsonl, tgi-llama31-8b-a10g): kernels of its many extensions. The run of 2023 on the same card
shows none."""
WORKSPACE_BYTES = 128 * MIB
"""Source: server/text_generation_server/layers/attention/flashinfer.py, get_workspace, 3.3.6."""

_FLASHINFER = TgiFacts(
    of_total=0.95, of_free=1.0, page_tokens=1, modules_bytes=MODULES_BYTES, workspace_bytes=WORKSPACE_BYTES
)
_CHUNKED = replace(_FLASHINFER, chunks=True, by_compute=True, prompt_logprobs=False)
FACTS = {
    "1.0": TgiFacts(of_total=1.0, of_free=1.0, page_tokens=16),
    "2.0": TgiFacts(of_total=1.0, of_free=0.95, page_tokens=16, modules_bytes=MODULES_BYTES),
    "2.3": _FLASHINFER,
    "3.0": _CHUNKED,
    "3.1": replace(_CHUNKED, of_total=0.93),
    "3.3": replace(_CHUNKED, of_total=0.9),
}
"""By the version of the profile; ``of_total`` is TGI_WIGGLE_ROOM."""

_BASE = EngineProfile(
    name="tgi",
    version="1.0",
    checked="1.0.0, 1.0.3 and 1.4.0",
    attention="flash",
    prefill_chunk_tokens=4096,
    prompt_logits=True,
    windowed_cache=False,
    latent_cache=False,
    not_counted=("speculators (Medusa, n-grams) and images of the warm-up",),
)
PROFILES = (
    _BASE,
    replace(_BASE, version="2.0", checked="2.0.0 and 2.2.0"),
    replace(_BASE, version="2.3", checked="2.3.0", attention="flashinfer"),
    replace(_BASE, version="3.0", checked="3.0.0", attention="flashinfer"),
    replace(_BASE, version="3.1", checked="3.1.0 and 3.2.3", attention="flashinfer"),
    replace(_BASE, version="3.3", checked="3.3.0 and 3.3.6", attention="flashinfer"),
)
KNOBS = frozenset({"max_num_batched_tokens", "memory_fraction", "eager", "prefix_caching", "block_tokens"})
PREFILL_TOKENS = 4096
"""Default of ``max_batch_prefill_tokens`` in 1.0, and in 3.x where the card's speed is not known."""
ROOM_TOKENS = 50
"""Added to the longest input by 2.x."""
TERAFLOPS = {"4090": 82, "t4": 65, "l40s": 363, "l40": 181, "l4": 121, "a10g": 125, "a40": 149, "a100": 312,
             "h100": 900, "h200": 989}  # fmt: skip
"""Source: launcher/src/main.rs, f16_flop, 3.3.6."""
LOGPROB_BYTES = 2 + 4
"""Per logit of the warm-up: as computed, and its logarithm in fp32. The code asks for torch.log_softmax(out, -1)
(server/text_generation_server/models/flash_causal_lm.py, generate_token, 2.2.0), which could stay in 16 bit: what is
left on an A10G by Llama 2 7B in 2023 (0.24 GiB a copy) and by Llama 3.1 8B in 2.2.0 (0.99 GiB) both speak for 6."""
LOGPROB_LOW, LOGPROB_HIGH = 2 + 2, 4 + 4
"""Both in 16 bit; both in fp32."""
GRAPH_BYTES = 32 * MIB
GRAPHS = 6
"""Batches 1, 2, 4, 8, 16 and 32. Size of one: assumed, as vLLM's log shows for full graphs of 32 to 80 layers."""
SOURCE = "huggingface/text-generation-inference:server/text_generation_server/models/flash_causal_lm.py, warmup"


def defaults(
    model: ModelSpec, workload: Inference, engine: EngineProfile, device: Device | None
) -> tuple[Inference, tuple[Choice, ...]]:
    """Fill in the largest prefill pass, the page and the fraction as this version does on this card."""
    facts = FACTS[engine.version]
    tokens, why = _prefill_tokens(model, workload, facts, device, engine.version)
    found = {
        "max_num_batched_tokens": (tokens, why),
        "memory_fraction": (1.0, "default of cuda_memory_fraction"),
        "block_tokens": (facts.page_tokens, f"page of {engine.attention} attention"),
        "eager": (False, "CUDA graphs are captured"),
    }
    return fill(workload, found)


def _prefill_tokens(
    model: ModelSpec, workload: Inference, facts: TgiFacts, device: Device | None, version: str
) -> tuple[int, str]:
    """Return the default of ``max_batch_prefill_tokens`` and why."""
    longest = workload.prompt_tokens
    if facts.by_compute:
        speed = next((t for name, t in TERAFLOPS.items() if device and name in device.name.split("-")), None)
        flops = _layer_flops(model)
        if speed is None or not flops:
            return PREFILL_TOKENS, "default where the card's speed is not known"
        tokens = speed * 10**12 // flops
        return min(tokens, model.max_position_embeddings or tokens), "what the card computes in one second"
    if version == "1.0":
        return _largest(PREFILL_TOKENS, longest), "default, or the longest input if more"
    return _largest(0, longest) + ROOM_TOKENS, "longest input and 50 tokens"


def _largest(least: int, prompts: Size) -> int:
    """Return the longest of all prompts that are asked about: a server is started for one length."""
    return max(least, int(prompts.max()) if is_array(prompts) else prompts)


def _layer_flops(model: ModelSpec) -> int:
    """Operations of one token in all layers, as the launcher counts them; 0 where it does not."""
    if any(part.resident for part in model.parts):
        return 0
    total = 0
    for layer, times in model.groups:
        a, f = layer.attention, layer.feed_forward
        if not isinstance(a, GroupedQuery) or not isinstance(f, Dense | Experts):
            return 0
        width = f.intermediate_size if isinstance(f, Dense) else f.moe_intermediate_size * f.num_experts_per_tok
        heads = 6 * a.num_attention_heads + 4 * a.num_key_value_heads
        total += times * model.hidden_size * (heads * a.head_dim + 6 * width)
    return total


def check(model: ModelSpec, workload: Inference, plan: Plan) -> None:
    """Refuse what the launcher refuses: pipeline stages, and a pass that cannot hold the longest input."""
    refuse_pipelines(model, "tgi")
    refuse_encoders(model, "tgi")
    if plan.pp > 1:
        raise ImpossiblePlanError(f"plan.pp: {plan.pp}: expected 1: TGI has tensor parallelism only; raise tp instead")
    tokens, longest = workload.max_num_batched_tokens, workload.prompt_tokens
    old = workload.engine_version is not None and workload.engine_version.split(".")[0] in {"0", "1", "2"}
    if old and tokens is not None and isinstance(longest, int) and tokens < longest:
        raise ImpossiblePlanError(
            f"workload.max_num_batched_tokens: {tokens}: expected at least prompt_tokens ({longest}): TGI before 3.0 "
            "takes a prompt in one pass (max_batch_prefill_tokens >= max_input_length); shorten the prompt or raise it"
        )


def passes(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the activations of the largest prefill pass, set aside whatever is asked, and of a decode step. [B]

    Before 3.0 also the logits of every token of that pass, which the warm-up computes.
    """
    tokens = workload.max_num_batched_tokens or PREFILL_TOKENS
    yield from set_aside(shard, workload, engine, tokens)
    if not FACTS[engine.version].prompt_logprobs or shard.model.vocab_size is None:
        return
    one = tokens * shard.model.vocab_size
    yield Item(
        name="logits/warm_up",
        bytes=LOGPROB_BYTES * one,
        low_bytes=LOGPROB_LOW * one,
        high_bytes=LOGPROB_HIGH * one,
        phases=(Phase.PREFILL,),
        basis=Basis.MEASURED,
        formula=f"{tokens:,} tokens x {shard.model.vocab_size:,} entries x {LOGPROB_BYTES} B",
        source="see engines/tgi.py, LOGPROB_BYTES",
    )


def last_logits(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the logits of the sequences' last tokens; those of whole prompts are the warm-up's alone. [B]"""
    return logits(shard, workload, replace(engine, prompt_logits=False))


def modules(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield what the server's own modules, its attention buffer and its CUDA graphs take. [B]"""
    del shard
    facts = FACTS[engine.version]
    if facts.modules_bytes:
        yield Item(
            name="runtime/modules",
            bytes=facts.modules_bytes,
            low_bytes=0,
            high_bytes=facts.modules_bytes * 3 // 2,
            phases=ALWAYS,
            basis=Basis.MEASURED,
            formula="1 GiB on one A10G with 2.2.0",
            source="see engines/tgi.py, MODULES_BYTES",
            counter=Counter.PROCESS,
        )
    if facts.workspace_bytes:
        yield exactly(
            "runtime/attention_workspace",
            facts.workspace_bytes,
            ALWAYS,
            "128 MiB",
            "huggingface/text-generation-inference@v3.3.6:server/text_generation_server/layers/attention",
            Basis.DERIVED,
        )
    if not workload.eager and engine.version != "1.0":
        yield Item(
            name="runtime/cuda_graphs",
            bytes=GRAPHS * GRAPH_BYTES,
            low_bytes=GRAPHS * GRAPH_BYTES // 4,
            high_bytes=3 * GRAPHS * GRAPH_BYTES,
            phases=(Phase.PREFILL, Phase.SAMPLE, Phase.DECODE),
            basis=Basis.ASSUMED,
            formula="6 batches x 32 MiB",
            source="huggingface/text-generation-inference:launcher/src/main.rs, cuda_graphs: 1 to 32",
            counter=Counter.PROCESS,
        )


def ends(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the ends of the weights' segments. [B]"""
    del workload, engine
    yield segment_ends(allocations(shard))


def held(rank: Rank) -> Span:
    """What stays taken before the warm-up: context, communicators, modules and segments of the weights. [B]"""
    items = starting_with(
        rank.items, "runtime/cuda_context", "runtime/loaded_kernels", "runtime/collectives", "runtime/modules",
        "runtime/attention_workspace", "runtime/cublas_workspace",
    )  # fmt: skip
    stored = sum(item.bytes for item in starting_with(rank.items, "weights/"))
    segments = max(stored, reserved_bytes(allocations(rank.shard)))
    return span(items) + Span(low=stored, expected=segments, high=segments + segments // 50)


def warm_up(rank: Rank) -> Span:
    """What torch keeps reserved after the largest prefill, its cache aside: a layer's tensors and all logits. [B]

        activations of max_batch_prefill_tokens + tokens * vocabulary * (2 + 4) B, last tokens only since 3.0

    Blocks of the layers are too small for the logits, so both stay reserved. Low: logarithms in 16 bit; high: the
    logits in fp32 too.
    """
    items = passes(rank.shard, rank.workload, rank.engine)
    last = LOGPROB_BYTES * (rank.model.vocab_size or 0)
    return span(i for i in items if Phase.PREFILL in i.phases) + exact(last)


def pool(rank: Rank) -> Span | None:
    """What becomes cache; None without a card. [B]

        1.0:           fraction * total - held - warm-up
        2.0 to 2.2:    0.95 * (the same) + 0.05 * cache of the warm-up's own requests
        since 2.3:     fraction * 0.95 (0.93 since 3.1, 0.90 since 3.3) * total - held - warm-up

    Each rank counts its own; the smallest decides.
    """
    if rank.device is None:
        return None
    facts, part = FACTS[rank.engine.version], rank.workload.memory_fraction or 1.0
    limit = int(share(part) * share(facts.of_total) * rank.device.total_bytes)
    left, own = (held(rank) + warm_up(rank)).left_of(limit), _warm_up_cache(rank)

    def cache(free: int) -> int:
        """Return the blocks of one bound; without room for the warm-up's own there is no server."""
        kept = share(facts.of_free)
        return int(free * kept + own * (1 - kept)) if free >= (own if kept < 1 else 0) else 0

    return Span(low=cache(left.low), expected=cache(left.expected), high=cache(left.high))


def _warm_up_cache(rank: Rank) -> int:
    """Cache of the warm-up's requests: so many of the longest as the pass holds, each with all its tokens. [B]"""
    work = rank.workload
    longest = max(1, _largest(0, work.prompt_tokens) - 1)
    requests = ceil_div(work.max_num_batched_tokens or PREFILL_TOKENS, longest)
    tokens = round_up(_largest(0, work.context_tokens), work.block_tokens or 1)
    return requests * tokens * cell(rank.shard, work, rank.engine).full_bytes


def reservation(rank: Rank) -> Reservation | None:
    """Return what the server fills: all of its share but what it leaves free after the warm-up; None without a card."""
    cache = pool(rank)
    if rank.device is None or cache is None:
        return None
    limit = held(rank).expected + warm_up(rank).expected + cache.expected
    return Reservation(
        limit_bytes=limit,
        outside=("runtime/cuda_graphs",),
        formula=f"cuda_memory_fraction {rank.workload.memory_fraction} of {rank.device.total_bytes:,} B, less what "
        f"this version leaves free",
    )


def readings(rank: Rank) -> Iterable[Reading]:
    """Yield the pool and the peak that nvidia-smi shows; the server prints neither weights nor activations."""
    stored = sum(item.bytes for item in starting_with(rank.items, "weights/"))
    segments = max(stored, reserved_bytes(allocations(rank.shard)))
    yield reading(Quantity.WEIGHTS, Span(low=stored, expected=stored, high=segments), "sum of all weights", SOURCE)
    yield reading(Quantity.ACTIVATION_PEAK, warm_up(rank), "layers and logits of the largest prefill", SOURCE)
    cache = pool(rank)
    one = cell(rank.shard, rank.workload, rank.engine)
    if cache is None or not one.full_bytes or not one.pages or not rank.model.generates:
        return
    yield from tokens_readings(rank, cache, one.full_bytes, rank.workload.block_tokens or 1, SOURCE)
    captured = span(starting_with(rank.items, "runtime/cuda_graphs"))
    yield reading(Quantity.CUDA_GRAPHS, captured, "6 batches", SOURCE)
    started = held(rank) + exact(cache.expected) + captured
    yield reading(Quantity.PROCESS_PEAK, started, "after start: held + cache + graphs, the warm-up given back", SOURCE)


ENGINE = Engine(
    profiles=PROFILES,
    components=(weights, adapters, kv_cache, recurrent_state, passes, last_logits, modules, ends),
    runtime=runtime_with(COLLECTIVE_BYTES),
    readings=readings,
    defaults=defaults,
    reservation=reservation,
    knobs=KNOBS,
    check=check,
)
