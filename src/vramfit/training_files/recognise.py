"""Says whose file one is, by what stands in it, and reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vramfit.commands.command_line import Effect, Word
from vramfit.errors import InvalidValueError
from vramfit.request import Given
from vramfit.training_files import (
    accelerate,
    axolotl,
    deepspeed,
    litgpt,
    llama_factory,
    megatron,
    ms_swift,
    torchtitan,
    torchtune,
    trainer,
)
from vramfit.training_files.command import TrainingCommand, find
from vramfit.training_files.key import flat
from vramfit.training_files.training_file import NODES, PER_NODE, Document, TrainingFile

KINDS = (
    "DeepSpeed JSON; accelerate YAML; arguments of the Hugging Face Trainer or TRL; Axolotl YAML; LLaMA-Factory YAML; "
    "torchtune YAML; litgpt YAML; torchtitan TOML or flags; Megatron-LM arguments; ms-swift arguments"
)
VERBS = {
    "dpo": "dpo", "kto": "dpo", "orpo": "orpo", "cpo": "orpo", "grpo": "grpo", "rloo": "grpo", "reward": "reward",
}  # fmt: skip
"""What TRL is asked to do -> objective."""


def read(document: Document) -> TrainingFile:
    """Return what a file says.

    Raises:
        InvalidValueError: nobody's file that is known here, or a value that cannot be.
    """
    if document.values is None:
        return _of_command(document, find(document.text, document.where))
    return _of_mapping(document, document.values)


def _of_mapping(document: Document, values: Mapping[str, object]) -> TrainingFile:
    names, nested = set(values), flat(values)
    program = next((program for program, known in SIGNS if known(names, values)), None)
    if program is None:
        seen = ", ".join(sorted(names)[:12])
        raise InvalidValueError(document.where, seen, f"keys of one of: {KINDS}")
    return program(document, nested)


def _is_torchtune(_: set[str], values: Mapping[str, object]) -> bool:
    parts = (values.get(name) for name in ("model", "checkpointer", "optimizer"))
    return any(isinstance(part, Mapping) and "_component_" in part for part in parts)


def _is_litgpt(names: set[str], values: Mapping[str, object]) -> bool:
    return bool(names & {"checkpoint_dir", "model_name"}) and isinstance(values.get("train"), Mapping)


SIGNS: tuple[
    tuple[Callable[[Document, Mapping[str, Any]], TrainingFile], Callable[[set[str], Mapping[str, object]], bool]], ...
] = (
    (llama_factory.read, lambda names, _: "finetuning_type" in names or {"stage", "cutoff_len"} <= names),
    (axolotl.read, lambda names, _: "base_model" in names),
    (torchtune.read, _is_torchtune),
    (litgpt.read, _is_litgpt),
    (
        torchtitan.read,
        lambda names, _: bool(names & {"parallelism", "activation_checkpoint"}) or {"training", "job"} <= names,
    ),
    (ms_swift.read, lambda names, _: bool(names & ms_swift.MARKS)),
    (accelerate.read, lambda names, _: bool(names & accelerate.MARKS)),
    (deepspeed.read, lambda names, _: bool(names & deepspeed.MARKS)),
    (trainer.read, lambda names, _: bool(names & trainer.MARKS)),
)
"""Reader -> how its files are known; the most particular first."""


def _of_command(document: Document, command: TrainingCommand) -> TrainingFile:
    flags = command.flags
    match command.program:
        case "megatron":
            found = megatron.read(document, flags)
        case "ms_swift":
            found = ms_swift.read(document, _spelt(flags), command.verb)
        case "torchtitan":
            found = torchtitan.read(document, {_underscored(name): value for name, value in flags.items()})
        case "litgpt":
            known = {litgpt.BY_VERB[command.verb]: None} if command.verb in litgpt.BY_VERB else {}
            found = litgpt.read(document, {**known, **_spelt(flags)})
        case "llama_factory":
            found = llama_factory.read(document, _spelt(flags))
        case _:
            found = trainer.read(document, _spelt(flags))
            if command.verb in VERBS or command.trl:
                found = replace(found, framework="trl")
    objective = VERBS.get(command.verb) if command.program == "trainer" else None
    words = tuple(_launched(command, document.where))
    if objective is not None and not any(g.path == "workload.objective" for g in found.given):
        words = (*words, _word("command", command.verb, "workload.objective", objective, document.where))
    launcher = _accelerated(command, document)
    return replace(found, words=(*words, *launcher, *found.words))


def _accelerated(command: TrainingCommand, document: Document) -> tuple[Word, ...]:
    """Return what the flags of ``accelerate launch`` say, which are the keys of its YAML."""
    values = accelerate.of_flags(_spelt(command.accelerate))
    return accelerate.read(document, values).words if values else ()


def _spelt(flags: Mapping[str, object]) -> dict[str, object]:
    """Return flags as keys of a file: underscores, one JSON value where one is written."""
    return {_underscored(name): value for name, value in flags.items()}


def _underscored(name: str) -> str:
    return name.replace("-", "_")


def _launched(command: TrainingCommand, where: str) -> list[Word]:
    """Return what the launcher says of devices."""
    paths = {"per_node": PER_NODE, "nodes": NODES, "all": "device_count"}
    return [
        _word(what, text, paths[what], int(text), where)
        for what, text in command.launched.items()
        if text.isdecimal() and int(text[:9]) > 0
    ]


def _word(name: str, text: str, path: str, value: Any, where: str) -> Word:  # noqa: ANN401 - any field's value
    given = Given(path=path, value=value, said=f"{where}: {name} {text}")
    return Word(flag=name, values=(text,), effect=Effect.COUNTED, given=(given,))
