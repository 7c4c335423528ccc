"""Training over time: side by side with PyTorch's own tracker, laws of plans, refusals that name the field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramfit.catalogue.device import find_device
from vramfit.errors import ImpossiblePlanError, InvalidValueError, UnsupportedModelError
from vramfit.estimate import estimate
from vramfit.request import TRAINING_ONLY, Inference, Plan
from vramfit.result import Breakdown, Counter, Phase, Quantity
from vramfit.source import read_model
from vramfit.spec import ModelSpec
from vramfit.train import estimate_training
from vramfit.training import AdapterAsked, OffloadAsked, Training
from vramfit.training_result import TrainingEstimate
from vramfit.units import GIB

LLAMA = "meta-llama/Llama-3.1-8B"
PARAMETERS = 8_030_261_248
SIDE_BY_SIDE = (
    ("bf16", "fused", "none", 61.13),
    ("bf16", "for-loop", "none", 61.79),
    ("bf16", "foreach", "none", 74.79),
    ("bf16", "fused", "full", 59.85),
    ("bf16-mixed", "fused", "none", 122.50),
    ("bf16-mixed", "foreach", "none", 149.58),
    ("bf16-mixed", "fused", "full", 119.69),
)
"""Llama 3.1 8B, one sequence of 2,048 tokens: torch 2.13's MemTracker under FakeTensorMode, transformers 5.23. [GiB]"""


def llama(training: Training, plan: Plan | None = None) -> TrainingEstimate:
    """Answer for Llama 3.1 8B."""
    return estimate_training(read_model(LLAMA), training, plan)


def states(rank: Breakdown, *names: str) -> int:
    """Bytes of items whose first words are among these, each once."""
    return sum(i.bytes for i in rank.items if i.name.partition("/")[0] in names and Phase.OPTIMIZER in i.phases)


@pytest.mark.parametrize(("precision", "implementation", "recompute", "gib"), SIDE_BY_SIDE)
def test_side_by_side(precision: str, implementation: str, recompute: str, gib: float) -> None:
    """The peak of a whole step is within one per cent of what PyTorch's own tracker sees."""
    asked = Training(
        sequence_tokens=2048, precision=precision, optimizer_implementation=implementation, recompute=recompute
    )
    found = llama(asked).timelines[0].peak.total_bytes / GIB
    assert gib == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize(
    ("framework", "precision", "per_parameter"),
    [
        ("pytorch", "bf16", 2 + 2 + 4),
        ("pytorch", "fp32", 4 + 4 + 8),
        ("pytorch", "bf16-mixed", 4 + 4 + 8),
        ("deepspeed", "bf16-mixed", 2 + 2 + 12),
        ("megatron-lm", "bf16-mixed", 2 + 4 + 12),
        ("megatron-lm", "fp16-mixed", 2 + 2 + 12),
    ],
)
def test_bytes_per_parameter(framework: str, precision: str, per_parameter: int) -> None:
    """Weights, gradients and Adam's states add up to the recipe's bytes per parameter before anything is divided."""
    found = llama(Training(framework=framework, precision=precision, optimizer_implementation="fused"))
    held = sum(
        i.bytes
        for i in found.breakdowns[0].items
        if Phase.OPTIMIZER in i.phases
        and i.name.partition("/")[0] in {"weights", "gradients", "optimizer"}
        and not i.name.endswith(("temporaries", "/step"))
    )
    assert per_parameter * PARAMETERS == held


@pytest.mark.parametrize(
    ("framework", "stage", "bytes_of"),
    [
        ("deepspeed", 1, lambda n: 2 + 2 + 12 / n),
        ("deepspeed", 2, lambda n: 2 + 14 / n),
        ("megatron-lm", None, lambda n: 6 + 12 / n),
        ("torchtitan", None, lambda n: 16 / n),
    ],
)
@pytest.mark.parametrize("ranks", [2, 8])
def test_divided_states(framework: str, stage: int | None, bytes_of: object, ranks: int) -> None:
    """States, gradients and weights are divided as the ZeRO paper and Megatron's documentation say."""
    plan = Plan(dp_shard=ranks, zero_stage=stage)
    rank = llama(Training(framework=framework, sequence_tokens=2048), plan).breakdowns[0]
    held = states(rank, "weights", "gradients", "optimizer") - sum(
        i.bytes for i in rank.items if i.name.endswith(("temporaries", "/step"))
    )
    assert bytes_of(ranks) * PARAMETERS == pytest.approx(held, rel=1e-4)  # type: ignore[operator]


