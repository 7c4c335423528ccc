"""Reads the headers of safetensors files: every tensor's name, type, shape and size, and no weight.

    8 bytes: length of the header, little-endian | JSON header | the tensors' bytes, one after the other

Source: huggingface/safetensors, README ("Format"), and safetensors/src/tensor.rs for limits and types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import TypeGuard

from vramfit.errors import UnreadableFileError, quote
from vramfit.readers.json_text import (
    check_regular_file,
    load_json_object,
    mistaken_for,
    parse_json_object,
    unreadable,
)
from vramfit.units import LARGEST_SIZE

HEADER_LIMIT_BYTES = 100_000_000
"""Largest header; the format's own limit (tensor.rs, MAX_HEADER_SIZE)."""

INDEX_LIMIT_BYTES = 64 * 2**20
"""Largest index that is read; the one of DeepSeek-V3, with 91,991 tensors, has 9 MB."""

MOST_SHARDS = 2048
"""Most files of one checkpoint; published ones have up to about 200."""

MOST_DIMENSIONS = 64
"""Most axes of one tensor; frameworks stop at 64."""

LENGTH_BYTES = 8

_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
"""Bits of one element, for each type of safetensors 0.8 (tensor.rs, Dtype::bitsize)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor as a file has it."""

    name: str
    dtype: str
    """As safetensors writes it: ``"BF16"``, ``"F8_E4M3"``."""
    shape: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Every tensor of a model's files, as their headers list them."""

    where: str
    """The file, index or repository that was read."""
    tensors: tuple[StoredTensor, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors, headers not counted. [B]"""
        return sum(tensor.num_bytes for tensor in self.tensors)


def element_bits(dtype: str) -> int:
    """Bits of one element of a type that a header was found to have.

    >>> element_bits("BF16"), element_bits("F4")
    (16, 4)
    """
    return _BITS[dtype]


def parse_header_length(start: bytes, where: str, file_bytes: int | None = None) -> int:
    """Return the length of the header that the first eight bytes of a file announce. [B]

    Args:
        start: the first bytes of the file, at least eight.
        where: the file, for messages.
        file_bytes: size of the whole file; None = not known. [B]

    Raises:
        UnreadableFileError: fewer than eight bytes, or a length that cannot be.

    >>> parse_header_length((1024).to_bytes(8, "little"), "model.safetensors")
    1024
    """
    if len(start) < LENGTH_BYTES:
        raise UnreadableFileError(
            f"{where}: {len(start)} bytes; expected a safetensors file, which starts with eight; download it again"
        )
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    advice = mistaken_for(start) or "download it again"
    if not 2 <= length <= HEADER_LIMIT_BYTES:
        raise UnreadableFileError(
            f"{where}: a header of {length:,} bytes; expected a safetensors file, with 2 to {HEADER_LIMIT_BYTES:,}; "
            f"{advice}"
        )
    if file_bytes is not None and length > file_bytes - LENGTH_BYTES:
        raise UnreadableFileError(
            f"{where}: a header of {length:,} bytes in a file of {file_bytes:,}; expected a whole safetensors file; "
            f"{advice}"
        )
    return length


def parse_header(header: bytes, where: str, data_bytes: int | None = None) -> tuple[StoredTensor, ...]:
    """Return every tensor that a header lists, in the order of their bytes.

    Args:
        header: the JSON after the first eight bytes.
        where: the file, for messages.
        data_bytes: bytes of the file after the header; None = not known. [B]

    Raises:
        UnreadableFileError: not such a header; the message names the tensor.
    """
    entries = parse_json_object(header, where, HEADER_LIMIT_BYTES)
    entries.pop("__metadata__", None)
    placed = sorted((_tensor(name, entry, where) for name, entry in entries.items()), key=lambda found: found[:2])
    end = 0
    for first, last, tensor in placed:
        if first != end:
            seen = f"data_offsets [{first}, {last}]"
            raise _wrong(where, tensor.name, seen, f"{end} first, where the tensor before it ends")
        end = last
    if data_bytes is not None and end != data_bytes:
        raise UnreadableFileError(
            f"{where}: {data_bytes:,} bytes after the header; expected {end:,}, the end of the last tensor; "
            "is the file complete? download it again"
        )
    return tuple(tensor for _, _, tensor in placed)


def _tensor(name: str, entry: object, where: str) -> tuple[int, int, StoredTensor]:
    """Check one entry: known type, whole sizes, and offsets that hold exactly the shape."""
    if not isinstance(entry, dict):
        raise _wrong(where, name, entry, '{"dtype": ..., "shape": [...], "data_offsets": [first, last]}')
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _wrong(where, name, f"dtype {quote(dtype)}", f"one of {', '.join(_BITS)}")
    if not _are_sizes(shape) or len(shape) > MOST_DIMENSIONS:
        raise _wrong(where, name, f"shape {quote(shape)}", f"at most {MOST_DIMENSIONS} sizes, integers from 0")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _wrong(where, name, f"data_offsets {quote(offsets)}", "two positions, integers from 0")
    bits, elements = _BITS[dtype], prod(shape)
    if elements > LARGEST_SIZE or elements * bits % 8:
        raise _wrong(where, name, f"shape {quote(shape)} of {dtype}", "whole bytes, at most 2**62 elements")
    first, last = offsets
    if last - first != elements * bits // 8:
        seen = f"data_offsets [{first}, {last}], {last - first:,} bytes"
        raise _wrong(where, name, seen, f"{elements * bits // 8:,} bytes for {dtype} {quote(shape)}")
    return first, last, StoredTensor(name=name, dtype=dtype, shape=tuple(shape), num_bytes=last - first)


def _are_sizes(values: object) -> TypeGuard[list[int]]:
    """Say whether this is a list of integers from 0 to the largest size; JSON's true and 1.0 are none."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= LARGEST_SIZE for value in values)


def _wrong(where: str, name: str, seen: object, expected: str) -> UnreadableFileError:
    text = seen if isinstance(seen, str) else quote(seen)
    return UnreadableFileError(f"{where}: tensor {quote(name)}: {text}: expected {expected}; download the file again")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read the header of a ``*.safetensors`` file, or of every shard that an index names.

    Raises:
        UnreadableFileError: a file that is missing, damaged, hostile or of another kind.
    """
    if path.suffix != ".json":
        return Checkpoint(where=str(path), tensors=load_header(path))
    weight_map = parse_weight_map(load_json_object(path, INDEX_LIMIT_BYTES), str(path))
    missing = [shard for shard in shards_of(weight_map) if not (path.parent / shard).exists()]
    if missing:
        raise UnreadableFileError(
            f"{path}: names {len(shards_of(weight_map))} shards, of which {len(missing)} are not beside it, such as "
            f"{quote(missing[0])}; expected all of them; download the rest, or give the config.json alone"
        )
    headers = {shard: load_header(path.parent / shard) for shard in shards_of(weight_map)}
    return merge(weight_map, headers, str(path))


def load_header(path: Path) -> tuple[StoredTensor, ...]:
    """Read the header of one local file, and no more of it.

    Raises:
        UnreadableFileError: a file that is missing, damaged, hostile or of another kind.
    """
    file_bytes = check_regular_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(200)
            length = parse_header_length(start, str(path), file_bytes)
            file.seek(LENGTH_BYTES)
            header = file.read(length)
    except OSError as error:
        raise unreadable(path, error) from None
    return parse_header(header, str(path), file_bytes - LENGTH_BYTES - length)


def parse_weight_map(index: Mapping[str, object], where: str) -> dict[str, str]:
    """Return which shard holds each tensor, as an index says.

    Raises:
        UnreadableFileError: no ``weight_map``, or a shard's name that leads out of the directory.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UnreadableFileError(
            f"{where}: weight_map: {quote(weight_map)}: expected {{tensor: file}}; is this the index of a checkpoint?"
        )
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _stays_inside(shard):
            raise UnreadableFileError(
                f"{where}: weight_map[{quote(name)}]: {quote(shard)}: expected the name of a .safetensors file "
                "beside it; do not use this index"
            )
    num_shards = len(shards_of(weight_map))
    if num_shards > MOST_SHARDS:
        raise UnreadableFileError(
            f"{where}: {num_shards:,} shards; expected at most {MOST_SHARDS:,}; is this the right index?"
        )
    return weight_map


