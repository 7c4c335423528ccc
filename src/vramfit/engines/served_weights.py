"""Weights as torch servers hold them: projections of one input fused, each tensor in the allocator's segments.

SGLang, TGI and LMDeploy's PyTorch engine make one matrix of query, key and value, one of gate and up, and one
of each kind of expert matrix. What they print as loaded is the driver's free memory before less that after, hence
whole segments of torch's allocator, not bytes of tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from vramfit.layer_kind import GroupedQuery, Latent
from vramfit.memory.runtime import OWN_SEGMENT_BYTES, SEGMENT_STEP_BYTES, SHARED_SEGMENT_BYTES
from vramfit.memory.weights import tensor_bytes
from vramfit.result import ALWAYS, Basis, Counter, Item
from vramfit.shard import Shard
from vramfit.spec import Layer, Scheme, Tensor
from vramfit.units import MIB, round_up

SMALL_BYTES = MIB
SMALL_SEGMENT_BYTES = 2 * MIB
"""Tensors up to 1 MiB share segments of 2 MiB. Source: pytorch/pytorch:c10/core/AllocatorConfig.h, kSmallSize."""

FUSED = {
    "q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "q_a_proj": "qkv_a", "kv_a_proj_with_mqa": "qkv_a",
    "gate_proj": "gate_up", "up_proj": "gate_up", "w1": "gate_up", "w3": "gate_up",
}  # fmt: skip
"""Projections of the same input that become one matrix, by the last name before ``weight`` or ``bias``.
Source: sgl-project/sglang@v0.5.6:python/sglang/srt/models/llama.py and qwen2.py, stacked_params_mapping;
deepseek_v2.py, fused_qkv_a_proj_with_mqa."""


def allocations(shard: Shard) -> tuple[int, ...]:
    """Bytes of every tensor that a server allocates for the weights of a rank, in order of the layers. [B]"""
    model, scheme = shard.model, shard.model.scheme
    found = [tensor_bytes(t, scheme) for t in model.embeddings]
    kinds: dict[int, tuple[int, ...]] = {}
    for layer in model.layers:
        if id(layer) not in kinds:
            kinds[id(layer)] = tuple(_of_layer(layer, scheme))
        found.extend(kinds[id(layer)])
    found.extend(tensor_bytes(t, scheme) for t in model.head)
    for part in model.parts:
        if part.resident:
            found.extend(tensor_bytes(t, scheme) for t in part.tensors)
            for layer in part.layers:
                found.extend(_of_layer(layer, scheme))
    return tuple(found)


def _of_layer(layer: Layer, scheme: Scheme) -> Iterable[int]:
    fused: dict[str, int] = {}
    for tensor in (*layer.tensors, *layer.shared):
        key = _fused_name(tensor)
        fused[key] = fused.get(key, 0) + tensor_bytes(tensor, scheme)
    return fused.values()


def _fused_name(tensor: Tensor) -> str:
    """Name of the matrix that a tensor becomes a part of; its own where it stays alone.

    >>> from vramfit.formats import Role
    >>> _fused_name(Tensor(name="self_attn.k_proj.weight", shape=(2, 2), role=Role.LINEAR))
    'self_attn.qkv.weight'
    """
    parts = tensor.name.split(".")
    return ".".join(FUSED.get(part, part) for part in parts)


def reserved_bytes(sizes: Iterable[int]) -> int:
    """Bytes of the segments that torch reserves for tensors which all stay. [B]

        10 MiB and more:     each its own segment, rounded up to 2 MiB
        1 MiB up to 10 MiB:  segments of 20 MiB, filled in order
        up to 1 MiB:         segments of 2 MiB

    Source: pytorch/pytorch:c10/cuda/CUDACachingAllocator.cpp, get_allocation_size. Two matrices of 8 MiB share one
    segment, a third opens the next:

    >>> reserved_bytes([8 * MIB] * 3) // MIB, reserved_bytes([11 * MIB]) // MIB
    (40, 12)
    """
    own = 0
    shared: list[int] = []
    small = 0
    for size in sizes:
        block = round_up(size, 512)
        if block <= SMALL_BYTES:
            small += block
        elif block >= OWN_SEGMENT_BYTES:
            own += round_up(block, SEGMENT_STEP_BYTES)
        else:
            fits = next((i for i, free in enumerate(shared[-8:]) if free >= block), None)
            if fits is None:
                shared.append(SHARED_SEGMENT_BYTES - block)
            else:
                shared[max(0, len(shared) - 8) + fits] -= block
    return own + len(shared) * SHARED_SEGMENT_BYTES + round_up(small, SMALL_SEGMENT_BYTES)


def segment_ends(sizes: tuple[int, ...]) -> Item:
    """Make the item of what loading takes beyond the tensors: the ends of their segments. [B]"""
    ends = max(0, reserved_bytes(sizes) - sum(sizes))
    return Item(
        name="runtime/segment_ends",
        bytes=ends,
        low_bytes=0,
        high_bytes=ends,
        phases=ALWAYS,
        basis=Basis.DERIVED,
        formula="segments of fused weights less the weights",
        source="pytorch/pytorch:c10/cuda/CUDACachingAllocator.cpp, get_allocation_size",
        counter=Counter.RESERVED,
    )


def rotary_table_bytes(shard: Shard, positions: int | None, element_bytes: int) -> int:
    """Bytes of the sines and cosines that a rank keeps, one table for each distinct head width. [B]

        positions * rotary width * bytes per element

    Partly rotated heads are counted as wholly rotated: a small over-estimate.
    Source: sgl-project/sglang@v0.5.6:python/sglang/srt/layers/rotary_embedding.py, _compute_cos_sin_cache (fp32).
    """
    widths = {
        mixer.qk_rope_head_dim if isinstance(mixer, Latent) else mixer.head_dim
        for layer, _ in shard.model.groups
        for mixer in layer.mixers
        if isinstance(mixer, GroupedQuery | Latent)
    }
    return sum(prod((positions or 0, width, element_bytes)) for width in widths)
