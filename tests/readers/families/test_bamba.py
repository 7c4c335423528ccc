"""Bamba, Granite 4 H and Falcon H1: Mamba 2 and attention in turns or side by side."""

from __future__ import annotations

import pytest

from recurrent_configs import FALCON_H1_05B, GRANITE_4_H_TINY
from vramfit.errors import VramfitError
from vramfit.layer_kind import GroupedQuery, StateSpace
from vramfit.readers.hf_config import read_config


def test_published_totals() -> None:
    """As on the Hub: Granite 4.0 H Tiny and Falcon H1 0.5B; Tiny has 1 billion active by its card."""
    tiny, falcon = read_config(GRANITE_4_H_TINY, "tiny"), read_config(FALCON_H1_05B, "0.5B")
    assert (6_939_037_248, 521_411_104) == (tiny.num_parameters, falcon.num_parameters)
    assert 1 == tiny.num_active_parameters // 10**9


def test_falcon_attends_beside_its_state_space() -> None:
    """Every block keeps tokens and a state."""
    block = read_config(FALCON_H1_05B, "0.5B").layers[0]
    assert [GroupedQuery, StateSpace] == [type(mixer) for mixer in block.mixers]


@pytest.mark.parametrize(
    ("config", "change", "complaint"),
    [
        (GRANITE_4_H_TINY, {"layer_types": ["mamba"] * 39 + ["moe"]}, r"layer_types\[39\]: 'moe': expected one of"),
        (GRANITE_4_H_TINY, {"mamba_d_head": 63}, "mamba_n_heads: 48: expected heads that fill the inner width"),
        (FALCON_H1_05B, {"mamba_n_groups": 5}, "mamba_n_groups: 5: expected a divisor"),
    ],
)
def test_refusals(config: dict[str, object], change: dict[str, object], complaint: str) -> None:
    """An unknown kind of layer, heads that do not fill the width, groups that do not divide the heads."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**config, **change}, "hybrid")
