"""The start-up log of an engine as it will read: lines in its own words, made from its readings only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vramfit.result import Answer, Breakdown, Quantity, Verdict
from vramfit.units import GIB, MIB

V1 = (0, 8)
"""First version whose default engine is V1."""
POOL_LINE = (0, 9)
"""First version that prints the pool in bytes: not in 0.8.5, in 0.10.2."""
TWO_DECIMALS = (0, 12)
"""Four decimals of a GiB in 0.11.0, two in 0.15.0."""
ONE_APOSTROPHE = (0, 20)
"""``models's`` in 0.19.0, ``model's`` in 0.22.1."""
ONE_CAPACITY_LINE = (0, 27)
"""Tokens and concurrency on two lines in 0.26.0, on one in 0.33.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the lines of one rank are made from."""

    answer: Answer
    breakdown: Breakdown
    version: tuple[int, ...]

    def value(self, quantity: Quantity) -> float | None:
        """Return what the engine would print; None = it prints nothing of the kind."""
        found = [reading.value for reading in self.breakdown.readings if reading.quantity is quantity]
        return float(found[0]) if found else None


def startup_log(answer: Answer) -> tuple[str, ...]:
    """Return the lines, rank by rank; an engine without a log of its own gets its readings listed."""
    engine = answer.request.workload.engine
    write = WRITERS.get(engine, _plain)
    found: list[str] = []
    many = len(answer.estimate.breakdowns) > 1
    for breakdown in answer.estimate.breakdowns:
        log = Log(answer=answer, breakdown=breakdown, version=_version(answer.request.workload.engine_version))
        label = f"[{breakdown.rank}] " if many else ""
        found += [label + line for line in write(log)]
    return tuple(found)


def _version(text: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", text or "")[:3]) or (10**9,)


def _vllm(log: Log) -> Iterable[str]:
    """Yield vLLM's lines, V0 and V1, as each version words them.

    Source: vllm-project/vllm, 0.6.6 to 0.33.0: v1/worker/gpu_model_runner.py (load_model, capture_model),
    v1/worker/gpu_worker.py (determine_available_memory), v1/core/kv_cache_utils.py; V0: worker/worker.py.
    """
    version, weights = log.version, log.value(Quantity.WEIGHTS)
    if weights is not None:
        yield _loading(version, weights)
    if version < V1:
        yield from _vllm_0(log)
        return
    pool = log.value(Quantity.KV_CACHE)
    if pool is not None and version >= POOL_LINE:
        yield f"Available KV cache memory: {pool / GIB:.2f} GiB"
    refusal = _refusal(log, pool)
    if refusal:
        yield refusal
        return
    yield from _capacity(log)
    graphs = log.value(Quantity.CUDA_GRAPHS)
    if graphs:
        yield f"Graph capturing finished in ... secs, took {graphs / GIB:.2f} GiB"


def _loading(version: tuple[int, ...], weights: float) -> str:
    size = weights / GIB
    if version < V1:
        return f"Loading model weights took {size:.4f} GB"
    if version < TWO_DECIMALS:
        return f"Model loading took {size:.4f} GiB and ... seconds"
    return f"Model loading took {size:.2f} GiB memory and ... seconds"


def _capacity(log: Log) -> Iterable[str]:
    tokens, times = log.value(Quantity.KV_CACHE_TOKENS), log.value(Quantity.REQUESTS_AT_CONTEXT)
    context = log.answer.request.workload.context_tokens
    size = None if tokens is None else f"GPU KV cache size: {int(tokens):,} tokens"
    concurrency = None if times is None else f"Maximum concurrency for {context:,} tokens per request: {times:.2f}x"
    both = [line for line in (size, concurrency) if line]
    if log.version >= ONE_CAPACITY_LINE and both:
        yield ", ".join(both)
        return
    yield from both


def _vllm_0(log: Log) -> Iterable[str]:
    """Yield the lines of V0's profiling pass and its blocks."""
    workload, pool = log.answer.request.workload, log.value(Quantity.KV_CACHE)
    limit = log.breakdown.reservation
    if pool is not None and limit is not None and workload.memory_fraction:
        fraction, budget = workload.memory_fraction, limit.limit_bytes
        weights = log.value(Quantity.WEIGHTS) or 0
        yield (
            "the current vLLM instance can use total_gpu_memory "
            f"({budget / fraction / GIB:.2f}GiB) x gpu_memory_utilization ({fraction:.2f}) = {budget / GIB:.2f}GiB"
        )
        yield (
            f"model weights take {weights / GIB:.2f}GiB; non_torch_memory takes "
            f"{(log.value(Quantity.NON_TORCH) or 0) / GIB:.2f}GiB; PyTorch activation peak memory takes "
            f"{(log.value(Quantity.ACTIVATION_PEAK) or 0) / GIB:.2f}GiB; the rest of the memory reserved for KV Cache "
            f"is {pool / GIB:.2f}GiB."
        )
    tokens, block = log.value(Quantity.KV_CACHE_TOKENS), workload.block_tokens or 16
    if tokens is not None and tokens < workload.context_tokens:
        yield (
            f"ValueError: The model's max seq len ({workload.context_tokens}) is larger than the maximum number of "
            f"tokens that can be stored in KV cache ({int(tokens)}). Try increasing `gpu_memory_utilization` or "
            "decreasing `max_model_len` when initializing the engine."
        )
        return
    if tokens is not None:
        yield f"# GPU blocks: {int(tokens) // block}, # CPU blocks: ..."
        times = tokens / workload.context_tokens
        yield f"Maximum concurrency for {workload.context_tokens} tokens per request: {times:.2f}x"


