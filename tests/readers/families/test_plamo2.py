"""PLaMo 2: Mamba and windowed attention in turns."""

from __future__ import annotations

import pytest

from recurrent_configs import PLAMO_2_1B
from vramfit.errors import VramfitError
from vramfit.layer_kind import GroupedQuery, StateSpace
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory

MAMBA = 2048 * 8192 + 4096 * 4 + 4096 * (128 + 128) + 128 * 32 + 4096 * 2048 + 3 * 32 + 128 + 64 + 64
"""in_proj, conv1d, bcdt_proj, dt_proj, out_proj, dt_bias with A_log and D, three norms."""
ATTENTION = 2048 * (16 + 2) * 128 + 2048 * 2048 + 17 * 128
NETWORK = 3 * 2048 * 8192 + 4 * 2048


def test_total_by_hand() -> None:
    """8 x Mamba + 8 x attention + 16 networks with four norms + 100,000 x 2,048 embeddings + the last norm."""
    spec = read_config(PLAMO_2_1B, "1B")
    assert 8 * MAMBA + 8 * ATTENTION + 16 * NETWORK + 100_000 * 2048 + 2048 == spec.num_parameters
    assert "1.29" == f"{spec.num_parameters / 10**9:.2f}"  # billion, by the model card


def test_layers_and_their_names() -> None:
    """Odd layers attend to 2,048 tokens; names as in the published index."""
    spec = read_config({**PLAMO_2_1B, "full_attention_idx": [3]}, "1B")
    windows = [a.window_tokens for a in (layer.attention for layer in spec.layers) if isinstance(a, GroupedQuery)]
    assert [2048, None, *[2048] * 6] == windows
    assert all(isinstance(layer.attention, StateSpace) for layer in spec.layers[::2])
    names = {t.name for t in inventory(spec)}
    assert {"model.layers.layers.0.mixer.bcdt_proj.weight", "model.layers.layers.2.mixer.conv1d.weight"} <= names


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mamba_enabled": False}, "mamba_enabled: False"),
        ({"n_expert": 8}, "n_expert: 8"),
        ({"mamba_step": 1}, "mamba_step: 1"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """No Mamba, experts, a rhythm of one."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**PLAMO_2_1B, **change}, "1B")
