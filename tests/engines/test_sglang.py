"""SGLang: fractions by version and card, weights and pools against its log, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from published_configs import GEMMA_3_1B, LLAMA_3_1_8B, QWEN2_5_0_5B, llama
from served import H100, LLAMA_8B, model, rank, readings
from vramfit.catalogue.device import find_device
from vramfit.device import Device
from vramfit.engines.profile import find_profile
from vramfit.engines.sglang_budget import FACTS, fraction, graph_batch, tier, vision_factor
from vramfit.errors import ImpossiblePlanError
from vramfit.memory.runtime import context_bytes
from vramfit.request import Inference, Plan
from vramfit.result import Quantity
from vramfit.understand import understand
from vramfit.units import GIB, MIB

H200 = find_device("h200-sxm-141gb")
CARD_24 = replace(H100, total_bytes=24 * GIB)
CARD_96 = replace(H100, total_bytes=95 * GIB)
CARD_180 = replace(H100, total_bytes=178 * GIB)


@pytest.mark.parametrize(
    ("version", "card", "plan", "chunk", "expected"),
    [
        ("0.4", H100, Plan(), 8192, 0.88),
        ("0.4", H100, Plan(tp=8), 8192, 0.81),
        ("0.4.6", H200, Plan(tp=8), 8192, 1 - 13 * 1024 / (H200.total_bytes / MIB)),
        ("0.4.7", CARD_96, Plan(), 8192, 0.88),
        ("0.4.7", CARD_180, Plan(), 16384, 0.79),
        ("0.4.8", H100, Plan(), 8192, 0.874),  # 81,080 MiB less (9.5 + 0.5) GiB
        ("0.4.8", CARD_24, Plan(tp=2), 2048, 0.875),  # less 2.8 + 0.2 = 3 of 24 GiB
        ("0.4.8", CARD_180, Plan(tp=8), 16384, 0.82),  # less 32 of 178 GiB
        ("0.5.6", H100, Plan(), 8192, 0.834),  # 512 + 12,288 + 128 + 2 x 256 = 13,440 of 81,080 MiB
        ("0.5.6", H100, Plan(tp=8), 8192, 0.817),  # 512 + 12,288 + 1,024 + 2 x 512 = 14,848
        ("0.5.6", CARD_24, Plan(), 2048, 0.847),  # 512 + 3,072 + 128 + 2 x 24 = 3,760 of 24,576
        ("0.5.12", H100, Plan(), 8192, 0.829),  # and 8 for each of 58 captured sizes: 13,904
        ("0.5.23", CARD_24, Plan(), 4096, 0.704),  # 512 + 6,144 + 128 + 2 x 48 + 8 x 50 = 7,280 of 24,576
    ],
)
def test_fractions_by_hand(version: str, card: Device, plan: Plan, chunk: int, expected: float) -> None:
    """The default fraction, worked out from the server's own source for card, plan and version."""
    found = fraction(FACTS[version], card, plan, chunk, latent=False, eager=False)
    assert expected == pytest.approx(found, abs=1e-9)


def test_latent_attention_reserves_more_for_captured_prefills() -> None:
    """1.5 GiB in one, not 8 MiB a size: 13,440 + 1,536 = 14,976 of 81,080 MiB leave 0.815."""
    assert 0.815 == fraction(FACTS["0.5.12"], H100, Plan(), 8192, latent=True, eager=False)


def test_large_cards_keep_ten_gib_at_least() -> None:
    """Without graphs, and with short passes, the sum is below the floor: 1 - 10,240 / 81,080 = 0.874."""
    assert 0.874 == fraction(FACTS["0.5.6"], H100, Plan(), 2048, latent=False, eager=True)


def test_a_tower_of_twice_the_size_takes_a_tenth_more() -> None:
    """48 layers of 1,024 are twice CLIP's 24: 0.95 x 0.9; a huge one 0.95 x 0.8."""
    facts = FACTS["0.5.6"]
    assert pytest.approx(0.855) == vision_factor(facts, 48, 1024)
    assert pytest.approx(0.76) == vision_factor(facts, 45, 3200)
    assert 0.9 == vision_factor(FACTS["0.4.6"], 45, 3200)


