"""One rank of several, without the others: a process group that answers at once and moves nothing.

What a rank allocates depends on what it sends and receives, not on what the others do with it. Buffers of collectives
are tensors and are counted; NCCL's own buffers lie outside of the allocator and are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist

from vramfit.errors import InvalidValueError
from vramfit.trace.recorder import Recorder, Scratch, tensors_in
from vramfit.trace.recording import Category
from vramfit.trace.replacements import Replacements
from vramfit.trace.values import Values
from vramfit.trace_report import TraceError

_FAKE = "fake"
_NAMESPACES = ("c10d", "_c10d_functional")


class Ranks:
    """Lets a program believe in several processes."""

    def __init__(self, recorder: Recorder, values: Values, world_size: int, rank: int) -> None:
        """Be one rank of ``world_size``.

        Raises:
            InvalidValueError: there is no such rank.
        """
        if world_size < 1 or not 0 <= rank < world_size:
            raise InvalidValueError("rank", rank, f"a rank below the {world_size} of the world, from 0")
        self.recorder, self.values, self.world_size, self.rank = recorder, values, world_size, rank

    def install(self, replace: Replacements, stack: ExitStack) -> None:
        """Answer for the process group, and say in the environment what a launcher would."""
        if not dist.is_available():
            return
        self.recorder.scratching.update(self._table())
        self.recorder.kernels[torch.ops.c10d.allreduce_.default] = _all_reduced
        replace.set(dist, "init_process_group", self._begin(dist.init_process_group))
        replace.set(dist.distributed_c10d, "init_process_group", dist.init_process_group)
        replace.set(dist, "is_nccl_available", lambda: True)
        for owner in (torch.distributed.utils, torch.nn.parallel.distributed):
            replace.set(owner, "_verify_param_shape_across_processes", lambda *_, **__: None)
        if self.world_size > 1:
            self._environment(stack)

    def _environment(self, stack: ExitStack) -> None:
        said = {
            "RANK": self.rank, "WORLD_SIZE": self.world_size, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1,
            "MASTER_ADDR": "localhost", "MASTER_PORT": 0,
        }  # fmt: skip
        before = {name: os.environ.get(name) for name in said}
        os.environ.update({name: str(value) for name, value in said.items()})

        def restore() -> None:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

        stack.callback(restore)

    def _begin(self, real: Any) -> Any:
        """Return ``init_process_group``: whatever backend is asked for, nobody is waited for."""

        def begin(backend: str | None = None, *_: Any, **given: Any) -> None:
            if not torch._C._dispatch_has_kernel_for_dispatch_key("c10d::broadcast_", "Meta"):
                raise TraceError(
                    f"torch.distributed.init_process_group: collectives of PyTorch {torch.__version__} have no meta "
                    "kernels, so several ranks cannot be traced; expected a newer one, such as 2.13; install it"
                )
            from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415 - rarely needed

            real(
                _FAKE,
                store=FakeStore(),
                rank=given["rank"] if given.get("rank", -1) >= 0 else self.rank,
                world_size=given["world_size"] if given.get("world_size", -1) > 0 else self.world_size,
            )

        return begin

    def end(self) -> None:
        """Forget the process group that the program began."""
        if dist.is_available() and dist.is_initialized() and dist.get_backend() == _FAKE:
            dist.destroy_process_group()

    def _table(self) -> dict[Any, Scratch]:
        """Return what to do after each collective: its buffers are known as such."""
        return {each: self._mark for namespace in _NAMESPACES for each in self._overloads(namespace)}

    @staticmethod
    def _overloads(namespace: str) -> Iterator[Any]:
        """Yield the overloads of all collectives of a namespace."""
        packets = getattr(torch.ops, namespace)
        for name in _names(namespace):
            packet = getattr(packets, name, None)
            for overload in packet.overloads() if packet is not None else ():
                yield getattr(packet, overload)

    def _mark(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        recording = self.recorder.recording
        for tensor in tensors_in(args):
            self.values.forget(tensor)  # what another rank sends is not known
        for tensor in (*tensors_in(args), *tensors_in((out,))):
            number = self.recorder.number_of(tensor)
            if number >= 0 and recording.category(number) is Category.TEMPORARY:
                recording.set_category(number, Category.COLLECTIVE)


def _all_reduced(tensors: list[torch.Tensor], *_: Any) -> Any:
    """Answer that all ranks have added up: DDP reads the sum from the work's future."""
    future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()
    future.set_result(tensors)
    return tensors, torch._C._distributed_c10d._create_work_from_future(future).boxed()


def _names(namespace: str) -> list[str]:
    """Return the operators of a namespace."""
    prefix = f"{namespace}::"
    return [s.name.removeprefix(prefix) for s in torch._C._jit_get_all_schemas() if s.name.startswith(prefix)]
