"""Shapes of results, remembered: an operator on tensors of the same shapes returns tensors of the same shapes.

PyTorch derives them in Python, at up to a millisecond each; a model repeats the same few hundred questions for every
layer and step. Answers depend on shapes, strides, types and plain arguments only, never on data, which is not there.
"""

from __future__ import annotations

from typing import Any

import torch

_PLAIN = frozenset({int, float, bool, type(None), torch.dtype, torch.layout, torch.memory_format, torch.device, str})
_MOST = 20_000
"""Answers kept: far more than any model asks, so that a program of ever new shapes ends up with little memory."""
_RANDOM_IN_PLACE = ("normal_", "uniform_", "bernoulli_", "exponential_", "random_", "zero_", "fill_", "trunc_normal_")


class Shapes:
    """Runs operators on the meta device, each question once."""

    def __init__(self) -> None:
        """Begin without answers."""
        self._answers: dict[Any, Any] = {}
        self._kinds: dict[Any, str] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what the operator returns."""
        kind = self._kinds.get(func)
        if kind is None:
            kind = self._kinds[func] = _kind(func)
        if kind == "made":
            return self._made(func, args, kwargs)
        if kind == "filled":
            return args[0] if args[0].is_meta else func(*args, **kwargs)
        if kind == "lists" and args[0] and args[0][0].is_meta:
            return None
        return func(*args, **kwargs)

    def _made(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return new tensors, from memory where the question was asked before."""
        try:
            question = (func, _key(args), _key(kwargs.items()) if kwargs else None)
        except TypeError:
            return func(*args, **kwargs)
        answer = self._answers.get(question)
        if answer is None:
            out = func(*args, **kwargs)
            if len(self._answers) < _MOST:
                self._answers[question] = _answer(out, args) or "no"
            return out
        if answer == "no":
            return func(*args, **kwargs)
        if isinstance(answer, list):
            return tuple(_tensor(each) for each in answer)
        return _tensor(answer)


def _kind(func: Any) -> str:
    """Return how an operator may be answered: it makes tensors, fills one, writes into lists, or runs as it is."""
    schema = getattr(func, "_schema", None)
    if schema is None or func.namespace != "aten":
        return "run"
    name = schema.name.removeprefix("aten::")
    if schema.is_mutable:
        if name in _RANDOM_IN_PLACE:
            return "filled"
        return "lists" if name.startswith("_foreach_") and name.endswith("_") and not schema.returns else "run"
    made = bool(schema.returns) and all(r.alias_info is None and str(r.type) == "Tensor" for r in schema.returns)
    return "made" if made else "run"


def _key(values: Any) -> tuple[Any, ...]:
    """Return what a result's shape may depend on; TypeError = not to be remembered."""
    found: list[Any] = []
    for value in values:
        kind = type(value)
        if kind is torch.Tensor or kind is torch.nn.Parameter:
            found.append((value.shape, value.stride(), value.dtype, value.is_meta))
        elif kind in _PLAIN:
            found.append((kind, value))
        elif kind is list or kind is tuple:
            found.append((kind, _key(value)))
        elif kind is torch.Size:
            found.append(value)
        else:
            raise TypeError
    return tuple(found)


def _answer(out: Any, args: Any) -> Any:
    """Return what describes fresh results; None = they are not fresh, or not all tensors of the meta device."""
    if isinstance(out, tuple):
        parts = [_answer(each, args) for each in out]
        return parts if all(part is not None for part in parts) else None
    if type(out) is not torch.Tensor or not out.is_meta or out.storage_offset():
        return None
    used = {t.untyped_storage()._cdata for t in args if isinstance(t, torch.Tensor)}
    if out.untyped_storage()._cdata in used or out.is_conj() or out.is_neg():
        return None
    fresh = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device="meta")
    if fresh.untyped_storage().nbytes() != out.untyped_storage().nbytes():
        return None
    return (tuple(out.shape), out.stride(), out.dtype)


def _tensor(answer: Any) -> torch.Tensor:
    shape, stride, dtype = answer
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
