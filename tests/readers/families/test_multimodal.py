"""Models that see: published counts, the image's cache, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from multimodal_configs import (
    KIMI_VL_A3B,
    LLAMA_3_2_11B_VISION,
    MINICPM_V_2_6,
    MOLMO_7B_D,
    PHI_3_5_VISION,
    PUBLISHED,
)
from vramfit.errors import VramfitError
from vramfit.estimate import estimate
from vramfit.layer_kind import CrossAttention
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    """The count is the published one, to the unit."""
    config, count = PUBLISHED[name]
    assert count == read_config(config, name).num_parameters


def test_kimi_vl_against_its_index() -> None:
    """Half the bytes of the published index, less what is no parameter.

    16,407,657,776 (census of the published files, LLM weights and tower) =
    parameters + 26 correction biases of 64 + 27 tables of 32 rotary frequencies, which are fp32 and count twice.
    """
    spec = read_config(KIMI_VL_A3B, "Kimi-VL-A3B")
    assert spec.num_parameters == 16_407_657_776 - 26 * 64 - 27 * 32 * 2


def test_an_image_fills_the_cross_attention_of_llama_3_2() -> None:
    """8 layers x 2 x 8 heads x 128 x 2 B x 6,404 vectors: four tiles of 40 x 40 patches and a class token each."""
    spec = read_config(LLAMA_3_2_11B_VISION, "Llama-3.2-11B-Vision")
    crossing = [layer.attention for layer in spec.layers if isinstance(layer.attention, CrossAttention)]
    assert [(a.source_tokens, a.num_key_value_heads) for a in crossing] == [(4 * 1601, 8)] * 8
    need = estimate(spec, Inference(context_tokens=1000))
    items = {item.name: item.bytes for item in need.breakdowns[0].items}
    assert items["kv_cache/cross_attention"] == 8 * 2 * 8 * 128 * 2 * 6404
    assert items["kv_cache/full_attention"] == 32 * 2 * 8 * 128 * 2 * 1000


@pytest.mark.parametrize(
    ("config", "change", "complaint"),
    [
        (MINICPM_V_2_6, {"version": 2.0}, "version: 2.0: expected one of 2.5, 2.6"),
        (MINICPM_V_2_6, {"architectures": ["MiniCPMO"]}, r"architectures\[0\]: 'MiniCPMO': expected one of MiniCPMV"),
        (PHI_3_5_VISION, {"img_processor": {"name": "other"}}, "img_processor.name: 'other'"),
        (LLAMA_3_2_11B_VISION, {"architectures": ["MllamaForCausalLM"]}, "expected one of MllamaForConditional"),
        (KIMI_VL_A3B, {"vision_config": {"model_type": "other"}}, "vision_config.model_type: 'other'"),
        (KIMI_VL_A3B, {"text_config": {"model_type": "llava"}}, "text_config.model_type: 'llava'"),
        (KIMI_VL_A3B, {"vision_config": {"merge_kernel_size": [2, "2"]}}, r"vision_config.merge_kernel_size\[1\]"),
    ],
)
def test_refusals(config: dict[str, Any], change: dict[str, Any], complaint: str) -> None:
    """Another version, class, tower or language model is refused with the path of the field."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**config, **change}, "x")


def test_without_its_last_block() -> None:
    """MiniCPM-V may leave the tower's last block out: 12 h^2 + (2 h w + biases and norms) fewer parameters."""
    fewer = read_config({**MINICPM_V_2_6, "drop_vision_last_layer": True}, "x").num_parameters
    hidden, width = 1152, 4304
    block = 4 * (hidden**2 + hidden) + 2 * hidden * width + width + hidden + 4 * hidden
    assert fewer == 8_099_175_152 - block


def test_molmo_by_hand() -> None:
    """Molmo 7B-D: Qwen2 7B with 128 more words, CLIP's tower without its last block, pooling over two of its blocks."""
    hidden, kv, width, words, inside = 3584, 512, 18944, 152064, 1024
    block = 2 * hidden + (hidden + 1) * (hidden + 2 * kv) + hidden**2 + 3 * hidden * width
    text = (2 * words + 128) * hidden + 28 * block + hidden
    square = inside**2 + inside
    eye = 23 * (4 * square + 2 * inside * 4096 + 4096 + inside + 4 * inside) + (1 + 577 + 588 + 2) * inside
    pooled = 3 * (2 * inside**2 + inside) + square + 2 * inside * width + width * hidden + 2 * 2 * inside
    assert text + eye + pooled == read_config(MOLMO_7B_D, "Molmo-7B-D").num_parameters


def test_a_tower_that_is_null_is_left_out_and_said_to_be() -> None:
    """A file that names no tower is its language model, under the names that the whole file has."""
    text = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 96, "vocab_size": 101}  # fmt: skip
    config = {"model_type": "llava", "text_config": text, "vision_config": None, "tie_word_embeddings": False}
    spec = read_config(config, "mine")
    assert () == spec.parts
    assert read_config({**text, "tie_word_embeddings": False}, "text").num_parameters == spec.num_parameters
    assert any("vision_config is null or missing: no tower" in text for text in spec.assumptions)
