"""The machine that is imagined: which card, which PyTorch, which CUDA libraries; everything a rule may depend on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vramfit.catalogue.device import find_device
from vramfit.device import Device
from vramfit.errors import InvalidValueError

_NEWEST_CUDNN = {(2, 6): 90100, (2, 7): 90501, (2, 8): 91002, (2, 9): 91002, (2, 10): 91002, (2, 11): 91900,
                 (2, 12): 92000, (2, 13): 92000, (2, 14): 92400, (2, 15): 92600}  # fmt: skip
"""cuDNN bundled with the CUDA wheels, as ``torch.backends.cudnn.version()`` says it.
Source: version strings in the released wheels 2.6.0, 2.7.1, 2.8.0, 2.9.1, 2.10.0, 2.11.0, 2.12.1, 2.14.1, 2.15.0;
2.13 was not looked at and takes the one before."""
_CUDA = {(2, 6): (12, 4), (2, 7): (12, 6), (2, 8): (12, 8), (2, 9): (12, 8), (2, 10): (12, 8), (2, 11): (13, 0),
         (2, 12): (13, 0), (2, 13): (13, 0), (2, 14): (13, 0), (2, 15): (13, 2)}  # fmt: skip
"""CUDA of the wheel that ``pip install torch`` brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One GPU of a kind, and the software that drives it."""

    device: Device
    capability: tuple[int, int]
    """Compute capability, such as ``(8, 0)``."""
    torch_version: tuple[int, int]
    """PyTorch whose CUDA build is imagined; the one installed unless another was asked for."""
    cuda_version: tuple[int, int]
    cudnn_version: int

    @property
    def major(self) -> int:
        """Major compute capability, such as 8."""
        return self.capability[0]

    @property
    def product(self) -> str:
        """Name as ``torch.cuda.get_device_name`` gives it."""
        return self.device.product


def imagine(device: str | Device, torch_version: str | None = None) -> Machine:
    """Return the machine with one card of that name and the PyTorch installed, or the one asked for.

    Raises:
        UnknownNameError: no device has that name.
        InvalidValueError: not an NVIDIA card, or a version that is none.
    """
    found = find_device(device, "gpu") if isinstance(device, str) else device
    if found.compute_capability is None:
        raise InvalidValueError(
            "gpu", found.name, "an NVIDIA card, whose compute capability decides which kernels run",
            "name one of `vramfit devices --vendor nvidia`",
        )  # fmt: skip
    major, _, minor = found.compute_capability.partition(".")
    version = _version(torch_version or torch.__version__)
    known = min(max(version, min(_CUDA)), max(_CUDA))
    return Machine(
        device=found,
        capability=(int(major), int(minor or 0)),
        torch_version=version,
        cuda_version=_CUDA[known],
        cudnn_version=_NEWEST_CUDNN[known],
    )


def _version(text: str) -> tuple[int, int]:
    parts = text.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        raise InvalidValueError("torch_version", text, 'a version of PyTorch such as "2.9.1"')
    return int(parts[0]), int(parts[1])
