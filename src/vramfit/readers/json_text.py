"""Reads JSON that nobody vouches for: bounded in size, in depth, in values and in digits.

The standard parser accepts more than JSON allows (NaN, repeated keys, numbers of any length) and
answers hostile nesting with ``RecursionError``. Here every such text is one ``UnreadableFileError``
that names the place.
"""

from __future__ import annotations

import json
import re
import stat
from itertools import accumulate
from math import isinf
from pathlib import Path

from vramfit.errors import UnreadableFileError, quote

DEEPEST_NESTING = 100
"""Brackets inside brackets; published configurations stay below 10."""

MOST_MARKS = 4_000_000
"""Quotes, commas and brackets in one text: bounds the objects that the parser makes.

A tensor in a header has about 18, hence more than 200,000 tensors per file.
"""

MOST_DIGITS = 40
"""Digits of one integer: more than any 64-bit size has, and cheap to convert."""

_MARKS = (b",", b"[", b"{", b'"')
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in _STEPS)
_STRING_OR_BRACE = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*+(:)?|[{}]', re.DOTALL)
_LOOKS_LIKE = (
    (b"version https://git-lfs", "this is a Git LFS pointer, not the file; fetch the file itself with `git lfs pull`"),
    (b"<", "this is a web page; download the raw file"),
    (b"GGUF", "this is a GGUF file"),
    (b"PK\x03\x04", "this is a zip or PyTorch archive"),
)


class _RefusedError(ValueError):
    """What a hook of the parser cannot accept, and the text to look for in the input."""

    def __init__(self, seen: str, expected: str, text: str, *, key: bool = False) -> None:
        self.seen, self.expected, self.text, self.key = seen, expected, text, key
        super().__init__(seen)


def load_json_object(path: Path, limit_bytes: int) -> dict[str, object]:
    """Read a file that holds one JSON object.

    Args:
        path: a regular file.
        limit_bytes: larger files are refused unread. [B]

    Raises:
        UnreadableFileError: missing, a directory, not allowed, too large, or not such a text.
    """
    return parse_json_object(load_bytes(path, limit_bytes), str(path), limit_bytes)


def load_bytes(path: Path, limit_bytes: int) -> bytes:
    """Read at most ``limit_bytes`` + 1 bytes of a regular file.

    Raises:
        UnreadableFileError: missing, a directory, a device or pipe, or not allowed.
    """
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            return file.read(limit_bytes + 1)
    except OSError as error:
        raise unreadable(path, error) from None


def check_regular_file(path: Path) -> int:
    """Return the size of a regular file. [B]

    Raises:
        UnreadableFileError: missing, a directory, a device or pipe (which could block for ever), or not allowed.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if stat.S_ISDIR(found.st_mode):
        raise UnreadableFileError(f"{path}: a directory; expected a file; name the file inside it")
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableFileError(f"{path}: a device, pipe or socket; expected a regular file; save it to one first")
    return found.st_size


def unreadable(path: Path, error: Exception) -> UnreadableFileError:
    """Put what the operating system said into words and a next step."""
    match error:
        case FileNotFoundError():
            return UnreadableFileError(f"{quote(str(path))}: no such file; expected one to read; check the spelling")
        case PermissionError():
            return UnreadableFileError(f"{path}: not allowed to read it; expected read permission; see `ls -l`")
        case OSError():
            return UnreadableFileError(f"{quote(str(path))}: {error.strerror}; expected a file to read; check the path")
        case _:
            return UnreadableFileError(f"{quote(str(path))}: {error}; expected a path; check the spelling")


def parse_json_object(text: bytes, where: str, limit_bytes: int) -> dict[str, object]:
    """Return the JSON object that ``text`` holds.

    Args:
        text: UTF-8.
        where: the file it came from, for messages.
        limit_bytes: longer texts are refused. [B]

    Raises:
        UnreadableFileError: too long, not UTF-8, not JSON, not an object, a repeated key, NaN or infinity,
            an integer of more than ``MOST_DIGITS`` digits, or brackets deeper than ``DEEPEST_NESTING``.

    >>> parse_json_object(b'{"hidden_size": 4096}', "config.json", 100)
    {'hidden_size': 4096}
    >>> parse_json_object(b'{"hidden_size": NaN}', "config.json", 100)
    Traceback (most recent call last):
    vramfit.errors.UnreadableFileError: config.json, line 1, column 17: NaN: expected JSON, which has finite numbers \
