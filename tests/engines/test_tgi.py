"""TGI: the warm-up, the share of the card by version, defaults and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from published_configs import LLAMA_1_7B, LLAMA_3_1_8B
from served import H100, LLAMA_8B, model, rank, readings
from vramfit.catalogue.device import find_device
from vramfit.engines.profile import find_profile
from vramfit.engines.tgi import FACTS, LOGPROB_BYTES, MODULES_BYTES
from vramfit.errors import ImpossiblePlanError
from vramfit.request import Inference, Plan
from vramfit.result import Quantity
from vramfit.understand import understand
from vramfit.units import GIB

A10G = find_device("a10g-24gb")


def test_llama_2_on_an_a10g_leaves_what_its_issue_says() -> None:
    """huggingface/text-generation-inference#653: 16,224 tokens after a warm-up of 4,096, all free memory used.

    By hand: 22.06 - 0.35 context and kernels - 12.6 weights in segments - 4,096 x 32,000 x 6 B = 0.73 - layers'
    4,096 x (4 x 4,096 + 3 x 11,008) x 2 B = 0.38 GiB = 8.0 GiB of 512 KiB tokens.
    """
    work = Inference(engine="tgi", engine_version="1.0", context_tokens=4096, max_num_batched_tokens=4096)
    found = readings({**LLAMA_1_7B, "torch_dtype": "float16"}, work, device=A10G)[Quantity.KV_CACHE_TOKENS]
    assert 16_224 == pytest.approx(found.value, rel=0.03)
    assert found.low <= 16_224 <= found.high


def test_llama_3_on_an_a10g_leaves_what_its_log_says() -> None:
    """2.2.0 printed 19,056 tokens and nvidia-smi 19,882 MiB; a process on the card sees 22.06 GiB."""
    work = Inference(engine="tgi", engine_version="2.2.0", context_tokens=4096, max_num_batched_tokens=4145)
    found = readings(LLAMA_3_1_8B, work, device=A10G)
    assert 19_056 == pytest.approx(found[Quantity.KV_CACHE_TOKENS].value, rel=0.04)
    assert 20_847_788_032 == pytest.approx(found[Quantity.PROCESS_PEAK].value, rel=0.04)
    assert found[Quantity.PROCESS_PEAK].low <= 20_847_788_032 <= found[Quantity.PROCESS_PEAK].high


def test_the_warm_up_has_logits_for_every_prompt_token_until_3_0() -> None:
    """Llama 3.1 8B: 128,256 x 6 B more for each token of the pass; since 3.0 layers alone grow."""

    def grown(version: str) -> int:
        sizes = []
        for tokens in (4096, 8192):
            work = Inference(
                engine="tgi", engine_version=version, context_tokens=4096, prompt_tokens=2048, new_tokens=2048,
                max_num_batched_tokens=tokens,
            )  # fmt: skip
            sizes.append(readings(LLAMA_8B, work)[Quantity.ACTIVATION_PEAK].value)
        return int(sizes[1] - sizes[0]) // 4096

    layers = 2 * (4 * 4096 + 3 * 14336)
    assert layers + 128_256 * LOGPROB_BYTES == grown("2.0")
    assert layers == grown("3.0")


@pytest.mark.parametrize(
    ("version", "page", "lost"), [("1.0", 16, 0.0), ("3.0", 1, 0.05), ("3.1", 1, 0.07), ("3.3", 1, 0.1)]
)
def test_versions_leave_more_and_more_free(version: str, page: int, lost: float) -> None:
    """TGI_WIGGLE_ROOM: 0.95 of the card since 2.3, 0.93 since 3.1, 0.90 since 3.3; pages of 16 tokens, then of 1."""
    work = Inference(engine="tgi", engine_version=version, context_tokens=4096, max_num_batched_tokens=4096)
    found = rank(LLAMA_8B, work)
    assert found.reservation is not None
    assert (1 - lost) * H100.total_bytes == pytest.approx(found.reservation.limit_bytes, abs=2)
    tokens = next(r.value for r in found.readings if r.quantity is Quantity.KV_CACHE_TOKENS)
    assert 0 == tokens % page


def test_since_3_0_the_pass_is_a_second_of_computing() -> None:
    """Llama 3.1 8B: 32 x (117.4 M + 352.3 M) = 15.03 G operations a token; 900 T / 15.03 G = 59,870 on an H100.

    Per layer: queries, scores and output 3 x 2 x 32 x 128 x 4,096, keys and values 2 x 2 x 8 x 128 x 4,096, and
    2 x 3 x 4,096 x 14,336.
    """
    config = {**LLAMA_3_1_8B, "max_position_embeddings": 131072}
    found = understand(model(config), Inference(engine="tgi", context_tokens=4096), H100)
    per_token = 32 * (3 * 2 * 32 * 128 * 4096 + 2 * 2 * 8 * 128 * 4096 + 6 * 4096 * 14336)
    assert 900 * 10**12 // per_token == found.workload.max_num_batched_tokens == 59_870
    unknown = replace(H100, name="someones-card")
    found = understand(model(config), Inference(engine="tgi", context_tokens=4096), unknown)
    assert 4096 == found.workload.max_num_batched_tokens


def test_before_3_0_the_pass_holds_the_longest_input() -> None:
    """2.x adds 50 tokens to it; 1.0 takes 4,096 at least."""
    short = Inference(engine="tgi", engine_version="2.2.0", context_tokens=2000)
    assert 2050 == understand(model(LLAMA_3_1_8B), short, H100).workload.max_num_batched_tokens
    old = replace(short, engine_version="1.0.3")
    assert 4096 == understand(model(LLAMA_3_1_8B), old, H100).workload.max_num_batched_tokens


def test_pipeline_stages_are_refused() -> None:
    """TGI divides matrices only."""
    with pytest.raises(ImpossiblePlanError, match=r"plan.pp: 2: expected 1: TGI .* raise tp"):
        rank(LLAMA_8B, Inference(engine="tgi"), Plan(pp=2))


def test_a_pass_shorter_than_the_prompt_is_refused_until_3_0() -> None:
    """The launcher of 2.2 asserts it; 3.x cuts the prompt."""
    work = Inference(engine="tgi", engine_version="2.2.0", context_tokens=8192, max_num_batched_tokens=4096)
    with pytest.raises(ImpossiblePlanError, match=r"max_num_batched_tokens: 4096: expected at least prompt_tokens"):
        rank(LLAMA_8B, work)
    assert rank(LLAMA_8B, replace(work, engine_version="3.3.6")).readings


def test_nearest_profiles() -> None:
    """0.9.4 is older than every profile, 1.4 has the facts of 1.0, 9.0 those of 3.3."""
    assert ["1.0", "1.0", "3.3"] == [find_profile("tgi", v)[0].version for v in ("0.9.4", "1.4", "9.0")]


def test_extensions_came_with_2_0() -> None:
    """A GiB of kernels that the run of 2023 does not show."""
    assert GIB == MODULES_BYTES == FACTS["2.0"].modules_bytes
    assert 0 == FACTS["1.0"].modules_bytes


@settings(deadline=None, max_examples=20)
@given(st.integers(1024, 20_000), st.sampled_from(sorted(FACTS)))
def test_a_longer_warm_up_never_leaves_more(tokens: int, version: str) -> None:
    """The pool shrinks with the largest pass."""

    def pool(largest: int) -> float:
        work = Inference(
            engine="tgi", engine_version=version, context_tokens=2048, prompt_tokens=1024, new_tokens=1024,
            max_num_batched_tokens=largest,
        )  # fmt: skip
        return float(readings(LLAMA_8B, work)[Quantity.KV_CACHE].value)

    own_requests = 0.05 * 2048 * 131_072 if version == "2.0" else 0  # one more request of the warm-up
    assert pool(tokens + 64) <= pool(tokens) + own_requests
