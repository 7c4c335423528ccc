"""Inverses and changes of training: they agree with ``estimate_training``, at the boundary and one step past it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vramfit.catalogue.device import all_devices, find_device
from vramfit.fit import fit
from vramfit.frameworks.profile import find_framework
from vramfit.request import Plan
from vramfit.result import Limit, Verdict
from vramfit.source import read_model
from vramfit.train import estimate_training
from vramfit.train_changes import Step, cheapest_combination, plan_text, smallest_change, steps
from vramfit.train_devices import TrainingPlans, device_options
from vramfit.train_search import (
    TrainingQuestion,
    cheapest_recompute,
    largest_micro_batch,
    longest_sequence,
    recomputes_of,
    sequence_step,
)
from vramfit.training import Training, TrainingRequest
from vramfit.training_answer import answer_training

LLAMA = read_model("meta-llama/Llama-3.1-8B")
H100 = find_device("h100-sxm-80gb")
QUESTION = TrainingQuestion(
    LLAMA, Training(framework="torchtitan", sequence_tokens=4096, recompute="full"), Plan(dp_shard=8), H100
)


def verdict(workload: Training, plan: Plan) -> Verdict:
    """Judge by the forward functions alone."""
    return fit(estimate_training(LLAMA, workload, plan, H100).breakdowns, H100).verdict


def test_one_more_sequence_would_not_fit() -> None:
    """The largest micro-batch fits, the next one does not."""
    limit = largest_micro_batch(QUESTION)
    assert "memory" == limit.bounded_by
    assert limit.value >= 1
    for micro_batch, fits in ((limit.value, True), (limit.value + 1, False)):
        found = verdict(replace(QUESTION.workload, micro_batch=micro_batch), QUESTION.plan)
        assert fits == (found is Verdict.FITS)


def test_one_more_token_would_not_fit() -> None:
    """The longest sequence fits, the next length that ranks divide evenly does not."""
    question = replace(QUESTION, workload=replace(QUESTION.workload, micro_batch=4), plan=Plan(dp_shard=2, tp=2, cp=2))
    limit, step = longest_sequence(question), sequence_step(question.plan)
    assert (4, 0) == (step, limit.value % step)
    assert "memory" == limit.bounded_by
    for tokens, fits in ((limit.value, True), (limit.value + step, False)):
        found = verdict(replace(question.workload, sequence_tokens=tokens), question.plan)
        assert fits == (found is Verdict.FITS)


def test_sequence_stops_at_the_positions_of_the_model() -> None:
    """Small enough work is bounded by what the model was made for: 131,072 tokens."""
    small = replace(QUESTION, plan=Plan(dp_shard=64, tp=8, cp=8))
    assert Limit(value=131_072, bounded_by="max_position_embeddings") == longest_sequence(small)


def test_cheapest_recompute_is_the_first_that_fits() -> None:
    """What it names fits, and no cheaper one does; none is named where none fits."""
    found = cheapest_recompute(QUESTION)
    assert found is not None
    known = recomputes_of(QUESTION.workload)
    for name in known[: known.index(found) + 1]:
        workload = replace(QUESTION.workload, recompute=name)
        assert (name == found) == (verdict(workload, QUESTION.plan) is Verdict.FITS)
    assert cheapest_recompute(replace(QUESTION, plan=Plan())) is None


def test_fewest_devices_hold_it_and_fewer_do_not() -> None:
    """The named count fits with its plan; every smaller count that is tried has no plan that does."""
    workload = replace(QUESTION.workload, micro_batch=1)
    question = replace(QUESTION, workload=workload, plan=Plan())
    own, *others = device_options(question, all_devices())
    assert ("h100-sxm-80gb", own.count) == (own.device, own.plan.num_devices)
    assert own.count > 1
    assert Verdict.FITS is verdict(workload, own.plan)
    assert own.price is not None
    assert H100.price is not None
    assert H100.price.times(own.count) == own.price
    plans = TrainingPlans(LLAMA, workload, Plan(), find_framework("torchtitan")[0])
    for count in range(1, own.count):
        best = plans.best(count, H100, 0)
        assert best is None or best[1].verdict is not Verdict.FITS
    assert sorted(o.count for o in others) == [o.count for o in others]
    assert all(o.price is not None for o in others)


@pytest.mark.parametrize(
    ("framework", "plan"),
    [("pytorch", Plan()), ("deepspeed", Plan(dp_shard=4)), ("megatron-lm", Plan(dp_replicate=4, tp=2))],
)
def test_changes_hold_what_they_promise(framework: str, plan: Plan) -> None:
    """Each single change, made by hand, gives the verdict and the bytes that it announces; sufficient ones first."""
    workload = Training(framework=framework, sequence_tokens=4096, micro_batch=2)
    question = TrainingQuestion(LLAMA, workload, plan, H100)
    before = fit(estimate_training(LLAMA, workload, plan, H100).breakdowns, H100)
    assert Verdict.DOES_NOT_FIT is before.verdict
    micro_batch, sequence = largest_micro_batch(question), longest_sequence(question)
    found = {change.flags: change for change in smallest_change(question, micro_batch, sequence)}
    made = {step.flags: step.on(workload, plan) for step in steps(question, micro_batch, sequence)}
    assert len(found.keys() & made.keys()) >= 5
    for flags in found.keys() & made.keys():
        after = fit(estimate_training(LLAMA, *made[flags], H100).breakdowns, H100)
        assert (after.verdict, after.margin_bytes) == (found[flags].verdict, found[flags].margin_bytes)
        assert after.margin_bytes - before.margin_bytes == found[flags].saves_bytes > 0
    fits = [change.verdict is Verdict.FITS for change in found.values()]
    assert sorted(fits, reverse=True) == fits
    enough = [change.saves_bytes for change in found.values() if change.verdict is Verdict.FITS]
    assert sorted(enough) == enough


def test_combination_fits_and_needs_every_part() -> None:
    """Where no single change is enough, the combination in front is, and without any part of it is not."""
    question = TrainingQuestion(LLAMA, Training(sequence_tokens=8192, micro_batch=4), Plan(), H100)
    micro_batch, sequence = largest_micro_batch(question), longest_sequence(question)
    first, *singles = smallest_change(question, micro_batch, sequence)
    assert Verdict.FITS is first.verdict
    assert not any(single.verdict is Verdict.FITS for single in singles)
    known = [step for step in steps(question, micro_batch, sequence) if step.flags in first.flags]
    parts = [step for step in known if not any(step is not s and step.flags in s.flags for s in known)]
    assert " ".join(step.flags for step in parts) == first.flags or len(parts) > 1
    for left_out in parts:
        workload, plan = question.workload, question.plan
        for step in parts:
            if step is not left_out:
                workload, plan = step.on(workload, plan)
        assert verdict(workload, plan) is not Verdict.FITS


def test_combination_lowers_one_phase_after_the_other() -> None:
    """8B on 24 GB: the step is the peak, so recomputation alone saves nothing; once it is lowered, it is needed."""
    small = find_device("l4-24gb")
    question = TrainingQuestion(LLAMA, Training(sequence_tokens=4096), Plan(), small)
    alone = fit(estimate_training(LLAMA, replace(question.workload, recompute="full"), Plan(), small).breakdowns, small)
    assert question.fit().margin_bytes == alone.margin_bytes
    first = smallest_change(question, largest_micro_batch(question), longest_sequence(question))[0]
    assert Verdict.FITS is first.verdict
    assert "--recompute full" in first.flags


def test_no_combination_where_none_is_enough() -> None:
    """A single change that helps too little makes no combination."""
    question = TrainingQuestion(LLAMA, Training(sequence_tokens=8192), Plan(), H100)
    small = Step(knob="loss", flags="--loss chunked", price=0, note="", workload={"loss": "chunked"}, plan={})
    assert cheapest_combination(question, question.fit(), [small]) is None


def test_contradicting_changes_are_left_out() -> None:
    """The optimizer cannot run in the backward pass of several micro-batches, so that it is not offered."""
    question = TrainingQuestion(LLAMA, Training(gradient_accumulation_steps=4), Plan(), H100)
    found = smallest_change(question, largest_micro_batch(question), longest_sequence(question))
    assert not any("in-backward" in change.flags for change in found)


def test_plan_text_is_what_the_option_takes() -> None:
    """A plan as text, read by ``--plan``, is the plan again."""
    from vramfit.cli.plan_option import parse_plan

    plan = Plan(dp_shard=8, tp=2, pp=2, reshard_after_forward=False, layers_per_stage=(15, 17), zero_stage=3)
    assert plan == Plan(**parse_plan(plan_text(plan)))  # type: ignore[arg-type]


def test_answer_has_limits_options_and_changes() -> None:
    """The door gives what the functions give; what fits has no changes."""
    request = TrainingRequest(model="meta-llama/Llama-3.1-8B", workload=QUESTION.workload, plan=QUESTION.plan,
                              device="h100-sxm-80gb")  # fmt: skip
    found = answer_training(request)
    assert largest_micro_batch(QUESTION) == found.largest_micro_batch
    assert longest_sequence(QUESTION) == found.longest_sequence
    assert cheapest_recompute(QUESTION) == found.cheapest_recompute
    assert "h100-sxm-80gb" == found.device_options[0].device
    assert (Verdict.FITS, ()) == (found.fit.verdict, found.changes)
    assert answer_training(replace(request, device=None)).largest_micro_batch is None