SIZES = st.integers(1, 64).map(lambda n: 128 * n)
SMALL = Training(sequence_tokens=2048, precision="bf16")


def model() -> ModelSpec:
    """Return a small model."""
    return read_model("meta-llama/Llama-3.2-1B")


@given(SIZES, SIZES, st.sampled_from(("none", "full")))
def test_more_tokens_never_cost_less(a: int, b: int, recompute: str) -> None:
    """A longer sequence never has a lower peak."""
    few, many = sorted((a, b))
    peaks = [
        estimate_training(model(), replace(SMALL, sequence_tokens=n, recompute=recompute)).worst.peak().expected_bytes
        for n in (few, many)
    ]
    assert peaks[0] <= peaks[1]


@given(st.sampled_from(("fp32", "bf16", "bf16-mixed")), SIZES)
def test_fused_never_costs_more_than_foreach(precision: str, tokens: int) -> None:
    """A fused step makes no copy of a state; foreach makes one."""
    asked = replace(SMALL, precision=precision, sequence_tokens=tokens)
    fused, foreach = (
        estimate_training(model(), replace(asked, optimizer_implementation=how)) for how in ("fused", "foreach")
    )
    assert fused.timelines[0].peak.total_bytes <= foreach.timelines[0].peak.total_bytes + 2**20


@given(st.sampled_from(("pytorch", "torchtitan", "deepspeed", "megatron-lm")), SIZES)
def test_one_rank_is_the_identity(framework: str, tokens: int) -> None:
    """A plan of ones is no plan."""
    asked = Training(framework=framework, sequence_tokens=tokens)
    assert estimate_training(model(), asked) == estimate_training(model(), asked, Plan(dp_shard=1, tp=1, pp=1, cp=1))


@given(st.sampled_from((2, 4, 8, 16)), st.sampled_from((1, 2, 4)))
def test_shards_add_up(dp_shard: int, tp: int) -> None:
    """All ranks together hold each weight once, and norms once more for each tensor rank."""
    plan = Plan(dp_shard=dp_shard, tp=tp)
    found = estimate_training(model(), replace(SMALL, framework="torchtitan"), plan)
    alone = estimate_training(model(), replace(SMALL, framework="torchtitan"))
    (rank,), (one,) = found.breakdowns, alone.breakdowns
    assert states(one, "weights") == pytest.approx(states(rank, "weights") * dp_shard * tp, rel=1e-3)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_stages_differ(schedule: str) -> None:
    """The first stage of 1F1B holds as many micro-batches as there are stages, the last one; GPipe all of them."""
    plan = Plan(pp=4, micro_batches=8, pp_schedule=schedule)
    found = llama(Training(framework="megatron-lm", sequence_tokens=2048), plan)
    waits = {b.rank: sum(i.bytes for i in b.items if "waiting" in i.name and Phase.BACKWARD in i.phases)
             for b in found.breakdowns}  # fmt: skip
    if schedule == "1f1b":
        assert ["stage 0", "stage 1", "stage 2", "stage 3"] == list(waits)
        assert waits["stage 0"] > waits["stage 1"] > waits["stage 2"] > waits["stage 3"] == 0
    else:
        assert ["stage 0", "stage 1, 2", "stage 3"] == list(waits)
        assert waits["stage 1, 2"] > 0


def test_readings_are_in_order() -> None:
    """What is allocated is reserved, what is reserved is in the process; each lies inside its own band."""
    readings = {r.quantity: r for r in llama(SMALL).worst.readings}
    kinds = (Quantity.LOADED, Quantity.ALLOCATED_PEAK, Quantity.RESERVED_PEAK, Quantity.PROCESS_PEAK)
    values = [readings[k].value for k in kinds]
    assert sorted(values) == values
    assert all(readings[k].low <= readings[k].value <= readings[k].high for k in kinds)


def test_breakdown_and_timeline_agree() -> None:
    """The items of the peak's phase add up to the fullest moment, but for the library workspace beside it."""
    found = llama(SMALL)
    (rank,), (line,) = found.breakdowns, found.timelines
    workspace = sum(i.bytes for i in rank.items if i.name == "runtime/cublas_workspace")
    assert line.peak.total_bytes + workspace == rank.peak(Counter.ALLOCATED).expected_bytes


