"""Weights: bytes by role and format, and what stays in 16 bit."""

from __future__ import annotations

import pytest

from vramfit.estimate import estimate
from vramfit.formats import weight_format
from vramfit.memory.weights import weight_bytes
from vramfit.request import Inference
from vramfit.result import Basis, Phase
from vramfit.source import read_model

EMBEDDING_8B = 128_256 * 4_096
NORMS_8B = 65 * 4_096
MATRICES_8B = 8_030_261_248 - 2 * EMBEDDING_8B - NORMS_8B


def test_16_bit_weights_are_two_bytes_a_parameter() -> None:
    """8,030,261,248 x 2 B."""
    assert 16_060_522_496 == weight_bytes(read_model("meta-llama/Llama-3.1-8B"))


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("int8", 8),  # and one fp32 per output row
        ("nf4", 4.5),  # 64 elements: 32 B and an fp32 maximum
        ("nf4-dq", 4 + 8 / 64 + 32 / (64 * 256)),
        ("awq-int4", 4 + (16 + 4) / 128),
        ("mxfp4", 4.25),
        ("nvfp4", 4.5),
        ("fp8-block", 8 + 32 / 128**2),
    ],
)
def test_block_matrices_are_quantised_and_the_rest_is_not(name: str, bits: float) -> None:
    """Embeddings, output projection and norms stay in bf16; matrices take the format's bits, tables below 0.1 %."""
    need = estimate(read_model("meta-llama/Llama-3.1-8B"), Inference(weight_format=name, context_tokens=1))
    kept = 2 * (2 * EMBEDDING_8B + NORMS_8B)
    assert kept + MATRICES_8B * bits / 8 == pytest.approx(need.weights_bytes, rel=1e-3)


def test_gguf_stores_all_matrices_in_blocks_and_norms_in_fp32() -> None:
    """Q8_0: 34 B per 32 elements, embeddings and head too; 65 norms of 4,096 in fp32."""
    need = estimate(read_model("meta-llama/Llama-3.1-8B"), Inference(weight_format="gguf:Q8_0", context_tokens=1))
    assert (8_030_261_248 - NORMS_8B) * 34 // 32 + 4 * NORMS_8B == need.weights_bytes


def test_gguf_rows_that_do_not_divide_fall_back() -> None:
    """Rows of 896 are not whole blocks of 256: Q4_K falls back to Q5_0, 22 B per 32."""
    assert 10 * 896 * 22 // 32 == weight_format("gguf:Q4_K").tensor_size((10, 896))


def test_gpt_oss_keeps_all_but_experts_in_16_bit() -> None:
    """Published files of gpt-oss-20b hold about 13.76 GB: experts in MXFP4, attention and embeddings in bf16."""
    size = weight_bytes(read_model("openai/gpt-oss-20b"))
    assert 13_761_000_000 == pytest.approx(size, rel=0.003)


def test_on_the_fly_quantisation_stages_one_matrix() -> None:
    """Bitsandbytes holds the largest matrix, 14,336 x 4,096, once in 16 bit while loading; files stored so do not."""
    model = read_model("meta-llama/Llama-3.1-8B")
    for name, expected in (("nf4", [14_336 * 4_096 * 2]), ("awq-int4", [])):
        items = estimate(model, Inference(weight_format=name, context_tokens=1)).breakdowns[0].items
        staged = [i for i in items if i.name == "load/quantisation_staging"]
        assert expected == [i.bytes for i in staged]
        assert all((Phase.LOAD,) == i.phases for i in staged)


def test_derived_weights_have_no_band() -> None:
    """Formats come in whole blocks: low, expected and high are one number."""
    items = estimate(read_model("meta-llama/Llama-3.1-8B"), Inference(context_tokens=1)).breakdowns[0].items
    found = [i for i in items if i.name.startswith("weights/")]
    assert found
    assert all(i.low_bytes == i.bytes == i.high_bytes and i.basis is Basis.DERIVED for i in found)
