"""Reads a command line of any server program that is known here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath

from vramfit.commands import llama_cpp, lmdeploy, ollama, sglang, tensorrt_llm, tgi, vllm
from vramfit.commands.command_line import CommandLine, Effect, Word
from vramfit.commands.environment import variables
from vramfit.commands.flag import FALSE, LEFT_OPEN, TRUE, Flag, Nested, Switch, plain
from vramfit.commands.program import Program, Table, Takes, by_name, spelling, table
from vramfit.commands.split import Words, split
from vramfit.errors import InvalidValueError
from vramfit.names import nearest
from vramfit.request import Given

PROGRAMS = (
    vllm.PROGRAM, sglang.PROGRAM, llama_cpp.PROGRAM, tensorrt_llm.PROGRAM, tgi.PROGRAM, lmdeploy.PROGRAM,
    ollama.PROGRAM,
)  # fmt: skip
NEGATIVE = re.compile(r"-(\d+(\.\d+)?|\d*\.\d+)")
TAG = re.compile(r"v?(\d+\.\d+(\.\d+)?)(?:[.-].*)?")
"""A tag of an image that begins with a version."""
OPTIONAL_VALUE = frozenset({"-fa", "--flash-attn"})
"""Flags that took no value in older builds."""


def read_command(text: str) -> CommandLine:
    """Return what a command line asks for.

    Raises:
        InvalidValueError: a program that is not known, a value that cannot be, or no model.

    >>> [g.path for g in read_command("vllm serve Qwen/Qwen3-8B -tp 2 --max-model-len 8k").given]
    ['model', 'workload.engine', 'plan.tp', 'workload.context_tokens']
    """
    if ollama.is_modelfile(text):
        return ollama.read_modelfile(text)
    words = split(text)
    program, start, version = _program(words)
    model, first = _positional(program, words.words, start)
    said = tuple(_words(program, words.words[first:]))
    if model is None and program.positional_model:  # `vllm serve --dtype half MODEL` is understood too
        model, said = _stray_model(said)
    given = [] if model is None else list(_model(program, model))
    given.append(Given(path="workload.engine", value=program.engine, said=program.starts[0][-1]))
    if version is not None:
        given.append(Given(path="workload.engine_version", value=version, said=f"image {version}"))
    found = tuple(variables(program.engine, words.assignments(start)))
    given += [each for word in (*found, *said) for each in word.given]
    return CommandLine(engine=program.engine, head=words.words[:first], words=(*found, *said), given=tuple(given))


def _model(program: Program, text: str) -> tuple[Given, ...]:
    """Return what the positional model says."""
    if program.engine == "ollama":
        return ollama.named(text, text)
    return (Given(path="model", value=plain("model", text), said=text),)


def _program(words: Words) -> tuple[Program, int, str | None]:
    """Return the program, the number of words up to its arguments, and the version that an image names."""
    names = [PurePath(word.replace("\\", "/")).name for word in words.words]
    for i in range(len(names)):
        for program in PROGRAMS:
            for start in program.starts:
                if tuple(names[i : i + len(start)]) == start:
                    return program, i + len(start), _tag_before(program, words.words[:i])
    for i, word in enumerate(words.words):
        for program in PROGRAMS:
            repository, _, tag = word.partition(":")
            if i and program.images and repository.endswith(program.images):
                return program, i + 1, _version(tag)
    known = ", ".join(" ".join(program.starts[0]) for program in PROGRAMS)
    raise InvalidValueError("--command", " ".join(words.words), f"a command that begins like one of: {known}")


def _tag_before(program: Program, words: tuple[str, ...]) -> str | None:
    for word in words:
        repository, _, tag = word.partition(":")
        if program.images and repository.endswith(program.images):
            return _version(tag)
    return None


def _version(tag: str) -> str | None:
    match = TAG.fullmatch(tag)
    return match.group(1) if match else None


def _positional(program: Program, words: tuple[str, ...], start: int) -> tuple[str | None, int]:
    """Return the model that stands first, and where the flags begin."""
    if program.positional_model and start < len(words) and not words[start].startswith("-"):
        return words[start], start + 1
    return None, start


def _stray_model(said: tuple[Word, ...]) -> tuple[str | None, tuple[Word, ...]]:
    """Return the one word that belongs to no flag as the model."""
    stray = [word for word in said if not word.flag.startswith("-")]
    if len(stray) != 1:
        return None, said
    return stray[0].flag, tuple(word for word in said if word is not stray[0])


def _words(program: Program, words: tuple[str, ...]) -> Iterator[Word]:
    """Yield each flag with its values and what it does."""
    known, flags = table(program.table), by_name(program.flags)
    i = 0
    while i < len(words):
        name, equals, value = words[i].partition("=")
        i += 1
        if not name.startswith("-") or NEGATIVE.fullmatch(words[i - 1]):
            yield Word(flag=words[i - 1], values=(), effect=Effect.UNKNOWN, why="belongs to no flag")
            continue
        values: tuple[str, ...] = (value,) if equals else ()
        if not equals:
            found = tuple(_values(_takes(name, flags, known), name, words[i:]))
            values, i = found, i + len(found)
        yield _word(name, values, joined=bool(equals), flags=flags, known=known)


def _takes(name: str, flags: dict[str, Flag | Switch | Nested], known: Table) -> Takes | None:
    """Return what follows a flag; None = the flag is not known."""
    flag = flags.get(spelling(name))
    if isinstance(flag, Switch):
        return Takes.NOTHING
    if isinstance(flag, Flag | Nested):
        return Takes.ONE
    return known.takes.get(_listed(name, known) or "")


def _listed(name: str, known: Table) -> str | None:
    """Return the spelling under which the program's own parser lists a flag: dots and ``--no-`` aside."""
    plain_name = spelling(name)
    first = plain_name.partition(".")[0]
    for each in (plain_name, first, plain_name.replace("--no-", "--", 1), plain_name[:2]):
        if each in known.takes and (len(each) > 2 or each in {plain_name, "-O"}):
            return each
    return None


