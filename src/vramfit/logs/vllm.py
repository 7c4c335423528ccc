"""vLLM's start-up log, V0 and V1.

Wording: vllm-project/vllm, 0.6.6 to 0.33.0 (worker/worker.py, v1/worker/gpu_worker.py, v1/worker/gpu_model_runner.py,
v1/core/kv_cache_utils.py, engine/llm_engine.py, v1/engine/core.py, entrypoints' "non-default args").
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from vramfit.log_facts import LogFacts, OutOfMemory
from vramfit.logs.lines import NUMBER, counted, first, resolution, sized
from vramfit.measured import Measurement
from vramfit.request import Given
from vramfit.result import Quantity
from vramfit.units import GIB

ENGINE = re.compile(r"Initializing an? (?:V[01] )?LLM engine \(v([^)\s]{1,60})\) with config: (.*)")
ARGUMENTS = re.compile(r"non-default args: (\{.*\})")
NAMESPACE = re.compile(r"\bargs: Namespace\((.*)")
VERSION = re.compile(r"vLLM(?: API server)? version v?(\d{1,4}\.\d{1,4}(?:\.\d{1,4})?)")
WEIGHTS = re.compile(rf"(?:Model loading|Loading model weights) took {NUMBER} (?:GB|GiB)")
POOL = re.compile(rf"Available KV cache memory: {NUMBER} GiB")
TOKENS = re.compile(r"(?:GPU )?KV cache size: ([\d,]{1,20}) tokens")
CONCURRENCY = re.compile(r"Maximum concurrency for ([\d,]{1,20}) tokens per request: " + NUMBER + "x")
BLOCKS = re.compile(r"# GPU blocks: (\d{1,12})")
GRAPHS = re.compile(rf"Graph capturing finished in .{{1,30}}took {NUMBER} GiB")
BUDGET = re.compile(rf"total_gpu_memory \({NUMBER}GiB\) x gpu_memory_utilization \({NUMBER}\)")
PARTS = re.compile(
    rf"model weights take {NUMBER}GiB; non_torch_memory takes {NUMBER}GiB; PyTorch activation peak memory takes "
    rf"{NUMBER}GiB; the rest of the memory reserved for KV Cache is (-?\d{{1,9}}(?:\.\d{{1,9}})?)GiB"
)
PROFILE = re.compile(
    rf"total_gpu_memory={NUMBER}GiB .{{1,200}}non_torch_memory={NUMBER}GiB kv_cache_size={NUMBER}GiB "
    rf"gpu_memory_utilization={NUMBER}"
)
"""How 0.6.3 and 0.6.4 said the same."""
FREE = re.compile(rf"Free memory on device[^(]{{0,40}}\({NUMBER}/{NUMBER} GiB\)")
DESIRED = re.compile(rf"Desired GPU memory utilization is \({NUMBER}, ")
CURRENT = re.compile(rf"Current kv cache memory in use is {NUMBER} GiB")
ACTUAL = re.compile(
    rf"Actual usage is {NUMBER} GiB for [^,]{{1,60}}, {NUMBER} GiB for peak activation"
    rf"(?:, {NUMBER} GiB for non-torch memory)?"
)
REFUSED = re.compile(
    rf"max seq len \((\d{{1,12}})\), \({NUMBER} GiB KV cache is needed, which is larger than the available KV cache "
    rf"memory \({NUMBER} GiB\)"
)
TOO_LONG = re.compile(
    r"max seq len \((\d{1,12})\) is larger than the maximum number of tokens that can be stored in KV cache "
    r"\((\d{1,12})\)"
)
CHUNK = re.compile(r"Chunked prefill is enabled with max_num_batched_tokens=(\d{1,9})")

FIELDS = {
    "model": "model", "max_seq_len": "workload.context_tokens", "max_model_len": "workload.context_tokens",
    "tensor_parallel_size": "plan.tp", "pipeline_parallel_size": "plan.pp", "data_parallel_size": "plan.dp_replicate",
    "gpu_memory_utilization": "workload.memory_fraction", "max_num_seqs": "workload.max_num_seqs",
    "max_num_batched_tokens": "workload.max_num_batched_tokens", "enforce_eager": "workload.eager",
    "block_size": "workload.block_tokens", "enable_prefix_caching": "workload.prefix_caching",
}  # fmt: skip
"""Names in both dumps -> fields of a request."""
CACHES = {"fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "bfloat16": "bf16", "float16": "fp16"}
CONFIG_KEYS = re.compile(r"\b([a-z_]{3,40})=('[^']{0,500}'|[A-Za-z0-9_./:-]{1,200})")
MARKS = (ENGINE, WEIGHTS, POOL, TOKENS, BLOCKS, ARGUMENTS, REFUSED, TOO_LONG)


def is_log(lines: Iterable[str]) -> bool:
    """Say whether any line is vLLM's."""
    return any(mark.search(line) for line in lines for mark in MARKS)


