"""Kimi Linear and Ling 3: delta attention with latent attention in some layers."""

from __future__ import annotations

from typing import Any

import pytest

from recurrent_configs import KIMI_LINEAR_48B
from vramfit.errors import VramfitError
from vramfit.layer_kind import Latent, LinearAttention
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory

KDA: dict[str, Any] = KIMI_LINEAR_48B["linear_attn_config"]


def test_published_total() -> None:
    """49,122,681,728 on the Hub, which counts 26 x 256 correction biases too; 3 billion active by the name."""
    spec = read_config(KIMI_LINEAR_48B, "48B")
    biases = sum(t.shape[0] for t in inventory(spec) if t.buffer)
    assert 26 * 256 == biases
    assert 49_122_681_728 == spec.num_parameters + biases
    assert 3 == spec.num_active_parameters // 10**9


def test_layers_are_counted_from_one() -> None:
    """Layers 4, 8, ... 24 and 27 of the configuration attend fully: 3, 7, ... 23 and 26 here."""
    kinds = [type(layer.attention) for layer in read_config(KIMI_LINEAR_48B, "48B").layers]
    assert [3, 7, 11, 15, 19, 23, 26] == [i for i, kind in enumerate(kinds) if kind is Latent]
    assert 20 == kinds.count(LinearAttention)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"linear_attn_config": {**KDA, "kda_layers": [1, 2]}}, "linear_attn_config.kda_layers: .*all of 1 to 27"),
        ({"linear_attn_config": {**KDA, "head_dim": None}}, "linear_attn_config.head_dim: missing"),
        ({"q_lora_rank": 96}, "q_lora_rank: 96: a compressed query"),
        ({"moe_layer_freq": 2}, "moe_layer_freq: 2"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """Layers of no kind, a width that is missing, a compressed query, experts in every second layer."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**KIMI_LINEAR_48B, **change}, "48B")
