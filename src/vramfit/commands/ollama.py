"""``ollama run`` and Modelfiles.

Source of names and meanings: ollama/ollama:parser/parser.go, api/types.go (Runner), docs/modelfile.mdx.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vramfit.commands.command_line import CommandLine, Effect, Word
from vramfit.commands.flag import COUNT, Flag, Kind, plain, whole
from vramfit.commands.program import Program
from vramfit.commands.split import LONGEST
from vramfit.errors import InvalidValueError
from vramfit.request import Given

INSTRUCTION = re.compile(r"\s*([A-Za-z]{4,9})[ \t]+(.*)")
NAMES = frozenset({
    "from", "parameter", "template", "system", "adapter", "license", "message", "requires", "renderer", "parser",
    "draft",
})  # fmt: skip
QUIET_PARAMETERS = frozenset({
    "num_keep", "seed", "num_predict", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "temperature",
    "repeat_penalty", "presence_penalty", "frequency_penalty", "stop", "num_thread", "use_mmap", "use_mlock", "numa",
    "mirostat", "mirostat_eta", "mirostat_tau", "penalize_newline", "tfs_z", "vocab_only",
})  # fmt: skip


LABEL = re.compile(r"(?:.*-)?(q\d\w{0,6}|iq\d\w{0,6}|fp16|f16|bf16|fp32)", re.IGNORECASE)
"""End of a tag that names a file format: ``8b-instruct-q8_0``."""
DEFAULT_LABEL = "Q4_K_M"
"""Format of the library's tags that name none; an assumption, since a tag may be moved."""
OTHERWISE = ("gpt-oss",)
"""Models of the library whose plain tags are kept in the format they were published in."""
HUB = ("hf.co/", "huggingface.co/")
_LABELS = {"fp16": "fp16", "f16": "fp16", "bf16": "bf16", "fp32": "fp32"}


def named(text: str, said: str) -> tuple[Given, ...]:
    """Return the model and the format that a name of ollama's stands for.

    >>> [g.value for g in named("llama3.1:8b-instruct-q8_0", "FROM")]
    ['llama3.1:8b', 'gguf:Q8_0']
    >>> [g.value for g in named("hf.co/org/repo-GGUF:Q4_K_M", "FROM")]
    ['org/repo-GGUF:Q4_K_M']
    """
    text = plain(said, text)
    if text.startswith(HUB):
        return (Given(path="model", value=text.partition("/")[2], said=said),)
    if "/" in text or "\\" in text or text.endswith((".gguf", ".safetensors")):
        return (Given(path="model", value=text, said=said),)
    name, _, tag = text.partition(":")
    match = LABEL.fullmatch(tag)
    size = tag.partition("-")[0] if match and "-" in tag else "" if match else tag
    model = Given(path="model", value=f"{name}:{size}" if size else name, said=said)
    if match is None and name.startswith(OTHERWISE):
        return (model,)
    label = match.group(1) if match else DEFAULT_LABEL
    why = f"tag {tag}" if match else f"assumed: tags of the library that name no format are {DEFAULT_LABEL}"
    value = _LABELS.get(label.lower()) or f"gguf:{_spelt(label)}"
    return (model, Given(path="workload.weight_format", value=value, said=why))


def _spelt(label: str) -> str:
    """Return a label as GGUF files spell it: ``q4_K_M`` and ``q4_k_m`` are ``Q4_K_M``."""
    return label.upper()


def _layers(name: str, text: str) -> int | None:
    """Read layers on the devices; -1 = as many as fit, which is left open."""
    return None if text.startswith("-") else whole(name, text)


