"""xLSTM: matrix memory and a gated network in every block."""

from __future__ import annotations

import pytest

from recurrent_configs import XLSTM_7B
from vramfit.errors import VramfitError
from vramfit.formats import FP32
from vramfit.layer_kind import Recurrence
from vramfit.readers.hf_config import read_config


def test_published_total_and_state() -> None:
    """6,865,424,896 on the Hub; 8 heads of 256 x 512, 256 and 1 elements, in the model's fp32."""
    spec = read_config(XLSTM_7B, "7B")
    assert 6_865_424_896 == spec.num_parameters
    state = 8 * (256 * 512 + 256 + 1)
    assert Recurrence(num_heads=8, width=4096, state_elements=state, state_format=FP32) == spec.layers[0].attention


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"weight_mode": "fused"}, "weight_mode: 'fused'"),
        ({"add_out_norm": False}, "add_out_norm: False"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings: True"),
        ({"num_heads": 7}, "num_heads: 7: expected a divisor of 2048 and 4096"),
        ({"qk_dim_factor": "half"}, "qk_dim_factor: 'half'"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """Fused matrices, no last norm, ties, heads that do not divide, a factor that is no number."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**XLSTM_7B, **change}, "7B")
