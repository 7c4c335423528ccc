"""Sets of modules by name: what lists of names, beginnings, endings and patterns in a quantisation section mean.

Every tool has its own grammar for such a list; each constructor here is one of them. Most entries name a
module of a numbered layer, so they are sorted by that number first: a list of a thousand names costs one layer
only its own few.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate

from vramfit.errors import InvalidValueError
from vramfit.readers.fields import Fields

NUMBER = re.compile(r"\.([0-9]{1,6})(?=\.|$)")
LOOSE_NUMBER = re.compile(r"[^0-9]*\.([0-9]{1,6})")
PATTERN = re.compile(r"[\\^$*+?\[\](){}|]")
"""Characters that make a name a pattern."""
ONE_EXPERT = re.compile(r"experts\\?\.\\?[0-9(\[]")
LARGEST_LIST = 100_000
LONGEST_PATTERN = 2000
MOST_PATTERNS = 1000
REPEATED_GROUP = re.compile(r"(?<!\\)\)[*+{]")
REPEAT = re.compile(r"(?<!\\)(?<!\\d)(?<!\[0-9\])(?<!\[\\d\])[*+{]")
"""A repetition of more than digits."""
MOST_REPEATS, MOST_REPEATS_IN_A_ROW = 6, 3
"""With the refusal of repeated groups they bound the time that a match takes: 0.5 s a name at the very worst."""


@dataclass(slots=True)
class Names:
    """A set of module names, asked one at a time."""

    end: str = "."
    """What a beginning must reach: ``"."`` = modules inside a named one belong to it, ``"\\n"`` = they do not."""
    everywhere: tuple[str, ...] = ()
    """Beginnings of names."""
    in_layer: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Beginnings of names in the layer of that number."""
    kinds: dict[int, object] = field(default_factory=dict)
    """The same value for two layers whose beginnings are the same but for the number."""
    numbers: tuple[str, ...] = ()
    """Beginnings of numbers, from entries such as ``model.layers.1*``, which holds for layers 1, 10 and 11, too."""
    endings: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    """Texts anywhere in a name."""
    pattern: re.Pattern[str] | None = None
    texts: tuple[str, ...] = ()
    """The entries as plain text, to see how the file spells the beginnings of names."""
    counts: bool = False
    """True when an entry that is not sorted by layer has digits, so that any layer may differ from any other."""
    by_expert: bool = False
    """True when an entry names single experts."""

    def has(self, name: str, layer: int | None) -> bool:
        """Say whether the module of that full name, in the layer of that number, belongs to the set."""
        ended = name + self.end
        return (
            ended.startswith(self.everywhere)
            or (layer in self.in_layer and ended.startswith(self.in_layer[layer]))
            or name.endswith(self.endings)
            or (self.pattern is not None and self.pattern.match(name) is not None)
            or any(part in f".{ended}" for part in self.parts)
        )

    def key(self, layer: int) -> object:
        """Return the same value for two layers only if no entry can tell them apart.

        Entries without digits see of a number at most how many digits it has.
        """
        return (
            layer
            if self.counts
            else (len(str(layer)), self.kinds.get(layer), *(str(layer).startswith(n) for n in self.numbers))
        )


def listed(section: Fields, *fields: str) -> tuple[str, ...] | None:
    """Return the texts in lists of those names, together; None when there is none of them.

    Raises:
        InvalidValueError: not a list of texts.
    """
    found: list[str] = []
    for name in fields:
        value = section.values.get(name)
        if value is None:
            continue
        if not isinstance(value, list) or len(value) > LARGEST_LIST or not all(isinstance(v, str) for v in value):
            raise InvalidValueError(section.at(name), value, f"a list of at most {LARGEST_LIST:,} module names")
        found.extend(value)
    return tuple(found) if any(section.has(name) for name in fields) else None


def transformers_names(entries: Iterable[str], path: str) -> Names:
    """Return the modules that ``modules_to_not_convert`` means to transformers.

    A name and all inside it, a regular expression from the start of the name to a dot, or the end of a name; and, as
    in versions before 5, a name without a number anywhere between two dots.
    Source: huggingface/transformers:src/transformers/quantizers/quantizers_utils.py, should_convert_module.
    """
    plain, patterns, inside = [], [], []
    for entry in entries:
        if PATTERN.search(entry):
            patterns.append(rf"(?:{entry})(?:(?<=\.)|(?=\.|$))")
        else:
            plain.append(entry)
            if not NUMBER.search(entry):
                inside.append(entry)
    found = _made(plain, patterns, path)
    found.endings, found.parts = tuple(inside), tuple(f".{entry}." for entry in inside)
    return found


