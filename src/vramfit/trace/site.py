"""Where an allocation was made: the path of the module that ran, and the lines of Python that led there."""

from __future__ import annotations

import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import torch

from vramfit.trace.recording import Frame

_TORCH = str(Path(torch.__file__).parent) + "/"
_OURS = str(Path(__file__).parents[1]) + "/"
_DOOR = tuple(getattr(find_spec("click"), "submodule_search_locations", None) or ())
"""The library of the command line: frames between it and a model by name are nobody's line."""
_LIBRARIES = tuple(
    {f"{sysconfig.get_paths()[key]}/" for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {f"{Path(torch.__file__).parent.parent}/", f"{Path(__file__).parents[1]}/"}
)
MOST_FRAMES = 64
"""How far up a call is looked for: deeper than a layer of any model of transformers is from the training loop."""
_SKIPPED, _LIBRARY, _USER = 0, 1, 2


class Site(NamedTuple):
    """A place in the program."""

    module: str
    frames: tuple[Frame, ...]


class Sites:
    """Finds the place that runs now; remembers which file is whose."""

    __slots__ = ("_frames", "_kinds", "_names", "_stack")

    def __init__(self) -> None:
        """Start outside of every module."""
        self._kinds: dict[CodeType, int] = {}
        self._frames: dict[tuple[CodeType, int], Frame] = {}
        self._names: dict[int, str] = {}
        self._stack: list[str] = []

    @property
    def depth(self) -> int:
        """How many modules are running inside one another."""
        return len(self._stack)

    @property
    def module(self) -> str:
        """Path of the innermost module that runs; empty = none does."""
        return self._stack[-1] if self._stack else ""

    def enter(self, module: torch.nn.Module) -> None:
        """Note that a module's forward begins; the first one names all below it."""
        name = self._names.get(id(module))
        if name is None or not self._stack:
            self._learn(module)
            name = self._names[id(module)]
        self._stack.append(name)

    def leave(self) -> None:
        """Note that the innermost module's forward ended, or was broken off."""
        if self._stack:
            self._stack.pop()

    def _learn(self, root: torch.nn.Module) -> None:
        prefix = self._stack[-1] if self._stack else type(root).__name__
        for path, module in root.named_modules():
            self._names.setdefault(id(module), f"{prefix}.{path}" if path else prefix)

    def here(self) -> tuple[Frame, ...]:
        """Return the innermost line outside of PyTorch and, where that is a library's, the innermost of the user's."""
        frame = sys._getframe(2)
        kinds, found = self._kinds, None
        for _ in range(MOST_FRAMES):
            code = frame.f_code
            kind = kinds.get(code)
            if kind is None:
                kind = kinds[code] = _kind(code.co_filename)
            if kind:
                line = self._frame(code, frame.f_lineno)
                if kind == _USER:
                    return (line,) if found is None else (found, line)
                if found is None:
                    found = line
            if frame.f_back is None:
                break
            frame = frame.f_back
        return () if found is None else (found,)

    def _frame(self, code: CodeType, line: int) -> Frame:
        found = self._frames.get((code, line))
        if found is None:
            found = self._frames[code, line] = Frame(code.co_filename, line, code.co_name)
        return found


def _kind(filename: str) -> int:
    """Return whose file it is: PyTorch's or ours, another library's, or the user's."""
    if filename.startswith((_TORCH, _OURS, *_DOOR, "<frozen", "<string")):
        return _SKIPPED
    return _LIBRARY if filename.startswith(_LIBRARIES) else _USER
