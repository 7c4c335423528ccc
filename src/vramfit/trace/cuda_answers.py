"""What ``torch.cuda`` answers: the imagined card, its streams, and the simulated allocator's statistics."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Self

import torch

from vramfit.trace.card import Card
from vramfit.trace.machine import Machine
from vramfit.trace.recorder import Recorder
from vramfit.trace.recording import ALL_STREAMS, Mark
from vramfit.trace.streams import Event, Streams
from vramfit.trace_report import TraceError

_FIRST_BF16 = 8
"""Compute capability with bfloat16 in hardware: Ampere. Source: torch.cuda.is_bf16_supported."""
_SEED = 67_280_421_310_721
"""What ``torch.initial_seed`` says of a generator nobody seeded. Source: c10/core/GeneratorImpl.h."""


class CudaAnswers:
    """Stands in for the functions of ``torch.cuda`` that would ask a driver."""

    def __init__(self, machine: Machine, card: Card, recorder: Recorder) -> None:
        """Answer for one card."""
        self.machine, self.card, self.recorder = machine, card, recorder
        self.streams = Streams(recorder)
        self._seed = _SEED

    def answers(self) -> dict[str, Any]:
        """Return what stands in for each name of ``torch.cuda``."""
        nothing = _nothing
        return {
            "is_available": lambda: True, "is_initialized": lambda: True, "init": nothing,
            "_lazy_init": self._refuse_driver, "device_count": lambda: 1, "current_device": lambda: 0,
            "set_device": self._set_device, "_exchange_device": lambda device: 0, "_maybe_exchange_device": lambda d: 0,
            "device": _DeviceContext, "device_of": _DeviceContext,
            "get_device_name": lambda device=None: self.machine.product,
            "get_device_capability": lambda device=None: self.machine.capability,
            "get_device_properties": self._properties, "is_bf16_supported": self._bf16, "is_tf32_supported": self._bf16,
            "get_arch_list": lambda: [f"sm_{self.machine.major}{self.machine.capability[1]}"],
            "can_device_access_peer": lambda *_: False, "utilization": lambda device=None: 0,
            "synchronize": self._synchronize, "ipc_collect": nothing, "empty_cache": self._empty_cache,
            "Stream": self.streams.new_class(), "Event": Event, "stream": self.streams.using,
            "current_stream": lambda device=None: self.streams.current, "set_stream": self.streams.set,
            "default_stream": lambda device=None: self.streams.default,
            "is_current_stream_capturing": lambda: False, "CUDAGraph": _Graph,
            "manual_seed": self._manual_seed, "manual_seed_all": self._manual_seed,
            "seed": nothing, "seed_all": nothing,
            "initial_seed": lambda: self._seed, "get_rng_state": self._rng_state, "set_rng_state": nothing,
            "get_rng_state_all": lambda: [self._rng_state()], "set_rng_state_all": nothing,
            "set_sync_debug_mode": nothing, "get_sync_debug_mode": lambda: 0,
            **self._memory(),
        }  # fmt: skip

    def _memory(self) -> dict[str, Any]:
        """Return what stands in for the functions that tell of memory."""
        card, now = self.card, self.card.statistic
        return {
            "memory_allocated": lambda device=None: now("allocated_bytes.all.current"),
            "max_memory_allocated": lambda device=None: now("allocated_bytes.all.peak"),
            "memory_reserved": lambda device=None: now("reserved_bytes.all.current"),
            "max_memory_reserved": lambda device=None: now("reserved_bytes.all.peak"),
            "memory_cached": lambda device=None: now("reserved_bytes.all.current"),
            "max_memory_cached": lambda device=None: now("reserved_bytes.all.peak"),
            "memory_stats": lambda device=None: card.statistics(),
            "memory_stats_as_nested_dict": lambda device=None: _nested(card.statistics()),
            "memory_summary": lambda device=None, abbreviated=False: card.summary(),
            "memory_snapshot": lambda *_, **__: [],
            "mem_get_info": lambda device=None: (card.free_bytes, card.total_bytes),
            "device_memory_used": lambda device=None: card.total_bytes - card.free_bytes,
            "reset_peak_memory_stats": self._reset_peak, "reset_max_memory_allocated": self._reset_peak,
            "reset_max_memory_cached": self._reset_peak, "reset_accumulated_memory_stats": _nothing,
            "set_per_process_memory_fraction": self._set_fraction, "list_gpu_processes": lambda device=None: "",
            "_record_memory_history": _nothing, "_dump_snapshot": _refused("torch.cuda.memory._dump_snapshot"),
            "get_allocator_backend": lambda: "native",
        }  # fmt: skip

    def _refuse_driver(self) -> None:
        raise TraceError(
            "torch.cuda: something asked the CUDA driver while a virtual GPU is active, likely from a thread of its "
            "own; expected only calls that the virtual GPU answers; run that part in the main thread or outside"
        )

    def _set_device(self, device: Any) -> None:
        index = device if isinstance(device, int) else torch.device(device).index
        if index not in (None, 0, -1):
            raise RuntimeError(
                f"CUDA error: invalid device ordinal (the virtual machine has one GPU, not number {index})"
            )

    def _properties(self, device: Any = None) -> SimpleNamespace:
        found = self.machine.device
        major, minor = self.machine.capability
        return SimpleNamespace(
            name=found.product,
            major=major,
            minor=minor,
            total_memory=self.card.total_bytes,
            multi_processor_count=found.multiprocessors or 1,
            max_threads_per_multi_processor=found.threads_per_multiprocessor or 2048,
            warp_size=32,
            is_integrated=found.unified,
            is_multi_gpu_board=False,
            L2_cache_size=0,
            regs_per_multiprocessor=65_536,
            shared_memory_per_block=49_152,
            gcnArchName="",
            uuid="00000000-0000-0000-0000-000000000000",
        )

    def _bf16(self, including_emulation: bool = True) -> bool:
        return including_emulation or self.machine.major >= _FIRST_BF16

    def _synchronize(self, device: Any = None) -> None:
        self.card.mark(Mark.SYNCHRONIZE, value=ALL_STREAMS)

    def _empty_cache(self) -> None:
        self.card.mark(Mark.EMPTY_CACHE)

    def _reset_peak(self, device: Any = None) -> None:
        self.card.mark(Mark.RESET_PEAK)

    def _set_fraction(self, fraction: float, device: Any = None) -> None:
        self.card.mark(Mark.MEMORY_FRACTION, str(fraction))

    def _manual_seed(self, seed: int) -> None:
        self._seed = int(seed)

    def _rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.zeros(16, dtype=torch.uint8)  # seed and offset of a CUDA generator, on the host


class _DeviceContext:
    """Stands in for ``torch.cuda.device``: there is one device, and it is current."""

    def __init__(self, device: Any = None) -> None:
        self.idx = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _nothing(*_: object, **__: object) -> None:
    """Do what has no effect on memory: nothing."""


def _refused(name: str) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> None:
        raise TraceError(f"{name}: a virtual GPU does not have it; expected eager code; switch it off for the trace")

    return refuse


class _Graph:
    """Stands in for ``torch.cuda.CUDAGraph``: a class, because libraries name it in annotations."""

    __new__ = _refused("torch.cuda.CUDAGraph")


def _nested(flat: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in flat.items():
        place = found
        *path, last = key.split(".")
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return found
