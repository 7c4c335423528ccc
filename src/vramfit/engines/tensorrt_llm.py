"""TensorRT-LLM: nine tenths of what is free once the largest pass has its memory become pages of cache.

    engines (until 1.0):  cache = fraction * (total - context - engine - execution context)
    PyTorch (from 1.0):   cache = fraction * (total - peak of a pass of max_num_tokens, in torch and outside)

Read from NVIDIA/TensorRT-LLM: docs/source/reference/memory.md; cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp,
calculateMaxNumBlocks; tensorrt_llm/_torch/pyexecutor/_util.py, KvCacheCreator.configure_kv_cache_capacity and
_cal_max_memory; tensorrt_llm/llmapi/llm_args.py, KvCacheConfig (tokens_per_block); tensorrt_llm/plugin/plugin.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vramfit.device import Device
from vramfit.engine import Engine, EngineProfile, Rank
from vramfit.engines.communicators import runtime_with
from vramfit.engines.open_field import fill
from vramfit.engines.pool import cell, reading, set_aside, starting_with, tokens_readings
from vramfit.engines.refusal import refuse_pipelines
from vramfit.engines.span import Span, share, span
from vramfit.errors import ImpossiblePlanError
from vramfit.layer_kind import Dense, Experts
from vramfit.memory.adapters import adapters
from vramfit.memory.kv_cache import kv_cache
from vramfit.memory.logits import logits
from vramfit.memory.recurrent_state import recurrent_state
from vramfit.memory.runtime import COLLECTIVE_BYTES
from vramfit.memory.weights import weights
from vramfit.request import Inference, Plan
from vramfit.result import ALWAYS, Basis, Choice, Counter, Item, Phase, Quantity, Reading, Reservation
from vramfit.shard import Shard
from vramfit.spec import ModelSpec
from vramfit.units import GIB, MIB, is_array


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorrtFacts:
    """What changed between versions, as far as memory is concerned."""

    fraction: float
    page_tokens: int
    max_batch: int
    max_tokens: int | None
    """Default of ``max_num_tokens``; None = largest batch times longest input."""
    compiled: bool
    """True: a TensorRT engine with an execution context fixed at build; False: PyTorch."""
    logits_of_pass: bool = False
    """True: the execution context has room for the logits of every token of a pass."""


FACTS = {
    "0.5": TensorrtFacts(fraction=0.85, page_tokens=64, max_batch=8, max_tokens=None, compiled=True),
    "0.10": TensorrtFacts(
        fraction=0.9, page_tokens=64, max_batch=2048, max_tokens=8192, compiled=True, logits_of_pass=True
    ),
    "1.0": TensorrtFacts(fraction=0.9, page_tokens=32, max_batch=2048, max_tokens=8192, compiled=False),
}
"""By the version of the profile."""

LONGEST_INPUT = 2048
"""Default of ``max_input_len`` in 0.5. Source: NVIDIA/TensorRT-LLM@v0.5.0:examples/llama/build.py."""
INPUT_STATES = 3
LAYER_STATES = 4
"""Hidden states that live beside the logits, and beside gate and up: fitted to one build each. Llama 3.1 8B in 0.18:
309,760 B for each of 128,000 tokens = 2 B * (128,256 logits + 14,336 + 3 * 4,096), to the byte (#3636). Llama 2 7B in
0.5: what is left of an A10 agrees with 2 B * (2 * 11,008 + 4 * 4,096) for 25 * 2,048 tokens within 1 % (#224)."""
GRAPHS_BYTES = 256 * MIB
"""CUDA graphs of decode batches in the PyTorch flow, counted as growth outside torch: assumed."""

_BASE = EngineProfile(
    name="tensorrt-llm",
    version="0.5",
    checked="0.5.0 and 0.9.0, by documentation and one public run",
    attention="flash",
    prefill_chunk_tokens=None,
    windowed_cache=False,
    not_counted=("workspaces that TensorRT's tactics ask for beyond the tensors of the pass",),
)
PROFILES = (
    _BASE,
    replace(_BASE, version="0.10", checked="0.18.0, by documentation and one public run", prefill_chunk_tokens=8192),
    replace(_BASE, version="1.0", checked="1.0, sources of the PyTorch flow", prefill_chunk_tokens=8192),
)
KNOBS = frozenset({
    "max_num_seqs", "max_num_batched_tokens", "memory_fraction", "eager", "prefix_caching", "chunked_prefill",
    "block_tokens",
})  # fmt: skip
CACHE_FORMATS = frozenset({"fp16", "bf16", "fp32", "fp8", "int8", "nvfp4"})
SOURCE = "NVIDIA/TensorRT-LLM:docs/source/reference/memory.md"


def defaults(
    model: ModelSpec, workload: Inference, engine: EngineProfile, device: Device | None
) -> tuple[Inference, tuple[Choice, ...]]:
    """Fill in what the engine is built for and the fraction, as this version does on every card."""
    del model, device
    facts = FACTS[engine.version]
    batch = workload.max_num_seqs or facts.max_batch
    context = workload.context_tokens
    longest = min(LONGEST_INPUT, int(context.max()) if is_array(context) else context)
    tokens = facts.max_tokens or batch * longest
    found = {
        "max_num_seqs": (batch, "default of max_batch_size"),
        "max_num_batched_tokens": (
            tokens,
            "default of max_num_tokens" if facts.max_tokens else f"{batch} sequences x {longest:,} tokens of input",
        ),
        "memory_fraction": (facts.fraction, "default of free_gpu_memory_fraction: of what is free"),
        "block_tokens": (facts.page_tokens, "default of tokens_per_block"),
        "eager": (facts.compiled, "an engine runs its own kernels" if facts.compiled else "CUDA graphs are captured"),
    }
    return fill(workload, found)


def check(model: ModelSpec, workload: Inference, plan: Plan) -> None:
    """Refuse caches in formats that the kernels do not have, and a pass smaller than its batch."""
    del plan
    refuse_pipelines(model, "tensorrt-llm")
    if workload.kv_format not in CACHE_FORMATS:
        raise ImpossiblePlanError(
            f"workload.kv_format: {workload.kv_format}: expected one of {', '.join(sorted(CACHE_FORMATS))}: "
            "TensorRT-LLM caches in no other; leave it out for the model's own"
        )
    batch, tokens = workload.max_num_seqs, workload.max_num_batched_tokens
    if batch is not None and tokens is not None and tokens < batch:
        raise ImpossiblePlanError(
            f"workload.max_num_batched_tokens: {tokens}: expected at least max_num_seqs ({batch}): in decode each "
            f"sequence has one token in the pass; lower max_num_seqs to {tokens} or raise the pass"
        )


def context_bytes(shard: Shard, workload: Inference, engine: EngineProfile) -> Span:
    """Memory of the execution context, fixed when the engine is built. [B]

        tokens * 2 B * (vocabulary + width of the feed-forward + 3 * hidden)   where the pass has all logits
        tokens * 2 B * (2 * width of the feed-forward + 4 * hidden)            else, and low

    Widths after tensor parallelism. High: the larger of both, twice the layers, and 1 MiB of alignment.
    """
    model, tokens = shard.model, workload.max_num_batched_tokens or 0
    width = max((_width(layer.feed_forward) for layer, _ in model.groups), default=0)
    layer = 2 * width + LAYER_STATES * model.hidden_size
    vocabulary = (model.vocab_size or 0) if shard.last else 0
    whole = vocabulary + width + INPUT_STATES * model.hidden_size
    expected = max(layer, whole) if FACTS[engine.version].logits_of_pass else layer
    return Span(low=2 * tokens * layer, expected=2 * tokens * expected, high=2 * tokens * max(2 * layer, whole) + MIB)


def _width(feed_forward: object) -> int:
    """Width that the tokens of a pass have inside a feed-forward network."""
    match feed_forward:
        case Dense() as dense:
            return dense.intermediate_size
        case Experts() as experts:
            return experts.num_experts_per_tok * experts.moe_intermediate_size + experts.shared_intermediate_size
        case _:
            return 0


def largest_pass(rank: Rank) -> Span:
    """Transient memory of a pass of ``max_num_tokens``. [B]"""
    return span(i for i in passes(rank.shard, rank.workload, rank.engine) if Phase.PREFILL in i.phases)


def passes(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the execution context of an engine, or the activations of PyTorch's largest pass and a decode step. [B]

    Both are set aside whatever is asked.
    """
    if not FACTS[engine.version].compiled:
        yield from set_aside(shard, workload, engine, workload.max_num_batched_tokens or 1)
        return
    size = context_bytes(shard, workload, engine)
    yield Item(
        name="activations/execution_context",
        bytes=size.expected,
        low_bytes=size.low,
        high_bytes=size.high,
        phases=ALWAYS,
        basis=Basis.MEASURED,
        formula=f"fixed at build for {workload.max_num_batched_tokens:,} tokens",
        source="see engines/tensorrt_llm.py, LAYER_STATES",
    )


def graphs(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the CUDA graphs of decode batches. [B]"""
    if workload.eager or FACTS[engine.version].compiled or not shard.model.generates:
        return
    yield Item(
        name="runtime/cuda_graphs",
        bytes=GRAPHS_BYTES,
        low_bytes=0,
        high_bytes=4 * GRAPHS_BYTES,
        phases=ALWAYS,
        basis=Basis.ASSUMED,
        formula="a quarter of a GiB for the default list of batches",
        source="NVIDIA/TensorRT-LLM:tensorrt_llm/_torch/pyexecutor/cuda_graph_runner.py",
        counter=Counter.PROCESS,
    )


def held(rank: Rank) -> Span:
    """What stays taken: context, kernels, communicators, graphs and the weights, which are the engine's size. [B]"""
    return span(
        starting_with(
            rank.items, "runtime/cuda_context", "runtime/loaded_kernels", "runtime/collectives",
            "runtime/cuda_graphs", "weights/",
        )
    )  # fmt: skip


def pool(rank: Rank) -> Span | None:
    """What becomes cache; None without a card. [B]"""
    device, part = rank.device, rank.workload.memory_fraction
    if device is None or part is None:
        return None
    return (held(rank) + largest_pass(rank)).left_of(device.total_bytes).times(share(part))


def reservation(rank: Rank) -> Reservation | None:
    """Return what it may take: weights, the largest pass, and the fraction of the rest; None without a card."""
    cache = pool(rank)
    if rank.device is None or cache is None:
        return None
    taken = held(rank).expected + largest_pass(rank).expected
    return Reservation(
        limit_bytes=taken + cache.expected,
        outside=("runtime/cublas_workspace",),
        formula=f"{taken:,} B of weights and largest pass + free_gpu_memory_fraction {rank.workload.memory_fraction} "
        "of what is free then",
    )


def readings(rank: Rank) -> Iterable[Reading]:
    """Yield the size of the engine, of its execution context, and the pages of the cache."""
    stored = span(starting_with(rank.items, "weights/"))
    yield reading(
        Quantity.WEIGHTS,
        Span(low=stored.low, expected=stored.expected, high=stored.high + stored.high // 50 + GIB // 8),
        "sum of all weights: an engine is little more",
        SOURCE,
    )
    yield reading(Quantity.ACTIVATION_PEAK, largest_pass(rank), "largest pass", SOURCE)
    cache = pool(rank)
    one = cell(rank.shard, rank.workload, rank.engine)
    if cache is None or not one.full_bytes or not one.pages or not rank.model.generates:
        return
    yield from tokens_readings(rank, cache, one.full_bytes, rank.workload.block_tokens or 1, SOURCE)
    used = held(rank) + largest_pass(rank) + cache
    yield reading(Quantity.PROCESS_PEAK, used, "weights + largest pass + cache", SOURCE)


ENGINE = Engine(
    profiles=PROFILES,
    components=(weights, adapters, kv_cache, recurrent_state, passes, logits, graphs),
    runtime=runtime_with(COLLECTIVE_BYTES),
    readings=readings,
    defaults=defaults,
    reservation=reservation,
    knobs=KNOBS,
    check=check,
)
