"""How the caching allocator is configured: the text of ``PYTORCH_CUDA_ALLOC_CONF`` as its user would write it.

Sources: pytorch/pytorch:c10/core/AllocatorConfig.cpp, c10/cuda/CUDAAllocatorConfig.cpp and, before 2.9,
c10/cuda/CUDAAllocatorConfig.h; the options of each version are those whose names its released library contains.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vramfit.errors import InvalidValueError, UnknownNameError
from vramfit.names import nearest
from vramfit.units import MIB

Version = tuple[int, int]
NEWEST: Version = (2, 15)
NUM_SLOTS = 16
SLOT_START_LOG2 = 20
"""Slot 0 of the divisions is everything below 2 MiB."""
UNLIMITED = 2**63
LARGE_SEGMENT_BYTES = 20 * MIB
SMALLEST_HUGE_BYTES = 10 * MIB
SHARED_PARSER: Version = (2, 9)
"""From here on ``max_split_size_mb:20`` is allowed."""
VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
NO_CACHING = "PYTORCH_NO_CUDA_MEMORY_CACHING"

READ: Version = (0, 0)
"""Options that the source of 2.4.0, the oldest that was read, knows already."""
SINCE: Mapping[str, Version] = {
    "backend": READ,
    "max_split_size_mb": READ,
    "garbage_collection_threshold": READ,
    "roundup_power2_divisions": READ,
    "expandable_segments": READ,
    "release_lock_on_cudamalloc": READ,
    "pinned_use_cuda_host_register": READ,
    "pinned_num_register_threads": READ,
    "pinned_use_background_threads": (2, 6),
    "max_non_split_rounding_mb": (2, 6),
    "graph_capture_record_stream_reuse": (2, 9),
    "per_process_memory_fraction": (2, 10),
    "pinned_reserve_segment_size_mb": (2, 10),
    "large_segment_size_mb": (2, 11),
    "throw_on_cudamalloc_oom": (2, 12),
    "pinned_free_catch_all": (2, 12),
    "expandable_segments_reserve": (2, 15),
    "expandable_segments_reserve_by_class": (2, 15),
}
"""Option -> first version of torch that knows it."""
NO_EFFECT = {
    "release_lock_on_cudamalloc", "pinned_use_cuda_host_register", "pinned_num_register_threads",
    "pinned_use_background_threads", "pinned_reserve_segment_size_mb", "pinned_free_catch_all",
    "throw_on_cudamalloc_oom", "expandable_segments_reserve", "expandable_segments_reserve_by_class",
}  # fmt: skip
"""Options that change no byte of device memory here: the host's memory, speed, wording, address space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorConfig:
    """What the allocator is told, for one version of torch."""

    text: str = ""
    """As the user wrote it."""
    version: Version = NEWEST
    max_split_bytes: int = UNLIMITED
    """Blocks of this size and above are not split. [B]"""
    max_non_split_rounding_bytes: int = LARGE_SEGMENT_BYTES
    """How much larger than the request an unsplit block may be. [B]"""
    large_segment_bytes: int = LARGE_SEGMENT_BYTES
    divisions: tuple[int, ...] = (0,) * NUM_SLOTS
    """``roundup_power2_divisions`` by slot: 0 = everything below 2 MiB, 15 = 32 GiB and above."""
    garbage_collection_threshold: float = 0.0
    """0 = no collection."""
    memory_fraction: float | None = None
    """Share of the device that the process may take; None = all of it."""
    expandable: bool = False
    record_stream_reuse: bool = False

    def divisions_of(self, size: int) -> int:
        """Return how many steps there are between two powers of two for a request of ``size``."""
        slot = size.bit_length() - 1 - SLOT_START_LOG2
        return self.divisions[min(max(slot, 0), NUM_SLOTS - 1)]


def version_of(text: str) -> Version:
    """Read ``"2.13.0+cpu"`` as ``(2, 13)``.

    >>> version_of("2.13.0+cpu")
    (2, 13)
    """
    match = re.match(r"(\d{1,4})\.(\d{1,4})", text)
    if match is None:
        raise InvalidValueError("torch version", text, 'a version such as "2.9.1"')
    return int(match[1]), int(match[2])


def config_from_environment(environment: Mapping[str, str], version: Version = NEWEST) -> AllocatorConfig:
    """Return the configuration that torch would read from its environment.

    Raises:
        VramfitError: an option that is not known, a value that cannot be, two variables that differ, or no caching.
    """
    if environment.get(NO_CACHING, "") not in {"", "0"}:
        raise InvalidValueError(
            NO_CACHING, environment[NO_CACHING], "caching", "without it torch counts nothing; unset it to predict"
        )
    given = {name: environment[name] for name in VARIABLES if name in environment}
    if version < SHARED_PARSER:
        given.pop(VARIABLES[1], None)
    if len(set(given.values())) > 1:
        raise InvalidValueError(
            VARIABLES[1], given[VARIABLES[1]], f"the same as {VARIABLES[0]}", "set one of the two: they name one thing"
        )
    name, text = next(iter(given.items()), (VARIABLES[0], ""))
    return parse_config(text, version, name)