PARAMETERS = {
    "num_ctx": Flag(names=("num_ctx",), path="workload.context_tokens", kind=COUNT),
    "num_batch": Flag(names=("num_batch",), path="workload.batch_tokens", kind=COUNT),
    "num_gpu": Flag(names=("num_gpu",), path="workload.gpu_layers", kind=Kind(read=_layers, write=str)),
    "num_parallel": Flag(names=("num_parallel",), path="workload.slots", kind=COUNT),
    "draft_num_predict": Flag(names=("draft_num_predict",), path="workload.speculative_tokens", kind=COUNT),
}
UNCOUNTED = {
    "main_gpu": "which device comes first",
    "low_vram": "keeps scratch buffers on the host",
    "f16_kv": "bytes of the cache",
    "ADAPTER": "an adapter beside the model",
}
PROGRAM = Program(
    engine="ollama",
    starts=(("ollama", "run"), ("ollama", "serve"), ("ollama", "create"), ("ollama", "pull")),
    images=(),
    table="ollama",
    positional_model=True,
    flags=(),
)


def is_modelfile(text: str) -> bool:
    """Say whether a text is a Modelfile: its first instruction is one, and one of them is FROM."""
    lines = [line.strip() for line in text[:LONGEST].splitlines() if line.strip() and not line.strip().startswith("#")]
    firsts = [line.split(None, 1)[0].lower() for line in lines]
    return bool(firsts) and firsts[0] in NAMES and "from" in firsts


def read_modelfile(text: str) -> CommandLine:
    r"""Return what a Modelfile asks for.

    Raises:
        InvalidValueError: an instruction or a parameter's value that cannot be.

    >>> read_modelfile("FROM llama3.2\nPARAMETER num_ctx 4096").given[-1].value
    4096
    """
    if len(text) > LONGEST:
        raise InvalidValueError("Modelfile", text[:80], f"at most {LONGEST:,} characters")
    words = tuple(_instructions(text))
    engine = Given(path="workload.engine", value="ollama", said="Modelfile")
    given = (engine, *(each for word in words for each in word.given))
    return CommandLine(engine="ollama", head=(), words=words, given=given, modelfile=True)


def _instructions(text: str) -> Iterator[Word]:
    """Yield the instructions; a text between three quotes is left out."""
    bare = re.sub(r'"""[^"]*(?:"{1,2}[^"]+)*"""', '""', text)
    for line in bare.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = INSTRUCTION.fullmatch(line)
        name = match.group(1).lower() if match else ""
        rest = match.group(2).strip() if match else ""
        if name == "from":
            yield Word(flag="FROM", values=(rest,), effect=Effect.COUNTED, given=named(rest, f"FROM {rest}"))
        elif name == "draft":
            yield _counted("DRAFT", rest, "workload.draft_model", plain("DRAFT", rest))
        elif name == "adapter":
            yield Word(flag="ADAPTER", values=(rest,), effect=Effect.NOT_COUNTED, why=UNCOUNTED["ADAPTER"])
        elif name == "parameter":
            yield _parameter(*[*rest.split(None, 1), "", ""][:2])
        elif name in NAMES:
            yield Word(flag=name.upper(), values=(), effect=Effect.NONE)
        else:
            yield Word(flag=line.strip()[:80], values=(), effect=Effect.UNKNOWN, why="no instruction of a Modelfile")


def _counted(name: str, rest: str, path: str, value: object) -> Word:
    given = (Given(path=path, value=value, said=f"{name} {rest}"),)
    return Word(flag=name, values=(rest,), effect=Effect.COUNTED, given=given)


def _parameter(name: str, text: str) -> Word:
    flag, said = PARAMETERS.get(name), f"PARAMETER {name}"
    if flag is not None:
        value = flag.kind.read(said, text.strip())
        if value is None:
            return Word(flag=said, values=(text,), effect=Effect.NONE, why="left to the engine")
        return _counted(said, text, flag.path, value)
    if name in UNCOUNTED:
        return Word(flag=said, values=(text,), effect=Effect.NOT_COUNTED, why=UNCOUNTED[name])
    if name in QUIET_PARAMETERS:
        return Word(flag=said, values=(text,), effect=Effect.NONE)
    return Word(flag=said, values=(text,), effect=Effect.UNKNOWN, why="no parameter of a Modelfile")
