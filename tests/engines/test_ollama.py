"""ollama: its defaults by version and card, and what its scheduler reckons."""

from __future__ import annotations

from typing import Any

import pytest

from vramfit.catalogue.device import find_device
from vramfit.estimate import estimate
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference
from vramfit.result import Quantity
from vramfit.units import MIB

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


def _found(version: str | None, card: str | None = None, **workload: Any) -> dict[Quantity, int]:
    job = Inference(engine="ollama", engine_version=version, weight_format="gguf:Q4_K_M", **workload)
    found = estimate(read_config(LLAMA_8B, "m"), job, None, find_device(card) if card else None)
    return {r.quantity: int(r.value) for r in found.breakdowns[0].readings}


@pytest.mark.parametrize(
    ("version", "card", "cells"),
    [
        ("0.5.7", None, 4 * 2048),  # four slots of 2,048
        ("0.9.6", None, 2 * 4096),  # two of 4,096
        ("0.12.0", None, 4096),  # one of 4,096
        ("0.33", "rtx-4070", 4096),  # one, by memory: below 23 GiB
        ("0.33", "rtx-4090", 32768),  # from 23 GiB on
        ("0.33", "h100", 262144),  # from 47 GiB on
    ],
)
def test_context_and_slots_by_version_and_card(version: str, card: str | None, cells: int) -> None:
    """The KV buffer shows how many cells ollama takes when nobody says: 128 KiB each for Llama 3.1 8B."""
    assert _found(version, card)[Quantity.KV_BUFFER] == cells * 128 * 1024


def test_the_context_is_that_of_one_slot() -> None:
    """num_ctx 8,192 with four slots makes 32,768 cells, unlike llama.cpp's -c."""
    assert _found("0.5.7", context_tokens=8192, slots=4)[Quantity.KV_BUFFER] == 4096 * MIB


def test_a_cut_model_gets_one_slot() -> None:
    """When layers stay on the host, the scheduler tries one slot only."""
    found = _found("0.5.7", context_tokens=2048, gpu_layers=10)
    assert found[Quantity.KV_BUFFER] == 10 * 2048 * 2 * 1024 * 2


def test_the_graph_of_the_scheduler() -> None:
    """Llama 3.1 8B, 8,192 cells: 4 x 512 x (1 + 4 x 4,096 + 8,192 x 33) = 587,204,608 B."""
    found = _found("0.5.7", context_tokens=8192, slots=1)
    assert found[Quantity.COMPUTE_BUFFER] == 4 * 512 * (1 + 4 * 4096 + 8192 * 33)
