"""Memory of kernels that no tensor of the program is: sizes by hand, rule by rule, each can be left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

from vramfit.errors import InvalidValueError, UnknownNameError
from vramfit.trace import VirtualGPU
from vramfit.trace.cublas import workspace_bytes
from vramfit.trace.machine import imagine
from vramfit.trace.workspace_sizes import num_splits
from vramfit.trace.workspaces import NAMES, RULES
from vramfit.units import KIB, MIB


def scratch(rule: str, run: Callable[[], object], device: str = "a100-sxm-80gb", version: str = "2.13") -> list[int]:
    """Return what a rule recorded while a function ran. [B]"""
    with VirtualGPU(device, version) as gpu:
        run()
    return [a.num_bytes for a in gpu.recording.allocations() if a.operator == rule]


def products() -> None:
    """Multiply forward and backward, twice."""
    layer = nn.Linear(64, 64).cuda()
    for _ in range(2):
        layer(torch.randn(8, 64, device="cuda")).sum().backward()


def test_cublas_takes_one_workspace_per_handle() -> None:
    """The backward pass runs in a thread with a handle of its own: two in all, 8.125 MiB each, 32 MiB on Hopper."""
    assert scratch("cublas", products) == [2 * 4096 * KIB + 8 * 16 * KIB] * 2
    assert scratch("cublas", products, "h100-sxm-80gb") == [32 * MIB] * 2


def test_cublas_changed_with_versions() -> None:
    """Before 2.8 cublasLt takes a MiB per call with a bias; from 2.15 on each product takes and gives back."""
    old = scratch("cublas", products, version="2.6")
    assert sorted(old) == [MIB] * 2 + [8_519_680] * 2
    assert len(scratch("cublas", products, version="2.15")) > 2


def test_cublas_follows_its_variable() -> None:
    """``CUBLAS_WORKSPACE_CONFIG`` decides; another form is refused."""
    machine = imagine("a100-sxm-80gb")
    assert workspace_bytes(machine, ":4096:8") == 32 * MIB
    assert workspace_bytes(machine, ":16:8:4096:2") == 8_519_680
    with pytest.raises(InvalidValueError, match="CUBLAS_WORKSPACE_CONFIG"):
        workspace_bytes(machine, "4096:8")


def test_another_stream_takes_another_workspace() -> None:
    """A workspace belongs to a handle and a stream."""

    def run() -> None:
        weight = torch.randn(64, 64, device="cuda")
        weight @ weight
        with torch.cuda.stream(torch.cuda.Stream()):
            weight @ weight

    assert len(scratch("cublas", run)) == 2


def test_embedding_backward_sorts_many_tokens() -> None:
    """Above 3,072 tokens: places twice, cub's second buffers, one float32 row per token."""

    def run(tokens: int) -> Callable[[], object]:
        return lambda: (
            nn.Embedding(1000, 64).cuda()(torch.zeros(tokens, dtype=torch.long, device="cuda")).sum().backward()
        )

    assert scratch("embedding_backward", run(3072)) == []
    assert scratch("embedding_backward", run(4096)) == [8 * 4096, 8 * 4096, 16 * 4096, 4 * 4096 * 64]


def test_sorting_long_rows_takes_second_buffers() -> None:
    """Rows of up to 4,096 elements are sorted in place."""
    assert scratch("sort", lambda: torch.randn(4, 4096, device="cuda").sort()) == []
    assert scratch("sort", lambda: torch.randn(4, 8192, device="cuda").sort()) == [4 * 4 * 8192, 8 * 4 * 8192]


def test_few_queries_are_split_over_the_card() -> None:
    """Decoding splits the keys so that all multiprocessors work; training batches fill the card without."""
    assert num_splits(400, 216, 64) == 1
    assert num_splits(32, 216, 64) == 6

    def decode() -> object:
        q = torch.randn(1, 32, 1, 128, device="cuda", dtype=torch.bfloat16)
        k = torch.randn(1, 32, 8192, 128, device="cuda", dtype=torch.bfloat16)
        return F.scaled_dot_product_attention(q, k, k)

    splits = num_splits(32, 216, 64)
    assert scratch("flash_forward", decode) == [4 * splits * 32, 4 * splits * 32 * 128]


def test_a_wide_value_head_is_accumulated_in_float32() -> None:
    """The efficient kernel goes over heads wider than 128 several times."""

    def run() -> object:
        q = torch.randn(1, 2, 64, 160, device="cuda", dtype=torch.float16)
        return F.scaled_dot_product_attention(q, q, q)

    assert scratch("efficient_forward", run, "t4") == [4 * 2 * 64 * 160]


def test_every_rule_has_a_source_and_can_be_left_out() -> None:
    """A rule that is not named does not apply; an unknown name is refused."""
    assert len(NAMES) == len(RULES) + 1
    assert all(rule.source for rule in RULES)
    with VirtualGPU("a100-sxm-80gb", workspaces=NAMES - {"cublas"}) as gpu:
        products()
    assert not [a for a in gpu.recording.allocations() if a.operator == "cublas"]
    with pytest.raises(UnknownNameError, match="cublas"):
        VirtualGPU("a100-sxm-80gb", workspaces=frozenset({"cublass"}))


def test_reasoned_rules_are_named_in_the_report() -> None:
    """What no source documents stands among the assumptions when it applied."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        nn.Conv2d(4, 4, 3).cuda()(torch.randn(1, 4, 8, 8, device="cuda"))
    assert any("cudnn_convolution" in each for each in gpu.report().assumptions)