@pytest.mark.parametrize(
    ("name", "layers", "hidden"), [("google/gemma-3-27b-it", 27, 1152), ("Qwen/Qwen3-VL-8B-Instruct", 24, 1152)]
)
def test_towers_shrink_the_fraction(name: str, layers: int, hidden: int) -> None:
    """SigLIP has 27 layers of 1,152; Qwen's 27 are a ``depth``, which the server does not read: 24 of 1,152.

    512 + 12,288 + 512 + 2 x 512 + 8 x 58 = 14,800 of 81,080 MiB on four ranks of an H100: 0.817 before.
    """
    found = rank(name, Inference(engine="sglang", context_tokens=4096), Plan(tp=4)).reservation
    factor = 0.95 * (1 - 0.1 * (layers * hidden**2 / (24 * 1024**2) - 1))
    assert found is not None
    assert f"mem_fraction_static {0.817 * factor:.4g} " in found.formula


def test_defaults_grow_with_the_card() -> None:
    """Passes and captured batches never shrink on larger cards, in any version."""
    for facts in FACTS.values():
        cards = [replace(H100, total_bytes=size * GIB) for size in (16, 24, 48, 80, 141, 192)]
        for small, large in pairwise(cards):
            assert tier(facts, small).chunk_tokens <= tier(facts, large).chunk_tokens
            assert graph_batch(facts, small, 1) <= max(graph_batch(facts, large, 1), 48)


@pytest.mark.parametrize(
    ("config", "plan", "printed_gib"),
    [
        ({**QWEN2_5_0_5B, "max_position_embeddings": 32768}, Plan(), 0.98),
        (
            llama(5120, 40, 40, 8, 17408, 151936, model_type="qwen3", head_dim=128, max_position_embeddings=40960),
            Plan(tp=4),
            7.08,
        ),
    ],
)
def test_weights_as_the_log_prints_them(config: dict[str, object], plan: Plan, printed_gib: float) -> None:
    """Two public logs, "Load weight end ... mem usage": 0.98 and 7.08 GB where tensors alone are 0.92 and 6.88."""
    found = readings(config, Inference(engine="sglang", context_tokens=4096), plan)[Quantity.WEIGHTS]
    assert printed_gib == pytest.approx(found.value / GIB, abs=0.006)
    assert found.low < found.value < found.high


def test_pool_and_weights_fill_the_fraction() -> None:
    """Weights in segments, the cache, and less than one token's 131,072 B make up the static budget."""
    work = Inference(engine="sglang", engine_version="0.5.6", context_tokens=8192, memory_fraction=0.85)
    found = readings(LLAMA_8B, work)
    budget = (H100.total_bytes - context_bytes(H100)) * 85 // 100
    rest = budget - found[Quantity.WEIGHTS].value - found[Quantity.KV_CACHE].value
    assert 0 <= rest <= 131_072
    assert found[Quantity.KV_CACHE].value == 131_072 * found[Quantity.KV_CACHE_TOKENS].value


def test_the_reservation_is_the_static_fraction() -> None:
    """Of what is free before loading; activations and the process stand outside."""
    found = rank(LLAMA_8B, Inference(engine="sglang", context_tokens=8192, memory_fraction=0.5)).reservation
    assert found is not None
    assert (H100.total_bytes - context_bytes(H100)) // 2 == found.limit_bytes
    assert "activations/" in found.outside


GPT_OSS = {
    "model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2880, "vocab_size": 201088,
    "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128, "torch_dtype": "bfloat16",
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}  # fmt: skip


def test_window_layers_hold_four_fifths_of_the_tokens() -> None:
    """gpt-oss-20b: 12 full layers and 12 of a window, 2,048 B each: 24,576 + 0.8 x 24,576 = 44,236.8 B a token."""
    found = readings(GPT_OSS, Inference(engine="sglang", engine_version="0.5.6", context_tokens=8192))
    ratio = found[Quantity.KV_CACHE].value / found[Quantity.KV_CACHE_TOKENS].value
    assert pytest.approx(44_236.8, abs=0.1) == ratio


def test_families_that_are_not_listed_keep_everything() -> None:
    """Gemma 3 1B: 26 layers x 1,024 B. From 0.5.9 on each keeps every token; in 0.5.6 the 22 windows 0.8 of them."""

    def per_token(version: str) -> float:
        found = readings(GEMMA_3_1B, Inference(engine="sglang", engine_version=version, context_tokens=8192))
        return float(found[Quantity.KV_CACHE].value / found[Quantity.KV_CACHE_TOKENS].value)

    assert pytest.approx(26 * 1024, abs=1) == per_token("0.5.9")
    assert pytest.approx((4 + 0.8 * 22) * 1024, abs=1) == per_token("0.5.6")