def read(lines: tuple[str, ...]) -> LogFacts:
    """Return what vLLM's log says."""
    given: dict[str, Given] = {"workload.engine": Given(path="workload.engine", value="vllm", said="vLLM's log")}
    for each in _facts(lines):
        given.setdefault(each.path, each)
    found = tuple(_figures(lines, given))
    total = next(
        (m for line in lines for m in (BUDGET.search(line), PROFILE.search(line), FREE.search(line)) if m), None
    )
    text = None if total is None else total.group(2 if total.re is FREE else 1)
    return LogFacts(
        program="vllm",
        given=tuple(given.values()),
        measured=found,
        device_total_bytes=None if text is None else int(float(text) * GIB),
        device_resolution_bytes=0 if text is None else resolution(text, GIB),
        failure=_failure(lines),
    )


def _facts(lines: Iterable[str]) -> Iterator[Given]:
    """Yield the fields of the request that the log states; what was asked for comes before what was decided."""
    for line in lines:
        arguments, engine, version = ARGUMENTS.search(line), ENGINE.search(line), VERSION.search(line)
        if version:
            yield Given(path="workload.engine_version", value=version.group(1), said=version.group(0))
        if arguments:
            yield from _arguments(arguments.group(1))
        if engine:
            number = re.match(r"\d{1,4}\.\d{1,4}(?:\.\d{1,4})?", engine.group(1))
            if number:
                yield Given(path="workload.engine_version", value=number.group(0), said=f"engine v{engine.group(1)}")
            yield from _config(engine.group(2))
        namespace, profile = NAMESPACE.search(line), PROFILE.search(line)
        if namespace:
            yield from _config(namespace.group(1))
        if profile:
            yield Given(path="workload.memory_fraction", value=float(profile.group(4)), said="gpu_memory_utilization")
        yield from _decided(line)


def _decided(line: str) -> Iterator[Given]:
    """Yield the fields that lines about pools and passes mention."""
    for mark, path, group in (
        (CHUNK, "workload.max_num_batched_tokens", 1),
        (CONCURRENCY, "workload.context_tokens", 1),
        (REFUSED, "workload.context_tokens", 1),
        (TOO_LONG, "workload.context_tokens", 1),
    ):
        match = mark.search(line)
        if match:
            yield Given(path=path, value=int(match.group(group).replace(",", "")), said=match.group(0)[:80])
    budget, desired = BUDGET.search(line), DESIRED.search(line)
    if budget:
        yield Given(path="workload.memory_fraction", value=float(budget.group(2)), said=budget.group(0))
    if desired:
        yield Given(
            path="workload.memory_fraction",
            value=float(desired.group(1)),
            said=f"GPU memory utilization {desired.group(1)}",
        )


