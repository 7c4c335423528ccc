"""Runs somebody's own program, unchanged, until it ends or has shown enough.

Call it inside ``with VirtualGPU(...)``. The program gets a ``__main__`` of its own, its arguments, and its folder first
on the path; what it raises is kept, not raised.
"""

from __future__ import annotations

import importlib.util
import io
import linecache
import sys
import time
import traceback
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from vramfit.errors import UnreadableFileError
from vramfit.trace.ending import CRASHED, INTERRUPTED, Ending, Stop
from vramfit.trace.limits import Limits, Stopped, limited
from vramfit.trace.weightless import without_weights as weightless

HERE = str(Path(__file__).resolve().parent)
HIDDEN = (HERE, "torch/overrides.py", "torch/utils/_python_dispatch.py", "torch/utils/_device.py")
"""Files whose frames say nothing to the author of the program: ours, and the torch functions that call ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A program to run."""

    path: Path | None = None
    """A file; None = ``module`` is given."""
    module: str | None = None
    """As in ``python -m``; None = ``path`` is given."""
    arguments: tuple[str, ...] = ()

    def code(self) -> tuple[types.CodeType, dict[str, Any], str]:
        """Return the compiled program, the names its ``__main__`` starts with, and its folder.

        Raises:
            UnreadableFileError: no such file or module, or no Python in it.
        """
        spec = None
        if self.module is not None:
            spec = self._find()
            origin = Path(str(spec.origin))
        else:
            origin = Path(str(self.path)).absolute()
        try:
            with io.open_code(str(origin)) as file:
                compiled = compile(file.read(), str(origin), "exec", dont_inherit=True)
        except OSError as error:
            raise UnreadableFileError(f"{origin}: {error.strerror}; expected a Python program") from None
        except (SyntaxError, ValueError) as error:
            where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
            raise UnreadableFileError(f"{origin}: {where}; expected a Python program of this version") from None
        package = None if spec is None else spec.name.rpartition(".")[0]
        names = {"__file__": str(origin), "__spec__": spec, "__package__": package, "__cached__": None}
        return compiled, names, str(Path.cwd()) if spec else str(origin.parent)

    def _find(self) -> Any:
        with _on_path(str(Path.cwd())):
            try:
                spec = importlib.util.find_spec(str(self.module))
                if spec is not None and spec.submodule_search_locations is not None:
                    spec = importlib.util.find_spec(f"{self.module}.__main__")
            except (ImportError, ValueError):
                spec = None
        if spec is None or not str(spec.origin).endswith(".py"):
            raise UnreadableFileError(f"-m {self.module}: no such module; expected one that `python -m` would run")
        return spec


def run_script(script: Script, limits: Limits, *, without_weights: bool = False) -> Ending:
    """Run a program as ``python`` would, and say how it ended; ``without_weights``: models are built, not loaded.

    Raises:
        UnreadableFileError: there is no such program.
    """
    code, names, folder = script.code()
    main = types.ModuleType("__main__")
    main.__dict__.update(names)
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(_as_main(main, [names["__file__"], *script.arguments], folder))
        changes = stack.enter_context(_loading_in_this_process())
        if without_weights:
            stack.enter_context(weightless(changes))
        counted = stack.enter_context(limited(limits))
        stop, exit_code, text = _outcome(code, main)
    return Ending(
        stop=stop, exit_code=exit_code, num_steps=counted.num_steps, seconds=time.monotonic() - began, traceback=text,
        changes=tuple(changes),
    )  # fmt: skip


def _outcome(code: types.CodeType, main: types.ModuleType) -> tuple[Stop, int, str]:
    """Run compiled code; whatever it raises is its own affair."""
    try:
        exec(code, main.__dict__)  # noqa: S102 - running the user's program is what is asked for
    except Stopped as stopped:
        return stopped.stop, 0, ""
    except KeyboardInterrupt:
        return Stop.INTERRUPT, INTERRUPTED, ""
    except SystemExit as leaving:
        return Stop.EXIT, exit_code_of(leaving.code), ""
    except torch.OutOfMemoryError as error:
        return Stop.MEMORY, CRASHED, own_traceback(error)
    except BaseException as error:  # noqa: BLE001 - so
        return Stop.CRASH, CRASHED, own_traceback(error)
    return Stop.END, 0, ""


def exit_code_of(code: object) -> int:
    """Return the exit code that Python makes of what ``sys.exit`` was given.

    >>> exit_code_of(None), exit_code_of(3), exit_code_of("no data")
    (0, 3, 1)
    """
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 255
    print(code, file=sys.stderr)  # noqa: T201 - as Python does
    return CRASHED


def own_traceback(error: BaseException) -> str:
    """Return a traceback as Python prints it, without frames that are not the program's."""
    said = traceback.TracebackException(type(error), error, _own(error.__traceback__), compact=True)
    seen = [said]
    while seen:
        each = seen.pop()
        each.stack = traceback.StackSummary.from_list([frame for frame in each.stack if not hidden(frame.filename)])
        seen += [inner for inner in (each.__cause__, each.__context__) if inner is not None]
    return "".join(said.format()).rstrip()


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback from the first frame on that is the program's."""
    while trace is not None and hidden(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def hidden(file: str) -> bool:
    """Say whether the frames of a file are not the program's own."""
    return file.startswith(HERE) or file.endswith(HIDDEN[1:])


@contextmanager
def _as_main(main: types.ModuleType, argv: list[str], folder: str) -> Iterator[None]:
    """Be the program that was started: its ``__main__``, arguments and path; afterwards ours again."""
    before, arguments = sys.modules["__main__"], sys.argv
    sys.modules["__main__"], sys.argv = main, argv
    linecache.checkcache()
    try:
        with _on_path(folder):
            yield
    finally:
        sys.modules["__main__"], sys.argv = before, arguments


@contextmanager
def _on_path(folder: str) -> Iterator[None]:
    """Look for modules in a folder first."""
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _loading_in_this_process() -> Iterator[list[str]]:
    """Let DataLoaders start no other processes and pin nothing; yields what was changed, once each."""
    import inspect  # noqa: PLC0415 - beside its use

    loader = torch.utils.data.DataLoader
    original = loader.__init__
    signature, said = inspect.signature(original), list[str]()
    alone = {
        "num_workers": 0, "pin_memory": False, "persistent_workers": False, "prefetch_factor": None, "timeout": 0,
        "multiprocessing_context": None,
    }  # fmt: skip

    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        workers = bound.arguments.get("num_workers", 0)
        text = f"DataLoader: {workers} worker processes become none; batches are the same"
        if workers and text not in said:
            said.append(text)
        bound.arguments.update({k: v for k, v in alone.items() if k in bound.arguments})
        original(*bound.args, **bound.kwargs)

    loader.__init__ = begin
    try:
        yield said
    finally:
        loader.__init__ = original
