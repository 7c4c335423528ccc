"""What ``vramfit trace`` is pointed at: a script, a module to run, somebody's factory, or a model by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vramfit.catalogue.device import find_device
from vramfit.device import Device
from vramfit.errors import InvalidValueError, UnreadableFileError
from vramfit.units import parse_bytes

MODEL_OPTIONS = {
    "task": "--train, --infer, --generate", "batch": "--batch", "sequence_tokens": "--sequence",
    "new_tokens": "--new-tokens", "precision": "--dtype", "optimizer": "--optimizer",
    "optimizer_implementation": "--optimizer-implementation", "recompute": "--recompute", "lora_rank": "--lora-rank",
    "lora_targets": "--lora-targets", "base_format": "--base-format", "attention": "--attention",
    "accumulate": "--accumulate", "clip_norm": "--clip-norm", "image": "--image", "inputs": "--input",
    "config_file": "--config", "hub": "--hub",
}  # fmt: skip
"""Options that say what a model by name is to do; a script says that itself."""
CONFIG_LIMIT_BYTES = 16 * 2**20
Run = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be traced."""

    title: str
    device: Device
    run: Callable[[], Run]
    """Returns what runs it inside the virtual GPU; imports torch."""
    takes_arguments: bool = False

    def quiet(self) -> Target:
        """Return the same, with what the program prints sent to standard error."""
        made = self.run

        def run() -> Run:
            inner = made()

            def quietly(gpu: Any) -> Any:  # noqa: ANN401 - the virtual GPU and an ending, whose room is imported late
                with redirect_stdout(sys.stderr):
                    return inner(gpu)

            return quietly

        return replace(self, run=run)


def target_of(target: str, arguments: tuple[str, ...], given: dict[str, Any]) -> Target:
    """Return what a command line means.

    Raises:
        VramfitError: no such file, module, model or card.
    """
    device = device_of(given["gpu"], given["gpu_memory"])
    path = Path(target)
    if given["as_module"]:
        return _script(target, device, given, module=target, arguments=arguments)
    if target.endswith((".py", ".pyw")) and ":" not in target:
        if not path.is_file():
            raise UnreadableFileError(f"{target}: no such file; expected a Python program to run")
        return _script(target, device, given, path=path, arguments=arguments)
    if target.rpartition(":")[0].endswith(".py"):
        return _factory(target, device, given)
    return _model(target, device, given)


def device_of(name: str, memory: str | None) -> Device:
    """Return the card by name, or this machine's smallest, with the memory that it really has.

    Raises:
        VramfitError: no such card, or no size.
    """
    if name == "here":
        from vramfit.cli.here import cards  # noqa: PLC0415 - only this machine's owner pays for it

        smallest = min(cards(), key=lambda card: card.total_bytes)
        return replace(find_device(smallest.product, "--gpu"), total_bytes=smallest.total_bytes)
    found = find_device(name, "--gpu")
    return found if memory is None else replace(found, total_bytes=parse_bytes(memory, "--gpu-memory"))


def hints_of(texts: Iterable[str]) -> dict[str, float | int | bool]:
    """Return hints by operator or by line.

    Raises:
        InvalidValueError: no number behind the last equals sign.

    >>> hints_of(["nonzero=128", "train.py:31=0.5", "item=true"])
    {'nonzero': 128, 'train.py:31': 0.5, 'item': True}
    """
    found: dict[str, float | int | bool] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            found[name] = {"true": True, "false": False}[value] if value in {"true", "false"} else _number(value)
        except ValueError:
            name = ""
        if not name:
            raise InvalidValueError("--hint", text, "NAME=NUMBER: an operator such as nonzero=128, or train.py:31=0.5")
    return found


def _number(text: str) -> float | int:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _limits(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return how long a program is followed.

    Raises:
        InvalidValueError: steps that are neither a number nor ``all``.
    """
    text = given["steps"]
    if text != "all" and not (text.isdecimal() and int(text)):
        raise InvalidValueError("--steps", text, "a number of optimizer steps from 1 on, or all")
    return {"steps": None if text == "all" else int(text), "seconds": given["max_seconds"]}


def _script(title: str, device: Device, given: dict[str, Any], **named: Any) -> Target:  # noqa: ANN401 - a Script's fields
    limits = _limits(given)

    def run() -> Run:
        from vramfit.trace.limits import Limits  # noqa: PLC0415 - imports torch
        from vramfit.trace.script import Script  # noqa: PLC0415
        from vramfit.trace.session import run_program  # noqa: PLC0415

        return run_program(Script(**named), Limits(**limits), without_weights=given["without_weights"])

    return Target(title=title, device=device, run=run, takes_arguments=True)


def _factory(target: str, device: Device, given: dict[str, Any]) -> Target:
    asked = _asked(given)
    limits = _limits(given)

    def run() -> Run:
        from vramfit.trace.factory import run_target  # noqa: PLC0415 - imports torch
        from vramfit.trace.limits import Limits  # noqa: PLC0415
        from vramfit.trace.session import run_own  # noqa: PLC0415

        return run_own(partial(run_target, target, given["inputs"], asked), Limits(**limits))

    return Target(title=target, device=device, run=run)


def _model(name: str, device: Device, given: dict[str, Any]) -> Target:
    from vramfit.trace.models import library_model, workload_of, workload_of_library  # noqa: PLC0415

    asked, limits = _asked(given), _limits(given)
    found = library_model(name)
    if given["inputs"]:
        raise InvalidValueError("--input", given["inputs"][0], "file.py:factory as the target", "leave it out")
    workload = workload_of(_config(name, given), name, asked) if found is None else workload_of_library(*found, asked)

    def run() -> Run:
        from vramfit.trace.limits import Limits  # noqa: PLC0415 - imports torch
        from vramfit.trace.session import run_own  # noqa: PLC0415
        from vramfit.trace.workloads import run_workload  # noqa: PLC0415

        return run_own(partial(run_workload, workload), Limits(**limits))

    return Target(title=f"{name}, {workload.task}", device=device, run=run)


def _asked(given: dict[str, Any]) -> Any:  # noqa: ANN401 - Asked, whose room is imported late
    from vramfit.trace.models import STEPS, Asked  # noqa: PLC0415

    names = (
        "batch", "sequence_tokens", "new_tokens", "precision", "optimizer", "optimizer_implementation", "recompute",
        "lora_rank", "base_format", "attention", "image", "clip_norm",
    )  # fmt: skip
    targets = given["lora_targets"]
    steps = given["steps"]
    return Asked(
        **{name: given[name] for name in names},
        task=given["task"] or "train",
        lora_targets=tuple(filter(None, targets.split(","))) if targets else (),
        gradient_accumulation_steps=given["accumulate"],
        steps=int(steps) if steps.isdecimal() and int(steps) else STEPS,
    )


def _config(name: str, given: dict[str, Any]) -> Mapping[str, object]:
    """Return the content of a model's ``config.json``: from a file, the catalogue or the Hub.

    Raises:
        VramfitError: no such file or model, or the Hub does not answer.
    """
    from vramfit.readers.json_text import load_json_object  # noqa: PLC0415

    path = Path(name if given["config_file"] is None else given["config_file"]).expanduser()
    if given["config_file"] is not None or path.exists():
        return load_json_object(path / "config.json" if path.is_dir() else path, CONFIG_LIMIT_BYTES)
    from vramfit.source import config_of  # noqa: PLC0415

    return config_of(name, hub=given["hub"])
