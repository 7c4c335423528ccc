"""GGUF files of one repository or folder: which belong together, what their names call them, which one is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vramfit.errors import UnknownNameError, UnreadableFileError
from vramfit.names import nearest
from vramfit.readers.gguf import split_names

LABEL = re.compile(
    r"(?:^|[-._/])(?P<label>(?:UD-)?(?:I?Q[1-8](?:_[A-Z0-9]+)*|MXFP4(?:_MOE)?|NVFP4|TQ[12]_0|BF16|F16|FP16|F32))(?=[-._/]|$)",
    re.IGNORECASE,
)
"""What names call a quantisation: llama.cpp's labels, and Unsloth's that start with UD-."""
SPLIT = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.gguf$")
PREFERRED = ("Q4_K_M", "UD-Q4_K_XL", "Q4_K_S", "IQ4_XS", "MXFP4", "MXFP4_MOE", "Q4_0", "Q5_K_M", "Q8_0")
"""What is taken when nothing is asked for; llama.cpp's own ``-hf`` takes Q4_K_M first."""
NOT_NAMED = "none was named"
"""Words of the assumption that one of several was taken."""
PROJECTORS = ("F16", "BF16", "Q8_0", "F32")
"""Formats of projectors, the one that is taken first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufChoice:
    """One model of a repository, in one file or several."""

    label: str
    """Quantisation as the name has it; empty = it does not say."""
    files: tuple[str, ...]
    num_bytes: int
    """Bytes of all files, headers and vocabulary included. [B]"""
    projector: bool = False
    """True for what turns images or sound into tokens (mmproj)."""

    @property
    def name(self) -> str:
        """The label, or the first file where the name does not say."""
        return self.label or self.files[0]


def gguf_choices(sizes: Mapping[str, int]) -> tuple[GgufChoice, ...]:
    """Return the models among files, the smallest first; split files are one.

    Raises:
        UnreadableFileError: files of a split model that are not there.
    """
    found: dict[str, list[str]] = {}
    for path in sizes:
        if path.endswith(".gguf") and "imatrix" not in path.rpartition("/")[2].lower():
            found.setdefault(SPLIT.sub(".gguf", path), []).append(path)
    return tuple(sorted((_choice(paths, sizes) for paths in found.values()), key=lambda c: (c.projector, c.num_bytes)))


def _choice(paths: list[str], sizes: Mapping[str, int]) -> GgufChoice:
    folder, _, name = min(paths).rpartition("/")
    files = [f"{folder}/{part}" if folder else part for part in split_names(name)]
    missing = [path for path in files if path not in sizes]
    if missing:
        raise UnreadableFileError(
            f"{min(paths)}: one of {len(files)} files, of which {missing[0]!r:.200} is not beside it; expected all"
        )
    return GgufChoice(
        label=label_of(min(paths)),
        files=tuple(files),
        num_bytes=sum(sizes[path] for path in files),
        projector="mmproj" in name.lower(),
    )


def label_of(path: str) -> str:
    """Return the quantisation that a file's name, or else its folder's, says.

    >>> label_of("Qwen3-30B-A3B-UD-Q4_K_XL.gguf"), label_of("Q8_0/model-00001-of-00002.gguf"), label_of("model.gguf")
    ('UD-Q4_K_XL', 'Q8_0', '')
    """
    folder, _, name = path.rpartition("/")
    for text in (SPLIT.sub(".gguf", name).removesuffix(".gguf"), folder):
        labels = [match["label"].upper() for match in LABEL.finditer(text)]
        if labels:
            return labels[-1]
    return ""


def choose(choices: Iterable[GgufChoice], wanted: str, where: str) -> GgufChoice:
    """Return the model that a label or a file's name means.

    Raises:
        UnknownNameError: none or several have that name; lists those that are there.
    """
    models = [choice for choice in choices if not choice.projector]
    found = [c for c in models if wanted in {*c.files, *(f.rpartition("/")[2] for f in c.files)}]
    found = found or [c for c in models if c.label == wanted.upper()]
    if len(found) == 1:
        return found[0]
    names = tuple(dict.fromkeys(c.name for c in models))
    if found:
        raise UnknownNameError(where, wanted, tuple(c.files[0] for c in found), "several files are called so: name one")
    raise UnknownNameError(where, wanted, nearest(wanted, names), f"it has {', '.join(names)[:500]}")


def usual_choice(choices: Iterable[GgufChoice], where: str) -> GgufChoice:
    """Return what is taken when nothing is asked for: the preferred label that is there, else the only file.

    Raises:
        UnknownNameError: several files, and none of a preferred label.
    """
    models = [choice for choice in choices if not choice.projector]
    for label in PREFERRED:
        found = [c for c in models if c.label == label]
        if len(found) == 1:
            return found[0]
    if len(models) == 1:
        return models[0]
    raise UnknownNameError(
        where, "", tuple(c.files[0] for c in models[:3]), f"{len(models)} GGUF models: name one, {where}/FILE.gguf"
    )


def projector_of(choices: Iterable[GgufChoice]) -> GgufChoice | None:
    """Return the projector that goes beside a model; None = there is none."""
    found = [choice for choice in choices if choice.projector]
    ranks = {label: i for i, label in enumerate(PROJECTORS)}
    return min(found, key=lambda c: (ranks.get(c.label, len(ranks)), c.files), default=None)


def unnamed(choice: GgufChoice, choices: tuple[GgufChoice, ...], where: str) -> str:
    """Say which of several models was taken because none was named."""
    count = sum(not other.projector for other in choices)
    return f"{choice.name}, one of {count} GGUF models in {where}: {NOT_NAMED}; another: {where}:LABEL"
