"""cuBLAS's workspace: taken through the caching allocator at the first matrix product of each handle and stream.

Every thread has a handle of its own, and the backward pass runs in a thread of its own: a training process has two.
Source: pytorch/pytorch:aten/src/ATen/cuda/CublasHandlePool.cpp, ``parseChosenWorkspaceSize``, ``getCUDABlasWorkspace``;
aten/src/ATen/cuda/CUDABlas.cpp for cublasLt.
"""

from __future__ import annotations

import os
import re

import torch

from vramfit.errors import InvalidValueError
from vramfit.memory.runtime import WORKSPACE_BYTES, WORKSPACE_BYTES_FROM_HOPPER
from vramfit.trace.machine import Machine
from vramfit.units import KIB, MIB

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot", "vdot", "_scaled_mm", "_int_mm", "addbmm")
WITH_LT = ("addmm", "_scaled_mm", "_int_mm")
"""Products that cublasLt computes, with a workspace per call until it shares cuBLAS's."""
VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
LT_BYTES = MIB
SHARED_SINCE = (2, 8)
"""From here on cublasLt uses cuBLAS's workspace. Source: strings of the released wheels."""
PER_CALL_SINCE = (2, 15)
"""From here on the workspace is taken for each call and given back. Source: the wheel of 2.15.0."""


def workspace_bytes(machine: Machine, configured: str | None = None) -> int:
    """Return the size of a workspace. [B]

    2 x 4096 KiB + 8 x 16 KiB; 32 MiB from compute capability 9.0 on; or what ``CUBLAS_WORKSPACE_CONFIG`` says.

    Raises:
        InvalidValueError: the variable is not of the form ``:SIZE:COUNT``.
    """
    text = os.environ.get(VARIABLE) if configured is None else configured
    if text:
        if re.fullmatch(r"(:\d{1,7}:\d{1,4})+", text) is None:
            raise InvalidValueError(VARIABLE, text, "pairs such as :4096:2:16:8, a size in KiB and how many")
        numbers = [int(part) for part in text.split(":")[1:]]
        return KIB * sum(size * count for size, count in zip(numbers[::2], numbers[1::2], strict=True))
    return WORKSPACE_BYTES_FROM_HOPPER if machine.major >= 9 else WORKSPACE_BYTES


def product_overloads(names: tuple[str, ...]) -> frozenset[object]:
    """Return the overloads of matrix products."""
    packets = [getattr(torch.ops.aten, name, None) for name in names]
    return frozenset(getattr(packet, name) for packet in packets if packet is not None for name in packet.overloads())


class Cublas:
    """Which handles have a workspace by now."""

    def __init__(self, machine: Machine) -> None:
        """Begin before the first product."""
        self.bytes = workspace_bytes(machine)
        self.products = product_overloads(PRODUCTS)
        self._lt = product_overloads(WITH_LT) if machine.torch_version < SHARED_SINCE else frozenset()
        self._per_call = machine.torch_version >= PER_CALL_SINCE
        self._seen: set[tuple[bool, int]] = set()

    def taken(self, func: object, *, backward: bool, stream: int) -> tuple[int, int]:
        """Return what a product takes for good, and what for the call. [B]"""
        lt = LT_BYTES if func in self._lt else 0
        if self._per_call:
            return 0, self.bytes
        key = (backward, stream)
        if key in self._seen:
            return 0, lt
        self._seen.add(key)
        return self.bytes, lt

    def clear(self) -> None:
        """Forget the handles, as ``torch._C._cuda_clearCublasWorkspaces`` does."""
        self._seen.clear()
