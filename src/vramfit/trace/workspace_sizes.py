"""How much scratch kernels take: one formula each, over shapes. The sources stand in the table of ``workspaces``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from vramfit.trace.machine import Machine
from vramfit.units import ceil_div, round_up

FLOAT, LONG = 4, 8
_HALF = (torch.float16, torch.bfloat16)
_FLASH_ROWS, _FLASH_COLUMNS = 128, 32
_MOST_SPLITS = 128
_FULL_ENOUGH, _NEARLY_AS_GOOD = 0.8, 0.85
"""A card is full enough without splitting; fewer splits are taken when they are nearly as efficient."""
_EFFICIENT_ROWS, _EFFICIENT_COLUMNS = 128, 64
"""Largest blocks of the backward kernel for 16 bit."""
_EFFICIENT_ONE_PASS = 128
"""Widest value head that the forward kernel computes in one pass."""
_FEW_TOKENS = 3072
"""Up to here the embedding's backward needs no sorting."""
_SORTED_IN_PLACE = 4096
"""Longest slice that is sorted without cub."""
_MANY_ROWS = 64 * 1024
_WARP = 32
_CHUNK = 65_536
_GATES = {2: 4, 3: 3}
"""cuDNN's mode -> gates: LSTM, GRU; a plain recurrence has one."""


def flash_backward_bytes(query: torch.Tensor, key: torch.Tensor) -> Iterable[int]:
    """Yield softmax sums, the gradient of the queries in float32 and, with grouped heads, expanded ones. [B]

    ``query`` and ``key`` are [batch, heads, length, head size].
    """
    batch, heads, length, size = query.shape
    rows, columns = round_up(length, _FLASH_ROWS), round_up(size, _FLASH_COLUMNS)
    yield FLOAT * batch * heads * rows
    yield FLOAT * batch * rows * heads * columns
    if key.shape[1] != heads:
        expanded = batch * key.shape[2] * heads * size * key.element_size()
        yield from (expanded, expanded)


def flash_forward_bytes(machine: Machine, query: torch.Tensor, key: torch.Tensor) -> Iterable[int]:
    """Yield partial results where few queries meet many keys, so that keys are split over the card. [B]"""
    if query.dim() != 4:
        return
    batch, heads, length, size = query.shape
    if length == 1 and heads > key.shape[1]:  # grouped heads become rows
        length, heads = heads // key.shape[1], key.shape[1]
    width = 256 if size <= 64 else 128 if size <= 128 else 64
    units = 2 * (machine.device.multiprocessors or 1)
    splits = num_splits(batch * heads * ceil_div(length, 64), units, ceil_div(key.shape[2], width))
    if splits > 1:
        yield FLOAT * splits * batch * heads * length
        yield FLOAT * splits * batch * heads * length * round_up(size, _FLASH_COLUMNS)


def num_splits(blocks: int, units: int, num_key_blocks: int) -> int:
    """Return over how many parts flash splits the keys: the fewest that fill the card nearly as well as any.

    >>> num_splits(32, 216, 64), num_splits(400, 216, 64)
    (6, 1)
    """
    if blocks >= _FULL_ENOUGH * units:
        return 1
    most = min(_MOST_SPLITS, units, num_key_blocks)
    efficiency: dict[int, float] = {}
    for splits in range(1, most + 1):
        if splits > 1 and ceil_div(num_key_blocks, splits) == ceil_div(num_key_blocks, splits - 1):
            continue
        waves = blocks * splits / units
        efficiency[splits] = waves / math.ceil(waves)
    best = max(efficiency.values(), default=1.0)
    return next((splits for splits, value in efficiency.items() if value >= _NEARLY_AS_GOOD * best), 1)


def efficient_forward_bytes(query: torch.Tensor, value: torch.Tensor) -> Iterable[int]:
    """Yield a float32 result where a wide head is computed in several passes. [B]"""
    if value.shape[-1] > _EFFICIENT_ONE_PASS and query.dtype in _HALF:
        yield FLOAT * query.shape[0] * query.shape[1] * query.shape[2] * value.shape[-1]