def parse_config(text: str, version: Version = NEWEST, path: str = VARIABLES[0]) -> AllocatorConfig:
    """Return the configuration that a text such as ``"max_split_size_mb:128,expandable_segments:True"`` says.

    Raises:
        VramfitError: an option that this version of torch does not know, or a value that cannot be.
    """
    config = AllocatorConfig(text=text, version=version)
    for name, value in _pairs(text, path):
        where = f"{path}: {name}"
        since = SINCE.get(name)
        if since is None:
            known = tuple(n for n, first in SINCE.items() if first <= version)
            raise UnknownNameError(path, name, nearest(name, known), f"options: {', '.join(sorted(known))}")
        if since > version:
            raise InvalidValueError(
                path, name, f"an option of torch {_dotted(version)}", f"this one came with torch {_dotted(since)}"
            )
        if name not in NO_EFFECT:
            config = _with(config, name, value, where)
    return config


def _with(config: AllocatorConfig, name: str, value: str, where: str) -> AllocatorConfig:
    lowest_split = 20 if config.version >= SHARED_PARSER else 21
    change: dict[str, Any] = {}
    match name:
        case "max_split_size_mb":
            change["max_split_bytes"] = _mebibytes(value, where, lowest_split)
        case "max_non_split_rounding_mb":
            change["max_non_split_rounding_bytes"] = _mebibytes(value, where, 20)
        case "large_segment_size_mb":
            change["large_segment_bytes"] = _mebibytes(value, where, SMALLEST_HUGE_BYTES // MIB + 1)
        case "garbage_collection_threshold":
            change["garbage_collection_threshold"] = _share(value, where, whole=False)
        case "per_process_memory_fraction":
            change["memory_fraction"] = _share(value, where, whole=True)
        case "expandable_segments":
            change["expandable"] = _truth(value, where)
        case "graph_capture_record_stream_reuse":
            change["record_stream_reuse"] = _truth(value, where)
        case "roundup_power2_divisions":
            change["divisions"] = _divisions(value, where)
        case "backend" if value != "native":
            raise InvalidValueError(where, value, '"native"', "other allocators are not simulated; leave backend out")
    return replace(config, **change)


def _pairs(text: str, path: str) -> list[tuple[str, str]]:
    """Return option and value; blanks count for nothing, brackets hold a list together."""
    bare = re.sub(r"\s", "", text)
    found: list[tuple[str, str]] = []
    while bare:
        match = re.match(r"([^:,\[\]]+):(\[[^\]]*\]|[^,\[\]:]+)(?:,|$)", bare)
        if match is None:
            raise InvalidValueError(
                path, bare, 'pairs such as "max_split_size_mb:128,expandable_segments:True"', "mend it from here on"
            )
        found.append((match[1], match[2]))
        bare = bare[match.end() :]
    return found


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _mebibytes(value: str, where: str, lowest: int) -> int:
    if not re.fullmatch(r"\d{1,12}", value) or int(value) < lowest:
        raise InvalidValueError(where, value, f"a whole number of MiB from {lowest}")
    return min(int(value) * MIB, UNLIMITED)


def _share(value: str, where: str, *, whole: bool) -> float:
    expected = f"a share above 0 and {'up to' if whole else 'below'} 1"
    if not re.fullmatch(r"\d{0,6}\.?\d{0,20}(e-\d{1,2})?", value) or not any(map(str.isdigit, value)):
        raise InvalidValueError(where, value, expected)
    share = float(value)
    if not 0 < share <= 1 or (share == 1 and not whole):
        raise InvalidValueError(where, value, expected)
    return share


def _truth(value: str, where: str) -> bool:
    if value not in {"True", "False"}:
        raise InvalidValueError(where, value, "True or False, written so")
    return value == "True"


def _divisions(value: str, where: str) -> tuple[int, ...]:
    """Return the divisions by slot from ``4`` or ``[256:1,512:2,>:4]``.

    The first pair fills every slot below its own too; ``>`` fills from the last named slot, that one among them.
    """
    if not value.startswith("["):
        return (_division(value, where),) * NUM_SLOTS
    slots, last, first = [0] * NUM_SLOTS, 0, True
    for pair in value[1:-1].split(","):
        key, _, number = pair.partition(":")
        division = _division(number, where)
        if key == ">":
            slots[last:] = [division] * (NUM_SLOTS - last)
            continue
        last = min(_power(key, where, "a size in MiB that is a power of two, or >").bit_length() - 1, NUM_SLOTS - 1)
        if first:
            slots[:last] = [division] * last
            first = False
        slots[last] = division
    return tuple(slots)


def _division(value: str, where: str) -> int:
    return 0 if value == "0" else _power(value, where, "a number of divisions that is a power of two, or 0")


def _power(value: str, where: str, expected: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value) or int(value).bit_count() != 1:
        raise InvalidValueError(where, value, expected)
    return int(value)
