"""SGLang's start-up log.

Wording: sgl-project/sglang, 0.4.6 to 0.5.23 (srt/model_executor/model_runner.py, srt/mem_cache/memory_pool.py,
srt/managers/scheduler.py, srt/entrypoints "server_args=").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from vramfit.log_facts import LogFacts
from vramfit.logs.lines import NUMBER, counted, first, sized
from vramfit.measured import Measurement
from vramfit.request import Given
from vramfit.result import Quantity
from vramfit.units import GIB

ARGUMENTS = re.compile(r"server_args=ServerArgs\((.{0,19000})")
PAIR = re.compile(r"\b([a-z_]{3,50})=('[^']{0,500}'|[A-Za-z0-9_./:-]{1,200})")
WEIGHTS = re.compile(rf"Load weight end\..{{0,300}}?mem usage={NUMBER} GB")
ALLOCATED = r"KV Cache is allocated\.(?: dtype: [\w.]{1,30},)? #tokens: (\d{1,12})"
POOL = re.compile(rf"{ALLOCATED}, K size: {NUMBER} GB, V size: {NUMBER} GB")
LATENT = re.compile(rf"{ALLOCATED}, KV size: {NUMBER} GB")
GRAPHS = re.compile(rf"Capture cuda graph end\..{{0,100}}mem usage={NUMBER} GB")
LIMITS = re.compile(r"max_total_num_tokens=(\d{1,12}), chunked_prefill_size=(\d{1,9})")
RUNNING = re.compile(r"max_running_requests=(\d{1,9})")
CONTEXT = re.compile(r"context_len=(\d{1,12})")
FIELDS = {
    "model_path": "model", "mem_fraction_static": "workload.memory_fraction", "tp_size": "plan.tp",
    "pp_size": "plan.pp", "dp_size": "plan.dp_replicate", "context_length": "workload.context_tokens",
    "chunked_prefill_size": "workload.max_num_batched_tokens", "max_running_requests": "workload.max_num_seqs",
}  # fmt: skip
MARKS = (ARGUMENTS, WEIGHTS, POOL, LATENT)


def is_log(lines: Iterable[str]) -> bool:
    """Say whether any line is SGLang's."""
    return any(mark.search(line) for line in lines for mark in MARKS)


def read(lines: tuple[str, ...]) -> LogFacts:
    """Return what SGLang's log says."""
    given = {"workload.engine": Given(path="workload.engine", value="sglang", said="SGLang's log")}
    for each in _facts(lines):
        given.setdefault(each.path, each)
    return LogFacts(program="sglang", given=tuple(given.values()), measured=tuple(_figures(lines)))


def _facts(lines: Iterable[str]) -> Iterator[Given]:
    for line in lines:
        arguments = ARGUMENTS.search(line)
        if arguments:
            for match in PAIR.finditer(arguments.group(1)):
                name, text = match.groups()
                if name in FIELDS and text != "None":
                    yield Given(path=FIELDS[name], value=_value(text), said=f"{name}={text}")
                elif name == "kv_cache_dtype" and text.startswith("'fp8"):
                    yield Given(path="workload.kv_format", value="fp8", said=f"{name}={text}")
        limits, running, context = LIMITS.search(line), RUNNING.search(line), CONTEXT.search(line)
        if limits:
            yield Given(path="workload.max_num_batched_tokens", value=int(limits.group(2)), said=limits.group(0))
            if running:
                yield Given(path="workload.max_num_seqs", value=int(running.group(1)), said=running.group(0))
            if context:
                yield Given(path="workload.context_tokens", value=int(context.group(1)), said=context.group(0))


def _value(text: str) -> object:
    if text.startswith("'"):
        return text[1:-1]
    if text.isdigit():
        return int(text)
    return float(text) if re.fullmatch(NUMBER, text) else text


def _figures(lines: Iterable[str]) -> Iterator[Measurement]:
    needs, pools = [], []
    for line in lines:
        weights, pool, latent, graphs = (mark.search(line) for mark in (WEIGHTS, POOL, LATENT, GRAPHS))
        if weights:
            needs.append(sized(Quantity.WEIGHTS, weights.group(1), GIB))
        if graphs:
            needs.append(sized(Quantity.CUDA_GRAPHS, graphs.group(1), GIB))
        if pool:
            both = f"{float(pool.group(2)) + float(pool.group(3)):.2f}"
            pools += [counted(Quantity.KV_CACHE_TOKENS, pool.group(1)), sized(Quantity.KV_CACHE, both, GIB)]
        if latent:
            pools += [
                counted(Quantity.KV_CACHE_TOKENS, latent.group(1)), sized(Quantity.KV_CACHE, latent.group(2), GIB),
            ]  # fmt: skip
    yield from first(needs)
    yield from first(pools, min)
