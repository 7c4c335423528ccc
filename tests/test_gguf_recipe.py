"""File labels of llama.cpp: bytes of published files, to the byte."""

from __future__ import annotations

import re

import pytest

from vramfit import gguf_recipe
from vramfit.catalogue.model import find_model
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


GIB = 2**30
GEMMA = {"model_type": "gemma", "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
         "num_key_value_heads": 16, "head_dim": 256, "intermediate_size": 24576, "vocab_size": 256000,
         "tie_word_embeddings": True}  # fmt: skip
GEMMA2 = {**GEMMA, "model_type": "gemma2", "hidden_size": 3584, "num_hidden_layers": 42, "num_key_value_heads": 8,
          "intermediate_size": 14336, "sliding_window": 4096}  # fmt: skip
PHI3 = {"model_type": "phi3", "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "intermediate_size": 8192, "vocab_size": 32064, "tie_word_embeddings": False,
        "sliding_window": 2047}  # fmt: skip
LLAMA_70B = {"model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
             "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256,
             "tie_word_embeddings": False}  # fmt: skip
LLAMA_3B = {"model_type": "llama", "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24,
            "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 8192, "vocab_size": 128256,
            "tie_word_embeddings": True}  # fmt: skip
QWEN_7B = {"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
           "tie_word_embeddings": False}  # fmt: skip
MIXTRAL = {"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000, "num_local_experts": 8,
           "num_experts_per_tok": 2, "tie_word_embeddings": False}  # fmt: skip
DEEPSEEK_V2_LITE = dict(find_model("deepseek-ai/DeepSeek-V2-Lite").config)
PUBLISHED: tuple[tuple[str, dict[str, object], float, dict[str, float]], ...] = (
    # where the sizes stand, the model's configuration, resolution of the sizes in bytes, label -> bytes
    ("legraphista/DeepSeek-V2-Lite-IMat-GGUF@ccfabc2, @302821d, @6467c03, @a724f90, @ae0dc8a, @296e13c, @16b2484 (LFS)",
     DEEPSEEK_V2_LITE, 1,
     {"Q2_K": 6_430_464_544, "Q2_K_S": 6_455_376_416, "Q3_K_M": 8_126_606_880, "Q3_K_L": 8_459_398_688,
      "Q4_K_S": 9_533_608_480, "Q4_K_M": 10_364_416_544, "Q5_K_M": 11_851_313_440}),
    ("tensorblock/codegemma-7b-GGUF@2ea4e67 (LFS pointers)", GEMMA, 1,
     {"Q3_K_L": 4_709_067_680, "Q3_K_S": 3_982_404_512, "Q4_0": 5_011_844_000}),
    ("xiangjhe/gemma-7b-gguf@aa2b07f (LFS pointer of gemma7bQ5K.gguf)", GEMMA, 1, {"Q5_K_M": 6_144_828_576}),
    ("bartowski/gemma-2-9b-it-GGUF@599b2dd (list of files)", GEMMA2, 5e6,
     {"IQ2_M": 3.43e9, "IQ2_S": 3.21e9, "IQ2_XS": 3.07e9, "IQ3_M": 4.49e9, "IQ3_XS": 4.15e9, "IQ3_XXS": 3.8e9,
      "IQ4_XS": 5.18e9, "Q2_K": 3.81e9, "Q3_K_L": 5.13e9, "Q3_K_M": 4.76e9, "Q3_K_S": 4.34e9, "Q4_K_M": 5.76e9,
      "Q4_K_S": 5.48e9}),
    ("PrunaAI/Phi-3-mini-4k-instruct-GGUF-Imatrix-smashed@9faa41b (LFS pointer)", PHI3, 1, {"Q5_K_S": 2_641_473_312}),
    ("QuantFactory/Phi-3-mini-4k-instruct-GGUF-v2@cf29f18 (LFS pointer)", PHI3, 1, {"Q4_1": 2_408_824_768}),
    ("bartowski/Phi-3.1-mini-4k-instruct-GGUF@31bf005 (LFS pointer)", PHI3, 1, {"Q6_K_L": 3_183_564_000}),
    ("ozeki.chat/p_8590-understanding-ai-model-files.html (bartowski's card of a Llama 3.1 70B)", LLAMA_70B, 5e6,
     {"Q8_0": 74.98e9, "Q6_K": 57.89e9, "Q5_K_L": 50.60e9, "Q5_K_M": 49.95e9, "Q5_K_S": 48.66e9, "Q4_K_L": 43.30e9,
      "Q4_K_M": 42.52e9, "Q4_K_S": 40.35e9, "Q4_0": 40.12e9, "Q3_K_XL": 38.06e9, "IQ4_XS": 37.90e9,
      "Q3_K_L": 37.14e9, "Q3_K_M": 34.27e9, "IQ3_M": 31.94e9, "Q3_K_S": 30.91e9}),
    ("Llama-3.2-3B-Instruct, geerlingguy/ai-benchmarks#53 (download log)", LLAMA_3B, 1, {"Q4_K_M": 2_019_377_696}),
    ("lmstudio-community/Qwen2.5-7B-Instruct-GGUF@241ab5c (page of the file)", QWEN_7B, 5e6, {"Q4_K_M": 4.68e9}),
    ("qwen2 7B, ggml-org/llama.cpp#16894 (llama-bench)", QWEN_7B, 0.005 * GIB, {"Q8_0": 7.54 * GIB}),
    ("TheBloke/Mixtral-8x7B-v0.1-GGUF@e52eddd (LFS pointer)", MIXTRAL, 1, {"Q8_0": 49_624_262_080}),
    ("TheBloke/Mixtral-8x7B-Instruct-v0.1-GGUF@3c5aa61 (LFS pointer)", MIXTRAL, 1, {"Q4_0": 26_441_533_376}),
    ("Artefact2/Mixtral-8x7B-Instruct-v0.1-GGUF@9c19212, @a387f72 (LFS pointers)", MIXTRAL, 1,
     {"Q6_K": 38_378_760_064, "Q5_K_M": 33_227_523_968}),
    ("Artefact2/Mixtral-8x7B-v0.1-GGUF@f656695 (LFS pointer)", MIXTRAL, 1, {"Q5_K_S": 32_229_279_104}),
)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "config", "resolution", "label", "size"),
    [
        pytest.param(source, config, resolution, label, size, id=f"{label}-{source}")
        for source, config, resolution, files in PUBLISHED
        for label, size in files.items()
    ],
)
def test_published_files_of_other_models(
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    config: dict[str, object],
    resolution: float,
    label: str,
    size: float,
) -> None:
    """Within 0.5 % of the whole file, header and vocabulary included; Mixtral's old files have the router in F16.

    The quantiser of 2024 counted latent attention's up-projection as any matrix, today's as values
    (ggml-org/llama.cpp:src/llama-quant.cpp, category_is_attn_v).
    """
    if "DeepSeek-V2-Lite" in source:
        before = [(re.compile(p.pattern.replace("|kv_b_proj", "")), place) for p, place in gguf_recipe._PLACES]
        monkeypatch.setattr(gguf_recipe, "_PLACES", tuple(before))
        monkeypatch.setattr(gguf_recipe, "_place", gguf_recipe._place.__wrapped__)
        monkeypatch.setattr(gguf_recipe, "as_gguf", as_gguf.__wrapped__)
    tensors = weight_bytes(gguf_recipe.as_gguf(read_model(config), f"gguf:{label}"))
    router = 32 * 8 * 4096 * 2 if config is MIXTRAL else 0
    assert -resolution - router <= size - tensors <= 0.005 * size, source


