"""vLLM: what its start-up log will say, refusals, defaults by card and version; worked from its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from published_configs import LLAMA_3_1_8B, LLAMA_3_1_70B, MIXTRAL_8X7B
from serving_configs import GPT_OSS
from small_pipeline import write_folder
from vramfit.catalogue.device import find_device
from vramfit.engines.vllm_facts import PROFILES
from vramfit.errors import ImpossiblePlanError, InvalidValueError, UnsupportedModelError
from vramfit.estimate import estimate
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference, Plan
from vramfit.result import Breakdown, Estimate, Quantity
from vramfit.source import read_model
from vramfit.units import GIB, MIB

H100 = find_device("h100-sxm-80gb")
LLAMA = {**LLAMA_3_1_8B, "max_position_embeddings": 131_072}
LOG: dict[str, Any] = {
    "engine": "vllm", "engine_version": "0.19.0", "context_tokens": 8192, "max_num_seqs": 1024,
    "max_num_batched_tokens": 8192, "memory_fraction": 0.95,
}  # fmt: skip
"""The flags of llm-d-planner's runs of vLLM 0.19."""


def said(config: dict[str, Any], plan: Plan | None = None, **more: Any) -> dict[Quantity, Any]:
    """Return the figures that the log of one rank would print on an H100."""
    return printed(run(config, plan, **more).breakdowns[0])


def run(config: dict[str, Any], plan: Plan | None = None, **more: Any) -> Estimate:
    """Return the estimate of those flags on an H100."""
    return estimate(read_config(config, "m"), Inference(**{**LOG, **more}), plan, H100)


def printed(rank: Breakdown) -> dict[Quantity, Any]:
    """Return the figures of one rank."""
    return {reading.quantity: reading.value for reading in rank.readings}


def test_pool_is_the_fraction_less_weights_peak_and_growth_outside_torch() -> None:
    """determine_available_memory of 0.19: requested - (weights + torch peak + non-torch); graphs are not taken off."""
    found = said(LLAMA)
    rest = sum(found[q] for q in (Quantity.WEIGHTS, Quantity.ACTIVATION_PEAK, Quantity.NON_TORCH))
    assert int(0.95 * H100.total_bytes) - rest == found[Quantity.KV_CACHE]


def test_graphs_are_taken_from_the_pool_since_0_20() -> None:
    """VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS became the default: the pool is smaller by the graphs, and no more."""
    before, since = said(LLAMA), said(LLAMA, engine_version="0.20.0")
    assert before[Quantity.KV_CACHE] - since[Quantity.KV_CACHE] == since[Quantity.CUDA_GRAPHS]
    assert Quantity.CUDA_GRAPHS not in said(LLAMA, eager=True)


def test_pool_and_tokens_of_llama_8b_w8a8_as_logged() -> None:
    """jgchn/llm-d-planner@56dc5b7, w8a8 Llama 3.1 8B, 0.95 of an H100: weights 8.49, pool 64.60 GiB, 529,200 tokens.

    A token takes 2 x 8 heads x 128 x 2 B x 32 layers = 131,072 B, a block of 16 tokens 2 MiB.
    """
    found = said(LLAMA, weight_format="w8a8-int8")
    assert abs(found[Quantity.WEIGHTS] / GIB - 8.49) < 0.01
    assert abs(found[Quantity.KV_CACHE] / GIB - 64.60) < 0.03
    assert found[Quantity.KV_CACHE] // (2 * MIB) * 16 == found[Quantity.KV_CACHE_TOKENS]
    assert abs(found[Quantity.KV_CACHE_TOKENS] / 529_200 - 1) < 0.001


def test_mixtral_over_two_ranks_as_logged() -> None:
    """The same logs, Mixtral 8x7B, two ranks: weights 43.51, peak 1.21, non-torch 2.07, before 2.01, pool 28.44 GiB."""
    found = said({**MIXTRAL_8X7B, "max_position_embeddings": 32768}, Plan(tp=2))
    expected = {
        Quantity.WEIGHTS: 43.51, Quantity.ACTIVATION_PEAK: 1.21, Quantity.NON_TORCH: 2.07,
        Quantity.BEFORE_WEIGHTS: 2.01, Quantity.KV_CACHE: 28.44,
    }  # fmt: skip
    for quantity, value in expected.items():
        assert abs(found[quantity] / GIB - value) < 0.011, quantity


