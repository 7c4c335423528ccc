"""RWKV 4, 6 and 7: states per head and what is left of the token before."""

from __future__ import annotations

import pytest

from recurrent_configs import RWKV6_7B, RWKV7_1_5B
from vramfit.errors import VramfitError
from vramfit.layer_kind import Recurrence
from vramfit.readers.hf_config import read_config

RANKS = ("decay_low_rank_dim", "a_low_rank_dim", "v_low_rank_dim", "gate_low_rank_dim")


@pytest.mark.parametrize(
    ("hidden", "layers", "ranks", "total"),
    [
        (768, 12, (64, 64, 32, 128), 191_034_624),
        (1024, 24, (64, 64, 32, 128), 450_767_872),
        (2048, 24, (96, 96, 64, 256), 1_527_404_544),
        (2560, 32, (96, 96, 64, 320), 2_947_735_040),
    ],
)
def test_published_totals_of_rwkv_7(hidden: int, layers: int, ranks: tuple[int, ...], total: int) -> None:
    """World 0.1B to 2.9B as in the paper's table of sizes (arXiv:2503.14456)."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": 4 * hidden}
    config = {**RWKV7_1_5B, **sizes, "value_dim": None, **dict(zip(RANKS, ranks, strict=True))}
    assert total == read_config(config, "rwkv7").num_parameters


def test_published_total_of_rwkv_6() -> None:
    """Finch 7B: 7,635,746,816 (RWKV/v6-Finch-7B-HF)."""
    assert 7_635_746_816 == read_config(RWKV6_7B, "finch").num_parameters


def test_published_total_of_rwkv_4() -> None:
    """RWKV 4 169M (RWKV/rwkv-4-169m-pile): 169,342,464."""
    config = {"model_type": "rwkv", "hidden_size": 768, "num_hidden_layers": 12, "vocab_size": 50277,
              "tie_word_embeddings": False}  # fmt: skip
    assert 169_342_464 == read_config(config, "rwkv").num_parameters


def test_the_first_layer_of_rwkv_7_has_no_value_before_it() -> None:
    """Layer 0 has a norm more, two vectors of 2,048, and no low-rank value: 2 x 2,048 x 64 + 2,048 less."""
    spec = read_config(RWKV7_1_5B, "1.5B")
    first, second = spec.layers[0].num_parameters, spec.layers[1].num_parameters
    assert first == second + 2 * 2048 - (2 * 2048 * 64 + 2048)
    assert Recurrence(
        num_heads=32, width=2048, state_elements=32 * 64 * 64, previous_elements=4096
    ) == spec.layers[0].attention  # fmt: skip


@pytest.mark.parametrize(
    ("config", "change", "complaint"),
    [
        (RWKV7_1_5B, {"attn": {"layers": [1]}}, "attn: .*softmax attention"),
        (RWKV7_1_5B, {"value_dim": [4096] * 24}, "value_dim: .*another width"),
        (RWKV7_1_5B, {"head_dim": 63}, r"head_dim: 63: expected a divisor of hidden_size \(2048\)"),
        (RWKV7_1_5B, {"architectures": ["Rwkv7ForCausalLM"]}, "expected one of RWKV7ForCausalLM"),
        (RWKV7_1_5B, {"intermediate_size": None, "hidden_ratio": -1}, "hidden_ratio: -1"),
        (RWKV6_7B, {"attention_hidden_size": 2048}, "attention_hidden_size: 2048"),
        (RWKV6_7B, {"architectures": ["RWKV6ForCausalLM"]}, "expected one of Rwkv6ForCausalLM"),
    ],
)
def test_refusals(config: dict[str, object], change: dict[str, object], complaint: str) -> None:
    """Attention among the layers, other widths, heads that do not divide, classes with other names in their files."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**config, **change}, "rwkv")
