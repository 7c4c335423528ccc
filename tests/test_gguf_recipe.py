"""File labels of llama.cpp: bytes of published files, to the byte."""

from __future__ import annotations

import pytest

from vramfit.errors import VramfitError
from vramfit.estimate import estimate
from vramfit.gguf_recipe import as_gguf
from vramfit.memory.weights import weight_bytes
from vramfit.request import Inference
from vramfit.source import read_model

LLAMA_HEADER = 7_841_184
"""Metadata, vocabulary and the 64 rope factors in every quantised file of Llama 3.1 8B below."""
LLAMA_FILES = {
    "IQ2_M": 2_948_285_856, "IQ3_M": 3_784_828_320, "IQ3_XS": 3_518_752_160, "IQ4_NL": 4_677_993_888,
    "IQ4_XS": 4_447_667_616, "Q2_K": 3_179_136_416, "Q2_K_L": 3_692_160_416, "Q3_K_L": 4_321_961_376,
    "Q3_K_M": 4_018_922_912, "Q3_K_S": 3_664_504_224, "Q3_K_XL": 4_781_630_880, "Q4_K_L": 5_310_637_472,
    "Q4_K_M": 4_920_739_232, "Q4_K_S": 4_692_673_952, "Q5_K_L": 6_057_223_584, "Q5_K_M": 5_732_992_416,
    "Q5_K_S": 5_599_298_976, "Q6_K": 6_596_011_424, "Q6_K_L": 6_850_471_328, "Q8_0": 8_540_775_840,
}  # fmt: skip
"""bartowski/Meta-Llama-3.1-8B-Instruct-GGUF at bf5b95e: bytes of each file."""
QWEN_HEADER = 5_973_152
QWEN_FILES = {
    "IQ4_NL": 17_310_784_672, "Q2_K": 11_258_612_896, "Q3_K_M": 14_711_850_144, "Q3_K_S": 13_292_471_456,
    "Q4_1": 19_192_503_456, "Q4_K_M": 18_556_689_568, "Q4_K_S": 17_456_012_448, "Q5_K_M": 21_725_584_544,
    "Q5_K_S": 21_080_513_696, "Q6_K": 25_092_535_456, "Q8_0": 32_483_935_392,
}  # fmt: skip
"""unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF at b17cb02, the files made by llama.cpp's own rules: Unsloth gives
embeddings in IQ4_XS and down projections in Q4_0 other types (0.06 and 0.4 % more)."""


@pytest.mark.parametrize("label", LLAMA_FILES)
def test_published_files_of_llama_3_1_8b(label: str) -> None:
    """The tensors take what the published file has beyond its header, which is the same for every label."""
    spec = as_gguf(read_model("llama-3.1-8b"), f"gguf:{label}")
    assert LLAMA_FILES[label] - LLAMA_HEADER == weight_bytes(spec)


@pytest.mark.parametrize("label", QWEN_FILES)
def test_published_files_of_qwen3_coder_30b(label: str) -> None:
    """128 experts in each of 48 layers, to the byte."""
    spec = as_gguf(read_model("Qwen/Qwen3-30B-A3B"), f"gguf:{label}")
    assert QWEN_FILES[label] - QWEN_HEADER == weight_bytes(spec)


def test_published_file_of_mistral_7b() -> None:
    """TheBloke/Mistral-7B-Instruct-v0.2-GGUF, Q4_K_M: 4,368,439,584 bytes, data from byte 735,520 on."""
    spec = as_gguf(read_model("mistralai/Mistral-7B-Instruct-v0.2"), "gguf:Q4_K_M")
    assert 4_368_439_584 - 735_520 == weight_bytes(spec)


def test_each_layer_has_its_own_mixture() -> None:
    """Q4_K_M of 32 layers: 4 first, 4 last and every third between have 6 bits in value and down projections."""
    spec = as_gguf(read_model("llama-3.1-8b"), "gguf:Q4_K_M")
    rich = [
        number
        for number, layer in enumerate(spec.layers)
        if any(t.name == "mlp.down_proj.weight" and t.stored and t.stored.name == "gguf:Q6_K" for t in layer.tensors)
    ]
    assert rich == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]


def test_rows_that_do_not_divide_fall_back() -> None:
    """Rows of 896 in Qwen2.5-0.5B are no multiple of 256: Q4_K becomes Q5_0, the tied embedding Q8_0."""
    spec = as_gguf(read_model("Qwen/Qwen2.5-0.5B-Instruct"), "gguf:Q4_K_M")
    kinds = {t.name: t.stored.name for t in spec.layers[8].tensors if t.stored}
    assert kinds["self_attn.q_proj.weight"] == "gguf:Q5_0"
    assert spec.embeddings[0].stored is not None
    assert spec.embeddings[0].stored.name == "gguf:Q8_0"


def test_eight_experts_have_rules_of_their_own() -> None:
    """Mixtral: keys and values in Q8_0, outputs in Q5_K, the router in F32."""
    spec = as_gguf(read_model("mistralai/Mixtral-8x7B-Instruct-v0.1"), "gguf:Q4_K_M")
    kinds = {t.name: t.stored.name for t in spec.layers[5].tensors if t.stored}
    assert kinds["self_attn.k_proj.weight"] == kinds["self_attn.v_proj.weight"] == "gguf:Q8_0"
    assert kinds["self_attn.o_proj.weight"] == "gguf:Q5_K"
    assert kinds["block_sparse_moe.gate.weight"] == "gguf:F32"


def test_an_estimate_takes_a_label() -> None:
    """The cache of a GGUF model is fp16 unless asked otherwise; the label's name is what was asked for."""
    need = estimate(read_model("llama-3.1-8b"), Inference(weight_format="gguf:q4_k_m", context_tokens=4096))
    assert 4_920_739_232 - LLAMA_HEADER == need.weights_bytes
    assert 131_072 == need.kv_bytes_per_token


@pytest.mark.parametrize("label", ["gguf:UD-Q4_K_XL", "gguf:Q4_K_XXL", "gguf:"])
def test_labels_chosen_model_by_model_are_refused(label: str) -> None:
    """Unsloth's mixtures cannot be derived; nor can what nobody makes."""
    with pytest.raises(VramfitError, match="weight_format"):
        estimate(read_model("llama-3.1-8b"), Inference(weight_format=label))
