"""The memory components in their own words: docstrings of the functions that count them."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import vramfit.memory


def names() -> tuple[str, ...]:
    """Return the names of the components, one per file."""
    return tuple(m.name for m in pkgutil.iter_modules(vramfit.memory.__path__))


def component(name: str) -> tuple[str, ...]:
    """Return what a component's module and public functions say of themselves, line by line."""
    module = import_module(f"vramfit.memory.{name}")
    lines = [*(inspect.getdoc(module) or "").splitlines()]
    for title, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__ and not title.startswith("_"):
            lines += ["", f"{title}:", *(f"  {line}" for line in (inspect.getdoc(function) or "").splitlines())]
    return tuple(line for line in lines)