def _stays_inside(shard: str) -> bool:
    """Say whether a name can only be a file in the index's directory or below it, on any system."""
    parts = PurePosixPath(shard).parts
    plain = len(shard) <= 255 and shard.isascii() and shard.isprintable() and not set(shard) & set('\\:*?"<>|')
    return plain and shard.endswith(".safetensors") and not shard.startswith("/") and ".." not in parts


def shards_of(weight_map: Mapping[str, str]) -> tuple[str, ...]:
    """Return each shard's name once, in the order in which the index first names them."""
    return tuple(dict.fromkeys(weight_map.values()))


def merge(weight_map: Mapping[str, str], headers: Mapping[str, tuple[StoredTensor, ...]], where: str) -> Checkpoint:
    """Put the shards together; the headers decide, and the index must agree with them.

    Raises:
        UnreadableFileError: a tensor in two shards, or not in the one that the index names.
    """
    holders: dict[str, str] = {}
    for shard, tensors in headers.items():
        for tensor in tensors:
            if tensor.name in holders:
                raise _wrong(where, tensor.name, f"in {holders[tensor.name]} and in {shard}", "it in one shard")
            holders[tensor.name] = shard
    for name, shard in weight_map.items():
        if holders.get(name) != shard:
            raise _wrong(where, name, f"in {holders.get(name, 'no shard')}", f"it in {shard}, as the index says")
    return Checkpoint(where=where, tensors=_flat(headers.values()))


def _flat(headers: Iterable[tuple[StoredTensor, ...]]) -> tuple[StoredTensor, ...]:
    return tuple(tensor for tensors in headers for tensor in tensors)
