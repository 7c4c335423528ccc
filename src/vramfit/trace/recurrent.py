"""Recurrent layers as cuDNN computes them: all time steps at once, with a reserve that the backward pass reads.

Source: pytorch/pytorch:aten/src/ATen/native/cudnn/RNN.cpp; torch/nn/modules/rnn.py, ``flatten_parameters``.
"""

from __future__ import annotations

from typing import Any

import torch

from vramfit.trace.view import Handler, View

aten = torch.ops.aten
_MODES = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}
"""Numbers of ``cudnnRNNMode_t``."""
RESERVED = {0: 1, 1: 1, 2: 6, 3: 5}
"""Values of the hidden size that are reserved per step, layer and direction: an LSTM's four gates, cell and output; a
GRU's three gates, the candidate's recurrent share and output. Reasoned from what its backward pass reads; cuDNN does
not document it."""


class Recurrent:
    """Handlers and kernels for LSTM, GRU and plain recurrences."""

    def __init__(self, view: View) -> None:
        """Answer for one view."""
        self.view = view

    def handlers(self) -> dict[Any, Handler]:
        """Return the handlers by function."""
        found: dict[Any, Handler] = {
            getattr(torch._C._VariableFunctions, name): self._layer(name, mode) for name, mode in _MODES.items()
        }
        found[torch._C._VariableFunctions._use_cudnn_rnn_flatten_weight] = lambda args, kwargs: True
        return found

    def kernels(self) -> dict[Any, Any]:
        """Return what the operators of cuDNN do on the meta device."""
        return {
            aten._cudnn_rnn.default: _forward,
            aten._cudnn_rnn_backward.default: _backward,
            aten._cudnn_rnn_flatten_weight.default: _flatten,
        }

    def _layer(self, name: str, mode: int) -> Handler:
        real = getattr(torch._C._VariableFunctions, name)

        def handle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not self.view.on_device(args[0]) or not torch.backends.cudnn.enabled:
                return real(*args, **kwargs)
            return self._through_cudnn(args, mode)

        return handle

    def _through_cudnn(self, args: tuple[Any, ...], mode: int) -> Any:
        packed = isinstance(args[1], torch.Tensor) and isinstance(args[3], list | tuple)
        if packed:
            x, sizes, hidden, weights, biases, layers, dropout, train, both = args
            batch_sizes, batch_first = sizes.tolist(), False
        else:
            x, hidden, weights, biases, layers, dropout, train, both, batch_first = args
            batch_sizes = []
        state, cell = (hidden[0], hidden[1]) if mode == _MODES["lstm"] else (hidden, None)
        if torch.is_autocast_enabled("cuda"):
            kind = torch.get_autocast_dtype("cuda")
            x, state, weights = x.to(kind), state.to(kind), [w.to(kind) for w in weights]
            cell = None if cell is None else cell.to(kind)
        size = weights[1].shape[-1] if mode != _MODES["lstm"] else weights[0].shape[0] // 4
        projected = state.shape[-1] if state.shape[-1] != size else 0
        out, state, cell, _, _ = aten._cudnn_rnn(
            x, list(weights), 4 if biases else 2, None, state, cell, mode, size, projected, layers, batch_first,
            dropout, train, both, batch_sizes, None,
        )  # fmt: skip
        return (out, state, cell) if mode == _MODES["lstm"] else (out, state)


def _forward(*args: Any) -> Any:
    x, weights, _, _, hx, cx, mode, hidden, projected, layers, _, _, train, both, _, _ = args
    directions = 2 if both else 1
    out = x.new_empty((*x.shape[:-1], (projected or hidden) * directions))
    steps = x.numel() // x.shape[-1]
    size = steps * hidden * layers * directions * RESERVED[mode] * x.element_size() if train else 0
    flat = x.new_empty((sum(w.numel() for w in weights),)) if _scattered(weights) else x.new_empty((0,))
    cell = torch.empty_like(cx) if cx is not None else x.new_empty((0,))
    return out, torch.empty_like(hx), cell, x.new_empty((size,), dtype=torch.uint8), flat


def _scattered(weights: Any) -> bool:
    """Return whether weights do not lie in one storage, so that cuDNN's are copied together for the call."""
    return len({w.untyped_storage()._cdata for w in weights}) > 1


def _backward(*args: Any) -> Any:
    x, weights, _, _, hx, cx = args[:6]
    total = x.new_empty((sum(w.numel() for w in weights),))
    grads, start = [], 0
    for weight in weights:
        grads.append(total[start : start + weight.numel()].view(weight.shape))
        start += weight.numel()
    cell = torch.empty_like(cx) if cx is not None else x.new_empty((0,))
    return torch.empty_like(x), torch.empty_like(hx), cell, grads


def _flatten(weights: Any, *rest: Any) -> Any:
    """Lay weights into one buffer, and let them be views of it."""
    total = weights[0].new_empty((sum(w.numel() for w in weights),))
    start = 0
    for weight in weights:
        weight.set_(total[start : start + weight.numel()].view(weight.shape))
        start += weight.numel()
    return total
