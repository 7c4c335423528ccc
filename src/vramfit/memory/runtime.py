"""Runtime: what the process takes beside the model - context, kernels, workspaces, collectives, rounding."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.device import Device
from vramfit.engine import EngineProfile
from vramfit.request import Inference
from vramfit.result import ALWAYS, Basis, Counter, Item, Phase, exactly
from vramfit.shard import Shard
from vramfit.spec import Scheme, Tensor, layer_groups
from vramfit.units import GIB, MIB, round_up

CONTEXT_BASE_BYTES = 8 * MIB
CONTEXT_BYTES_PER_THREAD = 2.91 * MIB / 1536
"""Bytes per resident thread that a CUDA context sets aside, mostly stack. Fitted to bare contexts measured on
RTX 4060 Ti (34 SMs, 107 MiB) and RTX PRO 6000 (188 SMs, 555 MiB); predicts 247 MiB for the RTX 3090 (measured
256). On an H100 it gives 520 MiB where vLLM 0.19 prints 0.51 GiB before it loads weights."""

LARGEST_KNOWN = (192, 2048)
"""Multiprocessors and threads of the largest card, for a device that is not named: an upper bound."""

KERNEL_BYTES = 110 * MIB
"""Code of the kernels a usual torch process loads lazily: 555 MiB bare, 665 MiB with torch on one RTX PRO 6000."""

COLLECTIVE_BYTES = GIB
"""What the first communicator takes on each rank: vLLM 0.19 on H100 prints 0.51 GiB before weights alone and 1.43 to
1.55 GiB with two to eight ranks (llm-d-incubation/llm-d-planner). Low: 342 MB by aiconfigurator's table for two ranks;
high: 1.6 GB in NVIDIA/nccl#864."""

WORKSPACE_BYTES = 8_519_680
"""cuBLAS workspace by default: 2 x 4096 KiB + 8 x 16 KiB."""
WORKSPACE_BYTES_FROM_HOPPER = 32 * MIB
"""cuBLAS workspace on compute capability 9.0 and later.
Source: pytorch/pytorch:aten/src/ATen/cuda/CublasHandlePool.cpp."""

OWN_SEGMENT_BYTES = 10 * MIB
SEGMENT_STEP_BYTES = 2 * MIB
SHARED_SEGMENT_BYTES = 20 * MIB
"""From 10 MiB a tensor gets its own segment, rounded up to 2 MiB; smaller ones share segments of 20 MiB.
Source: pytorch/pytorch:c10/cuda/CUDACachingAllocator.cpp, kMinLargeAlloc, kRoundLarge, kLargeBuffer."""


def context_bytes(device: Device | None) -> int:
    """Memory of one CUDA context. [B]

        8 MiB + 2.91 MiB / 1536 * multiprocessors * threads per multiprocessor

    Holds with lazy kernel loading (CUDA 12.2 and later). An unnamed device counts as the largest known.
    """
    units, threads = LARGEST_KNOWN
    if device is not None and device.multiprocessors and device.threads_per_multiprocessor:
        units, threads = device.multiprocessors, device.threads_per_multiprocessor
    return CONTEXT_BASE_BYTES + int(CONTEXT_BYTES_PER_THREAD * units * threads)