def _arguments(text: str) -> Iterator[Given]:
    """Yield the fields of the dump of arguments, a Python literal."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return
    if isinstance(found, dict):
        pairs = dict(found)
        pairs.setdefault("model", pairs.get("model_tag"))
        yield from _known((str(name), value) for name, value in pairs.items())
        formats = {"fp8": "fp8", "bitsandbytes": "nf4"}  # asked for; the other dump names what the checkpoint is
        method = pairs.get("quantization")
        if isinstance(method, str) and method in formats:
            yield Given(path="workload.weight_format", value=formats[method], said=f"quantization={method}")


def _config(text: str) -> Iterator[Given]:
    """Yield the fields of the dump of the configuration, ``name=value`` after ``name=value``."""
    pairs = ((match.group(1), _literal(match.group(2))) for match in CONFIG_KEYS.finditer(text))
    yield from _known(pairs)


def _literal(text: str) -> object:
    if text.startswith("'"):
        return text[1:-1]
    words: dict[str, object] = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    if text.isdigit():
        return int(text)
    return float(text) if re.fullmatch(NUMBER, text) else text


def _known(pairs: Iterable[tuple[str, object]]) -> Iterator[Given]:
    for name, value in pairs:
        if name in FIELDS and value is not None and isinstance(value, str | int | float):
            yield Given(path=FIELDS[name], value=value, said=f"{name}={value}")
        elif name == "kv_cache_dtype" and value in CACHES:
            yield Given(path="workload.kv_format", value=CACHES[str(value)], said=f"{name}={value}")


def _figures(lines: Iterable[str], given: dict[str, Given]) -> Iterator[Measurement]:
    """Yield the printed figures; of several ranks the largest need and the smallest pool."""
    needs, pools = [], []
    for line in lines:
        for mark, quantity in ((WEIGHTS, Quantity.WEIGHTS), (GRAPHS, Quantity.CUDA_GRAPHS)):
            match = mark.search(line)
            if match:
                needs.append(sized(quantity, match.group(1), GIB))
        pool, parts, actual = POOL.search(line) or CURRENT.search(line), PARTS.search(line), ACTUAL.search(line)
        if pool:
            pools.append(sized(Quantity.KV_CACHE, pool.group(1), GIB))
        if parts:
            needs.append(sized(Quantity.WEIGHTS, parts.group(1), GIB))
            needs.append(sized(Quantity.NON_TORCH, parts.group(2), GIB))
            needs.append(sized(Quantity.ACTIVATION_PEAK, parts.group(3), GIB))
            pools.append(sized(Quantity.KV_CACHE, parts.group(4), GIB))
        profile = PROFILE.search(line)
        if profile:
            needs.append(sized(Quantity.NON_TORCH, profile.group(2), GIB))
            pools.append(sized(Quantity.KV_CACHE, profile.group(3), GIB))
        if actual:
            needs.append(sized(Quantity.ACTIVATION_PEAK, actual.group(2), GIB))
            if actual.group(3):
                needs.append(sized(Quantity.NON_TORCH, actual.group(3), GIB))
        pools += list(_counts(line, given))
    yield from first(needs)
    yield from first(pools, min)


def _counts(line: str, given: dict[str, Given]) -> Iterator[Measurement]:
    tokens, blocks, times = TOKENS.search(line) or TOO_LONG.search(line), BLOCKS.search(line), CONCURRENCY.search(line)
    if tokens:
        yield counted(Quantity.KV_CACHE_TOKENS, tokens.groups()[-1])
    if blocks:
        size = given.get("workload.block_tokens")
        page = size.value if size is not None and isinstance(size.value, int) else 16
        yield counted(Quantity.KV_CACHE_TOKENS, str(int(blocks.group(1)) * page))
    if times:
        yield counted(Quantity.REQUESTS_AT_CONTEXT, times.group(2))


def _failure(lines: Iterable[str]) -> OutOfMemory | None:
    """Return vLLM's own refusal, if there is one."""
    found = None
    for line in lines:
        refused, long, parts = REFUSED.search(line), TOO_LONG.search(line), PARTS.search(line)
        if refused:
            needed, there = (int(float(refused.group(i)) * GIB) for i in (2, 3))
            what = f"the cache of one request of {int(refused.group(1)):,} tokens"
            return OutOfMemory(what=what, needed_bytes=needed, free_bytes=there)
        if long:
            longest, there = (int(text) for text in long.groups())
            found = OutOfMemory(
                what=f"one request of {longest:,} tokens, where {there:,} fit", needed_bytes=0, free_bytes=0
            )
        elif parts and found is None and parts.group(4).startswith("-"):
            missing = int(-float(parts.group(4)) * GIB)
            found = OutOfMemory(what="the pool of the cache", needed_bytes=missing, free_bytes=0)
    return found