def test_requests_at_context_are_blocks_over_blocks_of_one() -> None:
    """A request of 8,192 tokens takes 512 blocks of 16."""
    found = said(LLAMA)
    assert found[Quantity.KV_CACHE] // (2 * MIB) / 512 == found[Quantity.REQUESTS_AT_CONTEXT]


def test_tokens_are_concurrency_times_context_since_0_21() -> None:
    """0.22.1, _report_kv_cache_config: int(max_concurrency * max_model_len); 1,000 tokens take 63 blocks of 16."""
    found = said(LLAMA, engine_version="0.22.1", context_tokens=1000)
    blocks = found[Quantity.KV_CACHE] // (2 * MIB)
    assert int(blocks / 63 * 1000) == found[Quantity.KV_CACHE_TOKENS]


def test_tokens_were_blocks_over_groups_before() -> None:
    """The 20B gpt-oss in 0.19: two tables share the blocks of 12 x 32,768 B; the log says 1,277,184 tokens."""
    found = said({**GPT_OSS, "max_position_embeddings": 131_072})
    blocks = found[Quantity.KV_CACHE] // (12 * 32_768)
    assert blocks // 2 * 16 == found[Quantity.KV_CACHE_TOKENS]
    assert abs(found[Quantity.KV_CACHE_TOKENS] / 1_277_184 - 1) < 0.001


@pytest.mark.parametrize(
    ("version", "card", "sequences", "tokens", "fraction"),
    [
        ("0.6.6", "h100-sxm-80gb", 256, 8192, 0.9),
        ("0.8.5", "a100-sxm-80gb", 1024, 8192, 0.9),
        ("0.11.0", "a100-sxm-80gb", 256, 2048, 0.9),
        ("0.19.0", "h100-sxm-80gb", 1024, 8192, 0.9),
        ("0.22.1", "l40s-48gb", 256, 2048, 0.92),
        ("0.33.0", "b200-180gb", 1024, 16384, 0.92),
    ],
)
def test_defaults_follow_version_and_card(
    version: str, card: str, sequences: int, tokens: int, fraction: float
) -> None:
    """get_batch_defaults: 70 GiB and more get 1,024 and 8,192, an A100 not since 0.9, 160 GiB 16,384 in 0.33."""
    flags = Inference(engine="vllm", engine_version=version, context_tokens=8192)
    choices = {c.field: c.value for c in estimate(read_config(LLAMA, "m"), flags, None, find_device(card)).choices}
    assert (sequences, tokens, fraction) == (
        choices["max_num_seqs"], choices["max_num_batched_tokens"], choices["memory_fraction"],
    )  # fmt: skip


def test_first_engine_batches_the_whole_context_or_cuts_it_beyond_32768() -> None:
    """V0: max(max_model_len, 2048) tokens without chunked prefill, 2,048 with it, which long contexts turn on."""
    for context, tokens in ((1000, 2048), (32768, 32768), (40000, 2048)):
        flags = Inference(engine="vllm", engine_version="0.6.6", context_tokens=context)
        choices = {c.field: c.value for c in estimate(read_config(LLAMA, "m"), flags, None, H100).choices}
        assert tokens == choices["max_num_batched_tokens"]


def test_defaults_follow_what_is_given() -> None:
    """0.19, get_batch_defaults: whole prompts raise the tokens to the context, few tokens lower the sequences."""
    asked: tuple[tuple[dict[str, Any], int, int], ...] = (
        ({"chunked_prefill": False, "context_tokens": 20_000}, 1024, 20_000),
        ({"max_num_batched_tokens": 512}, 512, 512),
        ({"max_num_seqs": 2, "context_tokens": 1000}, 2, 2000),
    )
    for more, sequences, tokens in asked:
        wanted: dict[str, Any] = {"engine": "vllm", "engine_version": "0.19.0", "context_tokens": 8192, **more}
        need = estimate(read_config(LLAMA, "m"), Inference(**wanted), None, H100)
        choices = {choice.field: choice.value for choice in need.choices} | more
        assert (sequences, tokens) == (choices["max_num_seqs"], choices["max_num_batched_tokens"])


