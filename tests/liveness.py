"""Runs a real PyTorch model on meta tensors and reads what is alive: the witness of what autograd keeps."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

UNSHARED = 3
"""Uses of a storage, seen from inside the dispatcher, that nobody but autograd's sum refers to."""


class Alive(TorchDispatchMode):  # type: ignore[misc] # torch is not typed here
    """Counts storages from their birth to their death; sums of gradients are made in place, as without a mode."""

    def __init__(self) -> None:
        """Start with nothing alive."""
        super().__init__()
        self.live = self.most = 0
        self.known: dict[int, tuple[Any, int]] = {}
        self.backward = False

    def ignore(self, module: torch.nn.Module) -> None:
        """Leave weights and buffers out."""
        for tensor in (*module.parameters(), *module.buffers()):
            storage = tensor.untyped_storage()
            self.known[storage._cdata] = (storage, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count what is new."""
        if self.backward and func is torch.ops.aten.add.Tensor and self._is_sum(*args[:2]):
            old = args[0].untyped_storage()._cdata
            out = func(*args, **(kwargs or {}))
            self._drop(old)
            self._born(out)
            return out
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._born(tensor)
        return out

    def _is_sum(self, old: Any, new: Any) -> bool:
        if torch.is_grad_enabled() or not isinstance(new, torch.Tensor) or old.shape != new.shape:
            return False  # with gradients enabled a checkpoint runs its forward again
        key = old.untyped_storage()._cdata
        return key in self.known and torch._C._storage_Use_Count(key) <= UNSHARED

    def _born(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if size and key not in self.known:
            self.live += size
            self.most = max(self.most, self.live)
            self.known[key] = (weakref.ref(storage, lambda _: self._drop(key)), size)

    def _drop(self, key: int) -> None:
        self.live -= self.known.pop(key, (None, 0))[1]


class AsOnCuda(TorchFunctionMode):  # type: ignore[misc] # torch is not typed here
    """Takes the path of CUDA where it differs: dropout with a mask of bytes, attention by a kernel, masks all true."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function as CUDA would."""
        kwargs = kwargs or {}
        if func in {torch.Tensor.__bool__, torch.Tensor.item}:
            return True
        if func is F.dropout:
            share = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            training = kwargs.get("training", args[2] if len(args) > 2 else True)
            return torch.ops.aten.native_dropout(args[0], share, True)[0] if training and 0 < share < 1 else args[0]
        if func is F.scaled_dot_product_attention:
            return attention(*args, **kwargs)
        return func(*args, **kwargs)


def attention(
    q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, **options: Any
) -> Any:
    """Choose a kernel as PyTorch does on an Ampere card: flash for 16 bit without a mask, else memory-efficient."""
    if attn_mask is None and q.dtype in {torch.float16, torch.bfloat16} and q.shape[-1] == v.shape[-1]:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal)[0]
    if options.get("enable_gqa") and k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    options = {"attn_bias": attn_mask, "compute_log_sumexp": True, "dropout_p": dropout_p, "is_causal": is_causal}
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, **options)[0]


_engine = torch.autograd._engine_run_backward


def _as_on_cuda(*args: Any, **kwargs: Any) -> Any:
    """Run backward with the mode on: it is off inside its own handler, and checkpoints run the forward again."""
    with AsOnCuda():
        return _engine(*args, **kwargs)


@dataclass
class Seen:
    """What was read of a step. [B]"""

    before: list[int] = field(default_factory=list)
    """Alive when each block began."""
    after: list[int] = field(default_factory=list)
    """Alive when it had ended."""
    forward: list[int] = field(default_factory=list)
    """Most that was alive in each block's forward."""
    backward: list[int] = field(default_factory=list)
    """Most that was alive from the moment that the gradient of a block's output was there, last block first; the
    first entry is the head's."""
    loss: int = 0
    """Most from the end of the last block to the end of the forward pass."""
    end: int = 0
    """Alive after the backward pass."""


def watch(model: torch.nn.Module, blocks: Any, run: Callable[[], Any]) -> Seen:
    """Run a model's forward (``run`` returns its output, with a loss) and backward, and read what is alive."""
    seen, alive = Seen(), Alive()
    alive.ignore(model)

    def taken() -> int:
        most, alive.most = alive.most, alive.live
        return most

    def begin(*_: Any) -> None:
        taken()
        seen.before.append(alive.live)

    def end(_module: Any, _inputs: Any, output: Any) -> None:
        seen.forward.append(taken())
        seen.after.append(alive.live)
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        if hidden.requires_grad:
            hidden.register_hook(lambda _: seen.backward.append(taken()))

    for block in blocks:
        block.register_forward_pre_hook(begin)
        block.register_forward_hook(end)
    with mock.patch.object(torch.autograd, "_engine_run_backward", _as_on_cuda), alive, AsOnCuda():
        output = run()
        seen.loss = taken()
        alive.backward = True
        output.loss.backward()
        seen.backward.append(taken())
        seen.end = alive.live
    return seen