def test_offload_moves_states_to_the_host() -> None:
    """What leaves the device is on the host: master weights and two moments of 4 B each."""
    asked = Training(framework="deepspeed", offload=OffloadAsked(optimizer="cpu"), sequence_tokens=2048)
    found = llama(asked, Plan(dp_shard=2, zero_stage=2))
    host = {i.name: i.bytes for i in found.hosts[0]}
    assert 12 * PARAMETERS / 2 == host["host/master_weights"] + host["host/optimizer_states"]
    assert 0 == states(found.breakdowns[0], "optimizer")


def test_lora_trains_adapters_only() -> None:
    """Rank 16 on queries and values of 32 layers: 16 * (4096 + 4096 + 4096 + 1024) parameters each, 16 B of them."""
    asked = Training(framework="peft", method="lora", adapter=AdapterAsked(rank=16), sequence_tokens=2048)
    found = llama(asked)
    adapters = 32 * 16 * (4096 + 4096 + 4096 + 1024)
    assert adapters == found.trained_parameters
    (rank,) = found.breakdowns
    moments = sum(i.bytes for i in rank.items if i.name in {"optimizer/exp_avg", "optimizer/exp_avg_sq"})
    assert 8 * adapters == moments
    frozen = sum(i.bytes for i in rank.items if i.name.startswith("weights/frozen"))
    assert 2 * PARAMETERS == frozen


@pytest.mark.parametrize("name", TRAINING_ONLY)
def test_serving_refuses_plans_of_training(name: str) -> None:
    """A field of a plan that no server takes is refused by its name."""
    named: dict[str, Any] = {"sequence_parallel": True, "pp_schedule": "1f1b", "distributed_optimizer": True,
                             "reshard_after_forward": True, "layers_per_stage": (16, 16)}  # fmt: skip
    value = named.get(name, 2)
    with pytest.raises(InvalidValueError, match=f"plan.{name}"):
        estimate(read_model(LLAMA), Inference(context_tokens=2048), Plan(**{name: value}))


@pytest.mark.parametrize(
    ("training", "plan", "count", "said"),
    [
        (Training(), Plan(dp_shard=4), 8, "take 4 devices: expected 8"),
        (Training(), Plan(tp=3), None, "plan.tp: 3"),
        (Training(), Plan(ep=2, dp_shard=2), None, "has no experts"),
        (Training(), Plan(pp=33), None, "33"),
        (Training(), Plan(pp=2, layers_per_stage=(10, 10)), None, "sums to 20"),
        (Training(method="lora", adapter=AdapterAsked(targets=("nope",))), None, None, "q_proj"),
        (Training(adapter=AdapterAsked(rank=4)), None, None, "workload.adapter"),
        (Training(base_format="nf4"), None, None, "workload.base_format"),
        (Training(precision="fp8-mixed", framework="litgpt"), None, None, "workload.precision"),
        (Training(freeze=("nothing_like_it",)), None, None, "workload.freeze"),
        (Training(optimizer_in_backward=True, gradient_accumulation_steps=2), None, None, "optimizer_in_backward"),
    ],
)
def test_what_cannot_be_is_refused(training: Training, plan: Plan | None, count: int | None, said: str) -> None:
    """An impossible plan or contradictory recipe is one error that names what was seen."""
    with pytest.raises((ImpossiblePlanError, InvalidValueError), match=said):
        estimate_training(read_model(LLAMA), training, plan, device_count=count)


def test_dpo_is_pairs_and_a_reference() -> None:
    """Two sequences for each sample, and one frozen copy of 2 B for each parameter; an adapter's base is the copy."""
    asked = Training(framework="trl", objective="dpo", sequence_tokens=1024, precision="bf16")
    found = estimate_training(model(), asked)
    pairs = estimate_training(model(), replace(asked, objective="next-token", micro_batch=2))
    (reference,) = (i.bytes for i in found.breakdowns[0].items if i.name == "models/reference")
    assert 2 * model().num_parameters == reference
    assert found.timelines[0].peak.total_bytes == pairs.timelines[0].peak.total_bytes + reference
    adapted = estimate_training(model(), replace(asked, method="lora"))
    assert not [i for i in adapted.breakdowns[0].items if i.name == "models/reference"]


