"""Gemma 3n and 4: layers that share caches, heads of two widths, towers."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.layer_kind import Experts, GroupedQuery
from vramfit.memory.kv_cache import token_bytes
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference
from vramfit.spec import ModelSpec, inventory


def gemma_3n(layers: int, width: int, shared: int) -> dict[str, Any]:
    """Return a Gemma 3n configuration; what is left out is the class default, as in the published files."""
    text = {"num_hidden_layers": layers, "intermediate_size": [width] * layers, "num_kv_shared_layers": shared}
    return {
        "model_type": "gemma3n", "architectures": ["Gemma3nForConditionalGeneration"], "text_config": text,
        "vision_config": {"architecture": "mobilenetv5_300m_enc"}, "audio_config": {}, "torch_dtype": "bfloat16",
    }  # fmt: skip


E4B, E2B = gemma_3n(35, 16384, 15), gemma_3n(30, 8192, 10)
GEMMA_4_26B: dict[str, Any] = {
    "model_type": "gemma4", "architectures": ["Gemma4ForConditionalGeneration"], "torch_dtype": "bfloat16",
    "audio_config": None, "tie_word_embeddings": True,
    "text_config": {
        "attention_k_eq_v": True, "enable_moe_block": True, "global_head_dim": 512, "head_dim": 256,
        "hidden_size": 2816, "hidden_size_per_layer_input": 0, "intermediate_size": 2112, "model_type": "gemma4_text",
        "moe_intermediate_size": 704, "num_attention_heads": 16, "num_experts": 128, "num_global_key_value_heads": 2,
        "num_hidden_layers": 30, "num_key_value_heads": 8, "num_kv_shared_layers": 0, "sliding_window": 1024,
        "top_k_experts": 8, "use_bidirectional_attention": "vision", "vocab_size": 262144,
    },
    "vision_config": {
        "head_dim": 72, "hidden_size": 1152, "intermediate_size": 4304, "model_type": "gemma4_vision",
        "num_attention_heads": 16, "num_hidden_layers": 27, "num_key_value_heads": 16, "patch_size": 16,
        "position_embedding_size": 10240, "standardize": True, "use_clipped_linears": False,
    },
}  # fmt: skip
"""google/gemma-4-26B-A4B."""


@pytest.mark.parametrize(("config", "published"), [(E4B, 7_849_978_192), (E2B, 5_439_438_272)])
def test_a_file_of_3n_has_the_published_count(config: dict[str, Any], published: int) -> None:
    """The Hub's counts of google/gemma-3n-E4B-it and E2B-it, vision, sound and unread keys and values in them."""
    assert published == sum(t.num_parameters for t in inventory(read_config(config, "3n")))


def gemma_4(every: int, **text: object) -> dict[str, Any]:
    """Return Gemma 4 E2B or E4B; what both have is the class default, or here. One layer in ``every`` is global."""
    layers = int(str(text["num_hidden_layers"]))
    kinds = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
    both = {"head_dim": 256, "global_head_dim": 512, "num_attention_heads": 8, "hidden_size_per_layer_input": 256}
    return {
        "model_type": "gemma4", "text_config": {"model_type": "gemma4_text", **both, **text, "layer_types": kinds},
        "vision_config": {"model_type": "gemma4_vision", "use_clipped_linears": True},
        "audio_config": {"model_type": "gemma4_audio"}, "torch_dtype": "bfloat16",
    }  # fmt: skip


GEMMA_4_E4B = gemma_4(
    6, hidden_size=2560, num_hidden_layers=42, num_key_value_heads=2, intermediate_size=10240, num_kv_shared_layers=18
)
GEMMA_4_E2B = gemma_4(
    5, hidden_size=1536, num_hidden_layers=35, num_key_value_heads=1, intermediate_size=6144, num_kv_shared_layers=20,
    use_double_wide_mlp=True,
)  # fmt: skip


@pytest.mark.parametrize(("config", "published"), [(GEMMA_4_E4B, 7_996_156_490), (GEMMA_4_E2B, 5_123_178_051)])
def test_a_file_of_4_has_the_published_count(config: dict[str, Any], published: int) -> None:
    """The Hub's counts of google/gemma-4-E4B-it and E2B-it: all but the single numbers that matrices clip at."""
    assert published == sum(prod(t.shape) for t in inventory(read_config(config, "4")) if t.shape)


def test_a_clipped_matrix_has_four_limits() -> None:
    """Seven matrices in each of 16 blocks that see, ten in each of 12 that hear: 928, buffers all."""
    limits = [t for t in inventory(read_config(GEMMA_4_E2B, "4")) if t.shape == ()]
    assert 4 * (7 * 16 + 10 * 12) == len(limits)
    assert 0 == sum(t.num_parameters for t in limits)