def _values(takes: Takes | None, name: str, rest: tuple[str, ...]) -> Iterator[str]:
    """Yield the words that belong to a flag; of one that is not known, the next unless it is a flag itself."""
    if takes is Takes.NOTHING:
        return
    if name in OPTIONAL_VALUE and rest and rest[0].lower() not in TRUE | FALSE | {"auto"}:
        return
    for word in rest:
        if word.startswith("-") and not NEGATIVE.fullmatch(word):
            return
        yield word
        if takes is not Takes.MANY:
            return


def _word(
    name: str,
    values: tuple[str, ...],
    *,
    joined: bool,
    flags: dict[str, Flag | Switch | Nested],
    known: Table,
) -> Word:
    """Return one flag with what it does."""
    flag = flags.get(spelling(name))
    if flag is not None:
        given = _given(flag, name, values)
        if not given and isinstance(flag, Flag) and flag.path == "workload.context_tokens" and values[0] in LEFT_OPEN:
            why = "the longest that fits is taken then; all that the model was made for is judged here"
            return Word(flag=name, values=values, effect=Effect.NOT_COUNTED, why=why, joined=joined)
        why = "" if given else "leaves it as the engine or the checkpoint has it"
        effect = Effect.COUNTED if given else Effect.NONE
        return Word(flag=name, values=values, effect=effect, why=why, given=given, joined=joined)
    for names, effect in ((known.uncounted, Effect.NOT_COUNTED), (known.noted, Effect.NONE)):
        why = names.get(spelling(name)) or names.get(spelling(name).partition(".")[0]) or names.get(name[:2], "")
        if why:
            return Word(flag=name, values=values, effect=effect, why=why, joined=joined)
    listed = _listed(name, known)
    if listed is None:
        close = nearest(name, known.takes)
        hint = f"; nearest: {', '.join(close)}" if close else ""
        why = f"no such flag in {known.version}{hint}"
        return Word(flag=name, values=values, effect=Effect.UNKNOWN, why=why, joined=joined)
    last = known.gone_after.get(listed)
    why = f"gone after {last}" if last else ""
    return Word(flag=name, values=values, effect=Effect.NONE, why=why, joined=joined)


def _given(flag: Flag | Switch | Nested, name: str, values: tuple[str, ...]) -> tuple[Given, ...]:
    if isinstance(flag, Switch):
        return (Given(path=flag.path, value=flag.value, said=name),)
    if isinstance(flag, Flag) and not values and name in OPTIONAL_VALUE:
        return (Given(path=flag.path, value=True, said=name),)
    if not values:
        raise InvalidValueError(name, "", "a value behind it")
    if isinstance(flag, Nested):
        return flag.read(name, values[0])
    value = flag.kind.read(name, plain(name, values[0]))
    return () if value is None else (Given(path=flag.path, value=value, said=f"{name} {values[0]}"),)


def as_of(line: CommandLine, version: str | None) -> CommandLine:
    """Return the command line as that version reads it: flags that came later, or had gone, are not understood."""
    if version is None or line.modelfile:
        return line
    known = table(next(p for p in PROGRAMS if p.engine == line.engine).table)
    return replace(line, words=tuple(_as_of(word, known, version) for word in line.words))


def _as_of(word: Word, known: Table, version: str) -> Word:
    """Return a flag as that version reads it; between two versions that were read, both may be right: understood."""
    listed, wanted = _listed(word.flag, known) or "", _numbers(version)
    read = [_numbers(v) for v in (*known.first_seen.values(), *known.gone_after.values(), known.version)]
    first, last = known.first_seen.get(listed), known.gone_after.get(listed)
    if first is not None and any(wanted <= v < _numbers(first) for v in read):
        return replace(word, effect=Effect.UNKNOWN, why=f"not in {version}: first seen in {first}")
    if last is not None and any(_numbers(last) < v <= wanted for v in read):
        return replace(word, effect=Effect.UNKNOWN, why=f"not in {version}: last seen in {last}")
    return word


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version)[:3])
