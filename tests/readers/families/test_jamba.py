"""Jamba: Mamba 1 with attention in every eighth layer, experts in every second."""

from __future__ import annotations

import pytest

from hybrid_configs import JAMBA_15_LARGE, JAMBA_V01
from vramfit.errors import VramfitError
from vramfit.layer_kind import Experts, GroupedQuery
from vramfit.readers.hf_config import read_config


def test_published_totals() -> None:
    """51,570,323,328 and 398,555,145,696 on the Hub; 12 and 94 billion active by the model cards."""
    small, large = read_config(JAMBA_V01, "v0.1"), read_config(JAMBA_15_LARGE, "1.5")
    assert small.num_parameters == 51_570_323_328
    assert large.num_parameters == 398_555_145_696
    assert [s.num_active_parameters // 10**9 for s in (small, large)] == [12, 94]


def test_places_of_attention_and_experts() -> None:
    """Layer 4 of every 8 attends; odd layers have experts."""
    layers = read_config(JAMBA_V01, "v0.1").layers
    assert [i for i, layer in enumerate(layers) if isinstance(layer.attention, GroupedQuery)] == [4, 12, 20, 28]
    assert [i for i, layer in enumerate(layers) if isinstance(layer.feed_forward, Experts)] == list(range(1, 32, 2))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"attn_layer_offset": 8}, "attn_layer_offset: 8: expected less than attn_layer_period"),
        ({"mamba_inner_layernorms": False}, "mamba_inner_layernorms"),
        ({"mamba_d_state": -1}, "mamba_d_state: -1"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """An offset outside the period, shapes no model has, a negative state."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**JAMBA_V01, **change}, "v0.1")
