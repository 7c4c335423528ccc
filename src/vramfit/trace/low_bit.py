"""Four-bit layers and an eight-bit optimizer in plain PyTorch: what they keep is what such programs keep.

The arithmetic is simpler than that of bitsandbytes (even steps, not quantiles), the tensors kept are of its sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

WEIGHTS_PER_SCALE = 64
"""Weights that share one scale, as in bitsandbytes' 4-bit formats (bitsandbytes/functional.py, quantize_4bit)."""
STATES_PER_SCALE = 256
"""Optimizer states that share one scale (bitsandbytes/functional.py, quantize_blockwise, of optimizers)."""
SMALLEST_EIGHT_BIT = 4096
"""Elements below which states stay in fp32 (bitsandbytes/optim/optimizer.py, min_8bit_size)."""
STEPS = 7.5
"""Half the distance between the first and the last of 16 even steps."""

Unpack = Callable[["FourBitLinear"], torch.Tensor]


class FourBitLinear(nn.Module):
    """A frozen linear layer whose weights are stored in half a byte each, with one scale per 64 of them."""

    def __init__(self, inner: int, outer: int, bias: torch.Tensor | None, unpack: Unpack, like: torch.Tensor) -> None:
        """Make storage on the device and for the compute format of ``like``."""
        super().__init__()
        self.in_features, self.out_features = inner, outer
        count = inner * outer
        packed = torch.zeros(-(-count // 2), dtype=torch.uint8, device=like.device)
        scales = torch.ones(-(-count // WEIGHTS_PER_SCALE), dtype=torch.float32, device=like.device)
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scales", scales)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.compute_dtype, self.unpack = like.dtype, unpack

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the product with the unpacked weights, which are unpacked again in backward."""
        out: torch.Tensor = _Product.apply(x, self)
        return out if self.bias is None else out + self.bias


class _Product(torch.autograd.Function):
    """A product that keeps only the packed weights."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: FourBitLinear) -> torch.Tensor:
        ctx.layer = layer
        return torch.nn.functional.linear(x, layer.unpack(layer).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        return torch.matmul(gradient, ctx.layer.unpack(ctx.layer).to(gradient.dtype)), None


def unpack_in_torch(layer: FourBitLinear) -> torch.Tensor:
    """Return the weights of a layer, computed with ordinary operators and their temporaries."""
    halves = torch.stack((layer.packed >> 4, layer.packed & 15), dim=-1).reshape(-1)
    values = halves.to(layer.compute_dtype).sub_(STEPS)
    groups = values[: layer.in_features * layer.out_features].view(-1, WEIGHTS_PER_SCALE)
    return groups.mul_(layer.scales.unsqueeze(-1).to(values.dtype)).view(layer.out_features, layer.in_features)


def unpack_by_kernel(layer: FourBitLinear) -> torch.Tensor:
    """Return room for the weights of a layer, as one kernel that writes nothing else would fill it.

    Source of the rule: bitsandbytes/functional.py, dequantize_4bit: one output of the compute format, no temporaries.
    """
    return torch.empty(layer.out_features, layer.in_features, dtype=layer.compute_dtype, device=layer.packed.device)


@contextmanager
def linear_in_four_bits(unpack: Unpack, keep_outer: int | None) -> Iterator[None]:
    """Make every linear layer that is built inside a four-bit one at once, so that the whole is never held in 16 bits.

    One layer at a time is there in both forms, as when bitsandbytes loads one. ``keep_outer``: width of the head's
    output, which stays as it is.
    """
    plain = nn.Linear.__init__

    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        kept = type(self) is not nn.Linear or self.out_features == keep_outer
        if not kept and self.weight.numel() % WEIGHTS_PER_SCALE == 0:
            layer = FourBitLinear(self.in_features, self.out_features, self.bias, unpack, self.weight)
            self.__class__, self.__dict__ = FourBitLinear, layer.__dict__

    nn.Linear.__init__ = build
    try:
        yield
    finally:
        nn.Linear.__init__ = plain


class EightBitAdamW(torch.optim.Optimizer):
    """AdamW that keeps both moments in one byte each, with one scale per 256 of them."""

    def __init__(self, params: Any, lr: float = 1e-4, *, kernel: bool = False) -> None:
        """Take parameters; ``kernel``: states are updated without temporaries, as one fused kernel does."""
        super().__init__(params, {"lr": lr})
        self.kernel = kernel

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"])
        return loss

    def _update(self, parameter: torch.Tensor, lr: float) -> None:
        state = self.state[parameter]
        if not state:
            state["first"] = _Moment(parameter)
            state["second"] = _Moment(parameter)
        if self.kernel:
            parameter.add_(0, alpha=lr)
            return
        gradient = parameter.grad.reshape(-1).float()
        first = state["first"].read().lerp_(gradient, 0.1)
        second = state["second"].read().mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        change = first.div(second.sqrt().add_(1e-8)).view_as(parameter)
        parameter.add_(change.to(parameter.dtype), alpha=-lr)
        state["first"].write(first)
        state["second"].write(second)


class _Moment:
    """One moment of one parameter, in one byte per element."""

    def __init__(self, parameter: torch.Tensor) -> None:
        count = parameter.numel()
        self.count, self.small = count, count < SMALLEST_EIGHT_BIT
        stored = torch.float32 if self.small else torch.int8
        self.values = torch.zeros(count, dtype=stored, device=parameter.device)
        blocks = 0 if self.small else -(-count // STATES_PER_SCALE)
        self.scales = torch.zeros(blocks, dtype=torch.float32, device=parameter.device)

    def read(self) -> torch.Tensor:
        """Return the moment in fp32."""
        if self.small:
            return self.values.clone()
        spread = self.scales.repeat_interleave(STATES_PER_SCALE)[: self.count]
        return self.values.float().mul_(spread).div_(127)

    def write(self, values: torch.Tensor) -> None:
        """Keep a moment again."""
        if self.small:
            self.values.copy_(values)
            return
        padding = self.scales.numel() * STATES_PER_SCALE - self.count
        blocks = torch.nn.functional.pad(values, (0, padding)).view(-1, STATES_PER_SCALE)
        self.scales.copy_(blocks.abs().amax(dim=1))
        scaled = blocks.mul(127).div_(self.scales.clamp(min=1e-12).unsqueeze(-1))
        self.values.copy_(scaled.round_().view(-1)[: self.count])
