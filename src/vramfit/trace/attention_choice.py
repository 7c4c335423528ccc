"""Which kernel ``scaled_dot_product_attention`` takes on a card: a table of checks, no tensors needed.

Source: pytorch/pytorch:aten/src/ATen/native/transformers/cuda/sdp_utils.cpp and sdp_utils_cpp.h; torch/nn/attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

Pair = tuple[int, int]


class Backend(StrEnum):
    """A kernel for attention."""

    CUDNN = "cudnn"
    FLASH = "flash"
    EFFICIENT = "efficient"
    MATH = "math"


HALF = ("float16", "bfloat16")
_ORDER_2_4 = (Backend.CUDNN, Backend.FLASH, Backend.EFFICIENT, Backend.MATH)
_ORDER = (Backend.FLASH, Backend.EFFICIENT, Backend.MATH, Backend.CUDNN)
_CUDNN_FIRST_SINCE = (2, 11)
_CUDNN_FIRST_VERSION = 91_500
"""cuDNN above 9.15.0 is taken first on compute capability 9 and 10, from the wheels of 2.11 on."""
_LARGEST_HEAD = 256
_LARGEST_TRAINED_HEAD = 192
"""Largest head that flash trains on compute capability 8.6 to 8.9 and 12.x; above 224 again, without dropout."""
_ALWAYS_TRAINED_ABOVE = 224
_CUDNN_LARGEST_HEAD = 128
_CUDNN_WIDE_QUERY, _CUDNN_WIDE_SINCE = 192, 91_100
_CUDNN_MOST_BATCHES = 65_535
EFFICIENT_GROUPS_SINCE = (2, 12)
"""From here on the efficient kernel takes fewer key heads than query heads; the version is that of the source read
for it, an earlier one may already do so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of ``scaled_dot_product_attention``."""

    dtype: str
    query: tuple[int, ...]
    """Batch, heads, length, head size."""
    key: tuple[int, ...]
    value: tuple[int, ...]
    masked: bool
    causal: bool
    dropout: float
    training: bool
    """True when some input needs a gradient."""
    grouped: bool
    """True when ``enable_gqa`` lets fewer key heads serve the query heads."""
    last_stride_one: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What a machine offers, and what its user allows."""

    capability: Pair
    torch_version: Pair
    cuda_version: Pair
    cudnn_version: int
    allowed: frozenset[Backend] = frozenset(Backend)
    order: tuple[Backend, ...] | None = None
    """An order the user set; None = PyTorch's."""
    deterministic: bool = False


def order_of(kernels: Kernels) -> tuple[Backend, ...]:
    """Return the backends in the order in which PyTorch asks them.

    >>> order_of(Kernels(capability=(8, 0), torch_version=(2, 9), cuda_version=(12, 8), cudnn_version=91002))[0].value
    'flash'
    """
    if kernels.order is not None:
        return kernels.order
    if kernels.torch_version < (2, 5):
        return _ORDER_2_4
    major, minor = kernels.capability
    fits = major in (9, 10) and (kernels.cuda_version >= (13, 0) or minor in (0, 3))
    new = kernels.torch_version >= _CUDNN_FIRST_SINCE and kernels.cudnn_version > _CUDNN_FIRST_VERSION
    return _ORDER_2_4 if new and fits else _ORDER


def choose(call: Call, kernels: Kernels) -> Backend | None:
    """Return the first backend in order that may and can; None = none can."""
    for backend in order_of(kernels):
        if backend in kernels.allowed and CHECKS[backend](call, kernels):
            return backend
    return None


def _flash(call: Call, kernels: Kernels) -> bool:
    head = call.query[-1]
    if not (8, 0) <= kernels.capability <= (12, 1) or call.dtype not in HALF or call.masked:
        return False
    if len({head, call.key[-1], call.value[-1]}) > 1 or head > _LARGEST_HEAD or len(call.query) != 4:
        return False
    if (call.causal and call.query[-2] != call.key[-2]) or not call.last_stride_one or _empty(call):
        return False
    narrow = (8, 6) <= kernels.capability <= (8, 9) or kernels.capability[0] == 12
    if narrow and call.training and head > _LARGEST_TRAINED_HEAD:
        return head > _ALWAYS_TRAINED_ABOVE and not call.dropout
    return _heads_fit(call)


def _efficient(call: Call, kernels: Kernels) -> bool:
    major = kernels.capability[0]
    dtypes = ("float32", *HALF) if major >= 8 else ("float32", "float16")
    if not (5, 0) <= kernels.capability <= (12, 1) or call.dtype not in dtypes or len(call.query) != 4:
        return False
    if call.query[-1] != call.key[-1] or not call.last_stride_one or _empty(call):
        return False
    aligned = 8 if call.dtype in HALF and major >= 7 else 4 if call.dtype == "float32" and major >= 8 else 1
    if call.query[-1] % aligned or call.value[-1] % aligned:
        return False
    grouped = call.query[1] != call.key[1]
    return _heads_fit(call) and (not grouped or kernels.torch_version >= EFFICIENT_GROUPS_SINCE)


def _cudnn(call: Call, kernels: Kernels) -> bool:
    head, value = call.query[-1], call.value[-1]
    if not (8, 0) <= kernels.capability <= (12, 1) or call.dtype not in HALF or len(call.query) != 4:
        return False
    if head % 8 or value % 8 or call.key[-2] == 1 or _empty(call) or call.key[-1] != head:
        return False
    if max(call.query[0], call.query[1]) > _CUDNN_MOST_BATCHES or (call.training and kernels.deterministic):
        return False
    if call.dropout and (call.dropout * 16 % 1 or 91_100 <= kernels.cudnn_version < 91_400):
        return False
    wide = kernels.capability[0] in (9, 10) and kernels.cudnn_version >= _CUDNN_WIDE_SINCE
    sized = max(head, value) <= _CUDNN_LARGEST_HEAD or (wide and (head, value) == (_CUDNN_WIDE_QUERY, 128))
    return sized and _heads_fit(call)


def _math(call: Call, kernels: Kernels) -> bool:
    return True


CHECKS: dict[Backend, Callable[[Call, Kernels], bool]] = {
    Backend.CUDNN: _cudnn,
    Backend.FLASH: _flash,
    Backend.EFFICIENT: _efficient,
    Backend.MATH: _math,
}


def _heads_fit(call: Call) -> bool:
    """Return whether batch and heads are equal, or grouped and grouping is allowed."""
    heads, keys, values = call.query[1], call.key[1], call.value[1]
    if not call.query[0] == call.key[0] == call.value[0]:
        return False
    return heads == keys == values or (call.grouped and keys == values and heads % keys == 0)


def _empty(call: Call) -> bool:
    shapes: Sequence[tuple[int, ...]] = (call.query, call.key, call.value)
    return any(0 in shape for shape in shapes)
