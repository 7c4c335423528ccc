"""Functions that CUDA carries out otherwise than the meta device would: CUDA's path, with what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vramfit.trace.rms_norm import FusedRmsNorm
from vramfit.trace.view import Handler, View

_CUDNN_BATCH_LIMIT = 880_801
"""Largest batch that goes to cuDNN in training. Source: pytorch/pytorch:aten/src/ATen/native/Normalization.cpp."""
RMS_NORM_FUSED_SINCE = (2, 8)
"""``_fused_rms_norm`` has a CUDA kernel from 2.8 on; before it is a decomposition.
Source: pytorch/pytorch release notes 2.8, "fused RMSNorm"; the operator is missing in 2.7."""


class Substitutes:
    """Handlers for dropout and normalisation."""

    def __init__(self, view: View) -> None:
        """Answer for one view."""
        self.view = view

    def handlers(self) -> dict[Any, Handler]:
        """Return the handlers by function."""
        found: dict[Any, Handler] = {
            torch.dropout: self._dropout,
            torch.dropout_: self._dropout,
            torch.batch_norm: self._batch_norm,
            torch.softmax: self._half_to_float(torch.softmax, torch.ops.aten._softmax),
            torch.Tensor.softmax: self._half_to_float(torch.Tensor.softmax, torch.ops.aten._softmax),
            torch.log_softmax: self._half_to_float(torch.log_softmax, torch.ops.aten._log_softmax),
            torch.Tensor.log_softmax: self._half_to_float(torch.Tensor.log_softmax, torch.ops.aten._log_softmax),
        }
        if self.view.machine.torch_version >= RMS_NORM_FUSED_SINCE:
            found[torch.rms_norm] = self._rms_norm
        return found

    def _dropout(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Keep a mask of one byte per element, as the fused kernel does.

        Source: pytorch/pytorch:aten/src/ATen/native/Dropout.cpp, ``is_fused_kernel_acceptable``.
        """
        x, p, train = (*args, *(kwargs[k] for k in ("input", "p", "train") if k in kwargs))[:3]
        if not self.view.on_device(x) or not train or not 0 < p < 1 or not x.numel():
            return torch.dropout(x, p, train)
        return torch.native_dropout(x, p, True)[0]

    def _batch_norm(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Use cuDNN where PyTorch does: it keeps statistics and, in training, a reserve.

        Source: pytorch/pytorch:aten/src/ATen/native/Normalization.cpp, ``_select_batch_norm_backend``.
        """
        x, weight, bias, mean, var, training, momentum, eps, allowed = _named(
            args, kwargs, "input weight bias running_mean running_var training momentum eps cudnn_enabled"
        )
        if not self.view.on_device(x) or not (allowed and training and _cudnn_takes(x, weight, bias, mean, var)):
            return torch.batch_norm(x, weight, bias, mean, var, training, momentum, eps, allowed)
        return torch.cudnn_batch_norm(x, weight, bias, mean, var, True, momentum, eps)[0]

    def _rms_norm(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Keep one reciprocal deviation per row, as the fused kernel does."""
        x, shape, weight, eps = _named(args, kwargs, "input normalized_shape weight eps")
        if not self.view.on_device(x) or (weight is not None and weight.dtype != x.dtype):
            return torch.rms_norm(x, shape, weight, eps)
        return FusedRmsNorm.apply(x, weight, len(shape))

    def _half_to_float(self, func: Callable[..., Any], fused: Any) -> Handler:
        """Return a handler that turns float16 into a float32 result without a float32 copy.

        Source: pytorch/pytorch:aten/src/ATen/native/SoftMax.cpp, ``softmax``.
        """

        def handle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x = args[0] if args else kwargs["input"]
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if kwargs.get("dtype") is not torch.float32 or x.dtype != torch.float16 or not self.view.on_device(x):
                return self.view.run(func, args, kwargs)
            return fused(x, dim, True)

        return handle


def _cudnn_takes(x: Any, *others: Any) -> bool:
    """Return whether cuDNN normalises these tensors in training."""
    weight, bias, mean, var = others
    if any(t is None for t in (weight, bias)) or (mean is None) != (var is None):
        return False
    same = weight.dtype == bias.dtype and (x.dtype == weight.dtype or x.dtype in (torch.float16, torch.bfloat16))
    small = x.dim() > 2 or x.shape[0] <= _CUDNN_BATCH_LIMIT
    return bool((same and weight.dtype == torch.float32) or weight.dtype == x.dtype) and x.dim() <= 5 and small


def _named(args: tuple[Any, ...], kwargs: dict[str, Any], names: str) -> list[Any]:
    """Return arguments in the order of their names; None = not given."""
    words = names.split()
    return [*args, *(kwargs.get(name) for name in words[len(args) :])]
