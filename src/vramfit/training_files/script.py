"""A shell script or a command line as words: variables put in their places, nothing executed.

What a shell would have to run (``$(...)``, loops, positional arguments) stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vramfit.errors import InvalidValueError

LONGEST = 256 * 2**10
"""A script longer than this is refused. [characters]"""
LONGEST_VALUE = 64 * 2**10
"""A variable that grows beyond this is refused: it was made to. [characters]"""
MOST_WORDS = 50_000
NAME = r"[A-Za-z_][A-Za-z0-9_]{0,99}"
ASSIGNMENT = re.compile(rf"({NAME})(\+?)=(.*)", re.DOTALL)
REFERENCE = re.compile(rf"\$(?:({NAME})|\{{({NAME}|\d)(?:\[[@*]\])?(?::?[-=]([^{{}}]*))?\}})")
PLAIN = re.compile(r"[^\s\\'\"$#;|&()]+")
"""A run of characters that mean themselves."""
BREAKS = frozenset({"\n", ";", "&&", "||", "|", "&", "then", "do"})
KEYWORDS = frozenset({"export", "declare", "local", "readonly", "exec", "time", "nohup", "sudo", "env", "then", "do"})
END = "\n"


@dataclass(slots=True)
class _Shell:
    """What was assigned so far."""

    where: str
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)


def statements(text: str, where: str) -> tuple[tuple[str, ...], ...]:
    r"""Return the words of each command of a script, its own variables put in.

    Raises:
        InvalidValueError: a text that is too long, or whose variables grow without end.

    >>> statements("A=(--tp 2)\npython x.py \\\n ${A[@]} # two ranks", "x.sh")
    (('python', 'x.py', '--tp', '2'),)
    """
    if len(text) > LONGEST:
        raise InvalidValueError(where, text[:60], f"a script of at most {LONGEST:,} characters")
    shell, found, words = _Shell(where), [], 0
    for statement in _split(_tokens(text)):
        said = tuple(_expanded(_assign(statement, shell), shell))
        words += len(said)
        if words > MOST_WORDS:
            raise InvalidValueError(where, text[:60], f"at most {MOST_WORDS:,} words")
        if said:
            found.append(said)
    return tuple(found)


def _split(tokens: Iterable[str]) -> Iterator[list[str]]:
    """Yield the tokens of each command; brackets of arrays hold theirs together."""
    statement: list[str] = []
    depth = 0
    for each in tokens:
        depth += (each == "(") - (each == ")" and depth > 0)
        if each in BREAKS and not depth:
            if statement:
                yield statement
            statement = []
        elif each != END:
            statement.append(each)
    if statement:
        yield statement


def _tokens(text: str) -> Iterator[str]:  # noqa: C901, PLR0912 - a shell's rules, one branch each
    """Yield words without their quotes, brackets, and what separates commands."""
    i, word, inside, reach = 0, "", False, LONGEST_VALUE
    while i < len(text):
        plain = PLAIN.match(text, i)
        if plain is not None:
            word, inside, i = word + plain[0], True, plain.end()
            continue
        char, two = text[i], text[i : i + 2]
        if char == "\\":
            if two not in {"\\\n", "\\\r"}:
                word, inside = word + text[i + 1 : i + 2], True
            i += 3 if text[i : i + 3] == "\\\r\n" else 2
            continue
        if char in "'\"" and (end := text.find(char, i + 1)) >= 0:
            word, inside, i = word + text[i + 1 : end].replace("\\\n", " "), True, end + 1
            continue
        if two in {"$(", "${"}:
            end, closed = _closing(text, i + 1, reach)
            reach = reach if closed else 0
            word, inside, i = word + text[i:end], True, end
            continue
        if char == "#" and not inside:
            end = text.find("\n", i)
            i = len(text) if end < 0 else end
            continue
        if char in " \t\r\n;|&()":
            if inside:
                yield word
            word, inside = "", False
            if two in {"&&", "||"}:
                yield two
                i += 1
            elif char not in " \t\r":
                yield char
        else:
            word, inside = word + char, True
        i += 1
    if inside:
        yield word


def _closing(text: str, start: int, reach: int) -> tuple[int, bool]:
    """Return the place after the bracket that closes the one at ``start``, and whether there is one within reach.

    Without one it is the end of the line; after the first such the reader looks no further than that.
    """
    opening, closing = text[start], {"(": ")", "{": "}"}[text[start]]
    line = text.find("\n", start)
    line = len(text) if line < 0 else line
    depth = 0
    for i in range(start, max(line, min(len(text), start + reach))):
        depth += (text[i] == opening) - (text[i] == closing)
        if not depth:
            return i + 1, True
    return line, False


def _assign(statement: list[str], shell: _Shell) -> list[str]:
    """Take assignments off the front of a command and remember them; return the rest."""
    rest = list(statement)
    while rest:
        match = ASSIGNMENT.fullmatch(rest[0])
        if rest[0] in KEYWORDS:
            rest.pop(0)
            continue
        if match is None:
            break
        rest.pop(0)
        values: Iterable[str] = (match[3],)
        if not match[3] and rest[:1] == ["("] and ")" in rest:
            end = rest.index(")")
            values, rest = rest[1:end], rest[end + 1 :]
        new = tuple(_expanded(values, shell))
        shell.values[match[1]] = (shell.values.get(match[1], ()) if match[2] else ()) + new
        if sum(map(len, shell.values[match[1]])) > LONGEST_VALUE:
            raise InvalidValueError(f"{shell.where}: {match[1]}", "...", f"at most {LONGEST_VALUE:,} characters")
    return [word for word in rest if word not in {"(", ")"}]


def _expanded(words: Iterable[str], shell: _Shell) -> Iterator[str]:
    """Yield the words with variables put in; a word that is one variable may become several."""
    for word in words:
        whole = REFERENCE.fullmatch(word)
        if whole is not None:
            for each in _value(whole, shell.values):
                yield from each.split()
        else:
            yield from _inside(word, shell)


def _inside(word: str, shell: _Shell) -> Iterator[str]:
    text = REFERENCE.sub(lambda match: " ".join(_value(match, shell.values)), word)
    if len(text) > LONGEST_VALUE:
        raise InvalidValueError(shell.where, text[:60], f"words of at most {LONGEST_VALUE:,} characters")
    if text != word and " --" in f" {text}":  # a text of flags with variables in it
        yield from text.split()
    else:
        yield text


def _value(match: re.Match[str], values: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return what a variable holds, or its default, or the reference itself."""
    found = values.get(match[1] or match[2])
    if found is not None and found != ("",):
        return found
    return (match[0],) if match[3] is None else (match[3],)