def compressed_names(entries: Iterable[str], path: str) -> Names:
    """Return the modules that ``ignore`` and ``targets`` mean to compressed-tensors: exact names, or ``re:``.

    Source: vllm-project/compressed-tensors:src/compressed_tensors/utils/match.py, match_name.
    """
    plain = [entry for entry in entries if not entry.startswith("re:")]
    return _made(plain, [e.removeprefix("re:") for e in entries if e.startswith("re:")], path, end="\n")


def wildcard_names(entries: Iterable[str], path: str) -> Names:
    """Return the modules that lists with ``*`` mean to ModelOpt and Quark; a name stands for all inside it, too.

    Source: NVIDIA/Model-Optimizer:modelopt/torch/export/quant_utils.py, process_layer_quant_config.
    """
    plain, patterns, stars = [], [], []
    for entry in entries:
        if entry.startswith("re:"):
            patterns.append(entry.removeprefix("re:"))
        elif PATTERN.search(entry.removesuffix("*")):
            stars.append(entry)
        else:
            plain.append(entry)
    return _made(plain, patterns, path, stars=stars)


def containing(entries: Iterable[str]) -> Names:
    """Return the modules whose name has one of the texts in it, which is what AWQ means.

    Source: casper-hansen/AutoAWQ:awq/utils/module.py, exclude_layers_to_not_quantize.
    """
    parts = tuple(entries)
    return Names(parts=parts, texts=parts, counts=any(map(_has_digit, parts)), by_expert=_by_expert(parts))


def patterns(entries: Iterable[str], path: str) -> Names:
    """Return the modules whose name begins as a regular expression says."""
    return _made((), list(entries), path)


def _made(plain: Iterable[str], found: list[str], path: str, *, end: str = ".", stars: Iterable[str] = ()) -> Names:
    everywhere: list[str] = []
    in_layer: dict[int, list[str]] = {}
    around: dict[int, set[tuple[str, str]]] = {}
    for entry in plain:
        beginning = entry[:-1] if entry.endswith("*") else entry + end
        number = NUMBER.search(entry)
        if number and number.end() != len(beginning):
            layer = int(number[1])
            in_layer.setdefault(layer, []).append(beginning)
            around.setdefault(layer, set()).add((beginning[: number.start()], beginning[number.end() :]))
        else:
            everywhere.append(beginning)
    loose = tuple(filter(None, map(LOOSE_NUMBER.fullmatch, everywhere)))
    texts = (*everywhere, *(b for bucket in in_layer.values() for b in bucket), *map(_unescaped, found), *stars)
    return Names(
        end=end,
        everywhere=tuple(everywhere),
        in_layer={number: tuple(bucket) for number, bucket in in_layer.items()},
        kinds={number: frozenset(bucket) for number, bucket in around.items()},
        pattern=_compiled(found, [*map(translate, stars)], path),
        texts=texts,
        numbers=tuple(match[1] for match in loose),
        counts=sum(map(_has_digit, everywhere)) > len(loose) or any(map(_has_digit, (*found, *stars))),
        by_expert=_by_expert((*texts, *found)),
    )


def _unescaped(pattern: str) -> str:
    return re.sub(r"\\(?=\W)|^\^|^\(\?s?:", "", pattern)


def _has_digit(text: str) -> bool:
    return re.search(r"[0-9]|\\d", text) is not None


def _by_expert(texts: Iterable[str]) -> bool:
    return ONE_EXPERT.search("\n".join(texts)) is not None


def _compiled(found: list[str], stars: list[str], path: str) -> re.Pattern[str] | None:
    """Return one pattern for all; those made of stars give nothing back, so they need no check.

    Raises:
        InvalidValueError: not a regular expression, or one whose match could take for ever.
    """
    for text in found:
        check_pattern(text, path)
    every = [*found, *stars]
    if not every:
        return None
    if len(every) > MOST_PATTERNS:
        raise InvalidValueError(path, len(every), f"at most {MOST_PATTERNS} patterns")
    try:
        return re.compile("|".join(f"(?:{text})" for text in every))
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidValueError(path, "|".join(found), f"regular expressions ({error})") from error


def check_pattern(text: str, path: str) -> None:
    """Refuse a pattern whose match could take for ever.

    Raises:
        InvalidValueError: it is very long, repeats a group, or has many repetitions.
    """
    in_a_row = max(len(REPEAT.findall(part)) for part in text.split("|"))
    total = len(REPEAT.findall(text))
    if (
        len(text) > LONGEST_PATTERN
        or REPEATED_GROUP.search(text)
        or in_a_row > MOST_REPEATS_IN_A_ROW
        or total > MOST_REPEATS
    ):
        raise InvalidValueError(
            path,
            text,
            f"a pattern of at most {LONGEST_PATTERN} characters and {MOST_REPEATS} repetitions, none of a group",
        )
