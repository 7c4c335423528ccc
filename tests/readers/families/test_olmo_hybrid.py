"""OLMo Hybrid: gated delta networks with attention in every fourth layer."""

from __future__ import annotations

import pytest

from vramfit.errors import VramfitError
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory

OLMO: dict[str, object] = {
    "model_type": "olmo_hybrid", "hidden_size": 3840, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 30, "num_key_value_heads": 30, "vocab_size": 100352, "tie_word_embeddings": False,
}  # fmt: skip


def test_widths_follow_from_the_hidden_size() -> None:
    """Keys fill three quarters of 3,840 (30 x 96), values twice as much; each convolution has its own width."""
    spec = read_config(OLMO, "7B")
    shapes = {t.name: t.shape for t in inventory(spec)}
    assert (2880, 1, 4) == shapes["model.layers.0.linear_attn.q_conv1d.weight"]
    assert (5760, 1, 4) == shapes["model.layers.0.linear_attn.v_conv1d.weight"]
    assert list(range(3, 32, 4)) == [i for i, x in enumerate(spec.layers) if isinstance(x.attention, GroupedQuery)]


def test_refusal() -> None:
    """Value heads that key heads do not divide."""
    with pytest.raises(VramfitError, match="linear_num_value_heads: 7: expected a multiple"):
        read_config({**OLMO, "linear_num_key_heads": 3, "linear_num_value_heads": 7}, "7B")
