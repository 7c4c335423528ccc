"""What each optimizer keeps of one tensor between steps, read from the optimizers' own code.

Every function takes the shape of a tensor as this rank holds it and the format of the state, and returns named parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from vramfit.formats import Role
from vramfit.units import ceil_div

Shape: TypeAlias = tuple[int, ...]
Parts: TypeAlias = tuple[tuple[str, int], ...]
"""Name of a state and its bytes."""

FP32_BYTES = 4
BLOCK_8BIT = 256
"""Elements that share one fp32 scale in 8-bit states."""
SMALLEST_8BIT = 4096
"""Elements below which bitsandbytes keeps states in fp32."""
SMALLEST_PAGED = 100_000
"""Elements below which bitsandbytes keeps paged states on the device.
Source of all three: bitsandbytes-foundation/bitsandbytes:bitsandbytes/optim/optimizer.py."""
LOW_RANK = 128
"""Rank of GaLore's and APOLLO's projections. Source: jiaweizzhao/GaLore:README.md; zhuhanqing/APOLLO:README.md (their
examples for 7B); huggingface/transformers:src/transformers/trainer.py takes 128 for both."""
SHAMPOO_BLOCK = 1024
"""Largest side of a preconditioned block. Source: facebookresearch/optimizers, max_preconditioner_dim."""
SOAP_SIDE = 10_000
"""Sides above it are not preconditioned. Source: nikhilvyas/SOAP:soap.py, max_precond_dim."""
MATRICES = frozenset({Role.LINEAR, Role.EXPERT, Role.ADAPTER, Role.ROUTER})
"""Tensors that optimizers for matrices take; embeddings, the head and vectors go to AdamW."""


def adam(shape: Shape, size: int) -> Parts:
    """Two moments of every element. Source: pytorch/pytorch:torch/optim/adam.py, _init_group.

    >>> adam((4096, 4096), 2)
    (('exp_avg', 33554432), ('exp_avg_sq', 33554432))
    """
    return ("exp_avg", prod(shape) * size), ("exp_avg_sq", prod(shape) * size)


def none(shape: Shape, size: int) -> Parts:
    """Nothing: plain gradient descent."""
    del shape, size
    return ()


def momentum(shape: Shape, size: int) -> Parts:
    """One moment. Source: pytorch/pytorch:torch/optim/sgd.py; google/automl:lion/lion_pytorch.py."""
    return (("exp_avg", prod(shape) * size),)


def sophia(shape: Shape, size: int) -> Parts:
    """A moment and the diagonal of the Hessian. Source: Liuhong99/Sophia:sophia.py."""
    return ("exp_avg", prod(shape) * size), ("hessian", prod(shape) * size)


def adafactor(shape: Shape, size: int) -> Parts:
    """Row and column means of matrices, all of vectors, always in fp32.

    Source: huggingface/transformers:src/transformers/optimization.py, Adafactor (no first moment by default);
    Shazeer and Stern 2018, arXiv:1804.04235.

    >>> adafactor((4096, 1024), 2)
    (('row_and_column', 20480),)
    """
    del size
    return (("row_and_column", FP32_BYTES * _factored(shape)),)


def came(shape: Shape, size: int) -> Parts:
    """A moment, and row and column means twice, in fp32. Source: yangluo7/CAME:came_pytorch/CAME.py."""
    del size
    twice = 2 if len(shape) > 1 else 1
    return ("exp_avg", FP32_BYTES * prod(shape)), ("row_and_column", twice * FP32_BYTES * _factored(shape))


def _factored(shape: Shape) -> int:
    """Elements of row and column means; all of a vector."""
    if len(shape) < 2:
        return prod(shape)
    return prod(shape[:-1]) + prod((*shape[:-2], shape[-1]))


def adam_8bit(shape: Shape, size: int) -> Parts:
    """Two moments of one byte and a scale for every 256; small tensors in fp32.

    >>> adam_8bit((4096, 4096), 2)
    (('exp_avg', 16777216), ('exp_avg_sq', 16777216), ('absmax', 524288))
    """
    elements = prod(shape)
    if elements < SMALLEST_8BIT:
        return adam(shape, FP32_BYTES)
    del size
    return ("exp_avg", elements), ("exp_avg_sq", elements), ("absmax", 2 * FP32_BYTES * ceil_div(elements, BLOCK_8BIT))


def adam_32bit(shape: Shape, size: int) -> Parts:
    """Two moments in fp32 whatever the weights are. Source: bitsandbytes, as above."""
    del size
    return adam(shape, FP32_BYTES)


def galore(shape: Shape, size: int) -> Parts:
    """Moments of the gradient projected to a low rank, and the projection.

        2 * rank * larger side + rank * smaller side

    Source: jiaweizzhao/GaLore:galore_torch/galore_projector.py.
    """
    if len(shape) < 2 or min(shape[-2:]) <= LOW_RANK:
        return adam(shape, size)
    outer, small, large = prod(shape[:-2]), min(shape[-2:]), max(shape[-2:])
    return (*adam((outer, LOW_RANK, large), size), ("projector", outer * LOW_RANK * small * size))


def shampoo(shape: Shape, size: int) -> Parts:
    """Two factors and their inverse roots for each block of at most 1,024 x 1,024, a moment, and grafting.

    Source: facebookresearch/optimizers:distributed_shampoo; Gupta et al. 2018, arXiv:1802.09568.
    """
    moments = (("exp_avg", prod(shape) * size), ("grafting", prod(shape) * size))
    if len(shape) < 2:
        return moments
    sides = [_blocks(side, SHAMPOO_BLOCK) for side in shape[-2:]]
    squares = sum(a * a + b * b for a in sides[0] for b in sides[1])
    return (*moments, ("factors", 2 * prod(shape[:-2]) * squares * FP32_BYTES))


def _blocks(side: int, largest: int) -> list[int]:
    """Return the sides of the blocks that a side is cut into."""
    rest = side % largest
    return [largest] * (side // largest) + ([rest] if rest else [])


def soap(shape: Shape, size: int) -> Parts:
    """Adam's moments, and for each side up to 10,000 a covariance and its eigenvectors in fp32.

    Source: nikhilvyas/SOAP:soap.py, init_preconditioner; Vyas et al. 2024, arXiv:2409.11321.
    """
    if len(shape) < 2:
        return adam(shape, size)
    sides = sum(side * side for side in shape if side <= SOAP_SIDE)
    return (*adam(shape, size), ("covariance_and_eigenvectors", 2 * sides * FP32_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """How one optimizer keeps states and what its step makes for a while."""

    state: Callable[[Shape, int], Parts]
    others: Callable[[Shape, int], Parts] | None = None
    """For tensors that are no matrices inside a block; None = the same."""
    loop_bytes: int = 0
    """What a step tensor by tensor makes for a while, per element of the largest tensor, beside ``loop_elements``."""
    loop_elements: int = 0
    """The same in elements of the weight's format."""
    loop_keeps: bool = False
    """True: a loop over tensors holds the last one's divisor while it makes the next one's."""
    at_once_elements: int = 0
    """What a step on all tensors at once (``foreach``) makes, in elements of the state's format."""
    has_foreach: bool = False
    has_fused: bool = False
    step_tensor: bool = False
    """True: a fused step counts on the device, one number for each tensor."""
    paged: bool = False
    """True: large states are in managed memory, which the host backs."""
    source: str


