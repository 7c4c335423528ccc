"""Plans of training: what is in flight, over how many ranks states are divided, and what cannot be."""

from __future__ import annotations

import pytest

from vramfit.errors import ImpossiblePlanError
from vramfit.framework import Sharding
from vramfit.frameworks.profile import find_framework
from vramfit.request import Plan
from vramfit.source import read_model
from vramfit.training_plan import cutting, in_flight, sharding_of, training_shards


@pytest.mark.parametrize(
    ("schedule", "pieces", "held"),
    [
        ("gpipe", 1, (8, 8, 8, 8)),
        ("1f1b", 1, (4, 3, 2, 1)),
        ("zb-h1", 1, (4, 3, 2, 1)),
        ("interleaved-1f1b", 2, (4 + 7, 4 + 5, 4 + 3, 4 + 1)),
        ("zb-v", 2, (8, 8, 8, 8)),
        ("v-half", 2, (6, 6, 6, 6)),
        ("v-min", 2, (4, 4, 4, 4)),
        ("dualpipe-v", 2, (9, 9, 9, 9)),
    ],
)
def test_forward_passes_in_flight(schedule: str, pieces: int, held: tuple[int, ...]) -> None:
    """Four stages, eight micro-batches: by the schedules' own warm-ups, in pieces of the model."""
    plan = Plan(pp=4, pp_schedule=schedule, virtual_stages=pieces, micro_batches=8)
    assert held == tuple(in_flight(plan, stage) for stage in range(4))


def test_few_micro_batches_bound_what_is_in_flight() -> None:
    """With two micro-batches no stage holds more than two."""
    assert 2 == in_flight(Plan(pp=8, pp_schedule="1f1b", micro_batches=2), 0)


@pytest.mark.parametrize(
    ("name", "plan", "common", "experts"),
    [
        ("megatron-lm", Plan(dp_replicate=4, cp=2, distributed_optimizer=True), 8, 8),
        ("megatron-lm", Plan(dp_replicate=8, ep=8, etp=1, distributed_optimizer=True), 8, 1),
        ("megatron-lm", Plan(dp_replicate=4, tp=2, ep=4, etp=1, distributed_optimizer=True), 4, 2),
        ("megatron-lm", Plan(dp_replicate=8), 1, 1),
        ("torchtitan", Plan(dp_shard=4, cp=2), 8, 8),
        ("torchtitan", Plan(dp_replicate=2, dp_shard=4), 4, 4),
        ("torchtitan", Plan(dp_shard=8, ep=4), 8, 2),
    ],
)
def test_ranks_that_divide_states(name: str, plan: Plan, common: int, experts: int) -> None:
    """Data and context parallelism together; experts over what their own groups leave of the stage's ranks."""
    cut = cutting(find_framework(name)[0], plan, 1)
    assert (common, experts) == (cut.state_ranks, cut.expert_state_ranks)


@pytest.mark.parametrize(
    ("name", "plan", "sharding"),
    [
        ("pytorch", Plan(), Sharding.NONE),
        ("pytorch", Plan(dp_replicate=2), Sharding.DDP),
        ("pytorch", Plan(dp_shard=2), Sharding.FSDP2),
        ("transformers", Plan(dp_shard=2, zero_stage=2), Sharding.ZERO),
        ("deepspeed", Plan(), Sharding.ZERO),
        ("megatron-lm", Plan(tp=2), Sharding.MEGATRON),
    ],
)
def test_ways_to_divide(name: str, plan: Plan, sharding: Sharding) -> None:
    """One device divides nothing, replicas are DDP, a ZeRO stage beside the Trainer means DeepSpeed."""
    assert sharding is sharding_of(find_framework(name)[0], plan)


def test_experts_are_handed_out() -> None:
    """Each of 8 ranks holds 16 of 128 experts of Qwen3-30B-A3B, all else whole."""
    model = read_model("Qwen/Qwen3-30B-A3B")
    plan = Plan(dp_shard=8, ep=8)
    (rank,) = training_shards(model, cutting(find_framework("torchtitan")[0], plan, 1))
    inside = {t.experts for layer in rank.model.layers for t in layer.tensors if t.experts}
    assert {16} == inside
    routed = 48 * 3 * 768 * 2048 * 128
    assert model.num_parameters - routed + routed // 8 == rank.model.num_parameters


def test_v_shaped_schedules_put_both_ends_on_one_rank() -> None:
    """The first rank of ZB-V holds the first and the last layers, embedding and head."""
    model = read_model("meta-llama/Llama-3.1-8B")
    plan = Plan(pp=4, pp_schedule="zb-v", micro_batches=8)
    ranks = training_shards(model, cutting(find_framework("megatron-lm")[0], plan, 1))
    assert (True, True) == (ranks[0].first, ranks[0].last)
    assert model.head == ranks[0].model.head
    assert model.num_parameters == sum(rank.model.num_parameters * rank.num_ranks for rank in ranks)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(dp_shard=8, ep=3),
        Plan(dp_shard=2, ep=4, etp=1),
        Plan(pp=8, virtual_stages=8, pp_schedule="interleaved-1f1b"),
    ],
)
def test_plans_that_cannot_be(plan: Plan) -> None:
    """Experts that do not divide, groups larger than the ranks there are, more pieces than layers."""
    model = read_model("Qwen/Qwen3-30B-A3B")
    with pytest.raises(ImpossiblePlanError):
        training_shards(model, cutting(find_framework("torchtitan")[0], plan, 1))
