"""``infer --command``: an engine's own command line in, and one that fits out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from vramfit.cli.knobs import on_devices
from vramfit.commands.command_line import CommandLine, Effect, Word
from vramfit.commands.read import as_of, read_command
from vramfit.commands.split import LONGEST
from vramfit.commands.write import rewritten, text_lines
from vramfit.engines.profile import find_engine
from vramfit.errors import InvalidValueError, UnreadableFileError
from vramfit.own_context import with_own_context
from vramfit.report.rows import Row, Section, Tone
from vramfit.request import KNOBS, Given, Inference, Request, request_of
from vramfit.result import Answer, Change, Verdict

LONGEST_PATH = 1024
FIELDS = {
    "--context": ("workload.context_tokens",),
    "--batch": ("workload.max_num_seqs",),
    "--kv-format": ("workload.kv_format",),
    "--weights": ("workload.weight_format",),
    "--fraction": ("workload.memory_fraction",),
    "--gpu-layers": ("workload.gpu_layers",),
    "--max-num-seqs": ("workload.max_num_seqs",),
    "--max-batched-tokens": ("workload.max_num_batched_tokens",),
    "--tp": ("plan.tp",),
    "--pp": ("plan.pp",),
    "--gpus": (),
}
"""Our own options -> fields that the engine's command line has to say instead."""
BY_KEY_AND_VALUE = {"llama.cpp"}
"""Programs that name the formats of keys and values apart."""
DEGREES = {"tp": "tp", "pp": "pp", "dp": "dp_replicate"}
TITLES = {
    Effect.COUNTED: "counted",
    Effect.NOT_COUNTED: "not counted",
    Effect.UNKNOWN: "not understood",
    Effect.NONE: "no memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line, the fields that its engine takes, and those that it does not."""

    line: CommandLine
    given: tuple[Given, ...]
    refused: tuple[Given, ...]
    """Fields that the engine, as it is modelled here, does not take."""


def read(text: str, version: str | None) -> Command:
    """Return what a command line, the path of a file with one, or ``-`` for standard input gives.

    Raises:
        VramfitError: the program is not known, or a value cannot be.
    """
    line = read_command(_text(text))
    tagged = next((str(g.value) for g in line.given if g.path == "workload.engine_version"), None)
    line = as_of(line, version or tagged)
    late = {g for word in line.flags(Effect.UNKNOWN) for g in word.given}
    knobs = find_engine(line.engine).knobs
    taken: list[Given] = []
    refused: list[Given] = []
    for each in line.given:
        name = each.path.removeprefix("workload.")
        if each in late:
            continue
        (refused if name in KNOBS and name not in knobs else taken).append(each)
    return Command(line=line, given=tuple(taken), refused=tuple(refused))


def asked_by_command(model: str | None, options: dict[str, Any]) -> tuple[Request, Command]:
    """Return the request that an engine's command line makes up; what our own command line says wins.

    Raises:
        VramfitError: the program is not known, a value cannot be, or no model is named.
    """
    command = read(options["command"], options["engine_version"])
    own = tuple(_own(model, options))
    paths = {each.path for each in own}
    given = (*own, *(each for each in command.given if each.path not in paths))
    if "model" not in {each.path for each in given}:
        raise InvalidValueError(
            "--command", options["command"], "a model in it", "or name it in front: vramfit infer MODEL --command ..."
        )
    return replace(request_of(with_own_context(given, hub=options["hub"])), **on_devices(options)), command


def _own(model: str | None, options: dict[str, Any]) -> Iterable[Given]:
    """Yield what was written on our own command line."""
    if options["config_file"] is not None or model is not None:
        named = options["config_file"] or model
        yield Given(path="model", value=named, said=str(named))
    for name in (*(n for n in Inference.__slots__ if n != "engine"), *DEGREES):
        if _explicit(name):
            path = f"plan.{DEGREES[name]}" if name in DEGREES else f"workload.{name}"
            yield Given(path=path, value=options[name], said=f"our own --{name}")


def _explicit(name: str) -> bool:
    """Say whether an option was written on our own command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _text(text: str) -> str:
    """Return the text itself, or that of the file it names."""
    if text == "-":
        return sys.stdin.read(LONGEST + 1)
    if len(text) < LONGEST_PATH and "\n" not in text:
        path = Path(text)
        try:
            if path.is_file():
                with path.open(encoding="utf-8") as file:
                    return file.read(LONGEST + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableFileError(f"--command: {path}: {error}; expected a command line or a Modelfile") from error
    return text


def sections(command: Command, answered: Answer) -> tuple[Section, ...]:
    """Return what became of each flag, and a command that fits."""
    return (_flags(command), _fitting(command, answered))


def _flags(command: Command) -> Section:
    rows = []
    for effect, tone in ((Effect.UNKNOWN, Tone.WARN), (Effect.NOT_COUNTED, Tone.WARN)):
        rows += [Row(word.flag, "", f"{TITLES[effect]}: {word.why}", tone) for word in command.line.flags(effect)]
    rows += [
        Row(g.said, "", f"not counted: {g.path} is not modelled for {command.line.engine}", Tone.WARN)
        for g in command.refused
    ]
    rows += [
        Row(g.path.rpartition(".")[2], "", f"{g.value}: {g.said}") for g in command.given if g.path != "workload.engine"
    ]
    quiet = [_quiet(word) for word in command.line.flags(Effect.NONE)]
    if quiet:
        rows.append(Row("without effect on memory", "", ", ".join(quiet), Tone.QUIET))
    return Section("The command line as understood", tuple(rows))


def _quiet(word: Word) -> str:
    return f"{word.flag} ({word.why})" if word.why else word.flag


def _fitting(command: Command, answered: Answer) -> Section:
    verdict = answered.fit.verdict
    if verdict is Verdict.UNKNOWN:
        return Section("A command that fits", (Row("name the device with --gpu to get one", tone=Tone.QUIET),))
    found = fitting(command, answered)
    if found is None:
        return Section("A command that fits", (Row("none: no single change that these flags can say suffices"),))
    line, change = found
    rows = [Row(text.strip(), tone=Tone.STRONG, indent=int(text[0] == " ")) for text in text_lines(line)]
    why = "as given" if change is None else f"changed: {change.flags}; {change.note}"
    tight = "; tight: the high figure does not fit" if change is None and verdict is Verdict.TIGHT else ""
    return Section("A command that fits", (*rows, Row(f"{why}{tight}", tone=Tone.QUIET)))


def fitting(command: Command, answered: Answer) -> tuple[CommandLine, Change | None] | None:
    """Return a command that fits and what was changed in it; None = no change that its flags can say suffices."""
    if answered.fit.verdict in {Verdict.FITS, Verdict.TIGHT}:
        return command.line, None
    for change in answered.changes:
        if change.verdict is Verdict.FITS:
            given = tuple(_given(command.line.engine, change.flags))
            line = rewritten(command.line, given) if given else None
            if line is not None:
                return line, change
    return None


def _given(engine: str, flags: str) -> Iterable[Given]:
    """Yield the fields that our own options of a change stand for."""
    words = flags.split()
    if "--gpus" in words:  # a plan: a degree that is not named is 1, whatever the command said
        words += [word for name in ("--tp", "--pp") if name not in words for word in (name, "1")]
    for name, text in zip(words[::2], words[1::2], strict=True):
        paths = FIELDS[name]
        if name == "--kv-format" and engine in BY_KEY_AND_VALUE:
            paths = ("workload.kv_format_k", "workload.kv_format_v")
        value: Any = int(text) if text.isdigit() else float(text) if name == "--fraction" else text
        yield from (Given(path=path, value=value, said=f"{name} {text}") for path in paths)


def as_json(command: Command, answered: Answer) -> dict[str, Any]:
    """Return the command line as understood, and the one that fits, for JSON."""
    found = fitting(command, answered) if answered.fit.verdict is not Verdict.UNKNOWN else None
    return {
        "engine": command.line.engine,
        "given": [{"field": g.path, "value": g.value, "said": g.said} for g in command.given],
        "not_modelled": [{"field": g.path, "value": g.value, "said": g.said} for g in command.refused],
        "flags": [
            {"flag": w.flag, "values": list(w.values), "effect": w.effect.value, "why": w.why}
            for w in command.line.words
        ],
        "fitting": None if found is None else "\n".join(text_lines(found[0])),
        "changed": None if found is None or found[1] is None else found[1].flags,
    }
