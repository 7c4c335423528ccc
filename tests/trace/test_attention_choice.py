"""Which attention kernel a card takes, and what it keeps: the table of checks, then the memory."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch.nn.attention import SDPBackend, sdpa_kernel

from vramfit.trace import VirtualGPU
from vramfit.trace.attention_choice import Backend, Call, Kernels, choose, order_of

A100 = Kernels(capability=(8, 0), torch_version=(2, 13), cuda_version=(13, 0), cudnn_version=92_000)
H100 = replace(A100, capability=(9, 0))
T4 = replace(A100, capability=(7, 5))
RTX_4090 = replace(A100, capability=(8, 9))
SHAPE = (2, 8, 512, 128)
CALL = Call(
    dtype="bfloat16", query=SHAPE, key=SHAPE, value=SHAPE, masked=False, causal=True, dropout=0.0, training=True,
    grouped=False,
)  # fmt: skip


def wide(call: Call, size: int) -> Call:
    """Return a call with heads of one size."""
    shape = (2, 8, 512, size)
    return replace(call, query=shape, key=shape, value=shape)


CHOICES = [
    ("plain", CALL, A100, Backend.FLASH),
    ("a mask", replace(CALL, masked=True, causal=False), A100, Backend.EFFICIENT),
    ("float32", replace(CALL, dtype="float32"), A100, Backend.EFFICIENT),
    ("float64", replace(CALL, dtype="float64"), A100, Backend.MATH),
    ("Hopper, new cuDNN", CALL, H100, Backend.CUDNN),
    ("Hopper, PyTorch 2.10", CALL, replace(H100, torch_version=(2, 10)), Backend.FLASH),
    ("Hopper, cuDNN 9.10", CALL, replace(H100, cudnn_version=91_002), Backend.FLASH),
    ("Turing, float16", replace(CALL, dtype="float16"), T4, Backend.EFFICIENT),
    ("Turing, bfloat16", CALL, T4, Backend.MATH),
    ("wide heads", wide(CALL, 288), A100, Backend.EFFICIENT),
    ("odd heads", wide(replace(CALL, dtype="float32"), 81), A100, Backend.MATH),
    ("odd heads in 16 bit are padded", wide(CALL, 81), A100, Backend.FLASH),
    ("trained wide heads on Ada", wide(CALL, 224), RTX_4090, Backend.EFFICIENT),
    ("wide heads on Ada, not trained", wide(replace(CALL, training=False), 224), RTX_4090, Backend.FLASH),
    ("widest heads on Ada", wide(CALL, 256), RTX_4090, Backend.FLASH),
    ("causal, unequal lengths", replace(CALL, query=(2, 8, 4, 128)), A100, Backend.EFFICIENT),
    ("grouped", replace(CALL, key=(2, 2, 512, 128), value=(2, 2, 512, 128), grouped=True), A100, Backend.FLASH),
    ("fewer heads, not said so", replace(CALL, key=(2, 2, 512, 128), value=(2, 2, 512, 128)), A100, Backend.MATH),
    ("other value heads", replace(CALL, value=(2, 8, 512, 64)), A100, Backend.EFFICIENT),
    ("last stride", replace(CALL, last_stride_one=False), A100, Backend.MATH),
    ("flash forbidden", CALL, replace(A100, allowed=frozenset({Backend.MATH})), Backend.MATH),
    ("an order of the user's", CALL, replace(A100, order=(Backend.CUDNN, Backend.FLASH)), Backend.CUDNN),
    ("2.4 began with cuDNN", CALL, replace(A100, torch_version=(2, 4)), Backend.CUDNN),
    ("dropout of no sixteenth", replace(CALL, dropout=0.1), replace(H100), Backend.FLASH),
    ("deterministic", CALL, replace(H100, deterministic=True), Backend.FLASH),
]


@pytest.mark.parametrize(("name", "call", "kernels", "expected"), CHOICES, ids=[c[0] for c in CHOICES])
def test_first_that_can_is_taken(name: str, call: Call, kernels: Kernels, expected: Backend) -> None:
    """Dtype, mask, head size, compute capability, versions and the user's wishes decide."""
    assert choose(call, kernels) is expected


