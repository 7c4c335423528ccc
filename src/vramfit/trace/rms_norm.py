"""RMSNorm as CUDA's fused kernel computes it: it keeps its input and one reciprocal deviation per row.

On the meta device PyTorch takes the operator apart, and autograd would keep what lies between.
Source: pytorch/pytorch:aten/src/ATen/native/cuda/layer_norm_kernel.cu, ``_fused_rms_norm_cuda``.
"""

from __future__ import annotations

from typing import Any

import torch


class FusedRmsNorm(torch.autograd.Function):
    """Memory of the fused kernel, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor | None, num_dims: int) -> torch.Tensor:
        """Make the result and the deviations, and keep what the backward pass reads."""
        kind = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
        x = x.contiguous()
        out = torch.empty_like(x)
        deviations = x.new_empty((*x.shape[: x.dim() - num_dims], *(1,) * num_dims), dtype=kind)
        ctx.save_for_backward(x, weight, deviations)
        ctx.shape = x.shape[x.dim() - num_dims :]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        """Make the gradients of input and weight."""
        x, weight, deviations = ctx.saved_tensors
        out = grads[0].contiguous()
        if not hasattr(torch.ops.aten, "_fused_rms_norm_backward"):
            return torch.empty_like(out), None if weight is None else torch.empty_like(weight), None
        mask = [ctx.needs_input_grad[0], weight is not None and ctx.needs_input_grad[1]]
        return (*torch.ops.aten._fused_rms_norm_backward(out, x, list(ctx.shape), deviations, weight, mask), None)
