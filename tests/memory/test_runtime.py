"""Runtime: contexts against measured ones, workspaces by card, collectives with peers only."""

from __future__ import annotations

import pytest

from vramfit.catalogue.device import find_device
from vramfit.estimate import estimate
from vramfit.memory.runtime import context_bytes
from vramfit.request import Inference, Plan
from vramfit.result import Basis, Counter, Item
from vramfit.source import read_model
from vramfit.units import MIB


def items(device: str | None, plan: Plan | None = None) -> dict[str, Item]:
    """Runtime items of Llama 3.1 8B on a device."""
    card = None if device is None else find_device(device)
    need = estimate(read_model("meta-llama/Llama-3.1-8B"), Inference(context_tokens=1), plan, card)
    return {i.name: i for i in need.breakdowns[0].items if i.name.startswith("runtime/")}


@pytest.mark.parametrize(
    ("device", "measured_mib", "tolerance"),
    [("rtx-3090-24gb", 256, 0.05), ("h100-sxm-80gb", 522, 0.05)],
)
def test_context_agrees_with_cards_it_was_not_fitted_to(device: str, measured_mib: int, tolerance: float) -> None:
    """RTX 3090: 256 MiB (torch 2.7.1); H100: 0.51 GiB before weights in vLLM 0.19."""
    assert measured_mib * MIB == pytest.approx(context_bytes(find_device(device)), rel=tolerance)


def test_workspace_grows_with_hopper() -> None:
    """2 x 4,096 KiB + 8 x 16 KiB = 8,519,680 B before compute capability 9.0, 32 MiB from there on."""
    assert 8_519_680 == items("a100-sxm-80gb")["runtime/cublas_workspace"].bytes
    assert 33_554_432 == items("h100-sxm-80gb")["runtime/cublas_workspace"].bytes


def test_collectives_need_a_peer() -> None:
    """One rank alone opens no communicator."""
    assert "runtime/collectives" not in items("h100-sxm-80gb")
    assert "runtime/collectives" in items("h100-sxm-80gb", Plan(tp=2))
    assert "runtime/collectives" in items("h100-sxm-80gb", Plan(pp=2))


def test_an_unnamed_device_counts_as_the_largest_and_says_so() -> None:
    """Without a card the context is assumed, and not smaller than on any named one."""
    unnamed = items(None)["runtime/cuda_context"]
    assert Basis.ASSUMED is unnamed.basis
    assert unnamed.bytes >= items("h100-sxm-80gb")["runtime/cuda_context"].bytes


def test_context_is_outside_the_allocator() -> None:
    """nvidia-smi shows the context, torch's counters do not."""
    assert Counter.PROCESS is items("a100-sxm-80gb")["runtime/cuda_context"].counter
