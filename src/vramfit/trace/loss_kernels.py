"""Losses whose single number lies in a storage as large as their input, as PyTorch's own kernels leave it.

The kernel first sizes its result for every element, then shrinks the shape, not the storage.
Source: pytorch/pytorch:aten/src/ATen/native/Loss.cpp (``mse_loss``, ``smooth_l1_loss``) and cuda/Loss.cu
(``binary_cross_entropy``); seen in the CPU profiler's memory events, whose code for ``mse_loss`` is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from vramfit.trace.machine import Machine

aten = torch.ops.aten
_NO_REDUCTION = 0


def loss_kernels() -> dict[Any, Callable[..., Any]]:
    """Return the kernels by overload of an operator."""
    return {
        aten.mse_loss.default: lambda x, target, reduction=1: _reduced(x, target, reduction),
        aten.smooth_l1_loss.default: lambda x, target, reduction=1, beta=1.0: _reduced(x, target, reduction),
        aten.binary_cross_entropy.default: lambda x, target, weight=None, reduction=1: _reduced(x, target, reduction),
    }


def _reduced(x: torch.Tensor, target: torch.Tensor, reduction: int) -> torch.Tensor:
    shape, dtype = torch.broadcast_shapes(x.shape, target.shape), torch.promote_types(x.dtype, target.dtype)
    full = torch.empty(shape, dtype=dtype, device="meta")
    return full if reduction == _NO_REDUCTION else full.reshape(-1)[:1].reshape(())


def unreduced_bytes(machine: Machine, args: tuple[Any, ...], out: torch.Tensor) -> Iterable[int]:
    """Yield every element's loss, which lives until it is added up. [B]"""
    if out.dim() == 0:
        yield math.prod(torch.broadcast_shapes(args[0].shape, args[1].shape)) * out.element_size()