def test_unread_keys_and_values_stay_on_disk() -> None:
    """15 layers read an earlier cache: two matrices of 512 x 2,048 and a norm of 256 each."""
    spec = read_config(E4B, "3n")
    left = next(p for p in spec.parts if not p.resident)
    assert 15 * (2 * 512 * 2048 + 256) == left.num_parameters
    assert "model.language_model.layers.20.self_attn.k_proj.weight" in {t.name for t in inventory(spec)}
    assert 7_849_978_192 - left.num_parameters == spec.num_parameters


def test_mobilenet_is_three_hundred_million() -> None:
    """294,126,912 parameters in timm's own mobilenetv5_300m_enc, and 128 + 2 rows and a matrix to the text's width."""
    tower = next(p for p in read_config(E4B, "3n").parts if p.name == "vision tower")
    assert 294_126_912 + (128 + 2) * 2048 + 2048 * 2048 == tower.num_parameters


def cached(spec: ModelSpec) -> list[int]:
    """Return the bytes a token adds in each layer."""
    workload = Inference(context_tokens=1, kv_format_k="bf16", kv_format_v="bf16")
    return [token_bytes(layer.attention, workload) for layer in spec.layers if layer.attention is not None]


def test_layers_that_share_cache_nothing() -> None:
    """The first 20 of 35 keep 2 x 2 heads x 256 numbers of two bytes, the last 15 none."""
    assert [2 * 2 * 256 * 2] * 20 + [0] * 15 == cached(read_config(E4B, "3n"))


def test_global_layers_of_4_have_fewer_and_wider_heads() -> None:
    """26B: 8 x 256 in sliding layers, 2 x 512 in every sixth; keys that are values are cached twice all the same."""
    assert ([2 * 8 * 256 * 2] * 5 + [2 * 2 * 512 * 2]) * 5 == cached(read_config(GEMMA_4_26B, "26B"))


def test_the_count_of_26b_and_what_a_token_passes() -> None:
    """25,805,933,872 by transformers on the meta device; of 128 experts a token passes 8."""
    spec = read_config(GEMMA_4_26B, "26B")
    assert 25_805_933_872 == spec.num_parameters
    assert 30 * 120 * 3 * 704 * 2816 == spec.num_parameters - spec.num_active_parameters


def test_a_network_stands_beside_the_experts() -> None:
    """All tokens pass it: it is told as a shared expert."""
    facts = read_config(GEMMA_4_26B, "26B").layers[0].feed_forward
    assert isinstance(facts, Experts)
    assert (704, 2112) == (facts.moe_intermediate_size, facts.shared_intermediate_size)


def test_the_last_layer_of_4_is_global() -> None:
    """Whatever ``layer_types`` says; transformers forces it."""
    text = {**GEMMA_4_26B["text_config"], "layer_types": ["sliding_attention"] * 30}
    windows = [
        layer.attention.window_tokens
        for layer in read_config({**GEMMA_4_26B, "text_config": text}, "26B").layers
        if isinstance(layer.attention, GroupedQuery)
    ]
    assert [1024] * 29 + [None] == windows


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("text_config", "intermediate_size", [1, 2], "intermediate_size: .*: expected an integer, or a list of 35"),
        ("text_config", "num_kv_shared_layers", 34, "num_kv_shared_layers: 34: expected fewer"),
        ("text_config", "use_bidirectional_attention", True, "makes an encoder of it"),
        ("vision_config", "architecture", "resnet50", "architecture: 'resnet50': another tower"),
        ("audio_config", "sscp_conv_kernel_size", [[5, 5], [3, 3]], "sscp_conv_kernel_size"),
        ("audio_config", "conf_num_attention_heads", 7, "conf_num_attention_heads: 7: expected a divisor"),
        ("audio_config", "sscp_conv_channel_size", [1], "a list of two integers"),
    ],
)
def test_what_is_not_understood_in_3n_is_refused(section: str, field: str, value: object, message: str) -> None:
    """With the path of the field."""
    with pytest.raises((InvalidValueError, UnsupportedModelError), match=message):
        read_config({**E4B, section: {**E4B[section], field: value}}, "3n")


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("text_config", "use_bidirectional_attention", "all", "makes an encoder of it"),
        ("text_config", "num_experts", None, "text_config.num_experts: missing"),
        ("text_config", "num_global_key_value_heads", 3, "3: expected a divisor"),
        ("text_config", "per_layer_config", {"0": {}}, "facts of single layers"),
        ("vision_config", "attention_bias", True, "vision_config.attention_bias: True"),
    ],
)
def test_what_is_not_understood_in_4_is_refused(section: str, field: str, value: object, message: str) -> None:
    """With the path of the field."""
    with pytest.raises((InvalidValueError, UnsupportedModelError), match=message):
        read_config({**GEMMA_4_26B, section: {**GEMMA_4_26B[section], field: value}}, "4")
