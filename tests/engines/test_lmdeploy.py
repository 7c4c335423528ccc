"""LMDeploy: blocks by hand, the share of total and of free memory, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from published_configs import LLAMA_3_2_1B
from served import H100, LLAMA_8B, model, rank, readings
from vramfit.catalogue.device import find_device
from vramfit.errors import ImpossiblePlanError
from vramfit.memory.runtime import KERNEL_BYTES, context_bytes
from vramfit.request import Inference, Plan
from vramfit.result import Quantity
from vramfit.understand import understand

WEIGHTS = 2 * 8_030_261_248
BLOCK = 64 * 131_072
"""64 tokens x 32 layers x 8 KV heads x 128 x 2 x 2 B = 8 MiB, as InternLM/lmdeploy#3411 prints it."""


def test_blocks_are_a_share_of_what_is_free() -> None:
    """0.8 x (total - context - kernels - 16,060,522,496 B of weights) in whole blocks of 8 MiB."""
    found = readings(LLAMA_8B, Inference(engine="lmdeploy", context_tokens=8192))
    free = H100.total_bytes - context_bytes(H100) - KERNEL_BYTES - WEIGHTS
    assert int(0.8 * free) // BLOCK * BLOCK == found[Quantity.KV_CACHE].value
    assert int(0.8 * free) // BLOCK * 64 == found[Quantity.KV_CACHE_TOKENS].value


def test_blocks_were_a_share_of_the_total() -> None:
    """Until 0.2.1: half of the card in blocks of 128 tokens, whatever the weights are."""
    work = Inference(engine="lmdeploy", engine_version="0.2.1", context_tokens=8192)
    found = readings(LLAMA_8B, work)[Quantity.KV_CACHE]
    assert H100.total_bytes // 2 // (2 * BLOCK) * 2 * BLOCK == found.value


def test_eight_bits_keep_a_scale_and_a_zero() -> None:
    """Per token, layer and head: 2 x 128 B and 2 x (2 + 2) B; 32 x 8 x 264 = 67,584 B."""
    found = readings(LLAMA_8B, Inference(engine="lmdeploy", context_tokens=8192, kv_format="int8"))
    assert 67_584 == found[Quantity.KV_CACHE].value // found[Quantity.KV_CACHE_TOKENS].value
    items = rank(LLAMA_8B, Inference(engine="lmdeploy", context_tokens=1000, kv_format="int8")).items
    assert 67_584_000 == sum(item.bytes for item in items if item.name.startswith("kv_cache/"))


def test_tied_embeddings_are_loaded_twice() -> None:
    """Llama 3.2 1B: 1,235,814,400 parameters and once more 128,256 x 2,048, in 16 bit."""
    found = readings(LLAMA_3_2_1B, Inference(engine="lmdeploy", context_tokens=8192))[Quantity.WEIGHTS]
    assert 2 * (1_235_814_400 + 128_256 * 2_048) == found.value


def test_conversion_leaves_copies_until_0_8() -> None:
    """One table of 128,256 x 4,096 and six matrices of 14,336 x 4,096 stay reserved by torch."""
    copies = 2 * (128_256 * 4096 + 6 * 14_336 * 4096)

    def pool(version: str) -> float:
        work = Inference(engine="lmdeploy", engine_version=version, context_tokens=8192)
        return float(readings(LLAMA_8B, work)[Quantity.KV_CACHE].value)

    assert 0.8 * copies == pytest.approx(pool("0.9.0") - pool("0.8.0"), abs=BLOCK)


def test_sequences_depend_on_the_product() -> None:
    """1,024 on an H100, 384 on an A100, 128 elsewhere."""
    cards = [find_device(name) for name in ("h100-sxm-80gb", "a100-sxm-80gb", "a10-24gb")]
    found = [understand(model(LLAMA_8B), Inference(engine="lmdeploy"), card).workload.max_num_seqs for card in cards]
    assert [1024, 384, 128] == found


def test_what_the_engine_refuses() -> None:
    """No pipeline stages; a share of one or more would count blocks."""
    with pytest.raises(ImpossiblePlanError, match=r"plan.pp: 2: expected 1: LMDeploy"):
        rank(LLAMA_8B, Inference(engine="lmdeploy"), Plan(pp=2))
    with pytest.raises(ImpossiblePlanError, match=r"memory_fraction: 1.0: expected a share below 1"):
        rank(LLAMA_8B, Inference(engine="lmdeploy", memory_fraction=1.0))


def test_the_reservation_is_weights_and_blocks() -> None:
    """Buffers and activations have the fifth that is left."""
    found = rank(LLAMA_8B, Inference(engine="lmdeploy", context_tokens=8192))
    free = H100.total_bytes - context_bytes(H100) - KERNEL_BYTES - WEIGHTS
    assert found.reservation is not None
    assert WEIGHTS + int(0.8 * free) == pytest.approx(found.reservation.limit_bytes, abs=1)


@settings(deadline=None, max_examples=20)
@given(st.integers(10, 98), st.sampled_from(["0.1.0", "0.2.2", "0.6.4", "0.10.0", "0.16.0"]))
def test_a_larger_share_never_holds_less(percent: int, version: str) -> None:
    """Tokens grow with the share; bounds stay in order."""
    work = Inference(engine="lmdeploy", engine_version=version, context_tokens=8192, memory_fraction=percent / 100)
    here = readings(LLAMA_8B, work)[Quantity.KV_CACHE_TOKENS]
    more = readings(LLAMA_8B, replace(work, memory_fraction=(percent + 1) / 100))[Quantity.KV_CACHE_TOKENS]
    assert here.low <= here.value <= here.high
    assert here.value <= more.value
