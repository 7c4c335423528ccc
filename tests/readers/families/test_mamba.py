"""Mamba, Mamba 2 and Falcon Mamba: one state space per block."""

from __future__ import annotations

import pytest

from recurrent_configs import CODESTRAL_MAMBA_7B, FALCON_MAMBA_7B, MAMBA_2_8B
from vramfit.errors import VramfitError
from vramfit.readers.hf_config import read_config


def test_published_totals() -> None:
    """As on the Hub: Mamba 2.8B, Codestral Mamba and Falcon Mamba."""
    specs = [read_config(c, "mamba") for c in (MAMBA_2_8B, CODESTRAL_MAMBA_7B, FALCON_MAMBA_7B)]
    assert [2_768_345_600, 7_285_403_648, 7_272_665_088] == [s.num_parameters for s in specs]


@pytest.mark.parametrize(
    ("config", "change", "complaint"),
    [
        (MAMBA_2_8B, {"intermediate_size": 5000}, r"intermediate_size: 5000: expected expand x hidden_size \(5120\)"),
        (MAMBA_2_8B, {"time_step_rank": 0}, "time_step_rank: 0"),
        (CODESTRAL_MAMBA_7B, {"num_heads": 100}, "num_heads: 100: expected num_heads x head_dim"),
        (CODESTRAL_MAMBA_7B, {"n_groups": 3}, r"n_groups: 3: expected a divisor of .* \(128\)"),
    ],
)
def test_refusals(config: dict[str, object], change: dict[str, object], complaint: str) -> None:
    """Widths that two fields disagree on, a rank of zero, groups that do not divide the heads."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**config, **change}, "mamba")
