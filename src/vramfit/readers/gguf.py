"""Reads the header of a GGUF file, version 2 or 3: metadata, and every tensor's name, type, shape and size.

    magic, version, number of tensors, number of keys | keys and values | tensors | padding | the tensors' bytes

Source: ggml-org/ggml:docs/gguf.md; ggml-org/llama.cpp:ggml/src/gguf.cpp.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeAlias

from vramfit.errors import UnreadableFileError, quote
from vramfit.formats import GGUF_TYPES
from vramfit.readers.json_text import check_regular_file, mistaken_for, unreadable
from vramfit.readers.safetensors import Checkpoint, StoredTensor
from vramfit.units import LARGEST_SIZE, round_up

HEADER_LIMIT_BYTES = 32 * 2**20
"""Largest header that is read; a vocabulary of 262,144 entries with its merges has about 10 MB."""
FIRST_READ_BYTES = 2**20
MOST_TENSORS = 100_000
MOST_KEYS = 10_000
MOST_DIMENSIONS = 4
"""``GGML_MAX_DIMS``."""
LONGEST_NAME = 1024
LONGEST_KEPT = 4096
"""Arrays of numbers up to this length are kept; of longer ones, and of texts, only the length is."""
DEEPEST_ARRAY = 4
MOST_FILES = 1024
DEFAULT_ALIGNMENT = 32

TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
"""``enum ggml_type`` of ggml/include/ggml.h; numbers that are missing were removed."""

Value: TypeAlias = "int | float | bool | str | tuple[int | float | bool, ...] | Length"

_SCALARS = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"),
    4: struct.Struct("<I"), 5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<?"),
    10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d"),
}  # fmt: skip
_TEXT, _ARRAY = 8, 9
_UINT32, _UINT64 = _SCALARS[4], _SCALARS[10]
_SPLIT = re.compile(r"-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf$")


@dataclass(frozen=True, slots=True)
class Length:
    """An array that was passed over: how many entries it has."""

    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What one file says of itself."""

    metadata: Mapping[str, Value]
    tensors: tuple[StoredTensor, ...]
    """Shapes as checkpoints have them, ``[outputs, inputs]``: GGUF writes them the other way round."""


class IncompleteHeaderError(Exception):
    """The bytes end before the header does; ``needed`` is the least that would bring it further. [B]"""

    def __init__(self, needed: int) -> None:
        """Keep the least length."""
        self.needed = needed
        super().__init__(needed)