def test_fused_queries_had_other_types_before() -> None:
    """Phi-3's files of 2024: queries, keys and values in one matrix of 9,216 x 3,072, counted as values only since.

    llama.cpp gave all of them Q5_K under Q4_K_M, Q6_K under Q5_K_M and the label's own type under Q2_K (file of
    PrunaAI/Phi-3-mini-4k-instruct-GGUF-Imatrix-smashed at 0d493b2, 65ab280 and a80f0e2). category_is_attn_v of
    today's src/llama-quant.cpp treats them as values: half in Q6_K and half in the label's type, or Q3_K under Q2_K.
    """
    elements = 32 * 9216 * 3072
    bits = {"Q2_K": 84, "Q3_K": 110, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210}  # bytes of a block of 256
    rules = {
        "Q4_K_M": (2_393_231_136, bits["Q5_K"], (bits["Q6_K"] + bits["Q4_K"]) / 2),
        "Q5_K_M": (2_815_274_784, bits["Q6_K"], (bits["Q6_K"] + bits["Q5_K"]) / 2),
        "Q2_K": (1_416_203_040, bits["Q2_K"], bits["Q3_K"]),
    }
    for label, (size, then, now) in rules.items():
        today = weight_bytes(as_gguf(read_model(PHI3), f"gguf:{label}"))
        before = today - elements // 256 * (now - then)
        assert 0 <= size - before <= 0.001 * size


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


def test_fused_projections_of_linear_layers_count_as_values() -> None:
    """attn_qkv of a gated delta network gets more bits where a value projection would: layer 0 of 64, not layer 9."""
    spec = as_gguf(read_model("Qwen/Qwen3.5-27B"), "gguf:Q4_K_M")
    stored = [
        next(t.stored.name for t in spec.layers[n].tensors if t.name.endswith("in_proj_qkv.weight") and t.stored)
        for n in (0, 9)
    ]
    assert stored == ["gguf:Q6_K", "gguf:Q4_K"]


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


def test_dynamic_labels_say_where_their_sizes_stand() -> None:
    """Only the file knows Unsloth's mixtures: the way to it is named."""
    with pytest.raises(VramfitError, match=r"only the file says what it holds: name it, such as org/name:UD-Q4_K_XL"):
        estimate(read_model("llama-3.1-8b"), Inference(weight_format="gguf:ud-q4_k_xl"))