def test_states_take_nine_parts_where_the_cache_takes_ten() -> None:
    """A hybrid's pools are divided 0.9 : 1 between states and cache."""
    found = readings("Qwen/Qwen3-Next-80B-A3B-Instruct", Inference(engine="sglang", context_tokens=8192), Plan(tp=4))
    assert 0.9 == pytest.approx(found[Quantity.RECURRENT_STATE].value / found[Quantity.KV_CACHE].value, rel=1e-3)


def test_latent_cache_is_whole_on_every_rank() -> None:
    """DeepSeek V3: 61 x 576 x 2 B = 70,272 B per token on each of 16 ranks."""
    found = readings("deepseek-ai/DeepSeek-V3", Inference(engine="sglang", context_tokens=8192), Plan(tp=16), H200)
    assert 70_272 == found[Quantity.KV_CACHE].value // found[Quantity.KV_CACHE_TOKENS].value


def test_latent_attention_keeps_its_up_projection_twice() -> None:
    """DeepSeek V3 on four ranks: 61 x 512 x 32 heads x (128 + 128) values, 1 B each in its fp8, 2 B in bf16."""

    def copies(fmt: str) -> int:
        work = Inference(engine="sglang", context_tokens=1024, weight_format=fmt)
        items = rank("deepseek-ai/DeepSeek-V3", work, Plan(tp=4), H200).items
        return sum(item.bytes for item in items if item.name == "weights/absorbed_projection")

    assert 61 * 512 * 32 * 256 == copies("auto")
    assert 2 * 61 * 512 * 32 * 256 == copies("bf16") == copies("nvfp4")


def test_the_table_of_requests_grows_with_the_context() -> None:
    """(2,048 + 1) x (131,072 + 4) x 4 B = 1,074,298,896 B: a missing limit of context costs a GiB."""
    items = rank(LLAMA_8B, Inference(engine="sglang", context_tokens=131_072)).items
    table = next(item for item in items if item.name == "runtime/request_table")
    assert 1_074_298_896 == table.bytes
    assert table.bytes < table.high_bytes


def test_passes_that_do_not_end_with_a_page_are_refused() -> None:
    """``chunked_prefill_size % page_size`` must be 0: 8,192 is no multiple of 96."""
    with pytest.raises(ImpossiblePlanError, match=r"max_num_batched_tokens: 8192: expected a multiple .* take 8160"):
        rank(LLAMA_8B, Inference(engine="sglang", context_tokens=8192, block_tokens=96))


def test_unknown_versions_take_the_nearest_profile_and_say_so() -> None:
    """0.3.6 is older than every profile; 0.5.7 takes the facts of 0.5.6."""
    profile, why = find_profile("sglang", "0.3.6")
    assert ("0.4", True) == (profile.version, "older than every profile" in why)
    assert "0.5.6" == find_profile("sglang", "0.5.7")[0].version


def test_defaults_are_choices_with_their_why() -> None:
    """What the card decides is listed, with what it depends on."""
    choices = {c.field: c for c in understand(model(LLAMA_3_1_8B), Inference(engine="sglang"), CARD_24).choices}
    assert 4096 == choices["max_num_batched_tokens"].value
    assert "card of this size" in choices["max_num_batched_tokens"].why


def test_without_a_card_there_is_no_pool() -> None:
    """A fraction of nothing is nothing: only the weights are printed, and nothing is reserved."""
    found = rank(LLAMA_8B, Inference(engine="sglang", context_tokens=8192), device=None)
    assert {Quantity.WEIGHTS} == {r.quantity for r in found.readings}
    assert found.reservation is None


@settings(deadline=None, max_examples=25)
@given(st.integers(50, 98), st.sampled_from(sorted(FACTS)))
def test_a_larger_fraction_never_holds_fewer_tokens(percent: int, version: str) -> None:
    """The pool grows with the fraction, and its bounds stay in order."""

    def tokens(share: int) -> tuple[float, float, float]:
        work = Inference(engine="sglang", engine_version=version, context_tokens=8192, memory_fraction=share / 100)
        found = readings(LLAMA_8B, work)[Quantity.KV_CACHE_TOKENS]
        return found.low, found.value, found.high

    low, value, high = tokens(percent)
    assert low <= value <= high
    assert value <= tokens(percent + 1)[1]
