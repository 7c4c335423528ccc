"""RecurrentGemma: gated recurrences and local attention."""

from __future__ import annotations

import pytest

from recurrent_configs import RECURRENT_GEMMA_2B
from vramfit.errors import VramfitError
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config


def test_published_total_and_windows() -> None:
    """2,682,862,080 on the Hub; every third block attends, to 2,048 tokens."""
    spec = read_config(RECURRENT_GEMMA_2B, "2B")
    assert 2_682_862_080 == spec.num_parameters
    attends = {i: layer.attention for i, layer in enumerate(spec.layers) if isinstance(layer.attention, GroupedQuery)}
    assert list(range(2, 26, 3)) == list(attends)
    assert {2048} == {facts.window_tokens for facts in attends.values()}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"intermediate_size": 15361}, "intermediate_size: 15361: expected an even width"),
        ({"block_types": ["recurrent", "mamba"]}, r"block_types\[1\]: 'mamba'"),
        ({"lru_width": 2555}, "num_attention_heads: 10: expected a divisor of 2555"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """A width that cannot be halved, an unknown block, heads that do not divide the recurrence."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**RECURRENT_GEMMA_2B, **change}, "2B")
