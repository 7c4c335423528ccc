"""A plain module from somebody's own file: ``file.py:factory``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vramfit.errors import InvalidValueError, UnreadableFileError
from vramfit.trace.case import DTYPES as FORMATS
from vramfit.trace.case import Case, Inputs, Order
from vramfit.trace.models import Asked
from vramfit.trace.workloads import drive
from vramfit.workload import Workload

DTYPES = {
    "float": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "long": torch.int64,
    "int": torch.int64, "bool": torch.bool,
}  # fmt: skip
LARGEST_SIDE = 2**31


def split_target(target: str) -> tuple[Path, str] | None:
    """Return file and name of ``file.py:factory``; None = it is something else.

    >>> split_target("models/net.py:make")[1]
    'make'
    """
    file, _, name = target.rpartition(":")
    return (Path(file), name) if file.endswith(".py") and name.isidentifier() else None


def parse_input(text: str) -> tuple[str, tuple[int, ...], torch.dtype | None]:
    """Return name, shape and format of ``x=4x3x224x224`` or ``tokens=4x512:long``; no format = that of the weights.

    Raises:
        InvalidValueError: it reads otherwise.

    >>> parse_input("x=4x3")[:2]
    ('x', (4, 3))
    """
    name, _, rest = text.partition("=")
    shape, _, dtype = rest.partition(":")
    sides = shape.split("x")
    if not name.isidentifier() or not all(s.isdecimal() and 0 < int(s) < LARGEST_SIDE for s in sides):
        raise InvalidValueError("--input", text, "NAME=SHAPE such as x=4x3x224x224, or tokens=4x512:long")
    if dtype and dtype not in DTYPES:
        raise InvalidValueError("--input", text, f"a format among {', '.join(DTYPES)}")
    return name, tuple(map(int, sides)), DTYPES[dtype] if dtype else None


def load_factory(path: Path, name: str) -> Any:
    """Import a file and return what it calls so.

    Raises:
        UnreadableFileError: no such file.
        InvalidValueError: nothing of that name in it, or it cannot be called.
    """
    if not path.is_file():
        raise UnreadableFileError(f"{path}: no such file; expected a Python file with {name} in it")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        raise InvalidValueError(f"{path}:{name}", found, "a function or class that returns a torch.nn.Module")
    return found


def run_factory(factory: Any, inputs: tuple[str, ...], order: Order) -> None:
    """Make the module, and train it or run it on inputs of the shapes given.

    Raises:
        InvalidValueError: what was returned is no module, or nothing says what it takes.
    """
    with order.as_default():
        made = factory()
    model, own = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, torch.nn.Module):
        raise InvalidValueError(
            "factory", type(model).__name__, "a torch.nn.Module, or one and a mapping of its inputs"
        )
    shapes = [parse_input(text) for text in inputs]
    if own is None and not shapes:
        raise InvalidValueError(
            "factory",
            type(model).__name__,
            "inputs beside it",
            "give --input x=4x3x224x224, or return (module, inputs)",
        )

    def make() -> Inputs:
        if own is not None and not shapes:
            return dict(own() if callable(own) else own)
        return {name: _filled(shape, dtype or order.dtype) for name, shape, dtype in shapes}

    drive(Case(model=model.to(order.device), make_inputs=make, loss=_any_loss), order, lambda _: None)


def run_target(target: str, inputs: tuple[str, ...], asked: Asked) -> None:
    """Do with the module of ``file.py:factory`` what was asked for.

    Raises:
        VramfitError: no such file, nothing of that name, no module, or no inputs.
    """
    found = split_target(target)
    if found is None:
        raise InvalidValueError("TARGET", target, "file.py:factory, with the name of a function or class")
    workload = Workload(
        builder="factory", task=asked.task, batch=asked.batch, precision=asked.precision, optimizer=asked.optimizer,
        optimizer_implementation=asked.optimizer_implementation, clip_norm=asked.clip_norm, steps=asked.steps,
        gradient_accumulation_steps=asked.gradient_accumulation_steps,
    )  # fmt: skip
    order = Order(workload=workload, device=torch.device("cuda"), dtype=FORMATS[workload.precision])
    run_factory(load_factory(*found), inputs, order)


def _filled(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def _any_loss(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """Return the model's own loss, or the mean square of all that it returns."""
    out = model(**inputs)
    own = out.get("loss") if isinstance(out, Mapping) else getattr(out, "loss", None)
    if isinstance(own, torch.Tensor):
        return own
    found = [t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    if not found:
        raise InvalidValueError("factory", type(out).__name__, "a model that returns at least one tensor of floats")
    total: torch.Tensor = sum((t.float().pow(2).mean() for t in found[1:]), found[0].float().pow(2).mean())
    return total
