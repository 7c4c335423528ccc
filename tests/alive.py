"""Counts the bytes that are alive while a torch model runs, on any device; ``meta`` needs neither memory nor time."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


def alive_at_peak(model: Any, run: Callable[[], object]) -> list[int]:
    """Return the sizes of all tensors that are alive when most bytes are, the model's own aside. [B]"""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    weights = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    peak: list[int] = []

    class Alive(TorchDispatchMode):  # type: ignore[misc,unused-ignore]
        """Sees every operation, and when its results die."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            out = func(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(out):
                if not isinstance(tensor, torch.Tensor):
                    continue
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in sizes and key not in weights:
                    sizes[key] = storage.nbytes()
                    weakref.finalize(storage, sizes.pop, key, None)
            if sum(sizes.values()) > sum(peak):
                peak[:] = sizes.values()
            return out

    with torch.no_grad(), Alive():
        run()
    return peak