def _refusal(log: Log, pool: float | None) -> str | None:
    """Return the error with which vLLM stops, and its way out; None = it starts."""
    if pool is None:
        return None
    if pool <= 0:
        return (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
            "initializing the engine."
        )
    needed, context = _one_request(log.breakdown), log.answer.request.workload.context_tokens
    times = log.value(Quantity.REQUESTS_AT_CONTEXT)
    fits = times >= 1 if times is not None else needed <= pool
    if fits or log.answer.fit.verdict is Verdict.UNKNOWN:
        return None
    whose = "model" if log.version >= ONE_APOSTROPHE else "models"
    tokens = log.value(Quantity.KV_CACHE_TOKENS)
    longest = f"Based on the available memory, the estimated maximum model length is {tokens:.0f}. " if tokens else ""
    return (
        f"ValueError: To serve at least one request with the {whose}'s max seq len ({context}), "
        f"({needed / GIB:.2f} GiB KV cache is needed, which is larger than the available KV cache memory "
        f"({pool / GIB:.2f} GiB). {longest}Try increasing `gpu_memory_utilization` or decreasing `max_model_len` "
        "when initializing the engine."
    )


def _one_request(breakdown: Breakdown) -> float:
    """Bytes of cache and state that what was asked takes on a rank. [B]"""
    groups = ("kv_cache/", "recurrent_state/")
    return float(sum(item.bytes for item in breakdown.items if item.name.startswith(groups)))


def _sglang(log: Log) -> Iterable[str]:
    """Yield SGLang's lines.

    Source: sgl-project/sglang, 0.4.6 to 0.5.23: srt/model_executor/model_runner.py (load_model),
    srt/mem_cache/memory_pool.py, srt/managers/scheduler.py.
    """
    weights, pool, tokens = (log.value(q) for q in (Quantity.WEIGHTS, Quantity.KV_CACHE, Quantity.KV_CACHE_TOKENS))
    if weights is not None:
        yield f"Load weight end. mem usage={weights / GIB:.2f} GB."
    if pool is not None and pool <= 0:
        yield "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."
        return
    if pool is not None and tokens is not None:
        latent = any("latent" in item.name for item in log.breakdown.items)
        half = pool / 2 / GIB
        sizes = f"KV size: {pool / GIB:.2f} GB" if latent else f"K size: {half:.2f} GB, V size: {half:.2f} GB"
        yield f"KV Cache is allocated. #tokens: {int(tokens)}, {sizes}"
    graphs = log.value(Quantity.CUDA_GRAPHS)
    if graphs:
        yield f"Capture cuda graph end. Time elapsed: ... s. mem usage={graphs / GIB:.2f} GB."
    if tokens is not None:
        workload = log.answer.request.workload
        chunk = workload.max_num_batched_tokens
        yield (
            f"max_total_num_tokens={int(tokens)}, chunked_prefill_size={chunk}, "
            f"max_running_requests={workload.max_num_seqs}, context_len={workload.context_tokens}"
        )


BUFFERS = (
    (Quantity.MODEL_BUFFER, "load_tensors: {:>12} model buffer size = {:8.2f} MiB", "CUDA0"),
    (Quantity.HOST_MODEL_BUFFER, "load_tensors: {:>12} model buffer size = {:8.2f} MiB", "CPU_Mapped"),
    (Quantity.KV_BUFFER, "llama_kv_cache: {:>10} KV buffer size = {:8.2f} MiB", "CUDA0"),
    (Quantity.RECURRENT_STATE, "llama_memory_recurrent: {:>10} RS buffer size = {:8.2f} MiB", "CUDA0"),
    (Quantity.COMPUTE_BUFFER, "llama_context: {:>10} compute buffer size = {:8.2f} MiB", "CUDA0"),
    (Quantity.HOST_COMPUTE_BUFFER, "llama_context: {:>10} compute buffer size = {:8.2f} MiB", "CUDA_Host"),
)
"""Source: ggml-org/llama.cpp:src/llama-model.cpp, llama-kv-cache.cpp, llama-memory-recurrent.cpp, llama-context.cpp."""


def _llama_cpp(log: Log) -> Iterable[str]:
    """Yield llama.cpp's buffers in the order of its log."""
    number = log.answer.estimate.breakdowns.index(log.breakdown)
    for quantity, form, place in BUFFERS:
        value = log.value(quantity)
        if value:
            yield form.format(place.replace("CUDA0", f"CUDA{number}"), value / MIB)


def _plain(log: Log) -> Iterable[str]:
    """Yield the readings of an engine whose own words are not known here."""
    for reading in log.breakdown.readings:
        yield f"{reading.quantity.value.replace('_', ' ')}: {reading.value:,.0f}"


WRITERS = {"vllm": _vllm, "sglang": _sglang, "llama.cpp": _llama_cpp, "ollama": _llama_cpp}
"""Engine -> how its log is worded."""
