"""PyTorch's composites in Python, such as ``F.multi_head_attention_forward``, run with a function mode on.

PyTorch calls a function mode's handler with that mode switched off, so what a composite calls inside would pass the
mode by. A composite's body without its own question "does anybody override me?" can run with the mode on again: every
call inside comes to the handler, also the backward engine and what it calls back. No private name is replaced.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch

_QUESTIONS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


def _nobody(*_: object) -> bool:
    return False


class _Overrides:
    """Stands in for ``torch.overrides`` inside a body that asks there."""

    def __getattr__(self, name: str) -> Any:
        return _nobody if name in _QUESTIONS else getattr(torch.overrides, name)


class _Torch:
    """Stands in for the module ``torch`` inside a body that asks ``torch.overrides``."""

    overrides = _Overrides()

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class Bodies:
    """Copies of functions whose globals answer that nobody overrides them; made once each."""

    __slots__ = ("_globals", "_known")

    def __init__(self) -> None:
        """Start without copies."""
        self._known: dict[Callable[..., Any], Callable[..., Any] | None] = {}
        self._globals: dict[tuple[int, bool], dict[str, Any]] = {}

    def of(self, func: Callable[..., Any]) -> Callable[..., Any] | None:
        """Return the body of a composite written in Python; None = it is no such function."""
        try:
            return self._known[func]
        except KeyError:
            found = self._known[func] = self._copied(func)
            return found

    def _copied(self, func: Callable[..., Any]) -> Callable[..., Any] | None:
        if not isinstance(func, types.FunctionType) or not (func.__module__ or "").startswith("torch"):
            return None
        asks_there = any(name in _QUESTIONS and name not in func.__globals__ for name in func.__code__.co_names)
        copy = types.FunctionType(
            func.__code__,
            self._answering(func.__globals__, asks_there),
            func.__name__,
            func.__defaults__,
            func.__closure__,
        )
        copy.__kwdefaults__ = func.__kwdefaults__
        return copy

    def _answering(self, names: dict[str, Any], asks_there: bool) -> dict[str, Any]:
        found = self._globals.get((id(names), asks_there))
        if found is None:
            found = {**names, **dict.fromkeys(_QUESTIONS, _nobody)}
            if asks_there:
                found["torch"] = _Torch()
            self._globals[id(names), asks_there] = found
        return found
