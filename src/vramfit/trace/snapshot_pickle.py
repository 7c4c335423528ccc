"""Reads a pickle of plain data, and nothing else: what could run code or take memory without end is refused unread.

Two locks: every instruction is looked at before anything is loaded, then the loader itself knows no class.
"""

from __future__ import annotations

import gc
import io
import pickle
import pickletools
from typing import NoReturn

from vramfit.errors import UnreadableFileError, quote

LIMIT_BYTES = 2**30
"""Largest snapshot that is read. Ours: PyTorch keeps 100,000 events by default, some tens of MB."""
MOST_CONTAINERS = 20_000_000
"""Most lists and dictionaries in one; each takes at least 56 bytes of memory, whatever its pickle takes."""
MOST_STEPS = 300_000_000
EXPECTED = "a snapshot of torch.cuda.memory._dump_snapshot"

PLAIN = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1",
    "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "EMPTY_LIST", "APPEND",
    "APPENDS", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "DICT", "SETITEM",
    "SETITEMS", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE",
}  # fmt: skip
"""Instructions that make numbers, texts, lists, tuples and dictionaries."""
LENGTHS = {"BINUNICODE": 4, "SHORT_BINUNICODE": 1, "BINUNICODE8": 8, "LONG1": 1}
"""Bytes of the length that stands before an instruction's own data."""
CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT", "LIST", "DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}

_NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
_PREFIXED = {ord(op.code): LENGTHS[op.name] for op in pickletools.opcodes if op.name in LENGTHS}
_COUNTED = {ord(op.code) for op in pickletools.opcodes if op.name in CONTAINERS}
_LONG_BINPUT = next(ord(op.code) for op in pickletools.opcodes if op.name == "LONG_BINPUT")
_STOP = ord(".")
_LOOK = 0
"""In the table of steps: an instruction that is looked at more closely."""


def _strides() -> tuple[int, ...]:
    """Return for each byte how far the next instruction is, where that is all there is to know."""
    table = [_LOOK] * 256
    for op in pickletools.opcodes:
        code = ord(op.code)
        if op.name in PLAIN and code not in _PREFIXED and code not in _COUNTED | {_LONG_BINPUT, _STOP}:
            table[code] = 1 + (op.arg.n if op.arg is not None else 0)
    return tuple(table)


_STRIDES = _strides()


class _PlainUnpickler(pickle.Unpickler):
    """A loader that knows no class and no persistent object."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        """Refuse."""
        raise UnreadableFileError(f"it names the class {quote(f'{module_name}.{global_name}')}")

    def persistent_load(self, pid: object) -> NoReturn:
        """Refuse."""
        raise UnreadableFileError(f"it names the outside object {quote(pid)}")


def load_plain(data: bytes, where: str) -> object:
    """Return what a pickle of plain data holds.

    Raises:
        UnreadableFileError: it is no pickle, holds more than plain data, or is made to take memory without end.
    """
    if len(data) > LIMIT_BYTES:
        raise UnreadableFileError(
            f"{where}: larger than {LIMIT_BYTES:,} bytes; expected {EXPECTED} of that size at most; record a shorter "
            "history (max_entries)"
        )
    _screen(data, where)
    collecting = gc.isenabled()
    gc.disable()  # millions of small objects, none of them garbage
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{where}: {error}; expected {EXPECTED}, which holds plain data only") from error
    except Exception as error:  # a damaged pickle fails in many ways, all of them the file's fault
        raise UnreadableFileError(
            f"{where}: a damaged pickle ({type(error).__name__}); expected {EXPECTED}; write it again"
        ) from error
    finally:
        if collecting:
            gc.enable()


def _screen(data: bytes, where: str) -> None:
    """Look at every instruction; nothing is carried out."""
    place, steps, containers, size = 0, 0, 0, len(data)
    strides = _STRIDES
    while place < size:
        code = data[place]
        steps += 1
        stride = strides[code]
        if stride:
            place += stride
        elif code in _PREFIXED:
            prefix = _PREFIXED[code]
            place += 1 + prefix + int.from_bytes(data[place + 1 : place + 1 + prefix], "little")
        elif code in _COUNTED:
            containers += 1
            place += 1
        elif code == _STOP:
            break
        elif code != _LONG_BINPUT:
            _refuse(code, place, where)
        elif int.from_bytes(data[place + 1 : place + 5], "little") > steps:
            raise UnreadableFileError(
                f"{where}: byte {place}: a memo larger than what it remembers; expected {EXPECTED}; it was not loaded"
            )
        else:
            place += 5
    else:
        raise UnreadableFileError(f"{where}: it ends too early; expected {EXPECTED}; copy it again")
    if containers > MOST_CONTAINERS or steps > MOST_STEPS:
        raise UnreadableFileError(
            f"{where}: {containers:,} containers in {steps:,} instructions; expected {EXPECTED} of at most "
            f"{MOST_CONTAINERS:,}; record a shorter history (max_entries)"
        )


def _refuse(code: int, place: int, where: str) -> NoReturn:
    name = _NAMES.get(code)
    if name is None or place == 0:
        raise UnreadableFileError(f"{where}: no pickle of plain data (byte {place}: {code:#04x}); expected {EXPECTED}")
    raise UnreadableFileError(
        f"{where}: byte {place}: the instruction {name} makes more than plain data; expected {EXPECTED}, which needs "
        "none; it was not loaded, do not open it elsewhere either"
    )
