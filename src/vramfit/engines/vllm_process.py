"""What a vLLM process takes outside its tensors: context, collectives, code of kernels, CUDA graphs.

Measured, not derived: each constant names the logs it comes from. The logs of 0.19 are those of
jgchn/llm-d-planner@56dc5b7:accuracy/results/v0.19.0/logs (H100 80 GB), of 0.11 those of
llm-d-incubation/llm-d-planner:docs/empirical-vllm-memory-results.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.device import Device
from vramfit.engine import EngineProfile
from vramfit.engines.vllm_facts import VllmFacts, facts_of
from vramfit.layer_kind import Experts
from vramfit.memory.runtime import runtime as library_runtime
from vramfit.request import Inference
from vramfit.result import ALWAYS, Basis, Counter, Item, Phase, Total
from vramfit.shard import Shard
from vramfit.units import MIB

_LOGS = "jgchn/llm-d-planner@56dc5b7:accuracy/results/v0.19.0/logs"
COLLECTIVES_BYTES = 1044 * MIB
"""First communicators of a rank with peers: 1.53 GiB before weights instead of 0.51, five dense logs of 0.19."""
EXPERT_COLLECTIVES_BYTES = 500 * MIB
"""One more group for experts: 2.01 to 2.07 GiB before weights, five logs of mixtures over two and four ranks; until
0.17 the group is first used, hence counted, in the profiling pass."""
KERNELS_BYTES = 133 * MIB
"""Code of kernels that the pass loads: 0.13 GiB in 0.11 to 0.17, one H100."""
OLDER_KERNELS_BYTES = 95 * MIB
"""The same before Hopper: 0.09 GiB on an A100 and on L40S."""
HOPPER = 9
GRAPH_REMAINS_BYTES = 125 * MIB
"""What trial captures of CUDA graphs leave with the driver: 0.24 to 0.27 GiB instead of 0.13 since 0.18."""
UNALIGNED_BYTES = 215 * MIB
"""More where the vocabulary is no multiple of 16 and top-k runs in the Triton kernel: 0.46 GiB instead of 0.25 in the
three logs of Granite (49,155 entries), in none of the others; presumably local memory for unaligned rows."""
PEERS_BYTES = 430 * MIB
"""With peers, until 0.17: 0.55 GiB on two ranks instead of 0.13 in 0.11."""
GRAPH_PEERS_BYTES = 1865 * MIB
"""With peers, since 0.18, whose pass captures graphs with collectives in them: 2.06 to 2.11 GiB on two ranks."""
FOUR_RANKS_BYTES = 90 * MIB
"""On four ranks and more: 2.17 to 2.21 GiB."""
STAGE_BYTES = 72 * MIB
"""A stage of a pipeline without tensor parallelism: 0.07 GiB in the logs of 0.19."""
FIRST_ENGINE_BYTES = 140 * MIB
"""V0: 0.01 to 0.35 GiB (0.11 T4, 0.10 A100, 0.26 on one A100, 0.02 on a laptop's RTX 4070)."""
FIRST_ENGINE_PEERS_BYTES = 1830 * MIB
"""V0 finds its collectives here: 3.58 GiB on two ranks instead of 1.79 on one (vllm#10511)."""
CONTEXT_BYTES = 560 * MIB
"""CUDA context of an H100, which V0 until 0.5.3 and V1 until 0.9 count too."""
CHANNELS_BYTES, CHANNELS_BYTES_PER_PEER = 1200 * MIB, 130 * MIB
"""Collectives in V1 until 0.9, which grow with the ranks; from two pools: Qwen3-235B on four, DeepSeek-R1 on sixteen
(vllm#21348, and one log of 0.8.4)."""
GRAPHS_BYTES, GRAPHS_BYTES_PER_LAYER = 460 * MIB, 15 * MIB
"""51 piecewise and 51 full graphs: 0.81 GiB at 28 layers, 0.89 to 0.96 at 32, 0.98 to 1.06 at 40, 1.61 and 1.85 at 80
(dense logs of 0.18 and 0.19)."""
MOST_CAPTURED, ALL_SIZES = 512, 51
FIRST_SHARE = 30
"""Percent of all graphs that the first capture takes: "122 + 50 x 6 MiB" in vLLM's own estimate (0.21, one log)."""
EXPERT_GRAPHS_BYTES = 500 * MIB
"""More for mixtures: 1.57 GiB at 27 layers, 1.41 at 48, 1.84 at 24."""
FIRST_ENGINE_GRAPHS_BYTES = 270 * MIB
"""V0 captured 35 full graphs: 0.13 to 0.27 GiB."""


def non_torch(shard: Shard, facts: VllmFacts, device: Device | None = None) -> Total:
    """Growth outside torch that the log prints: kernels' code, what graphs leave behind, collectives. [B]"""
    if facts.first_engine:
        size = FIRST_ENGINE_BYTES + (FIRST_ENGINE_PEERS_BYTES if shard.num_peers else 0)
        more = CONTEXT_BYTES if facts.counts_context else 0
        return Total(low_bytes=10 * MIB + more, expected_bytes=size + more, high_bytes=4 * size + 4 * more)
    if shard.num_peers in {1, 2} and not (shard.first and shard.last) and not facts.counts_context:
        return Total(low_bytes=STAGE_BYTES // 2, expected_bytes=STAGE_BYTES, high_bytes=4 * STAGE_BYTES)
    capability = device.compute_capability if device is not None else None
    older = capability is not None and int(capability.split(".")[0]) < HOPPER
    expected, doubt = (OLDER_KERNELS_BYTES, 50 * MIB) if older else (KERNELS_BYTES, 20 * MIB)
    if facts.profiles_graphs:
        expected, doubt = expected + GRAPH_REMAINS_BYTES, 30 * MIB
    if facts.masks_in_place and facts.profiles_graphs and (shard.vocab_size or shard.model.vocab_size or 0) % 16:
        expected, doubt = expected + UNALIGNED_BYTES, 60 * MIB
    if shard.num_peers and not facts.counts_context:
        expected += GRAPH_PEERS_BYTES if facts.profiles_graphs else PEERS_BYTES
        expected += FOUR_RANKS_BYTES if shard.num_peers > 2 else 0
        if not facts.profiles_graphs and _is_mixture(shard):
            expected += EXPERT_COLLECTIVES_BYTES
        doubt = expected // 10 if facts.profiles_graphs else expected // 2
    if facts.counts_context:
        channels = CHANNELS_BYTES + shard.num_peers * CHANNELS_BYTES_PER_PEER if shard.num_peers else 0
        expected += CONTEXT_BYTES + channels
        doubt = expected // 3
    return Total(low_bytes=expected - doubt, expected_bytes=expected, high_bytes=expected + doubt)


def _is_mixture(shard: Shard) -> bool:
    return any(isinstance(layer.feed_forward, Experts) for layer, _ in shard.model.groups)


def cuda_graphs(shard: Shard, workload: Inference, facts: VllmFacts) -> Total:
    """Memory of captured graphs: none when eager. [B]

    460 MiB + 15 MiB per layer, + 500 MiB for mixtures, for 51 sizes; 30 % of it for the first, the rest by their number
    """
    if workload.eager:
        return Total(low_bytes=0, expected_bytes=0, high_bytes=0)
    if facts.first_engine:
        size = FIRST_ENGINE_GRAPHS_BYTES
        return Total(low_bytes=size // 3, expected_bytes=size, high_bytes=4 * size)
    layers = len(shard.model.layers)
    size = GRAPHS_BYTES + layers * GRAPHS_BYTES_PER_LAYER + (EXPERT_GRAPHS_BYTES if _is_mixture(shard) else 0)
    sizes = capture_sizes(workload.max_num_seqs or MOST_CAPTURED)
    size = size * (FIRST_SHARE * ALL_SIZES + (100 - FIRST_SHARE) * sizes) // (100 * ALL_SIZES)
    low = size // 2 if facts.profiles_graphs else 0
    return Total(low_bytes=low, expected_bytes=size, high_bytes=size * 8 // 5)


def capture_sizes(max_num_seqs: int) -> int:
    """Return how many batch sizes are captured.

    1, 2, 4, then to 256 by 8 and on by 16, up to min(2 * max_num_seqs, 512)

    Source: vllm-project/vllm@v0.19.0:vllm/config/vllm.py, _set_cudagraph_sizes.

    >>> capture_sizes(256), capture_sizes(16)
    (51, 7)
    """
    most = min(2 * max_num_seqs, MOST_CAPTURED)
    return sum(1 for size in (1, 2, 4, *range(8, 256, 8), *range(256, MOST_CAPTURED + 1, 16)) if size <= most)


def before_weights(shard: Shard, device: Device | None) -> Total:
    """What is taken before the weights: context and communicators. [B]"""
    items = tuple(runtime(shard, device))
    expected = sum(i.bytes for i in items) + (EXPERT_COLLECTIVES_BYTES if _is_mixture(shard) and shard.num_peers else 0)
    doubt = 60 * MIB if shard.num_peers else 12 * MIB
    return Total(low_bytes=expected - doubt, expected_bytes=expected, high_bytes=expected + doubt)


def runtime(shard: Shard, device: Device | None) -> Iterable[Item]:
    """Yield what every process holds before vLLM counts: the CUDA context and, with peers, communicators."""
    for item in library_runtime(shard, device):
        if item.name == "runtime/cuda_context":
            yield item
    if shard.num_peers:
        yield Item(
            name="runtime/collectives",
            bytes=COLLECTIVES_BYTES,
            low_bytes=COLLECTIVES_BYTES * 9 // 10,
            high_bytes=COLLECTIVES_BYTES + EXPERT_COLLECTIVES_BYTES,
            phases=ALWAYS,
            basis=Basis.MEASURED,
            formula="NCCL and all-reduce buffers before weights: 1.53 GiB with a peer, 0.51 GiB without",
            source=_LOGS,
            counter=Counter.PROCESS,
        )


def outside_torch(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield what vLLM finds outside torch after its profiling pass, and its CUDA graphs. [B]"""
    facts = facts_of(engine, workload)
    found = (
        ("runtime/non_torch", non_torch(shard, facts), ALWAYS, "code of kernels, collectives, remains of graphs"),
        (
            "runtime/cuda_graphs",
            cuda_graphs(shard, workload, facts),
            (Phase.PREFILL, Phase.SAMPLE, Phase.DECODE),
            "graphs of decode batches, per layer",
        ),
    )
    for name, size, phases, formula in found:
        if size.expected_bytes:
            yield Item(
                name=name,
                bytes=size.expected_bytes,
                low_bytes=size.low_bytes,
                high_bytes=size.high_bytes,
                phases=phases,
                basis=Basis.MEASURED,
                formula=formula,
                source=_LOGS,
                counter=Counter.PROCESS,
            )