def runtime(shard: Shard, device: Device | None) -> Iterable[Item]:
    """Yield what every process on a GPU takes beside the model, on one rank. [B]

    CUDA context, loaded kernels, cuBLAS workspace, and collectives when the rank has peers.
    """
    known = device is not None and device.vendor == "nvidia" and bool(device.multiprocessors)
    context = context_bytes(device)
    yield Item(
        name="runtime/cuda_context",
        bytes=context,
        low_bytes=context * 8 // 10,
        high_bytes=context * 12 // 10,
        phases=ALWAYS,
        basis=Basis.MEASURED if known else Basis.ASSUMED,
        formula=_context_formula(device) if known else "no NVIDIA card named: as on the largest one",
        source="fit to measured contexts, see memory/runtime.py, CONTEXT_BYTES_PER_THREAD",
        counter=Counter.PROCESS,
    )
    yield Item(
        name="runtime/loaded_kernels",
        bytes=KERNEL_BYTES,
        low_bytes=KERNEL_BYTES // 2,
        high_bytes=2 * KERNEL_BYTES,
        phases=ALWAYS,
        basis=Basis.MEASURED,
        formula="555 MiB bare, 665 MiB with torch's kernels on one card",
        source="see memory/runtime.py, KERNEL_BYTES",
        counter=Counter.PROCESS,
    )
    yield exactly(
        "runtime/cublas_workspace",
        _workspace_bytes(device),
        (Phase.PREFILL, Phase.SAMPLE, Phase.DECODE),
        "32 MiB from Hopper on, 2 x 4096 KiB + 8 x 16 KiB before",
        "pytorch/pytorch:aten/src/ATen/cuda/CublasHandlePool.cpp",
        Basis.MEASURED,
    )
    if shard.num_peers:
        yield Item(
            name="runtime/collectives",
            bytes=COLLECTIVE_BYTES,
            low_bytes=342 * 10**6,
            high_bytes=1600 * 10**6,
            phases=ALWAYS,
            basis=Basis.MEASURED,
            formula="NCCL buffers of one communicator: 1.43 to 1.55 GiB before weights with peers, 0.51 GiB without",
            source="llm-d-incubation/llm-d-planner (vLLM 0.19, H100); NVIDIA/nccl#864",
            counter=Counter.PROCESS,
        )


def _context_formula(device: Device | None) -> str:
    assert device is not None
    return f"8 MiB + 2.91 MiB / 1536 x {device.multiprocessors} SMs x {device.threads_per_multiprocessor} threads"


def _workspace_bytes(device: Device | None) -> int:
    """Return the larger workspace for Hopper, later ones and unknown devices."""
    capability = device.compute_capability if device is not None else None
    if capability is None or int(capability.split(".")[0]) >= 9:
        return WORKSPACE_BYTES_FROM_HOPPER
    return WORKSPACE_BYTES


def allocator_rounding(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield memory that the caching allocator reserves and cannot use: the ends of segments. [B]

        sum over weights of 10 MiB or more of (size rounded up to 2 MiB - size), and a part-filled shared segment

    Experts of a layer that pass one grouped kernel lie in one tensor. Low: weights loaded into one prepared
    block, as transformers does since 4.50; high: two more shared segments for what a forward pass allocates.
    Blocks that are free again are not counted: they are given back when memory runs short.
    """
    del workload
    pipeline = [part for part in shard.model.parts if part.component]
    stacks = (shard.model.groups, *(layer_groups(part.layers) for part in pipeline))
    tensors = [(t, times) for groups in stacks for layer, times in groups for t in layer.tensors]
    tensors.extend((t, 1) for part in pipeline for t in part.tensors)
    wasted = sum(times * _segment_end(tensor, shard.model.scheme, engine) for tensor, times in tensors)
    yield Item(
        name="runtime/allocator_rounding",
        bytes=wasted + SHARED_SEGMENT_BYTES,
        low_bytes=0,
        high_bytes=wasted + 3 * SHARED_SEGMENT_BYTES,
        phases=ALWAYS,
        basis=Basis.DERIVED,
        formula=f"{wasted:,} B at the ends of weights' own segments + one part-filled segment of 20 MiB",
        source="pytorch/pytorch:c10/cuda/CUDACachingAllocator.cpp",
        counter=Counter.RESERVED,
    )


def _segment_end(tensor: Tensor, scheme: Scheme, engine: EngineProfile) -> int:
    """Bytes that the segments of a tensor (and its copies) have beyond its size; small tensors share segments. [B]"""
    fused = tensor.copies > 1 and engine.experts_at_once
    size = scheme.format_of(tensor).tensor_size(tensor.shape) * (tensor.copies if fused else 1)
    if size < OWN_SEGMENT_BYTES:
        return 0
    return (round_up(size, SEGMENT_STEP_BYTES) - size) * (1 if fused else tensor.copies)