def test_reward_has_no_vocabulary() -> None:
    """A reward model's head is one number for each sequence."""
    asked = Training(framework="trl", objective="reward", sequence_tokens=1024, precision="bf16")
    found = estimate_training(read_model(LLAMA), asked)
    assert PARAMETERS - 128_256 * 4096 + 4096 == found.trained_parameters


@pytest.mark.parametrize("objective", ["ppo", "grpo"])
def test_generating_is_a_phase(objective: str) -> None:
    """Weights and states stand while sequences are generated; the engine of GRPO takes its share of the card."""
    device = find_device("h100-sxm-80gb")
    asked = Training(framework="trl", objective=objective, sequence_tokens=1024, precision="bf16")
    (rank,) = estimate_training(model(), asked, None, device).breakdowns
    assert rank.total(Phase.ROLLOUT).expected_bytes > 6 * model().num_parameters
    if objective == "grpo":
        engine = next(i.bytes for i in rank.items if i.name == "rollout/engine")
        assert device.capacity_bytes * 0.3 == pytest.approx(engine, abs=1)


@pytest.mark.parametrize("name", ["facebook/dinov2-small"])
def test_models_without_tokens_are_refused(name: str) -> None:
    """What reads images alone is refused by name, and the other way is offered."""
    with pytest.raises(UnsupportedModelError, match="vramfit trace"):
        estimate_training(read_model(name), Training())


def test_megatron_s_narrow_moments_are_widened_for_the_step() -> None:
    """Weights 2, gradients 2, remainder of fp32 weights 2, moments 2 + 2; in the step two fp32 copies of them."""
    model = read_model("llama-3.1-8b")
    workload = Training(
        framework="megatron-lm", precision="bf16-mixed", gradient_format="bf16", optimizer_state_format="bf16",
        sequence_tokens=128, recompute="full",
    )  # fmt: skip
    (rank,) = estimate_training(model, workload).breakdowns
    sizes = {item.name: item.bytes for item in rank.items}
    assert 2 * model.num_parameters == sizes["optimizer/master_weights"]
    assert 8 * model.num_parameters == sizes["optimizer/step_temporaries"]
    assert {"optimizer/exp_avg", "optimizer/exp_avg_sq"} <= set(sizes)


def test_stage_two_of_fsdp_divides_weights_between_steps() -> None:
    """SHARD_GRAD_OP keeps 4 / 8 B of each weight between steps and all of them in 16 bit while a step runs."""
    asked = Training(framework="torchtitan", sequence_tokens=2048, recompute="full")
    rank = llama(asked, Plan(dp_shard=8, zero_stage=2)).breakdowns[0]
    assert 4 * PARAMETERS / 8 == pytest.approx(states(rank, "weights"), rel=1e-3)
    whole = max(i.bytes for i in rank.items if i.name == "buffers/gathered_weights")
    assert 2 * PARAMETERS == pytest.approx(whole, rel=1e-3)


def test_one_recipe_with_and_without_ranks() -> None:
    """Weights that FSDP casts as it gathers them are cast by autocast where nothing is gathered."""
    asked = Training(framework="torchtitan", sequence_tokens=1024)
    names = {i.name for i in llama(asked).breakdowns[0].items}
    assert "buffers/gathered_weights" not in names
    alone, titan = llama(Training(sequence_tokens=1024)).breakdowns[0], llama(asked).breakdowns[0]
    assert states(alone, "weights") == states(titan, "weights")
    assert any("cast" in name or "autocast" in name for name in names)


def test_states_on_a_drive_are_not_in_host_memory() -> None:
    """NVMe offload leaves the fp32 gradients of the step on the host, and nothing else."""
    asked = Training(framework="deepspeed", offload=OffloadAsked(optimizer="nvme"), sequence_tokens=2048)
    found = llama(asked, Plan(dp_shard=2, zero_stage=3))
    assert 4 * PARAMETERS / 2 == pytest.approx(found.host_bytes, rel=1e-6)
    disk = sum(i.bytes for i in found.hosts[0] if i.name.startswith("disk/"))
    assert 12 * PARAMETERS / 2 == pytest.approx(disk, rel=1e-6)


