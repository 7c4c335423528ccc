"""Cuts a command line into the words a shell would see, without executing anything."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from vramfit.errors import InvalidValueError

LONGEST = 64 * 2**10
"""A command line longer than this is refused. [characters]"""
OPERATORS = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>&1", "&>", ")", "("})
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}=")
PROMPTS = frozenset({"$", "#", ">", "%"})
"""What shells print before a command; copied along with it."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one command."""

    words: tuple[str, ...]

    def assignments(self, stop: int) -> tuple[tuple[str, str], ...]:
        """Return variables set before word ``stop``: ``NAME=value`` in front, or after ``-e`` of a container."""
        found = [word for word in self.words[:stop] if ASSIGNMENT.match(word)]
        found += [word[6:] for word in self.words[:stop] if word.startswith("--env=")]
        pairs = (word.partition("=") for word in found)
        return tuple((name, value) for name, _, value in pairs)


def split(text: str) -> Words:
    r"""Return the words of the first command in the text: quotes undone, continued lines joined, pipes left off.

    Raises:
        InvalidValueError: quotes that do not close, or a text that is too long.

    >>> split("A=1 vllm serve x \\\n --dtype 'half' | tee log").words
    ('A=1', 'vllm', 'serve', 'x', '--dtype', 'half')
    """
    if len(text) > LONGEST:
        raise InvalidValueError("--command", text[:80], f"at most {LONGEST:,} characters")
    joined = re.sub(r"[\\^`][ \t]*\r?\n", " ", text)
    try:
        words = shlex.split(joined, comments=False)
    except ValueError as error:
        raise InvalidValueError("--command", text, f"a command line whose quotes close ({error})") from error
    if words and words[0] in PROMPTS:
        words = words[1:]
    stop = next((i for i, word in enumerate(words) if word in OPERATORS), len(words))
    return Words(tuple(words[:stop]))
