"""Values that depend on data which is not there: what was set is known, what was hinted is taken, the rest is stated.

A program's memory seldom depends on such values. Where it does (a shape made of data), it is refused with the operator
and the user's line, unless the caller gave a hint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from vramfit.errors import VramfitError
from vramfit.trace.recorder import Recorder, storage_key

Hint = float | int | bool


class DataDependentError(VramfitError):
    """A shape that depends on data: without data it cannot be known."""

    def __init__(self, operator: str, where: str) -> None:
        """Name the operator and the line of the caller's code."""
        self.operator, self.where = operator, where
        super().__init__(
            f"{where}: {operator}: the shape of its result depends on data, which a trace does not have; expected a "
            f"hint of how many elements it finds; give one: hints={{{operator!r}: 128}} (in the command: "
            f"--hint {operator}=128)"
        )


class Values:
    """What is known, hinted and stated about data."""

    def __init__(self, recorder: Recorder, hints: Mapping[str, Hint] | None) -> None:
        """Take hints by operator (``item``, ``bool``, ``nonzero``), or by ``file.py:line`` for one place."""
        self.recorder, self.hints = recorder, dict(hints or {})
        self.stated: dict[str, int] = {}
        """What was assumed about data, and how often."""
        self._known: dict[int, tuple[Any, Hint]] = {}

    def state(self, what: str) -> None:
        """Note an assumption."""
        self.stated[what] = self.stated.get(what, 0) + 1

    def written(self, func: Any, args: tuple[Any, ...]) -> None:
        """Note that an operator writes in place: what was known of its first operand is known no more.

        The check of gradients for infinities writes into its second: they count as finite, so what was 0 there stays.
        """
        if func._schema.is_mutable and args and isinstance(args[0], torch.Tensor):
            self.forget(args[0])

    def set(self, tensor: torch.Tensor, value: Hint) -> None:
        """Note that all of a small tensor has one value."""
        entry = self.recorder.live.get(storage_key(tensor))
        if entry is not None:
            self._known[entry.key] = (entry, value)
            self.recorder.written = self.written

    def forget(self, tensor: torch.Tensor) -> None:
        """Note that a tensor was written to."""
        if self._known and isinstance(tensor, torch.Tensor) and tensor.is_meta:
            self._known.pop(storage_key(tensor), None)
            self.recorder.written = self.written if self._known else None

    def copied(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Note that a number was copied, from the host or from one that is known."""
        if source.numel() != 1 or not target.is_meta:
            return
        known = self.known(source) if source.is_meta else source.detach().reshape(()).item()
        if known is not None:
            self.set(target, known)

    def known(self, tensor: torch.Tensor) -> Hint | None:
        """Return the value that all of a tensor has; None = not known."""
        if not self._known:
            return None
        key = storage_key(tensor)
        found = self._known.get(key)
        if found is None or self.recorder.live.get(key) is not found[0]:
            return None
        return found[1]

    def answer(self, tensor: torch.Tensor) -> Hint:
        """Return the value of a tensor with one element."""
        known = self.known(tensor)
        if known is not None:
            return known
        hint = self.hint("bool" if tensor.dtype == torch.bool else "item")
        if hint is not None:
            return hint
        if tensor.dtype == torch.bool:
            self.state("bool() of a tensor on the device is True")
            return True
        if tensor.is_floating_point():
            self.state("item() of a tensor on the device is 1.0")
            return 1.0
        self.state("item() of an integer tensor on the device is 1")
        return 1

    def hint(self, operator: str) -> Hint | None:
        """Return the caller's hint for an operator here; None = there is none."""
        if not self.hints:
            return None
        for frame in self.recorder.sites.here():
            for key in (f"{frame.file}:{frame.line}", f"{frame.file.rpartition('/')[2]}:{frame.line}"):
                if key in self.hints:
                    return self.hints[key]
        return self.hints.get(operator)

    def count(self, operator: str, most: int) -> int:
        """Return how many of at most ``most`` elements an operator finds: a hint below 1 is a share of them.

        Raises:
            DataDependentError: nobody said.
        """
        hint = self.hint(operator)
        if hint is None:
            frames = self.recorder.sites.here()
            where = f"{frames[-1].file}:{frames[-1].line}" if frames else "traced program"
            raise DataDependentError(operator, where)
        found = math.ceil(hint * most) if isinstance(hint, float) and 0 < hint <= 1 else int(hint)
        return min(found, most)