def test_heads_must_divide() -> None:
    """vLLM: "Total number of attention heads (32) must be divisible by tensor parallel size (3)"."""
    with pytest.raises(ImpossiblePlanError, match=r"attention heads \(32\)"):
        run(LLAMA, Plan(tp=3))


def test_fewer_tokens_than_sequences_is_one_clear_error() -> None:
    """SchedulerConfig: max_num_batched_tokens must be greater than or equal to max_num_seqs."""
    with pytest.raises(ImpossiblePlanError, match=r"max_num_batched_tokens: 100"):
        run(LLAMA, max_num_batched_tokens=100)


def test_whole_prompts_must_fit_a_pass() -> None:
    """Without chunked prefill, max_num_batched_tokens must not be smaller than max_model_len."""
    with pytest.raises(ImpossiblePlanError, match="smaller than the context"):
        run(LLAMA, chunked_prefill=False, context_tokens=10_000)


def test_knobs_of_others_are_refused() -> None:
    """A flag that vLLM is not modelled with is named, never ignored."""
    with pytest.raises(InvalidValueError, match="speculative_tokens"):
        run(LLAMA, speculative_tokens=3)


@pytest.mark.parametrize(
    ("version", "profile"),
    [("0.1.7", "0.2"), ("0.6.6", "0.5.4"), ("0.9.2", "0.8"), ("0.16.0", "0.13"), ("0.40.1", "0.33")],
)
def test_unknown_versions_take_the_nearest_profile(version: str, profile: str) -> None:
    """The newest profile that is not newer than the version, and the choice says so."""
    choice = run(LLAMA, engine_version=version).choices[0]
    assert ("engine_version", profile) == (choice.field, choice.value)


def test_profiles_are_in_order() -> None:
    """Oldest first, as the search for a profile expects."""
    versions = [tuple(map(int, p.version.split("."))) for p in PROFILES]
    assert sorted(versions) == versions


def test_adapter_slots_are_held_empty() -> None:
    """q, o: 4096 + 4096; k, v: 1024 + 4096; gate, up, down: 14336 + 4096; x 32 layers x 2 slots x rank 16 x 2 B."""
    sides = 2 * 8192 + 2 * 5120 + 3 * 18432
    more = said(LLAMA, max_loras=2)[Quantity.WEIGHTS] - said(LLAMA)[Quantity.WEIGHTS]
    assert 32 * sides * 2 * 16 * 2 == more


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([p.version for p in PROFILES]), st.integers(300, 20_000), st.integers(1, 256))
def test_larger_batches_never_leave_a_larger_pool(version: str, tokens: int, sequences: int) -> None:
    """More tokens or more sequences in a pass never raise the pool, at any version."""
    small = said(LLAMA, engine_version=version, max_num_batched_tokens=tokens, max_num_seqs=sequences)
    large = said(LLAMA, engine_version=version, max_num_batched_tokens=tokens + 512, max_num_seqs=sequences + 1)
    assert large[Quantity.KV_CACHE] <= small[Quantity.KV_CACHE]


def test_every_stage_says_its_own_figures() -> None:
    """The last stage samples and the first does not: its peak is the larger."""
    ranks = run({**LLAMA_3_1_70B, "max_position_embeddings": 131_072}, Plan(pp=2)).breakdowns
    first, last = (printed(rank)[Quantity.ACTIVATION_PEAK] for rank in ranks)
    assert first < last


def test_pipelines_are_refused(tmp_path: Path) -> None:
    """A diffusion pipeline has no layers to batch: one clear error, before anything is counted."""
    model = read_model(str(write_folder(tmp_path, headers=False)))
    with pytest.raises(UnsupportedModelError, match=r"workload\.engine: 'vllm'"):
        estimate(model, Inference(engine="vllm"), None, H100)
