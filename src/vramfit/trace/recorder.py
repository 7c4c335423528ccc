"""What is allocated: every new storage on the virtual device is an allocation, its death is a free.

Below autograd, where the storages are made; what a program sees of the device is ``view``'s.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vramfit.trace.accumulation import SUM, Accumulation, Addition
from vramfit.trace.recording import DEFAULT_STREAM, Category, Frame, Recording
from vramfit.trace.shapes import Shapes
from vramfit.trace.site import Sites
from vramfit.trace_report import TraceError


class Memory(Protocol):
    """Whoever must agree to an allocation: the simulated card, which may refuse."""

    def allocated(self, number: int) -> None:
        """Follow the recording to allocation ``number``; raises when the card is full."""


class _Storage(weakref.ref[Any]):
    """A living storage of the virtual device."""

    __slots__ = ("key", "num_bytes", "number", "seq")
    key: int
    number: int
    """Of its allocation in the recording; -1 = it lies on the host, or nowhere, and is not counted."""
    num_bytes: int
    seq: int
    """Sequence number of the autograd node that ran when it was made; -1 = none did."""


NOT_COUNTED = -1
_COPY = torch.ops.aten.copy_.default
Scratch = Callable[[Any, tuple[Any, ...], Any], None]


class Recorder(TorchDispatchMode):
    """Writes births and deaths of storages into a recording while a program runs."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Answer PyTorch that the compiler need not be kept off: it does not run, and asking it imports it."""
        return False

    def __init__(self, recording: Recording, memory: Memory) -> None:
        """Begin with an empty device."""
        super().__init__()
        self.recording, self.memory = recording, memory
        self.sites = Sites()
        self.live: dict[int, _Storage] = {}
        self.uncounted: dict[int, str] = {}
        """Living storages that are not on the device: key and the device a program sees, ``cpu`` or ``meta``."""
        self.stream = DEFAULT_STREAM
        self.num_operators = 0
        self.aside: str | None = None
        """Where new storages are while set: ``cpu``, ``meta`` or ``cuda``; None = where the operands are."""
        self.backward_depth = 0
        self.paused = 0
        """Above 0 while PyTorch asks itself for shapes on fake tensors: nothing of that is on the device."""
        self.kernels: dict[Any, Callable[..., Any]] = {}
        """Operators that the meta device does not have, or has otherwise."""
        self.written: Callable[[Any, tuple[Any, ...]], None] | None = None
        """Told of operators, so that it notes which values are overwritten; None = no value is known."""
        self.scratching: dict[Any, Scratch] = {}
        """Operators whose kernels take memory that no tensor of the program is."""
        self.on_operator: Callable[[int], None] | None = None
        self.forward_sites: dict[int, tuple[str, tuple[Frame, ...]]] = {}
        self._names: dict[Any, str] = {}
        self._aliases: dict[Any, bool] = {}
        self._accumulation = Accumulation(self.live)
        self._shapes = Shapes()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator, and record what it left."""
        if self.paused:
            return func(*args, **(kwargs or {}))
        if types and any(t is not torch.Tensor and hasattr(t, "__torch_dispatch__") and _is_foreign(t) for t in types):
            return NotImplemented  # a subclass such as DTensor: its own operators on plain tensors come here again
        with torch._C.DisableTorchFunction():
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.num_operators += 1
        if self.on_operator is not None:
            self.on_operator(self.num_operators)
        addition = self._accumulation.judge(func, args) if self.backward_depth else Addition.OTHER
        if addition is Addition.IN_PLACE:
            return args[0]
        if self.written is not None:
            self.written(func, args)
        kernel = self.kernels.get(func)
        ours = kernel is not None and _lies_on_meta(args)
        out = self._call(func, args, kwargs) if kernel is None or not ours else kernel(*args, **kwargs)
        aliases = self._aliases.get(func)
        if aliases is None:
            aliases = self._aliases[func] = _only_aliases(func)
        if not aliases:
            self._outputs(func, args, kwargs, out)
        if addition is Addition.OUT_OF_PLACE:
            self.live[storage_key(out)].seq = SUM
        if func in self.scratching and _lies_on_meta(args) and (not self.uncounted or self._aside(args) is None):
            self.scratching[func](func, args, out)
        return out

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator on the meta device; one that cannot run there is refused by name."""
        try:
            return self._shapes.run(func, args, kwargs)
        except NotImplementedError as error:
            if func is _COPY and not args[0].is_meta:  # data of the device, copied to the host: there is none
                return args[0]
            if "meta" not in str(error).lower():
                raise
            frames = self.sites.here()
            where = f"{frames[-1].file}:{frames[-1].line}" if frames else "traced program"
            raise TraceError(
                f"{where}: {func}: it has no rule for shapes without data, as custom kernels often have none; expected "
                "a meta kernel; register one (torch.library.register_fake), or take a path without this operator"
            ) from error

    def _outputs(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if isinstance(out, torch.Tensor):
            if out.is_meta:
                self._born(func, out, args)
        elif isinstance(out, list | tuple):
            for each in out:
                self._outputs(func, args, kwargs, each)

    def _born(self, func: Any, tensor: torch.Tensor, args: tuple[Any, ...]) -> None:
        storage = tensor.untyped_storage()
        key, num_bytes = storage._cdata, storage.nbytes()
        known = self.live.get(key)
        if known is not None:
            if known.num_bytes != num_bytes:
                self.resized(known, num_bytes)
            return
        if not num_bytes:
            return
        entry = _Storage(storage, self._died)
        entry.key, entry.num_bytes, entry.number, entry.seq = key, num_bytes, NOT_COUNTED, -1
        aside = self.aside
        if aside is None and self.uncounted:
            aside = self._aside(args)
        if aside is None or aside == "cuda":
            self._allocate(entry, func)
        else:
            self.uncounted[key] = aside
        self.live[key] = entry

    def _aside(self, args: Iterable[Any]) -> str | None:
        """Return where an operator's results lie when all its tensors lie aside; None = on the device."""
        found = None
        for each in tensors_in(args):
            if each.is_meta:
                aside = self.uncounted.get(storage_key(each))
                if aside is None:
                    return None
                found = aside
        return found

    def _allocate(self, entry: _Storage, func: Any) -> None:
        name = self._names.get(func)
        if name is None:
            name = self._names[func] = str(func)
        module, frames = self.site(entry)
        entry.number = self.recording.allocate(
            entry.num_bytes, stream=self.stream, operator=name, module=module, frames=frames
        )
        try:
            self.memory.allocated(entry.number)
        except torch.OutOfMemoryError:
            entry.number = NOT_COUNTED
            raise

    def site(self, entry: _Storage | None = None) -> tuple[str, tuple[Frame, ...]]:
        """Return module and lines of what runs now; in a backward pass, those of the forward it belongs to."""
        grad = torch.is_grad_enabled()
        if self.backward_depth and not grad:
            node = torch._C._current_autograd_node()
            if node is not None:
                seq = node._sequence_nr()
                if entry is not None:
                    entry.seq = seq
                found = self.forward_sites.get(seq)
                if found is not None:
                    return found
        here = (self.sites.module, self.sites.here())
        if grad:
            self.forward_sites[torch._C._autograd._get_sequence_nr() - 1] = here
        return here

    def scratch(self, name: str, sizes: Iterable[int]) -> None:
        """Record memory that lives during one operator only; its pieces live together."""
        site = self.site()
        for number in [self._workspace(name, size, site) for size in sizes]:
            self.recording.free(number)

    def keep(self, name: str, num_bytes: int) -> int:
        """Record memory of a library that lives on; return its number."""
        return self._workspace(name, num_bytes, ("", ()))

    def _workspace(self, name: str, num_bytes: int, site: tuple[str, tuple[Frame, ...]]) -> int:
        number = self.recording.allocate(
            num_bytes,
            stream=self.stream,
            operator=name,
            module=site[0],
            category=Category.WORKSPACE,
            frames=site[1],
        )
        self.memory.allocated(number)
        return number

    def resized(self, entry: _Storage, num_bytes: int) -> None:
        """Record that a storage was made larger or smaller: new memory first, then the old is freed."""
        old, counted = entry.number, entry.key not in self.uncounted
        entry.num_bytes, entry.number = num_bytes, NOT_COUNTED
        if num_bytes and counted:
            self._allocate(entry, "resize_")
        if old != NOT_COUNTED:
            self.recording.free(old)

    def _died(self, entry: _Storage) -> None:
        key = entry.key
        if self.live.get(key) is entry:
            del self.live[key]
            self.uncounted.pop(key, None)
        if entry.number != NOT_COUNTED and not self.closed:
            self.recording.free(entry.number)

    closed = False
    """True once the recording is finished: what dies later is nobody's concern."""

    def number_of(self, tensor: torch.Tensor) -> int:
        """Return the number of the allocation a tensor lies in; -1 = it is not on the device."""
        found = self.live.get(storage_key(tensor)) if tensor.is_meta else None
        return NOT_COUNTED if found is None else found.number


def _lies_on_meta(args: tuple[Any, ...]) -> bool:
    """Return whether an operator's first tensor is one without data."""
    return next((tensor.is_meta for tensor in tensors_in(args)), False)


def storage_key(tensor: torch.Tensor) -> int:
    """Return what a tensor's storage is known by; -1 = it has none of its own, as inside ``torch.func``."""
    try:
        return tensor.untyped_storage()._cdata
    except NotImplementedError:
        return -1


def _is_foreign(kind: type) -> bool:
    return kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__  # type: ignore[attr-defined]


def tensors_in(values: Iterable[Any]) -> Iterable[torch.Tensor]:
    """Yield the tensors among an operator's arguments, those in lists too."""
    for each in values:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from tensors_in(each)


def _only_aliases(func: Any) -> bool:
    """Return whether an operator only returns what it was given: views and changes in place make no storage."""
    schema = getattr(func, "_schema", None)
    if schema is None or schema.name.split("::")[-1].startswith(("resize", "set_", "_resize")):
        return False
    returns = schema.returns
    return bool(returns) and all(r.alias_info is not None for r in returns)
