"""Decoders whose code lies beside their weights: counts of their publishers, names of their files."""

from __future__ import annotations

from math import prod

import pytest

from published_remote import (
    BAICHUAN_13B,
    CHATGLM_6B,
    EXAONE_3_5_7_8B,
    INTERNLM2_7B,
    MIMO_7B,
    OPENELM_270M,
    PUBLISHED,
    QWEN_7B,
    TELECHAT_12B,
    Published,
    glm,
    sizes,
)
from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import Cut, inventory


@pytest.mark.parametrize("model", [pytest.param(m, id=m.name) for m in PUBLISHED])
def test_the_file_has_as_many_elements_as_its_publisher_says(model: Published) -> None:
    """To the unit."""
    assert model.in_file == sum(prod(t.shape) for t in inventory(read_config(model.config, model.name)))


def test_telechat_12b_by_hand() -> None:
    """38 blocks and two tables; biases on the two matrices that lead back to the width."""
    attention = 5120 * 5120 + 10240 * 5120 + 5120 * 5120 + 5120
    network = 3 * 5120 * 12288 + 5120
    expected = 38 * (attention + network + 2 * 5120) + 2 * 120_000 * 5120 + 5120
    assert expected == read_config(TELECHAT_12B, "TeleChat-12B").num_parameters


@pytest.mark.parametrize("kind", ["aquila", "skywork", "xverse"])
def test_llama_under_another_name(kind: str) -> None:
    """Llama's class in vLLM (Aquila, XVERSE) and TensorRT-LLM (Skywork); the sizes are Aquila-7B's."""
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096
    spec = read_config(sizes(kind, 4096, 32, 32, 11008, 100_008), kind)
    assert 32 * layer + 2 * 100_008 * 4096 + 4096 == spec.num_parameters
    assert "model.layers.31.mlp.gate_proj.weight" in {t.name for t in inventory(spec)}


def test_orion_14b_by_hand() -> None:
    """Llama with norms that have biases."""
    layer = 4 * 5120 * 5120 + 3 * 5120 * 15360 + 4 * 5120
    spec = read_config(sizes("orion", 5120, 40, 40, 15360, 84_608), "Orion-14B")
    assert 40 * layer + 2 * 84_608 * 5120 + 2 * 5120 == spec.num_parameters


def test_internlm_1_has_four_biases() -> None:
    """``bias`` is true where the file does not say, as in InternLM-7B, and is told."""
    config = sizes("internlm", 4096, 32, 32, 11008, 103_168)
    spec = read_config(config, "InternLM-7B")
    without = read_config({**config, "bias": False}, "InternLM-7B")
    assert 32 * 4 * 4096 == spec.num_parameters - without.num_parameters
    assert "bias = True (class default in the code beside the weights; the configuration has none)" in spec.assumptions


