"""Operators that have no kernel on the meta device, or one that differs from CUDA's: what they return there.

Some only write in place. Some have results whose size depends on data: for those the caller's hint decides, and
without one they are refused with the line of the program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from vramfit.trace.values import Values

Kernel = Callable[..., Any]
aten = torch.ops.aten
_CONVOLUTION_DIMS = {4: torch.channels_last, 5: torch.channels_last_3d}


class Kernels:
    """Kernels of one virtual GPU, by operator."""

    def __init__(self, values: Values) -> None:
        """Ask ``values`` where data decides."""
        self.values = values

    def table(self) -> dict[Any, Kernel]:
        """Return the kernels by overload of an operator."""
        found: dict[Any, Kernel] = {
            aten.nonzero.default: self._nonzero,
            aten.index.Tensor: self._index,
            aten.masked_select.default: self._masked_select,
            aten._unique2.default: self._unique,
            aten.unique_dim.default: self._unique_dim,
            aten.unique_consecutive.default: self._unique_consecutive,
            aten.repeat_interleave.Tensor: self._repeat_interleave,
            aten.bincount.default: self._bincount,
            aten._local_scalar_dense.default: self.values.answer,
            aten.convolution.default: _convolution,
            aten.convolution_backward.default: _convolution_backward,
        }
        for name in ("_fused_adam_", "_fused_adamw_", "_fused_sgd_", "_fused_adagrad_"):
            operator = getattr(aten, name, None)
            for overload in operator.overloads() if operator is not None else ():
                found[getattr(operator, overload)] = _in_place
        return found

    def _nonzero(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_empty((self.values.count("nonzero", x.numel()), x.dim()), dtype=torch.int64)

    def _index(self, x: torch.Tensor, indices: list[Any]) -> torch.Tensor:
        """Index; a mask first becomes the places where it is true."""
        if not any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
            return aten.index.Tensor(x, indices)
        places: list[Any] = []
        for i in indices:
            if i is None or i.dtype not in (torch.bool, torch.uint8):
                places.append(i)
                continue
            found = i.new_empty((self.values.count("index", i.numel()),), dtype=torch.int64)
            places += [found] * i.dim()
        return aten.index.Tensor(x, places)

    def _masked_select(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        most = math.prod(torch.broadcast_shapes(x.shape, mask.shape))
        return x.new_empty((self.values.count("masked_select", most),))

    def _unique(self, x: torch.Tensor, *given: bool, **named: bool) -> Any:
        inverse, counts = _flags(given[1:], named)
        return self._unique_of(x, (self.values.count("unique", x.numel()),), x.shape if inverse else None, counts)

    def _unique_dim(self, x: torch.Tensor, dim: int, *given: bool, **named: bool) -> Any:
        inverse, counts = _flags(given[1:], named)
        found = self.values.count("unique_dim", x.shape[dim])
        shape = (*x.shape[:dim], found, *x.shape[dim + 1 :])
        return self._unique_of(x, shape, (x.shape[dim],) if inverse else None, counts, found)

    def _unique_consecutive(self, x: torch.Tensor, *given: Any, **named: Any) -> Any:
        inverse, counts = _flags(given, named)
        return self._unique_of(
            x, (self.values.count("unique_consecutive", x.numel()),), x.shape if inverse else None, counts
        )

    def _unique_of(self, x: torch.Tensor, shape: Any, inverse: Any, counts: bool, found: int | None = None) -> Any:
        number = shape[0] if found is None else found
        return (
            x.new_empty(shape),
            x.new_empty(inverse if inverse is not None else (0,), dtype=torch.int64),
            x.new_empty((number if counts else 0,), dtype=torch.int64),
        )

    def _repeat_interleave(self, repeats: torch.Tensor, *, output_size: int | None = None) -> torch.Tensor:
        size = self.values.count("repeat_interleave", repeats.numel()) if output_size is None else output_size
        return repeats.new_empty((size,))

    def _bincount(self, x: torch.Tensor, weights: Any = None, minlength: int = 0) -> torch.Tensor:
        size = minlength or self.values.count("bincount", x.numel())
        return x.new_empty((size,), dtype=torch.int64 if weights is None else torch.float64)


def _flags(given: tuple[Any, ...], named: dict[str, Any]) -> tuple[bool, bool]:
    """Return whether the inverse and the counts are asked for."""
    inverse = given[0] if given else named.get("return_inverse", False)
    return bool(inverse), bool(given[1] if len(given) > 1 else named.get("return_counts", False))


def _in_place(*_: Any, **__: Any) -> None:
    """Write into what was given: no memory."""


def _channels_last(*tensors: torch.Tensor) -> torch.memory_format | None:
    """Return the format in which cuDNN computes: channels last when some tensor is so.

    Source: pytorch/pytorch:aten/src/ATen/native/ConvUtils.h, ``cudnn_conv_suggest_memory_format``.
    """
    for tensor in tensors:
        wanted = _CONVOLUTION_DIMS.get(tensor.dim())
        if wanted is None or tensor.is_contiguous():
            continue
        if tensor.is_contiguous(memory_format=wanted):
            return wanted
    return None


def _as(tensor: Any, wanted: torch.memory_format) -> Any:
    if not isinstance(tensor, torch.Tensor) or _CONVOLUTION_DIMS.get(tensor.dim()) != wanted:
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=wanted)


def _convolution(x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
    out = aten.convolution.default(x, weight, *rest)
    wanted = _channels_last(x, weight)
    return out if wanted is None else _as(out, wanted)


def _convolution_backward(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> Any:
    found = aten.convolution_backward.default(grad, x, weight, *rest)
    wanted = _channels_last(x, weight)
    return found if wanted is None else (_as(found[0], wanted), _as(found[1], wanted), found[2])
