"""``--gpu here``: reads this machine's cards through NVML."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.errors import VramfitError


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