@pytest.mark.parametrize(
    ("config", "name", "shape", "cut"),
    [
        (BAICHUAN_13B, "model.layers.0.self_attn.W_pack.weight", (15360, 5120), Cut.QUERY_KEY_VALUE),
        (INTERNLM2_7B, "model.layers.31.attention.wqkv.weight", (6144, 4096), Cut.QUERY_KEY_VALUE),
        (INTERNLM2_7B, "model.layers.31.feed_forward.w2.weight", (4096, 14336), Cut.INPUTS),
        (INTERNLM2_7B, "output.weight", (92544, 4096), Cut.VOCABULARY),
        (EXAONE_3_5_7_8B, "transformer.h.3.attn.attention.k_proj.weight", (1024, 4096), Cut.KEY_VALUE_HEADS),
        (EXAONE_3_5_7_8B, "transformer.h.3.mlp.c_fc_1.weight", (14336, 4096), Cut.OUTPUTS),
        (QWEN_7B, "transformer.h.0.attn.c_attn.bias", (12288,), Cut.QUERY_KEY_VALUE),
        (QWEN_7B, "transformer.h.0.mlp.w1.weight", (11008, 4096), Cut.OUTPUTS),
        (glm(28, 65024), "transformer.encoder.layers.27.self_attention.query_key_value.weight", (4608, 4096),
         Cut.QUERY_KEY_VALUE),
        (glm(28, 65024), "transformer.encoder.layers.27.mlp.dense_h_to_4h.weight", (27392, 4096), Cut.OUTPUTS),
        (glm(28, 65024), "transformer.output_layer.weight", (65024, 4096), Cut.VOCABULARY),
        (CHATGLM_6B, "transformer.layers.0.attention.query_key_value.weight", (12288, 4096), Cut.QUERY_KEY_VALUE),
        (CHATGLM_6B, "transformer.layers.0.mlp.dense_h_to_4h.weight", (16384, 4096), Cut.OUTPUTS),
        (TELECHAT_12B, "transformer.h.0.self_attention.key_value.weight", (10240, 5120), Cut.KEY_VALUE_HEADS),
        (TELECHAT_12B, "transformer.h.37.mlp.down_proj.bias", (5120,), Cut.WHOLE),
        (MIMO_7B, "model.mtp_layers.0.input_proj.weight", (4096, 8192), Cut.WHOLE),
    ],
)  # fmt: skip
def test_names_are_those_of_the_file(config: dict[str, object], name: str, shape: tuple[int, ...], cut: Cut) -> None:
    """One of each unusual name, with its shape and how it is divided."""
    found = {t.name: (t.shape, t.cut) for t in inventory(read_config(config, "model"))}
    assert (shape, cut) == found[name]


def test_a_plain_load_of_mimo_leaves_its_prediction_layer_on_disk() -> None:
    """A block, three norms and a matrix from twice the width: 210,790,400 of 7,833,409,536."""
    spec = read_config(MIMO_7B, "MiMo-7B")
    block = 4096 * (4096 + 2 * 1024) + 6144 + 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096
    assert block + 3 * 4096 + 4096 * 8192 == spec.parts[0].num_parameters
    assert 7_833_409_536 - 210_790_400 == spec.num_parameters


def test_glm_has_two_kv_heads() -> None:
    """Groups of ``multi_query_group_num``; as many as heads without multi-query attention."""
    facts = read_config(glm(28, 65024), "glm").layers[0].attention
    many = read_config({**glm(28, 65024), "multi_query_attention": False}, "glm").layers[0].attention
    assert isinstance(facts, GroupedQuery)
    assert isinstance(many, GroupedQuery)
    assert (2, 32) == (facts.num_key_value_heads, many.num_key_value_heads)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**QWEN_7B, "no_bias": False}, "no_bias: False: expected true"),
        ({**QWEN_7B, "intermediate_size": 22015}, "intermediate_size: 22015: expected an even number"),
        ({**glm(28, 65024), "multi_query_group_num": 3}, "multi_query_group_num: 3: expected a divisor"),
        ({**glm(28, 65024), "rmsnorm": False}, "rmsnorm: False: expected true"),
        ({**OPENELM_270M, "num_kv_heads": [3] * 15}, "num_kv_heads: .*: expected a list of 16 integers"),
        ({**OPENELM_270M, "num_kv_heads": [5] * 16}, r"num_kv_heads\[0\]: 5: expected a divisor"),
        ({**OPENELM_270M, "ffn_multipliers": [float("nan")] * 16}, r"ffn_multipliers\[0\]: nan"),
        ({**OPENELM_270M, "ffn_multipliers": None}, "ffn_multipliers: None: expected a list of 16 numbers"),
        ({**OPENELM_270M, "ffn_with_glu": False}, "ffn_with_glu: False: expected true"),
        ({**TELECHAT_12B, "embed_layernorm": True}, "embed_layernorm: True"),
        ({**INTERNLM2_7B, "num_key_value_heads": 5}, "num_key_value_heads: 5: expected a divisor"),
    ],
)
def test_what_is_not_understood_is_refused(config: dict[str, object], message: str) -> None:
    """With the path of the field."""
    with pytest.raises((InvalidValueError, UnsupportedModelError), match=message):
        read_config(config, "model")