class _Cursor:
    """A position in the header's bytes."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where, self.position = data, where, 0

    def scalar(self, kind: struct.Struct) -> int | float | bool:
        end = self.position + kind.size
        if end > len(self.data):
            raise IncompleteHeaderError(end)
        (value,) = kind.unpack_from(self.data, self.position)
        self.position = end
        found: int | float | bool = value
        return found

    def integer(self, kind: struct.Struct, most: int, what: str) -> int:
        """Read a count or a length; one that the header could not hold is refused before anything is made of it."""
        value = int(self.scalar(kind))
        if value > most:
            raise self.wrong(f"{value:,} {what}", f"at most {most:,}")
        return value

    def text(self, longest: int, what: str) -> str:
        length = self.integer(_UINT64, longest, f"bytes of {what}")
        end = self.position + length
        if end > len(self.data):
            raise IncompleteHeaderError(end)
        found = self.data[self.position : end]
        self.position = end
        try:
            return found.decode("utf-8")
        except UnicodeDecodeError:
            raise self.wrong(f"{what}: bytes that are no UTF-8", "a text") from None

    def wrong(self, seen: str, expected: str) -> UnreadableFileError:
        return UnreadableFileError(
            f"{self.where}: at byte {self.position:,}: {seen}: expected {expected}; "
            "is the file damaged? download it again"
        )


def parse_gguf(data: bytes, where: str, file_bytes: int | None = None) -> GgufHeader:
    """Return the header that the first bytes of a file hold.

    Args:
        data: the file's first bytes.
        where: the file, for messages.
        file_bytes: size of the whole file; None = not known. [B]

    Raises:
        IncompleteHeaderError: more bytes are needed.
        UnreadableFileError: not such a header, or one that is damaged or hostile.
    """
    cursor = _Cursor(data, where)
    _check_start(cursor)
    num_tensors = cursor.integer(_UINT64, MOST_TENSORS, "tensors")
    num_keys = cursor.integer(_UINT64, MOST_KEYS, "keys")
    metadata: dict[str, Value] = {}
    for _ in range(num_keys):
        key = cursor.text(LONGEST_NAME, "a key")
        if key in metadata:
            raise cursor.wrong(f"key {quote(key)} twice", "every key once")
        metadata[key] = _value(cursor, cursor.integer(_UINT32, 12, "as a value's type"), 0)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 8 <= alignment <= 2**20 or alignment % 8:
        raise cursor.wrong(f"general.alignment {quote(alignment)}", "a multiple of 8, at most 1,048,576")
    end, names, tensors = 0, set(), []
    for _ in range(num_tensors):
        tensor, offset = _tensor(cursor)
        if offset != end or tensor.name in names:
            seen = f"tensor {quote(tensor.name)} at {offset:,}" + (", once more" if tensor.name in names else "")
            raise cursor.wrong(seen, f"{end:,}, where the one before it ends, and every name once")
        end = round_up(offset + tensor.num_bytes, alignment)
        names.add(tensor.name)
        tensors.append(tensor)
    start = round_up(cursor.position, alignment)
    last = end - alignment + 1 if tensors else 0  # the last tensor may lack its padding
    if file_bytes is not None and tensors and file_bytes < start + last:
        raise UnreadableFileError(
            f"{where}: {file_bytes:,} bytes: expected about {start + end:,}, the end of the last tensor; "
            "is the download complete? fetch it again"
        )
    return GgufHeader(metadata=metadata, tensors=tuple(tensors))


def _check_start(cursor: _Cursor) -> None:
    magic = cursor.data[:4]
    if len(magic) == 4 and magic != b"GGUF":
        advice = mistaken_for(cursor.data) or "give a .gguf file"
        raise UnreadableFileError(f"{cursor.where}: starts with {magic!r}: expected a GGUF file, b'GGUF'; {advice}")
    if len(magic) < 4:
        raise IncompleteHeaderError(4)
    cursor.position = 4
    version = int(cursor.scalar(_UINT32))
    if version not in {2, 3}:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in {2, 3}
        raise UnreadableFileError(
            f"{cursor.where}: GGUF version {version}: expected 2 or 3"
            + (", little-endian; this one was made for a big-endian machine" if swapped else "; convert the model anew")
        )


def _value(cursor: _Cursor, kind: int, depth: int) -> Value:
    if kind == _TEXT:
        return cursor.text(HEADER_LIMIT_BYTES, "a text")
    if kind == _ARRAY:
        return _array(cursor, depth)
    return cursor.scalar(_SCALARS[kind])


def _array(cursor: _Cursor, depth: int) -> Value:
    """Read a short array of numbers; pass over every other one."""
    if depth >= DEEPEST_ARRAY:
        raise cursor.wrong(f"arrays {depth + 1} deep", f"at most {DEEPEST_ARRAY}")
    kind = cursor.integer(_UINT32, 12, "as an entry's type")
    count = cursor.integer(_UINT64, HEADER_LIMIT_BYTES, "entries of an array")
    if kind == _TEXT:
        _pass_texts(cursor, count)
        return Length(count)
    if kind == _ARRAY:
        for _ in range(count):
            _array(cursor, depth + 1)
        return Length(count)
    size = _SCALARS[kind].size
    end = cursor.position + count * size
    if end > len(cursor.data):
        raise IncompleteHeaderError(end)
    kept: Value = Length(count)
    if count <= LONGEST_KEPT:
        kept = tuple(v for (v,) in _SCALARS[kind].iter_unpack(cursor.data[cursor.position : end]))
    cursor.position = end
    return kept


def _pass_texts(cursor: _Cursor, count: int) -> None:
    """Pass over an array of texts; a vocabulary has hundreds of thousands, so this loop is kept tight."""
    data, position, end, unpack = cursor.data, cursor.position, len(cursor.data), _UINT64.unpack_from
    for _ in range(count):
        if position + 8 > end:
            raise IncompleteHeaderError(position + 8)
        position += 8 + unpack(data, position)[0]
    if position > end:
        if position > HEADER_LIMIT_BYTES:
            raise cursor.wrong(f"a text that ends at byte {position:,}", f"at most {HEADER_LIMIT_BYTES:,} in a header")
        raise IncompleteHeaderError(position)
    cursor.position = position


def _tensor(cursor: _Cursor) -> tuple[StoredTensor, int]:
    """Read one tensor and its offset."""
    name = cursor.text(LONGEST_NAME, "a tensor's name")
    num_dimensions = cursor.integer(_UINT32, MOST_DIMENSIONS, f"axes of {quote(name)}")
    shape = tuple(int(cursor.scalar(_UINT64)) for _ in range(num_dimensions))[::-1]
    number = int(cursor.scalar(_UINT32))
    offset = int(cursor.scalar(_UINT64))
    if number not in TYPES:
        raise cursor.wrong(f"tensor {quote(name)} of type {number}", f"one of {', '.join(map(str, TYPES))}")
    if not shape or prod(shape) > LARGEST_SIZE or 0 in shape:
        raise cursor.wrong(f"tensor {quote(name)} of shape {quote([*shape])}", "sizes from 1, at most 2**62 elements")
    stored = GGUF_TYPES[TYPES[number]]
    if shape and shape[-1] % stored.block_elements:
        seen = f"tensor {quote(name)}: rows of {shape[-1]:,} in {TYPES[number]}"
        raise cursor.wrong(seen, f"a multiple of {stored.block_elements}")
    size = prod(shape) // stored.block_elements * stored.block_bytes
    return StoredTensor(name=name, dtype=TYPES[number], shape=shape, num_bytes=size), offset


def read_header(read: Callable[[int], bytes], where: str, file_bytes: int | None = None) -> GgufHeader:
    """Read as many bytes as the header needs, and no more than twice that.

    Args:
        read: returns the first n bytes of the file, fewer at its end.
        where: the file, for messages.
        file_bytes: size of the whole file; None = not known. [B]

    Raises:
        UnreadableFileError: not such a file, one that ends in its header, or a header larger than the limit.
    """
    size = FIRST_READ_BYTES
    while True:
        data = read(size)
        try:
            return parse_gguf(data, where, file_bytes)
        except IncompleteHeaderError as short:
            if len(data) < size:
                raise UnreadableFileError(
                    f"{where}: ends after {len(data):,} bytes, within its header: expected a whole GGUF file; "
                    "download it again"
                ) from None
            if short.needed > HEADER_LIMIT_BYTES or size >= HEADER_LIMIT_BYTES:
                raise UnreadableFileError(
                    f"{where}: a header of more than {HEADER_LIMIT_BYTES:,} bytes: expected a GGUF model; "
                    "is the file damaged? download it again"
                ) from None
            size = min(HEADER_LIMIT_BYTES, max(2 * size, short.needed))


def load_gguf(path: Path) -> tuple[GgufHeader, Checkpoint]:
    """Read a local file, and all its siblings when it is one of several (``-00001-of-00003.gguf``).

    Returns:
        The first file's header, which has the metadata, and the tensors of all files.

    Raises:
        UnreadableFileError: a file that is missing, damaged, hostile or of another kind.
    """
    paths = [path.with_name(name) for name in split_names(path.name)]
    missing = [p.name for p in paths if not p.exists()]
    if missing:
        raise UnreadableFileError(
            f"{path}: one of {len(paths)} files, of which {len(missing)} are not beside it, such as "
            f"{quote(missing[0])}: expected all of them; download the rest"
        )
    return join([load_header(p) for p in paths], str(path))


def split_names(name: str) -> list[str]:
    """Return the names of all files of a model; one that is not split is alone.

    >>> split_names("a-00002-of-00002.gguf")
    ['a-00001-of-00002.gguf', 'a-00002-of-00002.gguf']
    """
    match = _SPLIT.search(name)
    if match is None:
        return [name]
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count <= MOST_FILES:
        raise UnreadableFileError(
            f"{name}: file {int(match['number'])} of {count}: expected one of up to {MOST_FILES:,}; is it named right?"
        )
    return [f"{name[: match.start()]}-{i:05}-of-{count:05}.gguf" for i in range(1, count + 1)]


def join(headers: list[GgufHeader], where: str) -> tuple[GgufHeader, Checkpoint]:
    """Put the files of one model together; each tensor must stand in one of them, and none may be missing.

    Raises:
        UnreadableFileError: a tensor in two files, or another number of tensors than the first file announces.
    """
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    announced = headers[0].metadata.get("split.tensors.count")
    distinct = len({tensor.name for tensor in tensors})
    if distinct != len(tensors) or (isinstance(announced, int) and announced != len(tensors)):
        raise UnreadableFileError(
            f"{where}: {distinct:,} different tensors in {len(headers)} files: expected "
            f"{announced if isinstance(announced, int) else len(tensors):,}; are all files of the same model?"
        )
    return headers[0], Checkpoint(where=where, tensors=tensors)


def load_header(path: Path) -> GgufHeader:
    """Read the header of one local file.

    Raises:
        UnreadableFileError: a file that is missing, damaged, hostile or of another kind.
    """
    file_bytes = check_regular_file(path)

    def read(size: int) -> bytes:
        with path.open("rb") as file:
            return file.read(size)

    try:
        return read_header(read, str(path), file_bytes)
    except OSError as error:
        raise unreadable(path, error) from None
