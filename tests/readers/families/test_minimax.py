"""MiniMax Text-01 and M1: lightning attention with softmax attention in every eighth layer."""

from __future__ import annotations

from typing import Any

import pytest

from recurrent_configs import MINIMAX_TEXT_01
from vramfit.errors import VramfitError
from vramfit.formats import BF16
from vramfit.layer_kind import LinearAttention
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory

M1: dict[str, Any] = {**MINIMAX_TEXT_01, "model_type": "minimax_m1", "architectures": ["MiniMaxM1ForCausalLM"]}


@pytest.mark.parametrize("config", [MINIMAX_TEXT_01, M1])
def test_published_total(config: dict[str, Any]) -> None:
    """456,089,655,296 on the Hub, 45.9 billion active without embeddings by the report (arXiv:2501.08313, sec. 2)."""
    spec = read_config(config, "01")
    assert 456_089_655_296 == spec.num_parameters
    assert 459 == (spec.num_active_parameters - 2 * 200_064 * 6_144) // 10**8


def test_seventy_layers_keep_a_square_of_128_for_each_of_64_heads_in_the_format_of_the_model() -> None:
    """No convolution, and bf16 in transformers and vLLM alike."""
    facts = [m for layer in read_config(M1, "M1").layers for m in layer.mixers if isinstance(m, LinearAttention)]
    assert 70 * [LinearAttention(
        num_key_heads=64, num_value_heads=64, key_head_dim=128, value_head_dim=128, conv_kernel=0, state_format=BF16
    )] == facts  # fmt: skip


def test_the_published_code_has_the_same_tensors_as_transformers_save_those_it_works_out() -> None:
    """``minimax`` is compared with transformers; its decays for one block of tokens are in no file of the others."""
    small = {**MINIMAX_TEXT_01, "num_hidden_layers": 8, "attn_type_list": [0] * 7 + [1], "num_local_experts": 2}
    theirs = inventory(read_config({**small, "model_type": "minimax", "architectures": None}, "hf"))
    ours = inventory(read_config(small, "01"))
    assert {t.name: t.shape for t in theirs if not t.buffer} == {t.name: t.shape for t in ours}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"attn_type_list": [0] * 79}, "attn_type_list: .*expected 80 zeros and ones"),
        ({"attn_type_list": [2] * 80}, "attn_type_list: .*expected 80 zeros and ones"),
        ({"shared_intermediate_size": 64}, "shared_intermediate_size: 64"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """A list of another length or with other numbers, a shared expert."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**MINIMAX_TEXT_01, **change}, "01")
