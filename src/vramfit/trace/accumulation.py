"""Gradients that meet: added in place where the engine would, had it not seen a mode.

With modes on, the engine adds two gradients that arrive at one place into a third tensor; on a device it adds into the
first when nobody else holds that. Source: pytorch/pytorch:torch/csrc/autograd/input_buffer.cpp,
``can_accumulate_inplace``, and accumulate_grad.h for gradients of leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode

SUM = -2
"""Stands in place of a node's number for storages that hold such a sum."""


class Addition(Enum):
    """What an operator in a backward pass is."""

    OTHER = 0
    IN_PLACE = 1
    """The engine's own addition, which a device does in place."""
    OUT_OF_PLACE = 2
    """The engine's own, into new memory on a device too."""


class Born(Protocol):
    """A storage, and the node that made it."""

    seq: int


class Accumulation:
    """Tells the engine's additions from those of formulas, and which of them are in place."""

    def __init__(self, live: Mapping[int, Born]) -> None:
        """``live``: storages by key."""
        self._add = torch.ops.aten.add.Tensor
        self._live = live
        self._alone = counts_alone()

    def judge(self, func: Any, args: tuple[Any, ...]) -> Addition:
        """Return what an operator is."""
        if func is not self._add or len(args) != 2 or torch.is_grad_enabled():
            return Addition.OTHER
        node = torch._C._current_autograd_node()
        old, new = args
        if node is None or not isinstance(old, torch.Tensor) or not isinstance(new, torch.Tensor):
            return Addition.OTHER
        if old.shape != new.shape or old.dtype != new.dtype or not old.is_meta:
            return Addition.OTHER
        if type(node).__name__ == "AccumulateGrad":
            return Addition.IN_PLACE
        entry = self._live.get(old.untyped_storage()._cdata)
        if entry is None or entry.seq == node._sequence_nr():  # a formula adds what it has just computed
            return Addition.OTHER
        alone = all(count <= most for count, most in zip(counts(old), self._alone, strict=True))
        dense = old.is_contiguous() or _is_dense(old)
        return Addition.IN_PLACE if alone and dense else Addition.OUT_OF_PLACE


def counts(tensor: torch.Tensor) -> tuple[int, int]:
    """Return how often a tensor and its storage are held."""
    held = tensor._use_count() if hasattr(tensor, "_use_count") else 0
    return held, torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


@cache
def counts_alone() -> tuple[int, int]:
    """Return the counts of a gradient that only the engine holds, as a mode sees it in this version of PyTorch."""
    seen: list[tuple[int, int]] = []

    class Probe(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.add.Tensor and not torch.is_grad_enabled():
                seen.append(counts(args[0]))
            return func(*args, **(kwargs or {}))

    leaf = torch.empty(1, device="meta", requires_grad=True)
    with torch.enable_grad():
        x = leaf * 2.0
        out = x.sin() + x.cos()
    with Probe():
        out.backward()
    assert seen, "the engine adds the gradients of sin and cos"
    return seen[0]


def _is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's elements fill its span without holes or overlap, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True
