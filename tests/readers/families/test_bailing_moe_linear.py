"""Ring-linear 2.0: lightning attention with softmax attention at the end of each group."""

from __future__ import annotations

import pytest

from recurrent_configs import RING_MINI_LINEAR
from vramfit.errors import VramfitError
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config

LIGHTNING = 2048 * (3 * 2048) + 2 * 2048 * 2048 + 2048 + 2 * 128
SOFTMAX = 2048 * (16 + 2 * 4) * 128 + 2048 * 2048 + 2 * 128
SPARSE = 256 * 2048 + (256 + 1) * 3 * 2048 * 512
"""Projections and norms of both kinds of attention; router, routed experts and the shared one."""


def test_total_by_hand() -> None:
    """16 lightning and 4 softmax layers, one dense network, 19 with experts: 16.4 billion by the model card."""
    spec = read_config(RING_MINI_LINEAR, "mini")
    outside = 2 * 157_184 * 2048 + 2048 + 20 * 2 * 2048
    assert 16 * LIGHTNING + 4 * SOFTMAX + 19 * SPARSE + 3 * 2048 * 5120 + outside == spec.num_parameters
    assert "16.4" == f"{spec.num_parameters / 10**9:.1f}"
    assert [4, 9, 14, 19] == [i for i, x in enumerate(spec.layers) if isinstance(x.attention, GroupedQuery)]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layer_group_size": None}, "layer_group_size: missing"),
        ({"kv_lora_rank": 512}, "kv_lora_rank: 512"),
        ({"use_qkv_bias": True}, "use_qkv_bias: True"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """No group, latent attention (Ring 2.5), biases."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**RING_MINI_LINEAR, **change}, "mini")
