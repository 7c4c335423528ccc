"""DeepSeek V2 and V3: latent attention, shared and routed experts, the prediction layer that stays on disk."""

from __future__ import annotations

from math import prod

import pytest

from hybrid_configs import DEEPSEEK_V2, DEEPSEEK_V2_LITE, DEEPSEEK_V3
from vramfit.errors import VramfitError
from vramfit.layer_kind import Latent
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory
from vramfit.units import ceil_div


def test_published_totals() -> None:
    """V2-Lite's and V2's totals on the Hub; V3's as loaded, without the prediction layer."""
    lite, large, third = (read_config(c, "deepseek") for c in (DEEPSEEK_V2_LITE, DEEPSEEK_V2, DEEPSEEK_V3))
    assert lite.num_parameters == 15_706_484_224
    assert large.num_parameters == 235_741_434_880
    assert third.num_parameters == 671_026_404_352


def test_published_total_with_prediction_layer_and_scales() -> None:
    """684,531,386,000 on the Hub: every weight, and an fp32 scale for each block of 128 x 128 of a projection."""
    tensors = tuple(inventory(read_config(DEEPSEEK_V3, "V3")))
    shapes = [t.shape for t in tensors if "proj" in t.name and "eh_proj" not in t.name]
    scales = sum(ceil_div(rows, 128) * ceil_div(columns, 128) for rows, columns in shapes)
    assert sum(prod(t.shape) for t in tensors) + scales == 684_531_386_000


def test_latent_cache_of_a_token() -> None:
    """512 + 64 elements per layer, whatever the number of heads."""
    facts = read_config(DEEPSEEK_V3, "V3").layers[-1].attention
    assert isinstance(facts, Latent)
    assert facts.kv_lora_rank + facts.qk_rope_head_dim == 576


def test_lite_projects_queries_in_one_step() -> None:
    """``q_lora_rank`` null is one matrix; a rank is two, with a norm between."""
    lite = {t.name for t in inventory(read_config(DEEPSEEK_V2_LITE, "lite"))}
    large = {t.name for t in inventory(read_config(DEEPSEEK_V2, "V2"))}
    assert "model.layers.0.self_attn.q_proj.weight" in lite - large
    assert "model.layers.0.self_attn.q_a_layernorm.weight" in large - lite


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"index_topk": 2048}, "sparse-attention index"),
        ({"topk_method": "random"}, "greedy, group_limited_greedy, noaux_tc"),
        ({"num_experts_per_tok": 257}, "num_experts_per_tok: 257"),
        ({"kv_lora_rank": 0}, "kv_lora_rank: 0"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """A sparse index, an unknown router, more experts than there are, no rank."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**DEEPSEEK_V3, **change}, "V3")
