"""Everything of PyTorch that is told of the virtual GPU while it is active: handlers, hooks, replaced functions."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from vramfit.trace.attention import Attention
from vramfit.trace.parts import Parts
from vramfit.trace.replacements import Replacements
from vramfit.trace.substitutes import Substitutes
from vramfit.trace.tensors import Tensors
from vramfit.trace.view import META, as_device


class Surroundings:
    """Installs a virtual GPU into PyTorch, so that everything can be undone."""

    def __init__(self, gpu: Parts) -> None:
        """Serve one virtual GPU."""
        self.gpu = gpu

    def install(self, replace: Replacements, stack: ExitStack) -> None:
        """Bring in handlers, hooks and replacements; what they need to be undone goes on the stack."""
        import torch._dynamo  # noqa: PLC0415 - optimizers import it, and it must see PyTorch as it is

        gpu = self.gpu
        view, progress = gpu.view, gpu.progress
        view.add(Tensors(view, gpu.values).handlers())
        view.add(Substitutes(view).handlers())
        view.add(Attention(view).handlers())
        view.add({torch.autograd.backward: self._backward, torch.autograd.grad: self._grad})
        hooks = (
            register_module_forward_pre_hook(progress.module_begins),
            register_module_forward_hook(progress.module_ends, always_call=True),
            register_optimizer_step_pre_hook(progress.optimizer_begins),
            register_optimizer_step_post_hook(progress.optimizer_ends),
        )
        for hook in hooks:
            stack.callback(hook.remove)
        answers = gpu.answers.answers()
        replace.set_all(torch.cuda, answers)
        replace.set_all(torch.cuda.memory, answers)
        replace.set_all(torch.cuda.random, answers)
        replace.set(torch, "Generator", _generator_class(torch.Generator))
        replace.set(torch, "clear_autocast_cache", self._clear_autocast_cache(torch.clear_autocast_cache))
        replace.set(torch, "compile", _not_compiled)
        replace.set(torch.UntypedStorage, "resize_", self._resize(torch.UntypedStorage.resize_))
        swap = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swap)

    def _backward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self.gpu.progress.backward():
            return self.gpu.view.run(torch.autograd.backward, args, kwargs)

    def _grad(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self.gpu.progress.backward():
            return self.gpu.view.run(torch.autograd.grad, args, kwargs)

    def _clear_autocast_cache(self, real: Any) -> Any:
        def clear() -> None:
            self.gpu.view.autocast.clear()
            real()

        return clear

    def _resize(self, real: Any) -> Any:
        recorder = self.gpu.recorder

        def resize(storage: Any, num_bytes: int) -> Any:
            out = real(storage, num_bytes)
            entry = recorder.live.get(storage._cdata)
            if entry is not None and entry.num_bytes != num_bytes:
                recorder.resized(entry, num_bytes)
            return out

        return resize


def _generator_class(real: Any) -> Any:
    """Return what stands in for ``torch.Generator``: one of the device draws on the host."""

    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

    def new(cls: type, device: Any = "cpu") -> Any:
        named = as_device(device)
        return real(META if named is not None and named.type == "cuda" else device)

    return Kind("Generator", (), {"__new__": new})


def _not_compiled(model: Any = None, **_: object) -> Any:
    """Stand in for ``torch.compile``: the program is traced as it runs without compiling."""
    return model if model is not None else (lambda each: each)