def efficient_backward_bytes(query: torch.Tensor) -> Iterable[int]:
    """Yield the row sums and, in 16 bit, the gradient of the queries in float32. [B]"""
    batch, heads, length, size = query.shape
    yield FLOAT * batch * heads * length
    if query.dtype in _HALF:
        yield FLOAT * batch * heads * round_up(length, _EFFICIENT_ROWS) * round_up(size, _EFFICIENT_COLUMNS)


def cudnn_layout_bytes(machine: Machine, args: tuple[Any, ...], out: Any) -> Iterable[int]:
    """Yield a convolution's tensors once more in the order of tensor cores, where they are not in it. [B]"""
    backward = isinstance(out, tuple | list)
    used = (args[0], args[1], args[2]) if backward else (args[0], args[1], out)
    x = used[1] if backward else used[0]
    tensor_cores = machine.major >= 8 if x.dtype == torch.float32 else machine.major >= 7 and x.dtype in _HALF
    if x.dtype == torch.float32 and not torch.backends.cudnn.allow_tf32:
        tensor_cores = False
    if tensor_cores and x.dim() in (4, 5) and x.is_contiguous() and x.shape[1] > 1:
        yield sum(t.numel() * t.element_size() for t in used)


def recurrent_bytes(args: tuple[Any, ...]) -> Iterable[int]:
    """Yield the input's share of the gates of all time steps of one layer, in every direction. [B]"""
    backward = isinstance(args[4], torch.Tensor) and isinstance(args[3], torch.Tensor) and len(args) > 16
    x, mode, hidden = args[0], args[10 if backward else 6], args[11 if backward else 7]
    directions = 2 if args[17 if backward else 13] else 1
    steps = x.numel() // x.shape[-1]
    yield steps * _GATES.get(mode, 1) * hidden * directions * x.element_size()


def embedding_backward_bytes(grad: torch.Tensor, indices: torch.Tensor, padding: int) -> Iterable[int]:
    """Yield places in two orders, cub's second buffers, and one float32 row per distinct token. [B]"""
    tokens = indices.numel()
    if tokens <= _FEW_TOKENS and padding < 0:
        return
    width = grad.shape[-1]
    yield from (LONG * tokens, LONG * tokens, 2 * LONG * tokens)
    yield FLOAT * tokens * width


def index_backward_bytes(args: tuple[Any, ...]) -> Iterable[int]:
    """Yield the places in linear, sorted and original order where values are added up. [B]"""
    accumulate = args[3] if len(args) > 3 else False
    indices = [i for i in args[1] if i is not None]
    if accumulate and indices:
        count = max(i.numel() for i in indices)
        yield from (LONG * count, LONG * count, LONG * count, 2 * LONG * count)


def sort_bytes(x: torch.Tensor) -> Iterable[int]:
    """Yield second buffers for keys and places, where slices are too long to be sorted in place. [B]"""
    if x.dim() and x.shape[-1] > _SORTED_IN_PLACE:
        yield x.numel() * x.element_size()
        yield LONG * x.numel()


def layer_norm_backward_bytes(machine: Machine, x: torch.Tensor, shape: Any) -> Iterable[int]:
    """Yield partial sums of the gradients of weight and bias, one set per block of rows. [B]"""
    columns = math.prod(shape) if isinstance(shape, list | tuple) else x.shape[-1]
    rows = x.numel() // max(columns, 1)
    units = machine.device.multiprocessors or 1
    if rows > _MANY_ROWS and columns // _WARP < units // 2:
        yield from (FLOAT * 4 * units * columns, FLOAT * 4 * units * columns)


def foreach_norm_bytes(tensors: list[torch.Tensor]) -> Iterable[int]:
    """Yield one number per chunk, for as many chunks as the largest tensor has, for every tensor. [B]"""
    chunks = max((ceil_div(t.numel(), _CHUNK) for t in tensors), default=0)
    yield FLOAT * len(tensors) * chunks
