"""What a tensor says of itself and where it is copied to: device, data that is not there, transfers.

A value that depends on data has no answer without data: ``Values`` gives stated ones, or what the caller hinted.
"""

from __future__ import annotations

from typing import Any

import torch

from vramfit.trace.values import Values
from vramfit.trace.view import CPU, CUDA, META, Handler, View, as_device

REAL_COPY_BYTES = 16 * 2**20
"""Largest tensor that a copy to the host makes anew with zeros; a larger one stays without data."""


class Tensors:
    """Handlers for methods and properties of single tensors."""

    def __init__(self, view: View, values: Values) -> None:
        """Answer for one view."""
        self.view, self.values = view, values

    def handlers(self) -> dict[Any, Handler]:
        """Return the handlers by function."""
        tensor = torch.Tensor
        return {
            tensor.device.__get__: self._device,
            tensor.is_cuda.__get__: self._is_cuda,
            tensor.is_cpu.__get__: self._is_cpu,
            tensor.is_meta.__get__: self._is_meta,
            tensor.data.__set__: self._set_data,
            tensor.get_device: self._get_device,
            tensor.cuda: self._cuda,
            tensor.cpu: self._cpu,
            tensor.to: self._to,
            tensor.type: self._type,
            tensor.pin_memory: self._same,
            tensor.is_pinned: self._is_pinned,
            tensor.copy_: self._copy,
            tensor.item: self._item,
            tensor.tolist: self._tolist,
            tensor.__bool__: self._bool,
            tensor.__int__: self._int,
            tensor.__float__: self._float,
            tensor.__index__: self._int,
            tensor.numpy: self._numpy,
            tensor.data_ptr: self._data_ptr,
            torch.equal: self._equal,
            torch.allclose: self._equal,
            tensor.equal: self._equal,
            tensor.allclose: self._equal,
            torch.is_nonzero: self._bool,
            torch._C._nn._parse_to: _as_it_is(torch._C._nn._parse_to),
            torch.device: _numbered_device,
            torch.full: self._valued(torch.full),
            torch.scalar_tensor: self._valued(torch.scalar_tensor),
            torch.tensor: self._from_data(torch.tensor),
            torch.as_tensor: self._from_data(torch.as_tensor),
            torch.asarray: self._from_data(torch.asarray),
            torch.zeros: self._filled(torch.zeros, 0.0),
            torch.ones: self._filled(torch.ones, 1.0),
        }

    def _device(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
        return self.view.seen_device(args[0])

    def _is_cuda(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return self.view.seen_device(args[0]).type == "cuda"

    def _is_cpu(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return self.view.seen_device(args[0]).type == "cpu"

    def _is_meta(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return self.view.seen_device(args[0]).type == "meta"

    def _get_device(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        return 0 if self.view.seen_device(args[0]).type == "cuda" else -1

    def _set_data(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Set ``tensor.data``; a CPU tensor that becomes one of the device changes its kind but not its identity."""
        tensor, new = args
        if torch._has_compatible_shallow_copy_type(tensor, new):
            torch.Tensor.data.__set__(tensor, new)
            return
        fresh = torch.nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else new
        torch.utils.swap_tensors(tensor, fresh)

    def _to(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensor = args[0]
        place = 1 if len(args) > 1 else None
        named = kwargs.get("device", args[1] if place else None)
        if isinstance(named, torch.Tensor):
            wanted: torch.device | None = self.view.seen_device(named)
            args = (tensor, self.view.seen_device(named), named.dtype, *args[2:])
        elif isinstance(named, int) and not isinstance(named, bool):
            wanted = torch.device("cuda", named)
        else:
            wanted = as_device(named)
        if wanted is None:
            return torch.Tensor.to(*args, **kwargs)
        rest = args[2:] if place and "device" not in kwargs else args[1:]
        others = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking")}
        rest = tuple(r for r in rest if not isinstance(r, bool)) if rest and isinstance(rest[0], bool) else rest
        return self._moved(tensor, wanted, *rest, **others)

    def _moved(self, tensor: torch.Tensor, wanted: torch.device, *rest: Any, **others: Any) -> torch.Tensor:
        """Copy a tensor to a device, or return it when it is there."""
        seen = self.view.seen_device(tensor)
        if wanted.type == "cuda":
            self.view.check_index(wanted)
            if seen.type != "cuda" and tensor.is_meta:  # from the host without data: new memory of the device
                how = {"device": META, **_typed(rest, others)}
                out = self.view.aside("cuda", torch.empty_like, (tensor,), how)
                return out.requires_grad_(tensor.requires_grad) if out.is_floating_point() else out
            moved = tensor.to(META, *rest, **others)
            self.values.copied(tensor, moved)
            return moved
        if wanted.type == "meta":
            return self.view.aside("meta", torch.Tensor.to, (tensor, META, *rest), others)
        if not tensor.is_meta or seen.type == "cpu":
            return tensor.to(*rest, **others) if rest or others else tensor
        return self._to_host(tensor, *rest, **others)

    def _to_host(self, tensor: torch.Tensor, *rest: Any, **others: Any) -> torch.Tensor:
        """Copy from the device: known values, else zeros while small, else a tensor without data on the host."""
        typed = _typed(rest, others)
        dtype = typed.get("dtype", tensor.dtype)
        known = self.values.known(tensor)
        if known is not None:
            return torch.full(tensor.shape, known, dtype=dtype)
        if tensor.numel() * tensor.element_size() <= REAL_COPY_BYTES and not tensor.requires_grad:
            self.values.state("data copied to the host is zeros")
            return torch.zeros(tensor.shape, dtype=dtype)
        return self.view.aside("cpu", torch.empty_like, (tensor,), {"dtype": dtype, "device": META})

    def _cuda(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        named = args[1] if len(args) > 1 else kwargs.get("device")
        wanted = torch.device("cuda", named) if isinstance(named, int) else as_device(named) or CUDA
        return self._moved(args[0], wanted)

    def _cpu(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        return self._moved(args[0], CPU)

    def _type(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) == 1 and not kwargs:
            name = torch.Tensor.type(args[0])
            return f"torch.cuda.{name.rpartition('.')[2]}" if self.view.on_device(args[0]) else name
        wanted = args[1] if len(args) > 1 else kwargs.get("dtype")
        if isinstance(wanted, str) and wanted.startswith("torch.cuda."):
            moved = self._moved(args[0], CUDA)
            return moved.to(getattr(torch, wanted.rpartition(".")[2].removesuffix("Tensor").lower()))
        return torch.Tensor.type(*args, **kwargs)

    def _same(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[0]

    def _is_pinned(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return False

    def _copy(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        target, source = args[0], args[1] if len(args) > 1 else kwargs["src"]
        self.values.forget(target)
        if not target.is_meta and source.is_meta:
            self.values.state("data copied to the host is zeros")
            return target
        if target.is_meta and not source.is_meta:  # the meta kernel of copy_ takes both
            return torch.Tensor.copy_(target, source.to(META) if source.dim() else source)
        return torch.Tensor.copy_(*args, **kwargs)

    def _item(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensor = args[0]
        return self.values.answer(tensor) if tensor.is_meta else tensor.item()

    def _tolist(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensor = args[0]
        if not tensor.is_meta:
            return tensor.tolist()
        return self.values.answer(tensor) if tensor.dim() == 0 else self._to_host(tensor.detach()).tolist()

    def _bool(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        tensor = args[0]
        return bool(self.values.answer(tensor)) if tensor.is_meta else bool(tensor)

    def _int(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        tensor = args[0]
        return int(self.values.answer(tensor)) if tensor.is_meta else int(tensor)

    def _float(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        tensor = args[0]
        return float(self.values.answer(tensor)) if tensor.is_meta else float(tensor)

    def _numpy(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensor = args[0]
        if not tensor.is_meta:
            return torch.Tensor.numpy(*args, **kwargs)
        if self.view.on_device(tensor):
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
                "first."
            )
        return torch.zeros(tensor.shape, dtype=tensor.dtype).numpy()

    def _data_ptr(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        tensor = args[0]
        if not tensor.is_meta or tensor.numel() == 0:
            return torch.Tensor.data_ptr(tensor)
        start = tensor.storage_offset() * tensor.element_size()
        return tensor.untyped_storage()._cdata * 512 + start

    def _from_data(self, func: Any) -> Handler:
        """Return a handler for functions that take data: it is made on the host, then copied to the device."""

        def handle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            named = kwargs.get("device", self.view.default_device)
            wanted = torch.device("cuda", named) if isinstance(named, int) else as_device(named)
            given = args[0] if args else kwargs.get("data")
            if wanted is None or wanted.type != "cuda" or (isinstance(given, torch.Tensor) and given.is_meta):
                return self.view.run(func, args, kwargs)
            tracked = kwargs.get("requires_grad", False)
            rest = {k: v for k, v in kwargs.items() if k not in ("device", "requires_grad")}
            out = self._moved(func(*args, **rest, device=CPU), wanted)
            return out.requires_grad_(tracked) if tracked else out

        return handle

    def _valued(self, func: Any) -> Handler:
        """Return a handler that remembers the value of a single number."""

        def handle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            out = self.view.run(func, args, kwargs)
            value = kwargs.get("fill_value", args[-1] if args else None)
            if out.is_meta and out.numel() == 1 and isinstance(value, int | float):
                self.values.set(out, value)
            return out

        return handle

    def _filled(self, func: Any, value: float) -> Handler:
        def handle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            out = self.view.run(func, args, kwargs)
            if out.is_meta and out.numel() == 1:
                self.values.set(out, value)
            return out

        return handle

    def _equal(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if any(isinstance(a, torch.Tensor) and a.is_meta for a in args):
            self.values.state("tensors compare equal")
            return True
        return torch.equal(*args[:2])


def _numbered_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    """Return the device that is named; a number alone is one of the accelerator's."""
    if args and isinstance(args[0], int) and not isinstance(args[0], bool):
        return torch.device("cuda", args[0])
    return torch.device(*args, **kwargs)


def _as_it_is(func: Any) -> Handler:
    """Return a handler for a function that only speaks of devices."""
    return lambda args, kwargs: func(*args, **kwargs)


def _typed(rest: tuple[Any, ...], others: dict[str, Any]) -> dict[str, Any]:
    """Return the type and the memory format among the arguments of ``Tensor.to``."""
    found = {k: v for k, v in others.items() if k in ("dtype", "memory_format") and v is not None}
    dtype = next((each for each in rest if isinstance(each, torch.dtype)), None)
    return found if dtype is None else {**found, "dtype": dtype}
