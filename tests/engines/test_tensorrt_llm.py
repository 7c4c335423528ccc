"""TensorRT-LLM: execution contexts of public builds, the fraction of free memory, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from published_configs import LLAMA_1_7B, LLAMA_3_1_8B
from served import H100, LLAMA_8B, model, rank, readings
from vramfit.catalogue.device import find_device
from vramfit.errors import ImpossiblePlanError
from vramfit.memory.runtime import KERNEL_BYTES, context_bytes
from vramfit.request import Inference
from vramfit.result import Quantity
from vramfit.understand import understand
from vramfit.units import MIB

WEIGHTS = 2 * 8_030_261_248


def test_the_context_of_a_public_build() -> None:
    """NVIDIA/TensorRT-LLM#3636: 37,812.5 MiB for 128,000 tokens: 2 B x (128,256 + 14,336 + 3 x 4,096) each."""
    work = Inference(
        engine="tensorrt-llm", engine_version="0.18.0", weight_format="fp16", context_tokens=131_072,
        max_num_seqs=64, max_num_batched_tokens=128_000,
    )  # fmt: skip
    found = readings(LLAMA_3_1_8B, work)
    assert 37_812.5 * MIB == found[Quantity.ACTIVATION_PEAK].value == 128_000 * 2 * (128_256 + 14_336 + 3 * 4096)
    assert 15_388 * MIB == pytest.approx(found[Quantity.WEIGHTS].value, rel=0.005)


def test_what_an_old_build_leaves_on_an_a10() -> None:
    """NVIDIA/TensorRT-LLM#224: 10,718 tokens with 0.95 of what 25 sequences of 2,048 tokens of input leave.

    By hand: 22.06 GiB - 0.3 of the process - 12.55 of weights - 51,200 x 2 x (2 x 11,008 + 4 x 4,096) B = 3.66 GiB
    leave 5.5, of which 0.95 are 5.25 GiB of 512 KiB tokens.
    """
    work = Inference(
        engine="tensorrt-llm", engine_version="0.5", weight_format="fp16", context_tokens=4096, max_num_seqs=25,
        memory_fraction=0.95, block_tokens=16,
    )  # fmt: skip
    found = readings(LLAMA_1_7B, work, device=find_device("a10-24gb"))[Quantity.KV_CACHE_TOKENS]
    assert 10_718 == pytest.approx(found.value, rel=0.02)
    assert found.low <= 10_718 <= found.high


def test_pytorch_takes_nine_tenths_of_what_the_pass_leaves() -> None:
    """Pages of 32 tokens x 131,072 B; the pass is 8,192 x (4 x 4,096 + 3 x 14,336) x 2 B."""
    found = readings(LLAMA_8B, Inference(engine="tensorrt-llm", context_tokens=8192, eager=True))
    peak = 8192 * 2 * (4 * 4096 + 3 * 14336)
    free = H100.total_bytes - context_bytes(H100) - KERNEL_BYTES - WEIGHTS - peak
    assert peak == found[Quantity.ACTIVATION_PEAK].value
    page = 32 * 131_072
    assert int(0.9 * free) // page * page == found[Quantity.KV_CACHE].value


def test_an_old_pass_is_batch_times_input() -> None:
    """Until max_num_tokens had a default: 8 sequences of 2,048 tokens, or of the context if shorter."""
    work = Inference(engine="tensorrt-llm", engine_version="0.5", context_tokens=1000)
    assert 8000 == understand(model(LLAMA_8B), work, H100).workload.max_num_batched_tokens
    work = replace(work, context_tokens=4096)
    assert 16_384 == understand(model(LLAMA_8B), work, H100).workload.max_num_batched_tokens


def test_what_the_engine_refuses() -> None:
    """Caches in formats without kernels, and passes with fewer tokens than sequences."""
    with pytest.raises(ImpossiblePlanError, match=r"workload.kv_format: q4_0: expected one of bf16, fp16"):
        rank(LLAMA_8B, Inference(engine="tensorrt-llm", kv_format="q4_0"))
    with pytest.raises(
        ImpossiblePlanError, match=r"max_num_batched_tokens: 64: expected at least max_num_seqs \(128\)"
    ):
        rank(LLAMA_8B, Inference(engine="tensorrt-llm", max_num_seqs=128, max_num_batched_tokens=64))


def test_the_reservation_is_all_that_it_fills() -> None:
    """Weights and the pass, and nine tenths of the rest: a tenth of the rest stays free."""
    found = rank(LLAMA_8B, Inference(engine="tensorrt-llm", context_tokens=8192, eager=True)).reservation
    peak = 8192 * 2 * (4 * 4096 + 3 * 14336)
    taken = context_bytes(H100) + KERNEL_BYTES + WEIGHTS + peak
    assert found is not None
    assert taken + (H100.total_bytes - taken) * 9 // 10 == pytest.approx(found.limit_bytes, abs=1)


@settings(deadline=None, max_examples=20)
@given(st.integers(2048, 60_000), st.sampled_from(["0.5.0", "0.18.0", "1.0.0"]))
def test_a_longer_pass_never_leaves_more(tokens: int, version: str) -> None:
    """The pool shrinks with max_num_tokens; bounds stay in order."""
    work = Inference(
        engine="tensorrt-llm", engine_version=version, context_tokens=4096, max_num_seqs=64,
        max_num_batched_tokens=tokens,
    )  # fmt: skip
    here = readings(LLAMA_8B, work)[Quantity.KV_CACHE]
    more = readings(LLAMA_8B, replace(work, max_num_batched_tokens=tokens + 64))[Quantity.KV_CACHE]
    assert here.low <= here.value <= here.high
    assert more.value <= here.value
