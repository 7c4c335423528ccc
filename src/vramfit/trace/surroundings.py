"""Everything of PyTorch that is told of the virtual GPU while it is active: handlers, hooks, replaced functions."""

from __future__ import annotations

import functools
import sys
from contextlib import ExitStack
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._pytree import tree_map_only

from vramfit.trace.accelerator import accelerator_answers, scatter
from vramfit.trace.attention import Attention
from vramfit.trace.initialisers import draws_until_it_fits, trunc_normal
from vramfit.trace.kernels import Kernels
from vramfit.trace.loss_kernels import loss_kernels
from vramfit.trace.parts import Parts
from vramfit.trace.recurrent import Recurrent
from vramfit.trace.replacements import Replacements
from vramfit.trace.substitutes import Substitutes
from vramfit.trace.tensors import Tensors
from vramfit.trace.view import CUDA, META, as_device
from vramfit.trace_report import TraceError


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
        recurrent = Recurrent(view)
        view.add(recurrent.handlers())
        for name in ("backward", "grad"):
            replace.set(torch.autograd, name, self._backward(getattr(torch.autograd, name)))
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
        replace.set_all(torch.accelerator, accelerator_answers(answers))
        replace.set_all(torch, {"Stream": answers["Stream"], "Event": answers["Event"]})
        replace.set(torch.nn.parallel.comm, "scatter", scatter)
        if draws_until_it_fits(torch.nn.init._no_grad_trunc_normal_):
            replace.set(torch.nn.init, "_no_grad_trunc_normal_", _on_the_device(trunc_normal, torch.nn.init))
        replace.set(torch, "Generator", _generator_class(torch.Generator))
        replace.set(torch, "clear_autocast_cache", self._clear_autocast_cache(torch.clear_autocast_cache))
        replace.set(torch, "compile", self._compile)
        replace.set(torch.nn.Module, "compile", lambda module, *_, **__: self._compile(module) and None)
        self._refuse_kernels(replace)
        group = "_group_tensors_by_device_and_dtype"
        replace.set(torch._C, group, self._grouped(getattr(torch._C, group)))
        replace.set(torch, "set_default_device", self._set_default_device)
        replace.set(torch, "get_default_device", lambda: view.default_device or torch.device("cpu"))
        replace.set(torch, "save", self._save(torch.save))
        replace.set(torch, "load", self._load(torch.load))
        replace.set(torch.Tensor, "record_stream", self._record_stream())
        replace.set(saved_tensors_hooks, "__init__", self._saved_hooks(saved_tensors_hooks.__init__))
        replace.set(torch.utils.data._utils.pin_memory, "pin_memory", lambda data, device=None: data)
        replace.set_all(torch.backends.cudnn, self._cudnn())
        replace.set_all(FakeTensorMode, self._shape_questions())
        gpu.ranks.install(replace, stack)
        gpu.recorder.kernels.update(Kernels(gpu.values).table() | recurrent.kernels() | loss_kernels())
        gpu.recorder.scratching.update(gpu.workspaces.table())
        replace.set(torch.UntypedStorage, "resize_", self._resize(torch.UntypedStorage.resize_))
        swap = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swap)

    def _backward(self, real: Any) -> Any:
        """Return an entry to the backward pass: it is a phase, and the engine sees the device in what it calls back."""
        view, progress = self.gpu.view, self.gpu.progress
        body = view.bodies.of(real) or real

        @functools.wraps(real)
        def run(*args: Any, **kwargs: Any) -> Any:
            with progress.backward(), view.switched_on():
                return body(*args, **kwargs)

        return run

    def _clear_autocast_cache(self, real: Any) -> Any:
        def clear() -> None:
            self.gpu.view.autocast.clear()
            real()

        return clear

    def _set_default_device(self, device: Any) -> None:
        self.gpu.view.default_device = None if device is None else torch.device(device)

    def _grouped(self, real: Any) -> Any:
        """Return the grouping that foreach functions start with: it names the device that C++ sees."""

        def grouped(*args: Any, **kwargs: Any) -> Any:
            found = real(*args, **kwargs)
            return {(CUDA if device == META else device, kind): tensors for (device, kind), tensors in found.items()}

        return grouped

    def _compile(self, model: Any = None, **_: object) -> Any:
        """Stand in for ``torch.compile``: the program is traced as it runs without compiling."""
        self.gpu.values.state("torch.compile: traced as it runs without compiling, which usually takes more")
        return model if model is not None else (lambda each: each)

    def _refuse_kernels(self, replace: Replacements) -> None:
        """Let Triton's kernels be refused by name: they write through pointers, and there is no memory behind them."""
        jit = sys.modules.get("triton.runtime.jit")
        if jit is not None:
            replace.set(jit.JITFunction, "run", lambda kernel, *_, **__: self._refused_kernel(kernel))

    def _refused_kernel(self, kernel: Any) -> None:
        frames = self.gpu.recorder.sites.here()
        where = f"{frames[-1].file}:{frames[-1].line}" if frames else "traced program"
        name = getattr(kernel, "__name__", None) or getattr(getattr(kernel, "fn", None), "__name__", repr(kernel))
        raise TraceError(
            f"{where}: Triton kernel {name}: it works on memory, and a virtual GPU has none; expected an operator with "
            "a meta kernel (torch.library.triton_op, register_fake); switch the kernel off, or wrap it so"
        )

    def _save(self, real: Any) -> Any:
        """Return ``torch.save``: what lies on the device is written without its data."""

        def save(*args: Any, **kwargs: Any) -> Any:
            self.gpu.values.state("files written by torch.save hold no data of the device")
            with torch._C.DisableTorchFunction():
                return real(*args, **kwargs)

        return save

    def _load(self, real: Any) -> Any:
        """Return ``torch.load``: a file's tensors come to the host first, then to the device they are wanted on."""

        def load(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
            named = as_device(map_location)
            if named is None or named.type != "cuda":
                return real(f, map_location, *args, **kwargs)
            return tree_map_only(torch.Tensor, lambda t: t.to(named), real(f, "cpu", *args, **kwargs))

        return load

    def _record_stream(self) -> Any:
        recorder = self.gpu.recorder

        def record(tensor: torch.Tensor, stream: Any) -> None:
            with torch._C.DisableTorchFunction():
                number = recorder.number_of(tensor)
            if number >= 0:
                recorder.recording.use(number, stream.number)

        return record

    def _saved_hooks(self, real: Any) -> Any:
        """Return a constructor of hooks that see the device wherever they are called from."""
        view = self.gpu.view

        def init(hooks: Any, pack: Any, unpack: Any) -> None:
            def packed(tensor: Any) -> Any:
                with view.switched_on():
                    return pack(tensor)

            def unpacked(value: Any) -> Any:
                with view.switched_on():
                    return unpack(value)

            real(hooks, packed, unpacked)

        return init

    def _cudnn(self) -> dict[str, Any]:
        """Return what ``torch.backends.cudnn`` answers."""
        version = self.gpu.machine.cudnn_version
        return {
            "is_available": lambda: True,
            "version": lambda: version,
            "is_acceptable": lambda tensor: tensor.is_cuda and tensor.is_floating_point(),
        }

    def _shape_questions(self) -> dict[str, Any]:
        """Return how fake tensors are switched on and off: distributed tensors derive their shapes with them."""
        recorder, enter, leave = self.gpu.recorder, FakeTensorMode.__enter__, FakeTensorMode.__exit__

        def begin(mode: Any) -> Any:
            recorder.paused += 1
            return enter(mode)

        def end(mode: Any, *error: Any) -> Any:
            recorder.paused -= 1
            return leave(mode, *error)

        return {"__enter__": begin, "__exit__": end}

    def _resize(self, real: Any) -> Any:
        recorder = self.gpu.recorder

        def resize(storage: Any, num_bytes: int) -> Any:
            out = real(storage, num_bytes)
            entry = recorder.live.get(storage._cdata)
            if entry is not None and entry.num_bytes != num_bytes:
                recorder.resized(entry, num_bytes)
            return out

        return resize


def _on_the_device(ours: Any, module: Any) -> Any:
    """Return an initialiser that is ours for tensors of the device and the real one for those of the host."""
    real = module._no_grad_trunc_normal_

    def initialise(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        found: torch.Tensor = (ours if tensor.is_cuda else real)(tensor, *args, **kwargs)
        return found

    return initialise


def _generator_class(real: Any) -> Any:
    """Return what stands in for ``torch.Generator``: one of the device draws on the host."""

    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

    class OnDevice(real):  # drawing on the host
        @property
        def device(self) -> torch.device:
            return CUDA

    def new(cls: type, device: Any = "cpu") -> Any:
        named = torch.device("cuda", device) if isinstance(device, int) else as_device(device)
        return OnDevice() if named is not None and named.type == "cuda" else real(device)

    return Kind("Generator", (), {"__new__": new})
