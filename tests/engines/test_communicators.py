"""Communicators: NVLink takes more than PCIe, SGLang more than one communicator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from served import H100, LLAMA_8B, rank, readings
from vramfit.catalogue.device import find_device
from vramfit.device import Device
from vramfit.engines.communicators import PCIE_BYTES, joined
from vramfit.request import Inference, Plan
from vramfit.result import Quantity
from vramfit.units import GIB

RTX_3090 = find_device("rtx-3090-24gb")


@pytest.mark.parametrize(
    ("device", "nvlink"),
    [("h100-sxm-80gb", True), ("a100-sxm-40gb", True), ("a100-pcie-40gb", False), ("rtx-3090-24gb", False),
     ("l40s-48gb", False)],
)  # fmt: skip
def test_cards_that_nvlink_joins(device: str, nvlink: bool) -> None:
    """Modules are joined, cards in slots are not."""
    assert nvlink is joined(find_device(device))


@pytest.mark.parametrize("engine", ["sglang", "tgi", "lmdeploy", "tensorrt-llm"])
def test_slots_take_less(engine: str) -> None:
    """342 MB on cards in slots, a GiB or more over NVLink, nothing on one rank."""

    def taken(device: Device, tp: int) -> int:
        items = rank(LLAMA_8B, Inference(engine=engine, context_tokens=1024), Plan(tp=tp), device).items
        return sum(item.bytes for item in items if item.name == "runtime/collectives")

    assert 0 == taken(H100, 1)
    assert PCIE_BYTES == taken(RTX_3090, 2)
    assert taken(H100, 2) >= GIB


def test_eight_ranks_of_sglang_before_weights() -> None:
    """sgl-project/sglang#11716: 1.8 to 2.0 GiB on eight H200."""
    card = find_device("h200-sxm-141gb")
    found = readings(LLAMA_8B, Inference(engine="sglang", context_tokens=1024), Plan(tp=8), card)
    assert 1.8 * GIB <= found[Quantity.BEFORE_WEIGHTS].value <= 2.0 * GIB


def test_a_pool_on_four_cards_of_24_gb() -> None:
    """A public log: Qwen3-14B on four ranks at 0.8 holds 298,447 tokens; 23.5 to 23.7 GiB is what such cards report."""
    config = {
        "model_type": "qwen3", "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 17408, "vocab_size": 151936,
        "max_position_embeddings": 40960, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }  # fmt: skip
    work = Inference(engine="sglang", context_tokens=40960, memory_fraction=0.8)
    card = replace(RTX_3090, total_bytes=int(23.58 * GIB))
    found = readings(config, work, Plan(tp=4), card)[Quantity.KV_CACHE_TOKENS]
    assert 298_447 == pytest.approx(found.value, rel=0.01)
    assert found.low <= 298_447 <= found.high
