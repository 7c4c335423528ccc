"""llama.cpp: buffers worked out by hand, and those that public start-up logs print."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.catalogue.device import find_device
from vramfit.engines.llama_buffers import cells_of
from vramfit.engines.llama_cpp_version import FACTS
from vramfit.engines.profile import find_profile
from vramfit.errors import ImpossiblePlanError, InvalidValueError
from vramfit.estimate import estimate
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference, Plan
from vramfit.result import Quantity
from vramfit.units import MIB

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3_5_4B: dict[str, Any] = {
    "model_type": "qwen3_5_text", "hidden_size": 2560, "num_hidden_layers": 32, "intermediate_size": 9216,
    "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 256, "full_attention_interval": 4,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4, "vocab_size": 248320, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "mamba_ssm_dtype": "float32",
}  # fmt: skip
SMALL: dict[str, Any] = {**LLAMA_8B, "num_hidden_layers": 3}
GLM_Z1_32B: dict[str, Any] = {
    "model_type": "glm4", "hidden_size": 6144, "intermediate_size": 23040, "num_hidden_layers": 61,
    "num_attention_heads": 48, "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 151552,
    "max_position_embeddings": 32768, "attention_bias": True, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
PHI_3_MINI: dict[str, Any] = {
    "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "max_position_embeddings": 4096,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "sliding_window": None,
}  # fmt: skip


def _found(config: dict[str, Any], plan: Plan | None = None, **workload: Any) -> dict[Quantity, Any]:
    job = Inference(engine=workload.pop("engine", "llama.cpp"), **workload)
    ranks = estimate(read_config(config, "model"), job, plan).breakdowns
    return {r.quantity: r for r in ranks[0].readings}


def test_the_model_buffer_leaves_the_embedding_on_the_host() -> None:
    """Llama 3.1 8B in Q4_K_M: 4,403.49 MiB on the device and 281.81 on the host, as a log of it prints."""
    found = _found(LLAMA_8B, weight_format="gguf:Q4_K_M", context_tokens=8192)
    assert found[Quantity.MODEL_BUFFER].value / MIB == pytest.approx(4403.49, abs=0.01)
    assert found[Quantity.HOST_MODEL_BUFFER].value / MIB == pytest.approx(281.81, abs=0.01)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("fp16", "fp16", 1024 * MIB),  # 32 layers x 8,192 cells x 2 x 1,024 x 2 B
        ("q8_0", "q8_0", 544 * MIB),  # 34 B for 32 elements: 1.0625 instead of 2
        ("iq4_nl", "fp16", (512 + 144) * MIB),  # 18 B for 32 elements: 0.5625, keys only
    ],
)
def test_the_cache_is_cells_by_layers_by_heads(key: str, value: str, expected: int) -> None:
    """The KV buffer of Llama 3.1 8B at 8,192 tokens, whatever the number of slots."""
    for slots in (1, 4):
        found = _found(LLAMA_8B, kv_format_k=key, kv_format_v=value, context_tokens=8192, slots=slots)
        assert found[Quantity.KV_BUFFER].value == expected


@pytest.mark.parametrize(
    ("slots", "build", "window", "cells"),
    [
        (1, "7700", 1024, 1536),  # PAD(1,024 + 512, 256)
        (4, "7700", 1024, 4608),  # PAD(4 x 1,024 + 512, 256): Gemma 4 with four slots, 765 MiB of its 833
        (1, "7700", 128, 768),  # PAD(128 + 512, 256): gpt-oss
        (1, "2400", 1024, 8192),  # no caches of windows before May 2025
        (16, "7700", 1024, 8192),  # never more than the context
    ],
)
def test_windows_keep_a_micro_batch_more(slots: int, build: str, window: int, cells: int) -> None:
    """Cells of a sliding-window layer at 8,192 tokens and a micro-batch of 512."""
    mixer = GroupedQuery(num_attention_heads=8, num_key_value_heads=8, head_dim=256, window_tokens=window)
    job = Inference(context_tokens=8192, slots=slots, ubatch_tokens=512, batch_tokens=2048)
    assert cells_of(mixer, job, FACTS[build]) == cells
    assert cells_of(mixer, Inference(context_tokens=8192, ubatch_tokens=512, swa_full=True), FACTS[build]) == 8192


def test_scores_without_flash_attention() -> None:
    """Llama 3.1 8B, 8,192 cells, 512 tokens: scores of 512 MiB behind 48 MiB of what lives beside them.

    embedding 0-8, mask 8-24, norm 24-32, query 32-40, rotated 40-48; then the scores at 48: 560 MiB, as the log says.
    """
    found = _found(LLAMA_8B, engine_version="b3000", context_tokens=8192, flash_attention=False)
    assert found[Quantity.COMPUTE_BUFFER].value / MIB == pytest.approx(560.0, abs=0.01)
    assert found[Quantity.HOST_COMPUTE_BUFFER].value / MIB == pytest.approx(16 + 8 + 0.005, abs=0.01)


def test_logits_with_flash_attention() -> None:
    """GLM-Z1-32B at 32,768 tokens: 512 x 151,552 x 4 B = 296 MiB of logits behind 57 MiB: 353.00, as the log says."""
    found = _found(GLM_Z1_32B, engine_version="b5500", context_tokens=32768, flash_attention=True)
    assert found[Quantity.COMPUTE_BUFFER].value / MIB == pytest.approx(353.0, abs=0.01)
    assert found[Quantity.HOST_COMPUTE_BUFFER].value / MIB == pytest.approx(64 + 12 + 0.006, abs=0.01)


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        ("b5700", 16 + 8),  # mask in 32 bit and the looked-up embedding
        ("b5900", 16 + 8 + 4),  # and an index for every element of the values: 512 x 1,024 x 8 B
        ("b8571", 16 + 8 + 4 + 8),  # and embeddings that might come from outside
    ],
)
def test_inputs_on_the_host_by_build(build: str, inputs: int) -> None:
    """Llama 3.1 8B, 8,192 cells, without flash attention: what waits on the host, MiB."""
    found = _found(LLAMA_8B, engine_version=build, context_tokens=8192, flash_attention=False)
    assert found[Quantity.HOST_COMPUTE_BUFFER].value / MIB == pytest.approx(inputs, abs=0.02)


def test_projections_copied_apart() -> None:
    """Phi-3 mini, 4,096 cells, 256 tokens: scores 128 MiB, mask 4, six tensors of 3 MiB: 150.00, as the log says."""
    found = _found(PHI_3_MINI, engine_version="b3000", context_tokens=4096, ubatch_tokens=256, flash_attention=False)
    assert found[Quantity.COMPUTE_BUFFER].value / MIB == pytest.approx(150.0, abs=0.01)


def test_the_newest_server_keeps_logits_of_its_slots_only() -> None:
    """From b9000 on the expected buffer is smaller than that of the program that wants all logits, which bounds it."""
    few = _found(LLAMA_8B, engine_version="b9500", context_tokens=8192, flash_attention=True)
    all_of_them = _found(LLAMA_8B, engine_version="b8571", context_tokens=8192, flash_attention=True)
    logits = 512 * 128256 * 4
    assert few[Quantity.COMPUTE_BUFFER].value < logits < all_of_them[Quantity.COMPUTE_BUFFER].value
    assert few[Quantity.COMPUTE_BUFFER].high >= logits


def test_a_quantised_cache_is_copied_by_flash_attention() -> None:
    """Qwen3.5-4B, 131,072 cells, q8_0, four slots: the 690.28 MiB of a log, 512 of them 16-bit copies of one layer.

    131,072 x 4 heads x 256 x 2 B x 2 = 512 MiB, the mask in 16 bit 128 MiB, the stream and what lives beside it 50.28.
    """
    found = _found(
        QWEN3_5_4B, engine_version="b9500", context_tokens=131072, slots=4, kv_format="q8_0", flash_attention=True
    )
    assert found[Quantity.COMPUTE_BUFFER].value / MIB == pytest.approx(690.28, abs=0.01)
    assert found[Quantity.KV_BUFFER].value == 2176 * MIB
    assert found[Quantity.RECURRENT_STATE].value == 201 * MIB


def test_a_matrix_on_the_host_passes_through_the_device() -> None:
    """Partly offloaded, the output projection is copied to the device: Q6_K 410.98 MiB, logits 250.5, twice 8."""
    found = _found(
        LLAMA_8B, engine_version="b3000", weight_format="gguf:Q4_K_M", context_tokens=4096, gpu_layers=16,
        flash_attention=True,
    )  # fmt: skip
    assert found[Quantity.COMPUTE_BUFFER].value / MIB == pytest.approx(410.98 + 250.5 + 2 * 8, abs=0.01)


@pytest.mark.parametrize(("build", "layers", "output"), [("b3000", 10, False), ("b8000", 9, True)])
def test_layers_go_to_the_device_from_the_last(build: str, layers: int, output: bool) -> None:
    """With -ngl 10, ten layers before the output projection counted as one, and nine with it since."""
    found = _found(LLAMA_8B, engine_version=build, weight_format="gguf:F16", context_tokens=4096, gpu_layers=10)
    block = 2 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 4096 * 14336) + 4 * 2 * 4096
    head = (2 * 128256 * 4096 + 4 * 4096) if output else 0
    assert found[Quantity.MODEL_BUFFER].value == layers * block + head
    assert found[Quantity.KV_BUFFER].value == layers * 4096 * 2 * 1024 * 2


def test_several_devices_keep_four_copies() -> None:
    """On the first of two devices every input stands four times: 4 x (stream 8 + mask 16) MiB instead of once."""
    alone = _found(LLAMA_8B, engine_version="b3000", context_tokens=8192, flash_attention=False)
    pair = _found(LLAMA_8B, Plan(pp=2), engine_version="b3000", context_tokens=8192, flash_attention=False)
    more = pair[Quantity.COMPUTE_BUFFER].value - alone[Quantity.COMPUTE_BUFFER].value
    assert 3 * (8 + 16) * MIB <= more <= 4 * (8 + 16) * MIB


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([None, "b3000", "b8571", "b9500"]))
def test_more_context_never_takes_a_smaller_cache(first: int, more: int, build: str | None) -> None:
    """The cache grows with the context, and low, expected and high stay in order.

    The compute buffer alone may shrink: where a larger mask leaves a better hole, the real allocator fits better too.
    """
    small, large = (
        _found(SMALL, engine_version=build, context_tokens=512 * n, flash_attention=True) for n in (first, first + more)
    )
    assert small[Quantity.KV_BUFFER].value <= large[Quantity.KV_BUFFER].value
    for quantity, reading in large.items():
        assert reading.low <= reading.value <= reading.high, quantity


def test_a_quantised_cache_of_values_needs_flash_attention() -> None:
    """llama.cpp refuses it, and so do we, with the way out."""
    with pytest.raises(InvalidValueError, match="--flash-attention"):
        _found(LLAMA_8B, context_tokens=4096, kv_format="q8_0", flash_attention=False)


def test_it_does_not_divide_matrices() -> None:
    """Tensor parallelism is refused; layers are split instead."""
    with pytest.raises(ImpossiblePlanError, match="use pp 2"):
        _found(LLAMA_8B, Plan(tp=2), context_tokens=4096)


def test_a_build_between_profiles_has_the_facts_of_the_older() -> None:
    """b8571 is answered with what holds from b7700 on, and an unknown old one with the nearest."""
    assert find_profile("llama.cpp", "b8571")[0].version == "7700"
    assert "nearest" in find_profile("llama.cpp", "b1000")[1]


def test_without_a_build_every_profile_lies_in_the_band() -> None:
    """The compute buffer of each build is inside what is said when none is named."""
    unnamed = _found(LLAMA_8B, context_tokens=4096, flash_attention=True)[Quantity.COMPUTE_BUFFER]
    for build in ("b3000", "b6000", "b8571", "b9500"):
        found = _found(LLAMA_8B, engine_version=build, context_tokens=4096, flash_attention=True)
        assert unnamed.low <= found[Quantity.COMPUTE_BUFFER].value <= unnamed.high


def test_the_context_is_the_cards() -> None:
    """On a named card the process is its buffers and the context that its multiprocessors ask for."""
    card = find_device("rtx-4070")
    job = Inference(engine="llama.cpp", context_tokens=4096)
    items = {i.name: i.bytes for i in estimate(read_config(LLAMA_8B, "m"), job, None, card).breakdowns[0].items}
    assert 130 * MIB < items["runtime/cuda_context"] < 155 * MIB


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama"])
@pytest.mark.parametrize("field", ["context_tokens", "batch"])
def test_arrays_are_one_clear_error(engine: str, field: str) -> None:
    """Its allocator is followed for one size; the error names the field, not an assertion."""
    sizes: dict[str, Any] = {field: np.array([1024, 2048])}
    with pytest.raises(InvalidValueError, match=f"workload.{field}: 'an array'"):
        _found(LLAMA_8B, engine=engine, weight_format="gguf:Q4_K_M", **sizes)


def test_what_is_remembered_is_not_mixed_up() -> None:
    """Equal layers share one walk; another format, cache, place or context of the same layers has its own."""
    job: dict[str, Any] = {"weight_format": "gguf:Q4_K_M", "context_tokens": 8192, "engine_version": "7700"}
    first = _found(LLAMA_8B, **job)[Quantity.COMPUTE_BUFFER].value
    others = ({"context_tokens": 131072}, {"attention": "eager"}, {"gpu_layers": 0, "weight_format": "gguf:Q8_0"})
    seen = [_found(LLAMA_8B, **{**job, **other})[Quantity.COMPUTE_BUFFER].value for other in others]
    seen.append(_found(LLAMA_8B, **{**job, "gpu_layers": 0})[Quantity.COMPUTE_BUFFER].value)
    assert 5 == len({first, *seen})
    assert first == _found(LLAMA_8B, **job)[Quantity.COMPUTE_BUFFER].value
    halves, whole = (
        _found(LLAMA_8B, **{**job, "gpu_layers": 1, "weight_format": held})[Quantity.COMPUTE_BUFFER].value
        for held in ("fp16", "fp32")
    )
    assert halves < whole, "layers on the host are copied in their own format"