only; write a number
    """
    if len(text) > limit_bytes:
        raise UnreadableFileError(
            f"{where}: more than {limit_bytes:,} bytes; expected a JSON object of at most that; is this the right file?"
        )
    _check_marks(text, where)
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        seen = f"byte 0x{text[error.start]:02x} that is not UTF-8"
        raise _wrong(where, text[: error.start].decode("utf-8"), error.start, seen, _advice(text)) from None
    parsed = _parse(decoded, where, text)
    if not isinstance(parsed, dict):
        seen = f"a JSON {_KINDS.get(type(parsed), 'value')}"
        raise _wrong(where, decoded, 0, seen, "expected an object, {...}; is this the right file?")
    _check_surrogates(parsed, decoded, where)
    return parsed


_KINDS: dict[type, str] = {list: "array", str: "string", int: "number", float: "number", bool: "boolean"}


def _check_marks(text: bytes, where: str) -> None:
    """Refuse what would cost far more memory or stack than its length, before parsing."""
    marks = sum(text.count(mark) for mark in _MARKS)
    if marks > MOST_MARKS:
        raise UnreadableFileError(
            f"{where}: {marks:,} quotes, commas and brackets; expected at most {MOST_MARKS:,}; is this the right file?"
        )
    if text.count(b"[") + text.count(b"{") > DEEPEST_NESTING and _depth(text) > DEEPEST_NESTING:
        raise _too_deep(where)


def _too_deep(where: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{where}: brackets nested deeper than {DEEPEST_NESTING}; expected no more; is this the right file?"
    )


def _depth(text: bytes) -> int:
    """Return how deep the brackets outside strings are nested; text that is no JSON may give any number."""
    outside = b"".join(text.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])
    return max(accumulate(map(_STEPS.__getitem__, outside.translate(None, _NOT_BRACKETS))), default=0)


def _parse(text: str, where: str, raw: bytes) -> object:
    """Run the parser, and turn whatever it says into one kind of error with its place."""
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_finite_only,
            parse_int=_short_integer,
            parse_float=_finite,
        )
    except json.JSONDecodeError as error:
        seen = "the text is empty" if not text.strip() else f"{error.msg}, at {quote(text[error.pos : error.pos + 20])}"
        raise _wrong(where, text, error.pos, seen, _advice(raw)) from None
    except _RefusedError as error:
        raise _wrong(where, text, _place(text, error), error.seen, error.expected) from None
    except RecursionError:
        raise _too_deep(where) from None


def _advice(raw: bytes) -> str:
    mistaken = mistaken_for(raw)
    return f"expected a JSON object; {mistaken or 'correct the text or download the file again'}"


def mistaken_for(start: bytes) -> str | None:
    """Recognise, by their first bytes, files that are often given by mistake, and say what to do.

    >>> mistaken_for(b"<!doctype html>")
    'this is a web page; download the raw file'
    """
    return next((advice for magic, advice in _LOOKS_LIKE if start[:200].lstrip().startswith(magic)), None)


def _wrong(where: str, text: str, position: int | None, seen: str, expected: str) -> UnreadableFileError:
    """Name file, line and column."""
    if position is None:
        return UnreadableFileError(f"{where}: {seen}: {expected}")
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position) if line > 1 else position + 1
    return UnreadableFileError(f"{where}, line {line}, column {column}: {seen}: {expected}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make the object, unless a key stands in it twice: readers would disagree which one counts."""
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"key {quote(twice)} for the second time", "expected it once; remove one", twice, key=True)
    return made


def _finite_only(constant: str) -> object:
    raise _RefusedError(constant, "expected JSON, which has finite numbers only; write a number", constant)


def _short_integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        seen = f"an integer of {len(digits):,} digits"
        raise _RefusedError(seen, f"expected at most {MOST_DIGITS}; correct the number", digits)
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if isinf(number):
        raise _RefusedError(quote(digits), "expected a number below 1.8e308; correct the number", digits)
    return number


def _place(text: str, refused: _RefusedError) -> int | None:
    """Return where the refused text stands; for a repeated key, where it stands the second time."""
    if not refused.key:
        found = text.find(refused.text)
        return None if found < 0 else found
    open_objects: list[set[str]] = []
    for token in _STRING_OR_BRACE.finditer(text):
        if token[0] == "{":
            open_objects.append(set())
        elif token[0] == "}":
            open_objects.pop()
        elif token[2]:
            key = json.loads(token[1])
            if key == refused.text and key in open_objects[-1]:
                return token.start()
            open_objects[-1].add(key)
    return None


def _check_surrogates(parsed: dict[str, object], text: str, where: str) -> None:
    r"""Refuse escapes such as ``\ud800`` alone: a string with one cannot be printed."""
    if "\\ud" not in text.lower():
        return
    try:
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        seen = "half of a surrogate pair"
        raise _wrong(where, text, text.lower().find("\\ud"), seen, "expected whole characters; correct it") from None
