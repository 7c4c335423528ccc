"""Every tensor that one rank trains or reads: how much of it lies here, and in which format.

The list from which weights, gradients and optimizer states are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from vramfit.formats import StorageFormat
from vramfit.framework import Sharding
from vramfit.shard import Shard
from vramfit.spec import ModelSpec, Tensor, layer_groups
from vramfit.units import ceil_div

BY_FIRST_AXIS = frozenset({Sharding.FSDP2})
"""Ways to divide every tensor by its first axis; the others divide a flat buffer."""
FLAT = frozenset({Sharding.FSDP1, Sharding.ZERO, Sharding.MEGATRON})
"""Ways to lay tensors out in flat buffers, so that no tensor is rounded up for itself."""


@dataclass(frozen=True, slots=True)
class Held:
    """One kind of tensor on this rank."""

    tensor: Tensor
    times: int
    """How many layers have it; beside ``tensor.copies``."""
    format: StorageFormat
    ranks: int
    """Ranks that divide its states."""

    @property
    def trained(self) -> bool:
        """Whether the optimizer moves it."""
        return not self.tensor.frozen

    @property
    def count(self) -> int:
        """Tensors of this kind."""
        return self.times * self.tensor.copies

    @property
    def parameters(self) -> int:
        """Elements of all of them, whole."""
        return self.count * prod(self.tensor.shape)


def held_tensors(shard: Shard) -> tuple[Held, ...]:
    """Return the tensors of a rank in order of the model, equal ones together."""
    return tuple(_held(shard.model, shard))


def held_of(tensors: Iterable[Tensor], shard: Shard) -> tuple[Held, ...]:
    """Return the same for some tensors, once each."""
    return tuple(_one(t, 1, shard) for t in tensors)


def _held(model: ModelSpec, shard: Shard) -> Iterator[Held]:
    for t in model.embeddings:
        yield _one(t, 1, shard)
    for layer, times in model.groups:
        for t in layer.tensors:
            yield _one(t, times, shard)
    for t in model.head:
        yield _one(t, 1, shard)
    for part in model.parts:
        if part.resident:
            for t in part.tensors:
                yield _one(t, 1, shard)
            for layer, times in layer_groups(part.layers):
                for t in layer.tensors:
                    yield _one(t, times, shard)


def _one(tensor: Tensor, times: int, shard: Shard) -> Held:
    ranks = shard.expert_state_ranks if tensor.experts else shard.state_ranks
    return Held(tensor, times, shard.model.scheme.format_of(tensor), ranks)


def local_shape(tensor: Tensor, ranks: int, sharding: Sharding) -> tuple[int, ...]:
    """Return what one of ``ranks`` holds of one tensor; of a flat buffer a vector.

    The worst rank: fully_shard gives the first ranks ``ceil(rows / ranks)`` rows
    (pytorch/pytorch:torch/distributed/fsdp/_fully_shard/_fsdp_param.py).
    """
    if ranks == 1 or not tensor.shape:
        return tensor.shape
    if sharding in BY_FIRST_AXIS:
        return (ceil_div(tensor.shape[0], ranks), *tensor.shape[1:])
    return (ceil_div(prod(tensor.shape), ranks),)


def local_elements(held: Held, ranks: int, sharding: Sharding) -> int:
    """Elements of all tensors of a kind that one of ``ranks`` holds."""
    if ranks > 1 and held.tensor.copies > 1:  # experts lie in one tensor, whose first axis is the expert
        rows = ceil_div(held.tensor.copies * held.tensor.shape[0], ranks)
        return held.times * rows * prod(held.tensor.shape[1:])
    return held.count * prod(local_shape(held.tensor, ranks, sharding))


def stored_bytes(held: Held, ranks: int, sharding: Sharding) -> int:
    """Bytes of a kind of tensor as one of ``ranks`` stores it: whole blocks, scales included. [B]"""
    whole = held.count * held.format.tensor_size(held.tensor.shape)
    if ranks == 1:
        return whole
    if not held.format.is_plain:
        return ceil_div(whole, ranks)
    return local_elements(held, ranks, sharding) * held.format.block_bytes
