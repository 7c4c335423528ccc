"""Qwen3-Next: three gated delta networks to one gated attention, and a prediction layer that no field names."""

from __future__ import annotations

from math import prod

import pytest

from hybrid_configs import QWEN3_NEXT_80B
from vramfit.errors import InvalidValueError
from vramfit.layer_kind import GroupedQuery, LinearAttention
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory


def test_published_total() -> None:
    """81,324,862,720 on the Hub, of which a load brings 79,674,391,296."""
    spec = read_config(QWEN3_NEXT_80B, "80B")
    assert spec.num_parameters == 79_674_391_296
    assert sum(prod(t.shape) for t in inventory(spec)) == 81_324_862_720


def test_every_fourth_layer_attends() -> None:
    """36 layers keep a state of fixed size, 12 a cache that grows."""
    found = [layer.attention for layer in read_config(QWEN3_NEXT_80B, "80B").layers]
    assert [isinstance(a, LinearAttention) for a in found] == [True, True, True, False] * 12
    assert all(isinstance(a, GroupedQuery) for a in found[3::4])


def test_value_heads_are_shared_evenly() -> None:
    """Thirty-one value heads cannot be shared by sixteen key heads."""
    with pytest.raises(InvalidValueError, match="linear_num_value_heads: 31: expected a multiple of"):
        read_config({**QWEN3_NEXT_80B, "linear_num_value_heads": 31}, "80B")