def test_order_changed_with_versions() -> None:
    """Flash came first from 2.5 on, cuDNN on Hopper and Blackwell from 2.11 on with a new cuDNN."""
    assert order_of(replace(H100, torch_version=(2, 6)))[0] is Backend.FLASH
    assert order_of(H100)[0] is Backend.CUDNN
    assert order_of(replace(H100, capability=(9, 1), cuda_version=(12, 8)))[0] is Backend.FLASH


B, H, S, D = 2, 8, 500, 64


def operators(device: str, dtype: torch.dtype, *allowed: SDPBackend, mask: bool = False) -> dict[str, list[int]]:
    """Run attention forward and backward; return what each operator asked for."""
    with VirtualGPU(device, "2.13.0") as gpu:
        q, k, v = (torch.randn(B, H, S, D, device="cuda", dtype=dtype, requires_grad=True) for _ in range(3))
        bias = torch.ones(S, S, dtype=torch.bool, device="cuda") if mask else None
        if allowed:
            with sdpa_kernel(list(allowed)):
                out = F.scaled_dot_product_attention(q, k, v, bias)
        else:
            out = F.scaled_dot_product_attention(q, k, v, bias)
        out.sum().backward()
    found: dict[str, list[int]] = {}
    for each in gpu.recording.allocations():
        found.setdefault(each.operator.removeprefix("aten._").removesuffix(".default"), []).append(each.num_bytes)
    return found


def test_flash_keeps_row_sums_and_scratches_the_queries_gradient() -> None:
    """Forward: output and one float32 per row; backward: three gradients, softmax sums, float32 dq, rows to 128."""
    found = operators("a100-sxm-80gb", torch.bfloat16)
    forward = found["scaled_dot_product_flash_attention"]
    assert B * H * S * D * 2 in forward
    assert B * H * S * 4 in forward
    assert found["scaled_dot_product_flash_attention_backward"] == [B * H * S * D * 2] * 3
    assert found["flash_backward"] == [B * H * 512 * 4, B * 512 * H * 64 * 4]


def test_math_keeps_the_scores() -> None:
    """Only the math kernel keeps a matrix of queries by keys."""
    with_scores = operators("a100-sxm-80gb", torch.float32, SDPBackend.MATH)
    assert any(B * H * S * S * 4 in sizes for sizes in with_scores.values())
    without = operators("a100-sxm-80gb", torch.float32)
    assert not any(B * H * S * S * 4 in sizes for sizes in without.values())
    assert "scaled_dot_product_efficient_attention" in without


def test_a_mask_moves_to_the_efficient_kernel_and_is_padded() -> None:
    """A boolean mask becomes one of numbers; rows of 500 are padded to 512 elements."""
    found = operators("a100-sxm-80gb", torch.bfloat16, mask=True)
    assert "scaled_dot_product_efficient_attention" in found
    sizes = [size for each in found.values() for size in each]
    assert S * 512 * 2 in sizes
    rows = math.ceil(S / 128) * 128
    assert found["efficient_backward"] == [B * H * S * 4, B * H * rows * 64 * 4]


def test_grouped_heads_are_expanded_in_flash_backward() -> None:
    """With fewer key heads the backward pass makes gradients for every query head first."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        q = torch.randn(1, 8, 128, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        k = torch.randn(1, 2, 128, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        F.scaled_dot_product_attention(q, k, k, enable_gqa=True).sum().backward()
    scratch = [a.num_bytes for a in gpu.recording.allocations() if a.operator == "flash_backward"]
    assert scratch[2:] == [128 * 8 * 64 * 2] * 2


def test_hopper_takes_cudnn() -> None:
    """The same program takes another kernel on another card."""
    assert "scaled_dot_product_cudnn_attention" in operators("h100-sxm-80gb", torch.bfloat16)


def test_no_allowed_kernel_is_pytorchs_own_error() -> None:
    """When nothing that is allowed can, PyTorch's words are raised."""
    with pytest.raises(RuntimeError, match="No available kernel"):
        operators("a100-sxm-80gb", torch.float32, SDPBackend.FLASH_ATTENTION)
