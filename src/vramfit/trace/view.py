"""What a program sees: Python believes it talks to ``cuda:0``, C++ only ever sees meta tensors.

One function mode. Handlers for single functions come from the other files of this room; everything else runs as it is,
with the device it names translated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from vramfit.trace.autocast import Autocast
from vramfit.trace.bodies import Bodies
from vramfit.trace.machine import Machine
from vramfit.trace.recorder import Recorder, storage_key

CUDA, META, CPU = torch.device("cuda", 0), torch.device("meta"), torch.device("cpu")
Handler = Callable[[tuple[Any, ...], dict[str, Any]], Any]
_KEPT = ("__deepcopy__", "__repr__", "__reduce_ex__", "_reduce_ex_internal", "__setstate__", "__dir__")
"""Methods whose bodies look at the device to decide how data is copied: they shall see a meta tensor."""


class View(TorchFunctionMode):
    """Answers every call of a PyTorch function as a machine with one such GPU would."""

    def __init__(self, machine: Machine, recorder: Recorder) -> None:
        """Begin without handlers; ``add`` brings them."""
        super().__init__()
        self.machine, self.recorder = machine, recorder
        self.autocast = Autocast(machine.torch_version)
        self.bodies = Bodies()
        self.default_device: torch.device | None = None
        self.handlers: dict[Any, Handler] = {}
        self._makers = frozenset(_device_constructors())
        self._running: list[tuple[Any, ...]] = []
        self._kept = {getattr(torch.Tensor, name) for name in _KEPT if hasattr(torch.Tensor, name)}

    def add(self, handlers: Mapping[Any, Handler]) -> None:
        """Let functions be answered by handlers; a later one takes precedence."""
        self.handlers.update(handlers)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer one call; the mode is off meanwhile, and on again where a body in Python runs."""
        kwargs = kwargs or {}
        if torch.is_autocast_enabled("cuda"):
            args, kwargs = self.autocast.apply(func, args, kwargs)
        handler = self.handlers.get(func)
        return self.run(func, args, kwargs) if handler is None else handler(args, kwargs)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function as it is, on the device it names."""
        body = self.bodies.of(func) if func not in self._kept else None
        if body is not None:
            return self._with_mode(func, body, args, kwargs)
        named = _device_named(args, kwargs)
        if named is None and func in self._makers:
            named = self._default(kwargs)
        if named is None:
            return func(*args, **kwargs)
        return self._on(named, func, args, kwargs)

    def _default(self, kwargs: dict[str, Any]) -> torch.device | None:
        """Return where a function that makes tensors makes them when it is not told; the host needs no telling."""
        if self.default_device is not None:
            kwargs["device"] = self.default_device
            return self.default_device
        return CPU if kwargs.get("pin_memory") else None

    def pinned(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make pinned memory of the host, without data: it may be as large as what is moved away from the device."""
        return self.aside("cpu", func, args, {**kwargs, "device": META})

    @contextmanager
    def switched_on(self) -> Iterator[None]:
        """Have the mode on, also inside its own handler."""
        if self in torch.overrides._get_current_function_mode_stack():
            yield
        else:
            with self:
                yield

    def _with_mode(self, func: Any, body: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a body with the mode on; one that still asks would come back here without end, and runs without."""
        if self._running and self._running[-1] == (func, *map(id, args)):
            return func(*args, **kwargs)
        self._running.append((func, *map(id, args)))
        try:
            with self:
                return body(*args, **kwargs)
        finally:
            self._running.pop()

    def _on(self, device: torch.device, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that names a device."""
        if device.type == "cuda":
            self.check_index(device)
            args, kwargs = _renamed(args, kwargs)
            kwargs.pop("generator", None)  # it draws nothing
            return self.aside("cuda", func, args, kwargs)
        if device.type == "cpu" and kwargs.pop("pin_memory", False):
            return self.pinned(func, args, kwargs)
        if device.type == "meta":
            return self.aside("meta", func, args, kwargs)
        return func(*args, **kwargs)

    def aside(self, where: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function whose results are not on the device."""
        before, self.recorder.aside = self.recorder.aside, where
        try:
            return func(*args, **kwargs)
        finally:
            self.recorder.aside = before

    def check_index(self, device: torch.device) -> None:
        """Refuse a second GPU as CUDA does."""
        if device.index not in (None, 0):
            raise RuntimeError(
                f"CUDA error: invalid device ordinal (the virtual machine has one GPU, cuda:0; {device} was asked for)"
            )

    def seen_device(self, tensor: torch.Tensor) -> torch.device:
        """Return the device a program sees of a tensor."""
        if not tensor.is_meta:
            return tensor.device
        uncounted = self.recorder.uncounted
        if uncounted:
            where = uncounted.get(storage_key(tensor))
            if where is not None:
                return META if where == "meta" else CPU
        return CUDA

    def on_device(self, tensor: Any) -> bool:
        """Return whether a value is a tensor on the virtual device."""
        return isinstance(tensor, torch.Tensor) and tensor.is_meta and self.seen_device(tensor).type == "cuda"


def as_device(value: Any) -> torch.device | None:
    """Return the device that a value names; None = it names none."""
    if isinstance(value, torch.device):
        return value
    if isinstance(value, str) and value.split(":")[0] in ("cuda", "cpu", "meta"):
        return torch.device(value)
    return None


def _device_named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
    """Return the device that a call names; an index names a GPU."""
    named = kwargs.get("device") if kwargs else None
    if named is not None:
        if isinstance(named, int):
            return torch.device("cuda", named)
        return as_device(named)
    for each in args:
        kind = type(each)
        if kind is torch.device:
            return each
        if kind is str and each.split(":")[0] in ("cuda", "meta"):
            return torch.device(each)
    return None


def _renamed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a call's arguments with the GPU called meta."""
    args = tuple(META if isinstance(a, str | torch.device) and as_device(a) is not None else a for a in args)
    if "device" in kwargs:
        kwargs = {**kwargs, "device": META}
    return args, kwargs
