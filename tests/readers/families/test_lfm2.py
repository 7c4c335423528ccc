"""LFM2 and LFM2 MoE: short convolutions with attention in some layers."""

from __future__ import annotations

import pytest

from recurrent_configs import LFM2_1_2B, LFM2_8B_A1B
from vramfit.errors import VramfitError
from vramfit.layer_kind import Dense, ShortConvolution
from vramfit.readers.hf_config import read_config


def test_published_totals() -> None:
    """As on the Hub: 1,170,340,608 and 8,339,929,856; 1.5 billion of the mixture are active by its card."""
    dense, mixture = read_config(LFM2_1_2B, "1.2B"), read_config(LFM2_8B_A1B, "8B")
    assert (1_170_340_608, 8_339_929_856) == (dense.num_parameters, mixture.num_parameters)
    assert 15 == mixture.num_active_parameters // 10**8


def test_the_width_of_the_network_is_two_thirds_in_whole_multiples() -> None:
    """2 x 12,288 / 3 = 8,192, a multiple of 256."""
    spec = read_config(LFM2_1_2B, "1.2B")
    assert Dense(intermediate_size=8192) == spec.layers[0].feed_forward
    assert 10 == sum(isinstance(layer.attention, ShortConvolution) for layer in spec.layers)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"full_attn_idxs": None}, "layer_types: None: expected 16 words"),
        ({"block_ffn_dim_multiplier": -1.0}, "block_ffn_dim_multiplier: -1.0"),
        ({"conv_L_cache": 0}, "conv_L_cache: 0"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """No list of layers, a negative factor, a kernel of no width."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**LFM2_1_2B, **change}, "1.2B")
