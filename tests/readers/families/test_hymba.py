"""Hymba: attention beside Mamba in every block, caches that neighbours share."""

from __future__ import annotations

import pytest

from recurrent_configs import HYMBA_1_5B
from vramfit.errors import VramfitError
from vramfit.estimate import estimate
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference


def test_published_total() -> None:
    """1,522,797,824 on the Hub, 128 learned tokens included."""
    assert 1_522_797_824 == read_config(HYMBA_1_5B, "1.5B").num_parameters


def test_seventeen_blocks_keep_tokens() -> None:
    """Fifteen read a neighbour's cache; three see all tokens, the others 1,024 and the learned ones."""
    layers = read_config(HYMBA_1_5B, "1.5B").layers
    facts = [layer.attention for layer in layers if isinstance(layer.attention, GroupedQuery)]
    assert 15 == sum(a.shares_cache for a in facts)
    assert [0, 15, 31] == [i for i, a in enumerate(facts) if a.window_tokens is None]
    assert {1_152} == {a.window_tokens for a in facts} - {None}
    assert (64, 128) == (facts[0].head_dim, facts[0].v_head_dim)


def test_a_long_context_costs_three_blocks() -> None:
    """5 heads x (64 + 128) x 2 B = 1,920 B: 3 blocks x 8,192 tokens and 14 x 1,152; the learned ones are announced."""
    need = estimate(read_config(HYMBA_1_5B, "1.5B"), Inference(context_tokens=8_192, batch=1))
    names = {"kv_cache/full_attention", "kv_cache/sliding_window"}
    assert 1_920 * (3 * 8_192 + 14 * 1_152) == sum(i.bytes for i in need.breakdowns[0].items if i.name in names)
    assert any("num_memory_tokens = 128" in line for line in need.assumptions)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kv_reuse_group": [[1, 3]]}, "kv_reuse_group: .*neighbouring layers"),
        ({"kv_reuse_group": [[31, 32]]}, "kv_reuse_group: .*from 0 to 31"),
        ({"num_mamba": 2}, "num_mamba: 2: expected 1"),
        ({"kq_norm": "rms"}, "kq_norm: expected"),
        ({"mamba_inner_layernorms": False}, "mamba_inner_layernorms: False"),
        ({"num_attention_heads": 24}, "num_attention_heads: 24: expected a divisor"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """Groups that are no neighbours or lie outside, other numbers of Mamba, norms that no model has or lacks."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**HYMBA_1_5B, **change}, "1.5B")
