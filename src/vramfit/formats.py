"""What a storage format costs: whole blocks, never fractions of a byte.

A format stores ``block_elements`` neighbouring elements in ``block_bytes`` bytes. Blocks lie
along each row (GGUF, MXFP4, GPTQ, AWQ) or over the flattened tensor (bitsandbytes); scales may
also come per output row, per input column, per tile or per tensor. Every number is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod

from vramfit.errors import InvalidValueError, UnknownNameError
from vramfit.names import nearest, normalise
from vramfit.units import ceil_div, round_up


class Role(StrEnum):
    """What a tensor is for, which decides whether a recipe quantises it."""

    LINEAR = "linear"  # matrix of a linear layer inside a block
    EXPERT = "expert"  # matrix of a routed expert
    ROUTER = "router"  # picks experts: tiny, and a wrong pick costs more than the bytes saved
    EMBEDDING = "embedding"  # looked up, not multiplied: no kernel gains from it
    HEAD = "head"  # its rounding error lands directly on the logits
    NORM = "norm"  # one vector: nothing to gain
    BIAS = "bias"  # one vector
    CONVOLUTION = "convolution"  # short depthwise filters of state-space blocks
    ADAPTER = "adapter"  # a small matrix trained beside a frozen one
    STATE = "state"  # decay rates and step sizes of state-space blocks: sensitive


BLOCK_MATRICES = frozenset({Role.LINEAR, Role.EXPERT})
ALL_MATRICES = frozenset({Role.LINEAR, Role.EXPERT, Role.EMBEDDING, Role.HEAD})


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFormat:
    """How numbers lie in memory, and which tensors a recipe of that name stores so."""

    name: str
    block_elements: int = 1
    block_bytes: int
    over_rows: bool = True
    """Blocks end with the row (True) or run over the flattened tensor (False)."""
    row_bytes: int = 0
    """Bytes beside the blocks per output row, such as a scale."""
    column_bytes: int = 0
    """Bytes beside the blocks per input column, such as GPTQ's group index."""
    tile_elements: int = 0
    """Side of the square tile that shares one scale; 0 = no tiles."""
    tile_bytes: int = 4
    """Bytes of the scale of a tile: fp32 unless said."""
    tensor_bytes: int = 0
    """Bytes beside the blocks per matrix, such as a scale or a code table."""
    second_block: int = 0
    """Double quantisation: one fp32 per this many blocks; 0 = none."""
    group_elements: int = 0
    """Elements of a row that share a scale (and a zero); 0 = no groups, -1 = the whole row is one group."""
    group_bytes: int = 0
    """Scale bytes per group."""
    zero_bits: int = 0
    """Bits of the zero point per group, packed over the outputs into 32-bit words."""
    group_multiple: int = 1
    """Scales are stored for a multiple of this many groups (AWQ's gemv layout)."""
    inputs_first: bool = False
    """True where the checkpoint holds ``[..., inputs, outputs]``: columns and rows change places."""
    quantises: frozenset[Role] = BLOCK_MATRICES
    """Roles that a recipe of this name stores so; the others keep the plain format."""
    fallback: str | None = None
    """Format used for rows that are no whole number of blocks (GGUF); None = pad the last block."""
    source: str

    @property
    def is_plain(self) -> bool:
        """One element, one number: no blocks, no scales."""
        return self.name in PLAIN

    def bytes_for(self, elements: int) -> int:
        """Bytes of that many contiguous elements in whole blocks. [B]

            ceil(elements / block_elements) * block_bytes

        >>> weight_format("gguf:Q8_0").bytes_for(33)
        68
        """
        return ceil_div(elements, self.block_elements) * self.block_bytes

    def tensor_size(self, shape: tuple[int, ...]) -> int:
        """Bytes of a whole tensor with its scales and tables. [B]

        ``shape`` is as a checkpoint has it: ``[..., rows, columns]``, rows being outputs.

        4,096 x 4,096 in NF4 are 262,144 blocks of 36 B and a code table of 64 B:

        >>> weight_format("nf4").tensor_size((4096, 4096))
        9437248
        """
        if not shape:
            return self.bytes_for(1) + self.tensor_bytes
        if self.fallback and self.over_rows and shape[-1] % self.block_elements:
            return weight_format(self.fallback).tensor_size(shape)
        if self.inputs_first:
            shape = (*shape[:-2], shape[-1], shape[-2])
        columns, rows, matrices = shape[-1], prod(shape[:-1]), prod(shape[:-2])
        blocks = self._num_blocks(rows, columns)
        scales = 4 * ceil_div(blocks, self.second_block) if self.second_block else 0
        if self.tile_elements:
            tiles = ceil_div(rows // matrices, self.tile_elements) * ceil_div(columns, self.tile_elements)
            scales += self.tile_bytes * matrices * tiles
        if self.group_elements:
            groups = ceil_div(columns, self.group_elements) if self.group_elements > 0 else 1
            groups = round_up(groups, self.group_multiple)
            scales += groups * (rows * self.group_bytes + 4 * ceil_div(rows * self.zero_bits, 32))
        beside = rows * self.row_bytes + matrices * (columns * self.column_bytes + self.tensor_bytes)
        return blocks * self.block_bytes + scales + beside

    def _num_blocks(self, rows: int, columns: int) -> int:
        if self.over_rows and self.block_elements > 1:
            return rows * ceil_div(columns, self.block_elements)
        return ceil_div(rows * columns, self.block_elements)

    def code_bytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of the blocks alone, without scales and tables beside them. [B]"""
        rows, columns = prod(shape[:-1]), shape[-1]
        if self.inputs_first:
            rows, columns = prod(shape[:-2]) * shape[-1], shape[-2]
        return self._num_blocks(rows, columns) * self.block_bytes


_IEEE = "IEEE 754 / OCP: one number, one element"
_GGML = "ggml-org/llama.cpp:ggml/src/ggml-common.h, block structs"
_BNB = "bitsandbytes-foundation/bitsandbytes:bitsandbytes/functional.py, quantize_4bit and quantize_blockwise"
_MX = "OCP Microscaling Formats v1.0, sec. 5.2: 32 e2m1 elements and one e8m0 scale"


def _plain(name: str, size: int) -> StorageFormat:
    return StorageFormat(name=name, block_bytes=size, source=_IEEE)


def _gguf(label: str, size: int, elements: int, fallback: str | None = None) -> StorageFormat:
    """Make a GGUF block type; rows that do not divide fall back as llama.cpp's quantiser does, at last to F16."""
    last = None if elements == 1 else f"gguf:{fallback or 'F16'}"
    return StorageFormat(
        name=f"gguf:{label}",
        block_elements=elements,
        block_bytes=size,
        quantises=ALL_MATRICES,
        fallback=last,
        source=_GGML,
    )


FP32, FP16, BF16 = _plain("fp32", 4), _plain("fp16", 2), _plain("bf16", 2)
INT64 = _plain("int64", 8)
"""Counters that files hold beside the weights; no recipe stores weights so."""
FP8 = StorageFormat(
    name="fp8", block_bytes=1, tensor_bytes=4, source="one e4m3 byte per element and one fp32 scale per tensor"
)
FP8_BLOCK = StorageFormat(
    name="fp8-block", block_bytes=1, tile_elements=128, source="DeepSeek-V3 report, arXiv:2412.19437, sec. 3.3.2"
)
INT8 = StorageFormat(
    name="int8", block_bytes=1, row_bytes=4, source="LLM.int8(), arXiv:2208.07339: one fp32 maximum per output row"
)
W8A8_INT8 = replace(INT8, name="w8a8-int8", source="one int8 per element, one fp32 scale per output channel")
INT4 = StorageFormat(
    name="int4", block_elements=2, block_bytes=1, group_elements=128, group_bytes=2,
    source="two elements a byte, one 16-bit scale per group of 128 and output",
)  # fmt: skip
GPTQ_INT4 = StorageFormat(
    name="gptq-int4", block_elements=2, block_bytes=1, group_elements=128, group_bytes=2, zero_bits=4, column_bytes=4,
    source="AutoGPTQ layout: qweight; fp16 scale and 4-bit zero per group and output; int32 g_idx per input",
)  # fmt: skip
GPTQ_INT8 = replace(GPTQ_INT4, name="gptq-int8", block_elements=1, block_bytes=1, zero_bits=8)
AWQ_INT4 = StorageFormat(
    name="awq-int4", block_elements=2, block_bytes=1, group_elements=128, group_bytes=2, zero_bits=4,
    source="AutoAWQ GEMM layout: qweight; fp16 scale and 4-bit zero per group and output",
)  # fmt: skip
NF4 = StorageFormat(
    name="nf4", block_elements=64, block_bytes=32 + 4, over_rows=False, tensor_bytes=16 * 4, source=_BNB
)
NF4_DQ = StorageFormat(
    name="nf4-dq", block_elements=64, block_bytes=32 + 1, over_rows=False, second_block=256,
    tensor_bytes=16 * 4 + 256 * 4 + 4, source=_BNB + "; QLoRA, arXiv:2305.14314, sec. 3",
)  # fmt: skip
MXFP4 = StorageFormat(name="mxfp4", block_elements=32, block_bytes=17, source=_MX)
NVFP4 = StorageFormat(
    name="nvfp4",
    block_elements=16,
    block_bytes=9,
    tensor_bytes=4,
    source="16 e2m1 elements, one e4m3 scale; fp32 per tensor",
)

_GGUF_TYPES = (
    _gguf("F32", 4, 1), _gguf("F16", 2, 1), _gguf("BF16", 2, 1),
    _gguf("Q4_0", 18, 32), _gguf("Q4_1", 20, 32), _gguf("Q5_0", 22, 32), _gguf("Q5_1", 24, 32), _gguf("Q8_0", 34, 32),
    _gguf("IQ4_NL", 18, 32), _gguf("MXFP4", 17, 32), _gguf("NVFP4", 36, 64),
    _gguf("Q2_K", 84, 256, "IQ4_NL"), _gguf("Q3_K", 110, 256, "IQ4_NL"), _gguf("Q4_K", 144, 256, "Q5_0"),
    _gguf("Q5_K", 176, 256, "Q5_1"), _gguf("Q6_K", 210, 256, "Q8_0"),
    _gguf("IQ1_S", 50, 256, "IQ4_NL"), _gguf("IQ1_M", 56, 256, "IQ4_NL"), _gguf("IQ2_XXS", 66, 256, "IQ4_NL"),
    _gguf("IQ2_XS", 74, 256, "IQ4_NL"), _gguf("IQ2_S", 82, 256, "IQ4_NL"), _gguf("IQ3_XXS", 98, 256, "IQ4_NL"),
    _gguf("IQ3_S", 110, 256, "IQ4_NL"), _gguf("IQ4_XS", 136, 256, "IQ4_NL"),
    _gguf("TQ1_0", 54, 256, "Q4_0"), _gguf("TQ2_0", 66, 256, "Q4_0"), _gguf("Q1_0", 18, 128),
)  # fmt: skip

_NOT_FOR_WEIGHTS = (
    _gguf("Q8_1", 36, 32), _gguf("Q8_K", 292, 256), _gguf("I8", 1, 1), _gguf("I16", 2, 1), _gguf("I32", 4, 1),
    _gguf("I64", 8, 1), _gguf("F64", 8, 1),
)  # fmt: skip
GGUF_TYPES = {f.name.removeprefix("gguf:"): f for f in (*_GGUF_TYPES, *_NOT_FOR_WEIGHTS)}
"""Every tensor type that a GGUF file may name, tables of integers and intermediate types too."""

PLAIN = frozenset({"fp32", "fp16", "bf16"})
WEIGHT_FORMATS: dict[str, StorageFormat] = {
    f.name: f
    for f in (
        FP32, FP16, BF16, FP8, FP8_BLOCK, INT8, W8A8_INT8, INT4, GPTQ_INT4, GPTQ_INT8, AWQ_INT4, NF4, NF4_DQ, MXFP4,
        NVFP4, *_GGUF_TYPES,
    )
}  # fmt: skip

_KV = "ggml-org/llama.cpp:ggml/src/ggml-common.h"
KV_FORMATS: dict[str, StorageFormat] = {
    "fp32": FP32,
    "fp16": FP16,
    "bf16": BF16,
    "fp8": StorageFormat(name="fp8", block_bytes=1, source="one byte per element; scales per layer are not counted"),
    "int8": StorageFormat(name="int8", block_bytes=1, source="one byte per element; scales per layer are not counted"),
    "int4": StorageFormat(
        name="int4", block_elements=2, block_bytes=1, source="two elements a byte, scales not counted"
    ),
    "q8_0": StorageFormat(name="q8_0", block_elements=32, block_bytes=34, source=_KV),
    "q5_1": StorageFormat(name="q5_1", block_elements=32, block_bytes=24, source=_KV),
    "q5_0": StorageFormat(name="q5_0", block_elements=32, block_bytes=22, source=_KV),
    "q4_1": StorageFormat(name="q4_1", block_elements=32, block_bytes=20, source=_KV),
    "q4_0": StorageFormat(name="q4_0", block_elements=32, block_bytes=18, source=_KV),
    "iq4_nl": StorageFormat(name="iq4_nl", block_elements=32, block_bytes=18, source=_KV),
}


def weight_format(name: str, group_size: int | None = None, path: str = "workload.weight_format") -> StorageFormat:
    """Return the format of that name, exactly, case and punctuation aside.

    Args:
        name: such as ``"bf16"``, ``"nf4-dq"``, ``"gguf:Q8_0"``.
        group_size: for grouped 4-bit formats: elements per scale; -1 = one group per row.
        path: where the name stands in the input, for the error.

    Raises:
        UnknownNameError: no such format.
        InvalidValueError: a group size for a format without groups.
    """
    found = WEIGHT_FORMATS.get(name)
    if found is None:
        found = {normalise(n): f for n, f in WEIGHT_FORMATS.items()}.get(normalise(name))
    if found is None:
        raise UnknownNameError(
            path, name, nearest(name, WEIGHT_FORMATS), "see `vramfit explain formats` for all of them"
        )
    return found if group_size is None else regrouped(found, group_size, path)


def regrouped(found: StorageFormat, group_size: int, path: str) -> StorageFormat:
    """Return a grouped format with another group size; -1 = one group per row."""
    if not found.group_elements:
        raise InvalidValueError(path, group_size, f"no group size for {found.name}: its blocks are fixed")
    if group_size != -1 and not 2 <= group_size <= 2**20:
        raise InvalidValueError(path, group_size, "a group size from 2 to 1048576, or -1 for one group per row")
    return replace(found, group_elements=group_size)


def kv_format(name: str, path: str = "workload.kv_format") -> StorageFormat:
    """Return the cache format of that name.

    Raises:
        UnknownNameError: no such format.
    """
    if name not in KV_FORMATS:
        raise UnknownNameError(path, name, nearest(name, KV_FORMATS), f"expected one of {', '.join(KV_FORMATS)}")
    return KV_FORMATS[name]