def test_offloaded_checkpoints_wait_on_the_host() -> None:
    """Inputs of 32 blocks of 2,048 tokens in 16 bit are on the host, up to the last, which is used at once."""
    found = llama(Training(sequence_tokens=2048, precision="bf16", recompute="offload"))
    (size,) = (i.bytes for i in found.hosts[0] if i.name == "host/activations")
    one = 2048 * 4096 * 2
    assert 31 * one <= size <= 33 * one


def test_bf16_gradients_stay_beside_their_fp32_sum() -> None:
    """DeepSpeed's BF16_Optimizer: six bytes a parameter stay, whatever ZeRO 1 divides; nothing is cast for the step."""
    asked = Training(framework="deepspeed", sequence_tokens=512, gradient_format="fp32", precision="bf16-mixed")
    rank = llama(asked, Plan(dp_shard=8, zero_stage=1)).breakdowns[0]
    assert 6 * PARAMETERS == states(rank, "gradients")
    assert not [i.name for i in rank.items if i.name in {"optimizer/step_temporaries", "buffers/reduce_bucket"}]


def test_megatron_s_groups_of_all_ranks() -> None:
    """Data, tensor, pipeline, all ranks and a copy of the model; one more for first and last stage of a tied one."""
    plan = Plan(dp_replicate=2, tp=2, pp=2)
    asked = Training(framework="megatron-lm", sequence_tokens=512)
    for name, groups in ((LLAMA, 5), ("meta-llama/Llama-3.2-1B", 6)):
        rank = estimate_training(read_model(name), asked, plan).breakdowns[0]
        (item,) = (i for i in rank.items if i.name == "runtime/collectives")
        assert groups * GIB == item.bytes


def test_deepspeed_s_pipeline_holds_what_it_sent() -> None:
    """Of every forward pass that waits the output too, divided by tensor-parallel ranks."""
    asked = Training(framework="deepspeed", sequence_tokens=512, recompute="full", gradient_accumulation_steps=8)
    waiting = {}
    for pp in (2, 4):
        rank = llama(asked, Plan(pp=pp, zero_stage=1, micro_batches=8)).breakdowns[0]
        (waiting[pp],) = (i.bytes for i in rank.items if i.name == "activations/waiting_micro_batches")
    hidden, batch, tables = 512 * 4096 * 2, 2 * 512 * 8, 2 * 512 * 128 * 2
    assert hidden * (16 + 1) + batch + tables == waiting[2]
    assert 3 * (hidden * (8 + 1) + batch + tables) == waiting[4]


@pytest.mark.parametrize(("framework", "method"), [("transformers", "full"), ("litgpt", "lora")])
def test_gradients_add_up_whole_before_the_last_micro_batch(framework: str, method: str) -> None:
    """Under ``no_sync`` every rank holds all of a block's gradients; of a flat parameter, its frozen weights' too."""
    asked = Training(framework=framework, method=method, sequence_tokens=512, precision="bf16", recompute="full")
    sizes = {}
    for steps in (1, 4):
        found = llama(replace(asked, gradient_accumulation_steps=steps), Plan(dp_shard=4))
        moments = [m for m in found.timelines[0].moments if m.phase is Phase.FORWARD]
        sizes[steps] = max(dict(m.parts).get("gradients", 0) for m in moments)
    blocks = PARAMETERS - 2 * 128256 * 4096 - 4096
    adapters = 32 * 8 * (4096 + 4096 + 4096 + 1024)
    assert {1: 0, 4: 2 * (PARAMETERS if method == "full" else blocks + adapters)} == sizes


def test_gate_and_up_of_one_tensor_are_two_layers_in_litgpt() -> None:
    """Where the checkpoint merges them, each of the two adapters keeps a dropped copy of its input and the mask."""
    model = read_model("microsoft/Phi-3-mini-4k-instruct")
    kept = {}
    for targets in (("o_proj",), ("o_proj", "gate_up_proj")):
        adapter = AdapterAsked(rank=8, targets=targets, dropout=0.05)
        asked = Training(framework="litgpt", method="lora", sequence_tokens=512, precision="bf16", adapter=adapter)
        rank = estimate_training(model, asked).breakdowns[0]
        kept[len(targets)] = sum(i.bytes for i in rank.items if i.name == "activations/network")
    assert 32 * 512 * 3072 * 2 * (2 + 1) < kept[2] - kept[1]
