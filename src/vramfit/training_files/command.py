"""The command of a script that trains: what launches it, on how many devices, and its flags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from vramfit.errors import InvalidValueError
from vramfit.training_files.script import statements

FLAG = re.compile(r"--?[A-Za-z][\w.\-]*(=.*)?", re.DOTALL)
PER_NODE = frozenset({"--nproc-per-node", "--num-gpus", "--nproc_per_node"})
NODES = frozenset({"--nnodes", "--num-nodes", "--num-machines"})
ALL = frozenset({"--num-processes"})
SWIFT = frozenset({"sft", "pt", "rlhf"})
TRL = frozenset({"sft", "dpo", "kto", "orpo", "grpo", "reward", "rloo", "cpo"})
MEGATRON = frozenset({"--tensor-model-parallel-size", "--num-attention-heads", "--seq-length"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCommand:
    """One command."""

    program: str
    """``megatron``, ``ms_swift``, ``torchtitan``, ``llama_factory``, ``litgpt`` or ``trainer``."""
    verb: str
    """What it is asked to do, such as ``dpo``; empty where the program does one thing."""
    flags: dict[str, object]
    """Without hyphens in front: a text, several, or ``True`` for a switch."""
    trl: bool
    """True: TRL's own command runs it."""
    launched: dict[str, str]
    """What its launcher says: ``per_node``, ``nodes``, ``all``."""
    accelerate: dict[str, object]
    """Flags of ``accelerate launch``; empty where something else launches it."""


def find(text: str, where: str) -> TrainingCommand:
    """Return the command that trains.

    Raises:
        InvalidValueError: none of its commands is of a program that is known here.

    >>> find("torchrun --nproc_per_node 8 pretrain_gpt.py --tensor-model-parallel-size 2 --bf16", "x").launched
    {'per_node': '8'}
    """
    said = statements(text, where)
    for words in said:
        program = _program(words)
        if program is not None:
            return _command(*program, words, _by_variables(text))
    together = tuple(word for words in said for word in words)
    by_flags = _by_flags(together)
    if by_flags is not None:
        return _command(by_flags, "", (0, 0), together, _by_variables(text))
    expected = "a command of Megatron-LM, torchtitan, ms-swift, LLaMA-Factory, litgpt or a Trainer script"
    raise InvalidValueError(where, " ".join(together[:12]), expected, "or settings in JSON, YAML or TOML")


def _program(words: tuple[str, ...]) -> tuple[str, str, tuple[int, int]] | None:  # noqa: PLR0911 - one for each
    """Return program, verb, and where its own words and its flags begin."""
    names = [PurePath(word).name for word in words]
    for i, name in enumerate(names):
        after = names[i + 1] if i + 1 < len(names) else ""
        if name == "swift" and after in SWIFT:
            return "ms_swift", after, (i, i + 2)
        if name in {"llamafactory-cli", "lmf"} and after == "train":
            return "llama_factory", "", (i, i + 2)
        if name == "trl" and after in TRL:
            return "trainer", after, (i, i + 2)
        if name == "litgpt" and after.startswith(("finetune", "pretrain")):
            return "litgpt", after, (i, i + 2)
        if name in {"torchtitan.train", "run_train.sh"} or words[i].endswith("torchtitan/train.py"):
            return "torchtitan", "", (i, i + 1)
        if name.endswith(".py") and any(word.startswith("--") for word in words[i + 1 :]):
            program = _by_flags(words[i + 1 :])
            if program is not None:
                return program, name.removesuffix(".py").removeprefix("run_"), (i, i + 1)
    return None


def _by_flags(words: tuple[str, ...]) -> str | None:
    """Say whose flags these are."""
    said = {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}
    if said & MEGATRON:
        return "megatron"
    if any(word.startswith(("--training.", "--parallelism.", "--activation-checkpoint.")) for word in said):
        return "torchtitan"
    if said & {"--finetuning-type", "--cutoff-len"}:
        return "llama_factory"
    if said & {"--train-type", "--tuner-type", "--sft-type"}:
        return "ms_swift"
    return "trainer" if said & {"--model-name-or-path", "--per-device-train-batch-size"} else None


def _by_variables(text: str) -> dict[str, str]:
    """Return what variables in front of a command say of devices, as ms-swift and others read them.

    >>> _by_variables("NPROC_PER_NODE=2 swift sft"), _by_variables("export CUDA_VISIBLE_DEVICES=0,1,2")
    ({'per_node': '2'}, {'per_node': '3'})
    """
    found = {}
    visible = re.search(r"(?m)^\s*(?:export\s+)?CUDA_VISIBLE_DEVICES=[\"']?(\d+(?:,\d+)*)", text)
    if visible is not None:
        found["per_node"] = str(visible[1].count(",") + 1)
    for name, what in (("NPROC_PER_NODE", "per_node"), ("NGPU", "per_node"), ("NNODES", "nodes")):
        match = re.search(rf"(?m)(?:^|\s){name}=[\"']?(\d{{1,5}})\b", text)
        if match is not None:
            found[what] = match[1]
    return found


def _command(
    program: str, verb: str, place: tuple[int, int], words: tuple[str, ...], variables: dict[str, str]
) -> TrainingCommand:
    own, start = place
    launched, before = dict(variables), dict(_pairs(words[:own]))
    for name, value in before.items():
        spelt = f"--{name.replace('_', '-')}"
        for what, names in (("per_node", PER_NODE), ("nodes", NODES), ("all", ALL)):
            if spelt in names and isinstance(value, str):
                launched[what] = value
    flags = dict(_pairs(words[start:]))
    if program == "litgpt" and start < len(words) and not FLAG.fullmatch(words[start]):
        flags["checkpoint_dir"] = words[start]
    return TrainingCommand(
        program=program,
        verb=verb,
        trl=words[own : own + 1] == ("trl",),
        accelerate=before if "accelerate" in words[:own] else {},
        flags=flags,
        launched=launched,
    )


def _pairs(words: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    """Yield each flag with what follows it."""
    i = 0
    while i < len(words):
        word = words[i]
        i += 1
        if not FLAG.fullmatch(word):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        values = [value] if equals else []
        while i < len(words) and not FLAG.fullmatch(words[i]) and not equals:
            values.append(words[i])
            i += 1
        yield name, True if not values else values[0] if len(values) == 1 else values
