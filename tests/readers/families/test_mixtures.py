"""Mixtures of experts: what publishers print of total and active parameters, and what each family does of its own."""

from __future__ import annotations

from math import prod

import pytest

from mixture_configs import (
    A_X_K1,
    ARCTIC,
    DBRX,
    GLM_4_5,
    HUNYUAN_A13B,
    HUNYUAN_LARGE,
    KIMI_K3,
    LING_1T,
    LONGCAT_FLASH,
    MINIMAX_M3,
    PUBLISHED,
    STEP_3_5_FLASH,
)
from vramfit.errors import VramfitError
from vramfit.layer_kind import GroupedQuery, Latent
from vramfit.memory.kv_cache import model_bytes_per_token
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference
from vramfit.spec import ModelSpec, inventory

BF16 = Inference(kv_format_k="bf16", kv_format_v="bf16")


def _table(spec: ModelSpec) -> int:
    return sum(t.num_parameters for t in spec.embeddings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_total_and_active_are_the_published_ones(name: str) -> None:
    """To the last digit that the publisher prints, rounded or cut off."""
    row = PUBLISHED[name]
    spec = read_config(row.config, name)
    active = spec.num_active_parameters - (0 if row.embedded else _table(spec))
    assert abs(spec.num_parameters / 1e9 - row.total) < row.to[0]
    assert abs(active / 1e9 - row.active) < row.to[1]


def test_glm_4_5_is_counted_with_its_prediction_layer_and_without_words() -> None:
    """355 and 32 billion: with the prediction layer, without embeddings and output projections (arXiv:2508.06471)."""
    spec = read_config(GLM_4_5, "GLM-4.5")
    words = _table(spec)
    whole = spec.num_parameters + spec.parts[0].num_parameters
    assert 355 == round((whole - 4 * words) / 1e9)
    assert 32 == round((spec.num_active_parameters - 2 * words) / 1e9)


def test_layers_of_hunyuan_large_share_their_cache() -> None:
    """32 of 64 layers keep keys and values, of 8 heads x 80, in 16 bit: 81,920 bytes a token.

    Names: vllm-project/vllm@00f8d44:vllm/model_executor/models/hunyuan_v1.py, HunYuanCrossAttention.
    """
    spec = read_config(HUNYUAN_LARGE, "Hunyuan-Large")
    assert model_bytes_per_token(spec, BF16) == 32 * 2 * 8 * 80 * 2
    names = {t.name for t in inventory(spec)}
    assert "model.layers.0.self_attn.k_proj.weight" in names
    assert not any(
        name.startswith(("model.layers.1.self_attn.k_proj", "model.layers.1.self_attn.v_p")) for name in names
    )
    assert "model.layers.1.self_attn.key_layernorm.weight" in names


def test_without_sharing_hunyuan_large_keeps_twice_as_much() -> None:
    """``use_cla`` false gives every layer keys and values of its own."""
    spec = read_config({**HUNYUAN_LARGE, "use_cla": False}, "Hunyuan-Large")
    assert model_bytes_per_token(spec, BF16) == 64 * 2 * 8 * 80 * 2


def test_numbers_once_for_each_layer() -> None:
    """Hunyuan-A13B counts its experts in lists; different ones in one list are refused."""
    one = {**HUNYUAN_A13B, "moe_topk": 8, "num_shared_expert": 1, "moe_intermediate_size": 3072}
    assert read_config(one, "x").layers == read_config(HUNYUAN_A13B, "x").layers
    with pytest.raises(VramfitError, match=r"moe_topk: .*layers that differ"):
        read_config({**HUNYUAN_A13B, "moe_topk": [8] * 31 + [4]}, "x")


def test_longcat_caches_two_latents_a_layer() -> None:
    """28 layers of two attentions of 512 + 64 elements in 16 bit; the router scores 768 experts, 512 have matrices."""
    spec = read_config(LONGCAT_FLASH, "LongCat")
    assert model_bytes_per_token(spec, BF16) == 28 * 2 * (512 + 64) * 2
    shapes = {t.name: t.shape for t in inventory(spec)}
    assert shapes["model.layers.0.mlp.router.classifier.weight"] == (768, 6144)
    assert "model.layers.0.mlp.experts.512.gate_proj.weight" not in shapes


def test_prediction_layer_of_longcat_stays_on_disk() -> None:
    """One attention, one network, an embedding of its own; a plain load leaves it in the file."""
    without, spec = (read_config({**LONGCAT_FLASH, "num_nextn_predict_layers": n}, "LongCat") for n in (0, 1))
    h, heads = 6144, 64
    attention = h * 1536 + 1536 + 1536 * heads * 192 + h * 576 + 512 + 512 * heads * 256 + heads * 128 * h
    assert spec.parts[0].num_parameters == attention + 3 * h * 12288 + 2 * h * h + 5 * h + 131072 * h
    assert spec.num_parameters == without.num_parameters
    names = {t.name for t in inventory(spec)} - {t.name for t in inventory(without)}
    assert {"model.mtp.layers.0.enorm.m.weight", "model.mtp.layers.0.transformer_layer.mlp.up_proj.weight"} <= names


def test_heads_of_step_where_it_slides() -> None:
    """96 heads in layers that slide and 64 in the others, with a gate for each head; 288 experts in one tensor."""
    spec = read_config(STEP_3_5_FLASH, "Step")
    first, second = spec.layers[0].attention, spec.layers[1].attention
    assert isinstance(first, GroupedQuery)
    assert isinstance(second, GroupedQuery)
    assert (first.num_attention_heads, first.window_tokens) == (64, None)
    assert (second.num_attention_heads, second.window_tokens) == (96, 512)
    shapes = {t.name: t.shape for t in inventory(spec)}
    assert shapes["model.layers.1.self_attn.g_proj.weight"] == (96, 4096)
    assert shapes["model.layers.3.moe.gate_proj.weight"] == (288, 1280, 4096)
    assert "model.layers.2.moe.gate_proj.weight" not in shapes


def test_kimi_k3_by_hand() -> None:
    """69 layers of delta attention, 24 of latent attention that alone keep tokens, 92 mixtures in a space of 3,584."""
    spec = read_config(KIMI_K3, "K3")
    h, wide, narrow = 7168, 96 * 128, 3584
    delta = 4 * wide * h + 3 * 4 * wide + 96 + wide + 128 * h + wide * 128 + 96 * h + 128 + h * wide
    full = 1536 * h + 1536 + 96 * 192 * 1536 + 576 * h + 512 + 96 * 256 * 512 + 2 * h * wide
    mixture = 896 * h + 2 * narrow * h + narrow + 896 * 3 * narrow * 3072 + 3 * h * 6144
    residuals = 93 * (2 * h + 4 * h) + 2 * h
    language = 69 * delta + 24 * full + 92 * mixture + 3 * h * 33792 + residuals + h + 2 * 163840 * h
    block = 2 * 1024 + 4 * 1024 * 1536 + 2 * 1024 * 4096
    tower = 27 * block + 1024 * 3 * 14 * 14 + 64 * 64 * 1024 + 1024 + 4096 * 4096 + 4096 * h + h
    assert language + tower == spec.num_parameters
    assert 24 * (512 + 64) * 2 == model_bytes_per_token(spec, BF16)
    assert 9 == spec.residual_streams


def test_minimax_m3_keeps_index_keys() -> None:
    """60 layers of 2 x 4 heads x 128, and a key of 128 more in the 57 that pick blocks."""
    spec = read_config(MINIMAX_M3, "M3")
    assert 2 * (60 * 2 * 4 * 128 + 57 * 128) == model_bytes_per_token(spec, BF16)
    shapes = {t.name: t.shape for t in inventory(spec)}
    assert (512, 6144) == shapes["model.layers.3.self_attn.index_q_proj.weight"]
    assert "model.layers.2.self_attn.index_q_proj.weight" not in shapes
    assert (12288, 6144) == shapes["model.layers.2.mlp.gate_proj.weight"]


def test_arctic_has_a_network_beside_its_experts() -> None:
    """35 layers of 128 experts of 3 x 7,168 x 4,864, and beside them one of 3 x 7,168 x 7,168."""
    sizes = {t.name: prod(t.shape) for t in inventory(read_config(ARCTIC, "Arctic"))}
    routed = sum(size for name, size in sizes.items() if ".experts." in name)
    beside = sum(size for name, size in sizes.items() if ".residual_mlp." in name)
    assert routed == 35 * 128 * 3 * 7168 * 4864
    assert beside == 35 * 3 * 7168 * 7168


def test_ling_2_has_norms_and_a_correction() -> None:
    """Names of version 2, and dense layers at the bottom."""
    names = {t.name for t in inventory(read_config(LING_1T, "Ling"))}
    assert {
        "model.word_embeddings.weight", "model.layers.0.attention.query_key_value.weight",
        "model.layers.3.mlp.gate_proj.weight", "model.layers.4.mlp.gate.expert_bias",
        "model.layers.4.mlp.experts.255.up_proj.weight", "model.layers.79.attention.query_layernorm.weight",
    } <= names  # fmt: skip


def test_latent_attention_of_a_x_k1() -> None:
    """The cache is DeepSeek's: 512 + 64 elements a layer."""
    facts = read_config(A_X_K1, "A.X").layers[-1].attention
    assert isinstance(facts, Latent)
    assert (facts.kv_lora_rank, facts.qk_rope_head_dim) == (512, 64)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (
            {**DBRX, "ffn_config": {"ffn_hidden_size": 8, "moe_num_experts": 2, "moe_top_k": 3}},
            "ffn_config.moe_top_k: 3",
        ),
        ({**STEP_3_5_FLASH, "moe_layers_enum": "3,x"}, "moe_layers_enum: '3,x'"),
        ({**STEP_3_5_FLASH, "attention_other_setting": {"num_attention_heads": 90}}, "num_sliding_attention_heads: 90"),
        ({**STEP_3_5_FLASH, "attention_other_setting": {"head_dim": 64}}, "attention_other_setting.head_dim: 64"),
        ({**HUNYUAN_LARGE, "cla_share_factor": 0}, "cla_share_factor: 0"),
        ({**LONGCAT_FLASH, "moe_topk": 513}, "moe_topk: 513"),
    ],
)
def test_refusals(config: dict[str, object], complaint: str) -> None:
    """More experts than there are, layers that are no numbers, heads that do not divide."""
    with pytest.raises(VramfitError, match=complaint):
        read_config(config, "x")
