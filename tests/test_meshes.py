"""The search over meshes: what it counts is what ``estimate_training`` counts, and what it leaves out does not fit."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

import pytest

from vramfit.catalogue.device import find_device
from vramfit.catalogue.link import LINKS, UNKNOWN, links_of
from vramfit.errors import ImpossiblePlanError, VramfitError
from vramfit.fit import fit
from vramfit.frameworks.abilities import ABILITIES
from vramfit.frameworks.profile import FRAMEWORKS
from vramfit.mesh import Proxy
from vramfit.mesh_axes import Spread, Tally, divisors, meshes, spreads
from vramfit.mesh_count import varied
from vramfit.mesh_proxy import Traffic, bubble_ratio, exchanges
from vramfit.meshes import MeshQuestion, Search, rank_meshes, search_of
from vramfit.request import Plan
from vramfit.result import Verdict
from vramfit.source import read_model
from vramfit.spec import ModelSpec
from vramfit.train import estimate_training
from vramfit.training import Training

LLAMA = read_model("meta-llama/Llama-3.1-8B")
H100 = find_device("h100-sxm-80gb")
SAMPLE = 16

CASES = (
    ("meta-llama/Llama-3.1-8B", 16, Training(framework="torchtitan", sequence_tokens=4096)),
    ("meta-llama/Llama-3.1-8B", 64, Training(framework="megatron-lm", sequence_tokens=4096)),
    ("meta-llama/Llama-3.1-8B", 16, Training(framework="deepspeed", sequence_tokens=4096)),
    ("meta-llama/Llama-3.1-8B", 8, Training(framework="pytorch", sequence_tokens=2048, method="qlora")),
    ("meta-llama/Llama-3.1-8B", 8, Training(framework="pytorch", sequence_tokens=2048, optimizer_in_backward=False,
                                            optimizer_implementation="foreach", loss="chunked")),
    ("mistralai/Mixtral-8x7B-v0.1", 32, Training(framework="torchtitan", sequence_tokens=4096)),
    ("mistralai/Mixtral-8x7B-v0.1", 32, Training(framework="megatron-bridge", sequence_tokens=4096)),
    ("google/gemma-2-9b", 8, Training(framework="transformers", sequence_tokens=4096, method="lora")),
    ("deepseek-ai/DeepSeek-V2-Lite", 16, Training(framework="torchtitan", sequence_tokens=4096)),
    ("Qwen/Qwen3-8B", 4, Training(framework="trl", sequence_tokens=4096)),
    ("Qwen/Qwen3-8B", 8, Training(framework="llama-factory", sequence_tokens=4096)),
    ("meta-llama/Llama-3.1-8B", 4, Training(framework="unsloth", sequence_tokens=2048, method="lora")),
)  # fmt: skip


@cache
def model_of(name: str) -> ModelSpec:
    """Read a model once."""
    return read_model(name)


def question(num_devices: int, workload: Training, model: ModelSpec = LLAMA, **more: object) -> MeshQuestion:
    """Ask for meshes on H100."""
    return MeshQuestion(model=model, workload=workload, device=H100, num_devices=num_devices, **more)  # type: ignore[arg-type]


def every(search: Search) -> list[tuple[Spread, int, str]]:
    """Return all candidates that degrees, schedules and batches allow."""
    return [(s, b, r) for s in spreads(search.axes, Tally()) for b in s.micro_batches for r in s.recomputes]


@pytest.mark.parametrize(("name", "num_devices", "workload"), CASES, ids=[str(number) for number in range(len(CASES))])
def test_candidates_cost_what_estimate_training_says(name: str, num_devices: int, workload: Training) -> None:
    """A random sample of candidates, byte for byte, expected and high; the same plans are refused by both."""
    search = search_of(question(num_devices, workload, model_of(name)))
    found = every(search)
    compared = 0
    chance = Random(name + workload.framework)  # noqa: S311 - a sample, not a secret
    for spread, micro_batch, recompute in chance.sample(found, min(SAMPLE, len(found))):
        steps = spread.sequences // micro_batch
        asked = varied(workload, micro_batch, steps, recompute)
        try:
            place = search.count.place(Plan(**spread.fields))  # type: ignore[arg-type]
        except VramfitError as refused:
            with pytest.raises(type(refused)):
                estimate_training(model_of(name), asked, spread.plan(micro_batch), H100, num_devices)
            continue
        need = search.count.need(place, micro_batch, steps, recompute)
        peaks = [
            rank.peak()
            for rank in estimate_training(model_of(name), asked, spread.plan(micro_batch), H100, num_devices).breakdowns
        ]
        assert max(peak.expected_bytes for peak in peaks) == need.expected_bytes, (spread, micro_batch, recompute)
        assert max(peak.high_bytes for peak in peaks) == need.high_bytes, (spread, micro_batch, recompute)
        compared += 1
    assert compared >= min(SAMPLE, len(found)) // 2


@pytest.mark.parametrize("framework", ["torchtitan", "megatron-lm", "deepspeed"])
def test_what_is_not_counted_does_not_fit(framework: str) -> None:
    """Larger micro-batches than one that lacks memory are left out: a sample of them lacks memory too."""
    search = search_of(question(16, Training(framework=framework, sequence_tokens=8192)))
    fitting = {(str(f.spread.fields), f.micro_batch, f.recompute) for f in search.candidates()}
    left = [each for each in every(search) if (str(each[0].fields), each[1], each[2]) not in fitting]
    assert left
    chance = Random(framework)  # noqa: S311 - a sample, not a secret
    for spread, micro_batch, recompute in chance.sample(left, min(20, len(left))):
        workload = varied(search.question.workload, micro_batch, spread.sequences // micro_batch, recompute)
        try:
            estimate = estimate_training(LLAMA, workload, spread.plan(micro_batch), H100)
        except ImpossiblePlanError:
            continue
        assert Verdict.DOES_NOT_FIT is fit(estimate.breakdowns, H100).verdict


def test_every_candidate_is_accounted_for() -> None:
    """Those that fit, the tight ones and the refused ones are all there are; the best come first."""
    answer = rank_meshes(question(8, Training(framework="torchtitan", sequence_tokens=8192), most=100, every=True))
    refused = sum(refusal.num_candidates for refusal in answer.refusals)
    assert answer.num_candidates == answer.num_fitting + answer.num_tight + refused
    assert len(answer.ranked) == min(100, answer.num_fitting + answer.num_tight)
    fits = [ranked.verdict is Verdict.FITS for ranked in answer.ranked]
    assert sorted(fits, reverse=True) == fits
    costs = [ranked.proxy.cost for ranked in answer.ranked if ranked.verdict is Verdict.FITS]
    assert sorted(costs) == costs
    assert all(ranked.margin_bytes >= 0 for ranked in answer.ranked)
    assert all(ranked.candidate.plan.num_devices == 8 for ranked in answer.ranked)


def test_best_of_each_mesh_is_in_the_full_list() -> None:
    """By default each mesh stands once, with the candidate that stands first in the full list."""
    asked = question(8, Training(framework="torchtune", sequence_tokens=8192), most=500)
    each, all_of_them = rank_meshes(asked), rank_meshes(replace(asked, every=True))
    degrees = [
        tuple(getattr(r.candidate.plan, n) for n in ("dp_replicate", "dp_shard", "tp", "pp", "cp")) for r in each.ranked
    ]
    assert len(set(degrees)) == len(degrees)
    assert all_of_them.ranked[0] == each.ranked[0]
    assert len(each.ranked) < len(all_of_them.ranked)
    assert {r.candidate for r in each.ranked} <= {r.candidate for r in all_of_them.ranked}


def test_nothing_fits_and_the_nearest_is_named() -> None:
    """70B in full on two cards of 24 GB: nothing fits, and the candidate that lacks least says how much."""
    small = replace(
        question(2, Training(framework="torchtitan", sequence_tokens=2048), model_of("meta-llama/Llama-3.1-70B")),
        device=find_device("l4-24gb"),
    )
    answer = rank_meshes(small)
    assert () == answer.ranked
    assert answer.nearest is not None
    assert answer.nearest.margin_bytes < 0
    assert Verdict.DOES_NOT_FIT is answer.nearest.verdict
    assert "does not fit" in answer.because


def test_given_fields_are_held() -> None:
    """What is given is in every candidate; what it leaves out is neither counted nor refused."""
    fixed = {"tp": 2, "micro_batch": 2, "recompute": "full", "reshard_after_forward": True}
    answer = rank_meshes(question(8, Training(framework="torchtitan", sequence_tokens=4096), fixed=fixed, most=500))
    assert answer.ranked
    for ranked in answer.ranked:
        assert (2, 2, "full") == (ranked.candidate.plan.tp, ranked.candidate.micro_batch, ranked.candidate.recompute)
        assert ranked.candidate.plan.reshard_after_forward is not False or ranked.candidate.plan.dp_shard == 1


def test_prime_numbers_of_devices() -> None:
    """Seven devices: degrees of 1 and 7 only, none of which divides 32 heads, 8 KV heads or 4,096 tokens."""
    answer = rank_meshes(question(7, Training(framework="torchtitan", sequence_tokens=4096)))
    reasons = {refusal.reason for refusal in answer.refusals}
    assert "does not divide the sequence" in reasons
    assert all({1, 7} >= {r.candidate.plan.tp, r.candidate.plan.pp, r.candidate.plan.dp_shard} for r in answer.ranked)
    assert all(1 == r.candidate.plan.tp == r.candidate.plan.cp for r in answer.ranked)


def test_more_devices_than_anything_can_use() -> None:
    """One sequence of 512 tokens on 65,536 devices: tp times cp is at most 512, pp at most 32, which makes 16,384."""
    answer = rank_meshes(question(65536, Training(framework="torchtitan", sequence_tokens=512), global_batch=1))
    assert () == answer.ranked
    assert answer.nearest is None
    assert {refusal.reason for refusal in answer.refusals} <= {
        "does not divide the global batch", "does not divide the layers", "does not divide heads or widths",
        "does not divide the sequence", "too few micro-batches for the schedule",
    }  # fmt: skip
    assert all(refusal.example for refusal in answer.refusals)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_devices": 0}, "gpus: 0: expected"),
        ({"num_devices": 100_000}, "gpus: 100000: expected at most 65536"),
        ({"global_batch": 0}, "global_batch: 0: expected"),
        ({"fixed": {"tp": 3}}, "gpus: 8: expected a multiple of 3"),
        ({"fixed": {"tp": 4, "pp": 4}}, r"product of the given degrees \(tp 4 x pp 4\)"),
        ({"fixed": {"layers_per_stage": (16, 16)}}, "the search decides it"),
        ({"fixed": {"zero_stage": 2}}, "a way in which torchtitan divides states"),
        ({"fixed": {"recompute": "offload"}}, "what torchtitan has: none, selective, full"),
        ({"fixed": {"pp_schedule": "v-min"}}, "what torchtitan has"),
        ({"fixed": {"pp": 1, "pp_schedule": "1f1b"}}, "pp above 1 beside it"),
        ({"workload": Training(framework="litgpt"), "fixed": {"pp": 2}}, "1 with litgpt, which has"),
        ({"workload": Training(objective="dpo")}, "next-token"),
        ({"workload": Training(framework="none-such")}, "not known"),
    ],
)
def test_bad_questions_are_refused(changes: dict[str, object], message: str) -> None:
    """One clear error: what was seen, what was expected."""
    asked = question(8, Training(framework="torchtitan", sequence_tokens=4096))
    with pytest.raises(VramfitError, match=message):
        rank_meshes(replace(asked, **changes))  # type: ignore[arg-type]


def test_pipelines_of_diffusion_are_refused() -> None:
    """A model without layers of its own cannot be spread."""
    with pytest.raises(ImpossiblePlanError, match="no layers to spread"):
        rank_meshes(question(8, Training(), replace(LLAMA, layers=())))


def test_frameworks_and_abilities_agree() -> None:
    """Every framework with a profile says what it can do."""
    assert set(FRAMEWORKS) == set(ABILITIES)


def test_meshes_are_all_products() -> None:
    """64 = 2 ** 6 over five degrees: (6 + 4 over 4) = 210 ways; each multiplies to 64, none stands twice."""
    found = list(meshes(64))
    assert 210 == len(found) == len(set(found))
    for a, b, c, d, e in found:
        assert 64 == a * b * c * d * e
    assert (1, 7) == divisors(7)


def traffic() -> Traffic:
    """Llama 3.1 8B in bf16, gradients reduced in fp32, 8,192 tokens."""
    return Traffic(model=LLAMA, sequence_tokens=8192, compute_bytes=2, reduce_bytes=4)


def test_tensor_parallel_bytes_by_hand() -> None:
    """Tp 2: 64 sublayers, each an all-reduce forward and one backward of 8,192 x 4,096 x 2 B, half sent twice.

    64 * 2 * 2 * 1/2 * 67,108,864 = 8,589,934,592 B, all inside the node.
    """
    found = exchanges(traffic(), links_of(H100), Plan(tp=2), sequences=1, recompute="none", divided=0)
    assert 8_589_934_592 == found.waiting.inside
    assert 0 == found.waiting.between == found.passing.inside == found.once.inside


def test_data_parallel_bytes_by_hand() -> None:
    """FSDP over 16: weights of 8,030,261,248 x 2 B gathered twice, gradients of 4 B once, 15/16 of each, every pass.

    Between nodes, because 16 devices are two nodes of 8: 15/16 * 8,030,261,248 * (2 * 2 + 4) = 60,226,959,360 B.
    """
    plan = Plan(dp_shard=16, reshard_after_forward=True)
    found = exchanges(traffic(), links_of(H100), plan, sequences=4, recompute="none", divided=3)
    assert 60_226_959_360 == found.passing.between
    assert 0 == found.passing.inside == found.once.between
    unsharded = exchanges(
        traffic(), links_of(H100), replace(plan, reshard_after_forward=False), sequences=4, recompute="none", divided=3
    )
    assert 60_226_959_360 * 3 // 4 == unsharded.passing.between
    piped = replace(plan, dp_shard=4, pp=4, pp_schedule="1f1b")
    staged = exchanges(traffic(), links_of(H100), piped, sequences=4, recompute="none", divided=3)
    quarter = 8_030_261_248 / 4
    assert (3 / 4 * quarter * 4, 3 / 4 * quarter * 4) == (staged.passing.inside, staged.once.inside)
    copies = exchanges(traffic(), links_of(H100), Plan(dp_replicate=8), sequences=4, recompute="none", divided=0)
    assert 7 / 8 * 8_030_261_248 * 8 == copies.once.inside


def test_context_parallel_bytes_by_hand() -> None:
    """Cp 2: keys and values of 32 x 8 x 128 x 2 elements x 2 B x 4,096 tokens, once forward, twice backward."""
    found = exchanges(traffic(), links_of(H100), Plan(cp=2), sequences=1, recompute="none", divided=0)
    assert 65_536 * 2 * 4096 * 3 == found.waiting.inside


def test_bubbles_by_hand() -> None:
    """1f1b of 4 stages and 13 micro-batches: 3 of 16 rounds; interleaved twice over: 1.5 of 14.5; zb-v none."""
    assert 3 / 16 == bubble_ratio(Plan(pp=4, pp_schedule="1f1b"), 13)
    assert 1.5 / 14.5 == pytest.approx(bubble_ratio(Plan(pp=4, pp_schedule="interleaved-1f1b", virtual_stages=2), 13))
    assert 0 == bubble_ratio(Plan(pp=4, pp_schedule="zb-v", virtual_stages=2), 13) == bubble_ratio(Plan(), 1)


def test_cost_is_the_printed_formula() -> None:
    """(1 + 1 / 3) / (1 - 0.2) + 0.1 + (1.5 - 1) + (0.5 - 1 / 4) = 2.5167."""
    cost = Proxy(
        inside_bytes=0, between_bytes=0, bubble_ratio=0.2, recompute_ratio=1, waiting_ratio=0.1, passing_ratio=1.5,
        once_ratio=0.5, passes=4,
    )  # fmt: skip
    assert 2.5167 == pytest.approx(cost.cost, abs=1e-4)
    hidden = replace(cost, passing_ratio=0.9, once_ratio=0.25)
    assert 1.7667 == pytest.approx(hidden.cost, abs=1e-4)


def test_operations_are_six_for_each_parameter_and_token() -> None:
    """Without attention's own products 6 * 8,030,261,248 * tokens; with them a little more, growing with the length."""
    plain = 6 * LLAMA.num_active_parameters * 8192
    found = traffic().operations(8192)
    assert 1 < found / plain < 1.3
    assert traffic().attention_share < replace(traffic(), sequence_tokens=32768).attention_share


def test_links_are_known_or_said_to_be_assumed() -> None:
    """Every row names a device of the catalogue; a device without a row gets an assumption that says so."""
    names = {name.rpartition("-")[0] for name in device_names()}
    assert set(LINKS) <= names
    assert UNKNOWN is links_of(replace(H100, name="this device"))
    answer = rank_meshes(replace(question(2, Training(sequence_tokens=512)), device=replace(H100, name="this device")))
    assert any(text.startswith("assumed") for text in answer.assumptions)


def device_names() -> list[str]:
    """Return the names of all devices."""
    from vramfit.catalogue.device import all_devices

    return [device.name for device in all_devices()]
