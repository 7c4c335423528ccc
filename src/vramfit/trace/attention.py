"""``scaled_dot_product_attention`` by the kernel that the card would take, with what that kernel keeps."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from vramfit.trace.attention_choice import Backend, Call, Kernels, choose
from vramfit.trace.view import Handler, View

_FLASH_STEP = 8
"""Flash pads heads to multiples of 8."""
_BIAS_STEP = 16
"""The efficient kernel wants rows of the mask padded to 16 elements.
Source: pytorch/pytorch:aten/src/ATen/native/transformers/attention.cpp, ``pad_bias``."""
_BACKENDS = {0: Backend.MATH, 1: Backend.FLASH, 2: Backend.EFFICIENT, 3: Backend.CUDNN}
"""Numbers of PyTorch's ``SDPBackend``."""


class _Options(NamedTuple):
    """How to attend."""

    dropout: float
    causal: bool
    scale: float | None
    grouped: bool
    training: bool


class Attention:
    """The handler for attention."""

    def __init__(self, view: View) -> None:
        """Answer for one view; an order of backends set later is the user's."""
        self.view = view
        self._own_order = _order()

    def handlers(self) -> dict[Any, Handler]:
        """Return the handler by function."""
        return {F.scaled_dot_product_attention: self._attend}

    def _attend(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        q, k, v = (given[name] for name in names[:3])
        mask, dropout, causal = given.get("attn_mask"), given.get("dropout_p") or 0.0, bool(given.get("is_causal"))
        scale, grouped = given.get("scale"), bool(given.get("enable_gqa"))
        if not self.view.on_device(q):
            return F.scaled_dot_product_attention(*args, **kwargs)
        training = torch.is_grad_enabled() and any(
            t.requires_grad for t in (q, k, v, mask) if isinstance(t, torch.Tensor)
        )
        call = Call(
            dtype=str(q.dtype).removeprefix("torch."),
            query=tuple(q.shape),
            key=tuple(k.shape),
            value=tuple(v.shape),
            masked=mask is not None,
            causal=causal,
            dropout=dropout,
            training=training,
            grouped=grouped,
            last_stride_one=all(t.stride(-1) == 1 for t in (q, k, v)),
        )
        backend = choose(call, self._kernels())
        if backend is None:
            raise RuntimeError("No available kernel. Aborting execution.")
        options = _Options(dropout, causal, scale, grouped, training)
        if backend is Backend.FLASH:
            return _flash(q, k, v, options)
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask.logical_not(), -math.inf)
        if backend is Backend.EFFICIENT:
            return _efficient(q, k, v, _padded(mask, q, k), options)
        if backend is Backend.CUDNN:
            run = torch.ops.aten._scaled_dot_product_cudnn_attention
            bias = None if mask is None else mask.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
            return run(q, k, v, bias, training, dropout, causal, False, scale=scale)[0]
        return _math(q, k, v, mask, options)

    def _kernels(self) -> Kernels:
        machine = self.view.machine
        flags = {
            Backend.FLASH: torch._C._get_flash_sdp_enabled(),
            Backend.EFFICIENT: torch._C._get_mem_efficient_sdp_enabled(),
            Backend.MATH: torch._C._get_math_sdp_enabled(),
            Backend.CUDNN: torch._C._get_cudnn_sdp_enabled(),
        }
        order = _order()
        return Kernels(
            capability=machine.capability,
            torch_version=machine.torch_version,
            cuda_version=machine.cuda_version,
            cudnn_version=machine.cudnn_version,
            allowed=frozenset(backend for backend, on in flags.items() if on),
            order=order if order != self._own_order else None,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )


def _flash(q: Any, k: Any, v: Any, how: _Options) -> Any:
    size = q.shape[-1]
    missing, scale = -size % _FLASH_STEP, how.scale
    if missing:
        scale = scale if scale is not None else 1 / math.sqrt(size)
        q, k, v = (F.pad(t, (0, missing)) for t in (q, k, v))
    out = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, how.dropout, how.causal, False, scale=scale)[0]
    return out[..., :size] if missing else out


def _efficient(q: Any, k: Any, v: Any, bias: Any, how: _Options) -> Any:
    run = torch.ops.aten._scaled_dot_product_efficient_attention
    return run(q, k, v, bias, how.training, how.dropout, how.causal, scale=how.scale)[0]


def _padded(mask: Any, q: Any, k: Any) -> Any:
    """Return the mask as the efficient kernel takes it: rows padded, seen by every head."""
    if mask is None:
        return None
    length = mask.shape[-1]
    if length % _BIAS_STEP and length > 1:
        mask = F.pad(mask, (0, -length % _BIAS_STEP))[..., :length]
    return mask.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])


def _order() -> tuple[Backend, ...] | None:
    """Return PyTorch's present order of backends; None = this version has none."""
    get = getattr(torch._C, "_get_sdp_priority_order", None)
    return None if get is None else tuple(_BACKENDS[number] for number in get() if number in _BACKENDS)


def _math(q: Any, k: Any, v: Any, mask: Any, how: _Options) -> Any:
    """Attend by plain operators; with dropout written out, because CUDA's keeps one byte per element."""
    if not how.dropout:
        run = torch.ops.aten._scaled_dot_product_attention_math
        return run(q, k, v, mask, 0.0, how.causal, None, scale=how.scale, enable_gqa=how.grouped)[0]
    kind = q.dtype
    if kind in (torch.float16, torch.bfloat16) and not torch._C._get_math_sdp_allow_fp16_bf16_reduction():
        q, k, v = q.float(), k.float(), v.float()
    if how.causal:
        allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        mask = torch.zeros_like(allowed, dtype=q.dtype).masked_fill_(allowed.logical_not(), -math.inf)
    if how.grouped and k.shape[-3] != q.shape[-3]:
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
        v = v.repeat_interleave(q.shape[-3] // v.shape[-3], -3)
    each = math.sqrt(how.scale if how.scale is not None else 1 / math.sqrt(q.shape[-1]))
    scores = (q * each) @ (k.transpose(-2, -1) * each)
    if mask is not None:
        scores = scores.add_(mask)
    weights = torch.ops.aten._safe_softmax(scores, -1)
    weights = torch.native_dropout(weights, how.dropout, True)[0]
    return (weights @ v).to(kind)
