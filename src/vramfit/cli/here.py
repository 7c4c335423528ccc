"""``--gpu here``: reads this machine's cards through NVML."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from vramfit.catalogue.device import find_card
from vramfit.errors import VramfitError
from vramfit.request import Request
from vramfit.training import TrainingRequest

Asked = TypeVar("Asked", Request, TrainingRequest)


class NoCardError(VramfitError):
    """This machine has no card that NVML can name, or the library is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One card of this machine."""

    product: str
    total_bytes: int
    free_bytes: int


def cards() -> tuple[Card, ...]:
    """Return the cards of this machine, in the driver's order.

    Raises:
        NoCardError: nvidia-ml-py is not installed, there is no driver, or no card.
    """
    try:
        import pynvml  # noqa: PLC0415 - an optional part: pip install vramfit[gpu]
    except ImportError as error:
        raise NoCardError(
            "--gpu here: nvidia-ml-py is not installed: pip install 'vramfit[gpu]', or name the card"
        ) from error
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        found = tuple(_card(pynvml, handle) for handle in handles)
    except pynvml.NVMLError as error:
        raise NoCardError(
            f"--gpu here: the NVIDIA driver says {str(error)!r}: expected a card here; name one (vramfit devices)"
        ) from error
    if not found:
        raise NoCardError("--gpu here: this machine has no NVIDIA card: name one instead (vramfit devices)")
    return found


def _card(pynvml: object, handle: object) -> Card:
    name = pynvml.nvmlDeviceGetName(handle)  # type: ignore[attr-defined]
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)  # type: ignore[attr-defined]
    return Card(
        product=name.decode() if isinstance(name, bytes) else name,
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
    )


def on_this_machine(request: Asked) -> tuple[Asked, str]:
    """Ask the driver which cards this machine has and take the smallest as the one to fit on."""
    found = cards()
    smallest = min(found, key=lambda card: card.total_bytes)
    free = f"{smallest.free_bytes:,} of {smallest.total_bytes:,} bytes free"
    note = f"this machine: {len(found)} x {smallest.product}, {free}"
    known = find_card(smallest.product, smallest.total_bytes)
    size = request.device_memory_bytes or smallest.total_bytes
    return replace(request, device=None if known is None else known.name, device_memory_bytes=size), note
