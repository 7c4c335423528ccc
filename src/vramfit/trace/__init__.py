"""A GPU that is not there: what a program would allocate on it, without owning one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vramfit.trace.virtual_gpu import VirtualGPU

__all__ = ["VirtualGPU"]


def __getattr__(name: str) -> Any:
    """Import the virtual GPU, which needs torch, only when it is asked for."""
    if name == "VirtualGPU":
        from vramfit.trace.virtual_gpu import VirtualGPU  # noqa: PLC0415 - it needs torch, its neighbours do not

        return VirtualGPU
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