_TORCH = "pytorch/pytorch:torch/optim"
_BNB = "bitsandbytes-foundation/bitsandbytes:bitsandbytes/optim/optimizer.py"
ADAM = Optimizer(
    state=adam, loop_elements=2, loop_keeps=True, at_once_elements=1, has_foreach=True, has_fused=True,
    step_tensor=True,
    source=f"{_TORCH}/adam.py: foreach takes the root of every second moment at once; "
    "tensor by tensor the root and what is divided by it live together",
)  # fmt: skip
SGD = Optimizer(state=none, has_foreach=True, has_fused=True, source=f"{_TORCH}/sgd.py")
ADAM_8BIT = Optimizer(state=adam_8bit, has_fused=True, source=_BNB)
OPTIMIZERS: dict[str, Optimizer] = {
    "adam": ADAM,
    "adamw": ADAM,
    "adamw-8bit": ADAM_8BIT,
    "paged-adamw": Optimizer(state=adam_32bit, has_fused=True, paged=True, source=_BNB),
    "paged-adamw-8bit": Optimizer(state=adam_8bit, has_fused=True, paged=True, source=_BNB),
    "sgd": SGD,
    "sgd-momentum": Optimizer(state=momentum, has_foreach=True, has_fused=True, source=f"{_TORCH}/sgd.py"),
    "adafactor": Optimizer(
        state=adafactor, loop_bytes=8, loop_keeps=True,
        source="huggingface/transformers:src/transformers/optimization.py, Adafactor.step: update and its product",
    ),
    "lion": Optimizer(state=momentum, loop_elements=2, source="google/automl:lion/lion_pytorch.py"),
    "muon": Optimizer(
        state=momentum, others=adam, loop_elements=1, loop_bytes=8, source="pytorch/pytorch:torch/optim/_muon.py"
    ),
    "galore": Optimizer(
        state=galore, others=adam, loop_elements=2, source="jiaweizzhao/GaLore:galore_torch/adamw.py"
    ),
    "apollo": Optimizer(
        state=galore, others=adam, loop_elements=3, source="zhuhanqing/APOLLO:apollo_torch/apollo.py"
    ),
    "shampoo": Optimizer(
        state=shampoo, others=adam, loop_bytes=8, source="facebookresearch/optimizers:distributed_shampoo"
    ),
    "soap": Optimizer(state=soap, others=None, loop_bytes=12, source="nikhilvyas/SOAP:soap.py"),
    "sophia": Optimizer(state=sophia, loop_elements=2, source="Liuhong99/Sophia:sophia.py"),
    "came": Optimizer(state=came, loop_bytes=16, source="yangluo7/CAME:came_pytorch/CAME.py"),
}  # fmt: skip
"""Every optimizer of the request's vocabulary."""


def state_of(optimizer: Optimizer, shape: Shape, role: Role, size: int) -> Parts:
    """Return what an optimizer keeps of a tensor of that shape and role."""
    inside = len(shape) > 1 and role in MATRICES
    rule = optimizer.state if inside or optimizer.others is None else optimizer.others
    return rule(shape, size)
