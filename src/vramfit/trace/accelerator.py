"""What ``torch.accelerator`` answers: the same as ``torch.cuda``, under its own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

SAME = {
    "is_available": "is_available", "device_count": "device_count", "synchronize": "synchronize",
    "current_stream": "current_stream", "set_stream": "set_stream", "empty_cache": "empty_cache",
    "memory_stats": "memory_stats", "memory_allocated": "memory_allocated", "memory_reserved": "memory_reserved",
    "max_memory_allocated": "max_memory_allocated", "max_memory_reserved": "max_memory_reserved",
    "reset_peak_memory_stats": "reset_peak_memory_stats", "get_memory_info": "mem_get_info",
    "reset_accumulated_memory_stats": "reset_accumulated_memory_stats",
    "current_device_index": "current_device", "current_device_idx": "current_device",
    "set_device_index": "set_device", "set_device_idx": "set_device", "device_index": "device",
}  # fmt: skip
"""Name in ``torch.accelerator`` -> name in ``torch.cuda`` (torch/accelerator/__init__.py of 2.6 to 2.13)."""


def accelerator_answers(cuda: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands in for each name that this version of torch has."""
    found = {name: cuda[same] for name, same in SAME.items() if hasattr(torch.accelerator, name) and same in cuda}
    return found | {"current_accelerator": lambda check_available=False: torch.device("cuda")}


def scatter(
    tensor: torch.Tensor, devices: object = None, chunk_sizes: object = None, dim: int = 0, streams: object = None,
    *, out: object = None,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Stand in for ``torch.nn.parallel.comm.scatter``: ``DataParallel`` over one device moves all of its input there.

    Source: pytorch/pytorch:torch/csrc/cuda/comm.cpp, scatter: one chunk is the tensor itself, copied to the device.
    """
    del devices, chunk_sizes, dim, streams, out
    return (tensor.to("cuda"),)
