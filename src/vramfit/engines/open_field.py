"""Open fields of a workload: what was left to the engine, filled in, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vramfit.request import Inference
from vramfit.result import Choice


def fill(workload: Inference, defaults: Mapping[str, tuple[Any, str]]) -> tuple[Inference, tuple[Choice, ...]]:
    """Return the workload with every open field decided, and the choices; what was asked stays.

    >>> filled, choices = fill(Inference(block_tokens=16), {"block_tokens": (64, "page"), "eager": (False, "graphs")})
    >>> filled.block_tokens, [choice.field for choice in choices]
    (16, ['eager'])
    """
    opened = {name: pair for name, pair in defaults.items() if getattr(workload, name) is None}
    choices = tuple(Choice(field=name, value=value, why=why) for name, (value, why) in opened.items())
    return replace(workload, **{name: value for name, (value, _) in opened.items()}), choices
