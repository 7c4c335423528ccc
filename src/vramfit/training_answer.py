"""A request about training in, everything that answers it out."""

from __future__ import annotations

from dataclasses import replace

from vramfit.answer import asked_device, asked_model
from vramfit.catalogue.device import all_devices
from vramfit.fit import fit
from vramfit.framework import Sharding
from vramfit.frameworks.profile import find_framework
from vramfit.request import Plan
from vramfit.result import Choice, Fit, Verdict
from vramfit.train import estimate_training
from vramfit.train_changes import smallest_change
from vramfit.train_devices import device_options
from vramfit.train_search import TrainingQuestion, cheapest_recompute, largest_micro_batch, longest_sequence
from vramfit.training import TrainingRequest
from vramfit.training_plan import sharding_of
from vramfit.training_result import TrainingAnswer, TrainingEstimate
from vramfit.units import check_size


def answer_training(request: TrainingRequest, *, hub: bool = False) -> TrainingAnswer:
    """Return estimate, verdict, limits, device counts and changes for one request.

    Args:
        request: one question.
        hub: True = ask the Hub even when the catalogue knows the model.

    Raises:
        VramfitError: anything about the request that cannot be; the message says what and where.
    """
    check_size(request.headroom_bytes, "headroom_bytes", smallest=0)
    model, device = asked_model(request, hub=hub), asked_device(request)
    plan, choices = spread(request)
    found = estimate_training(model, request.workload, plan, device, request.device_count)
    found = replace(found, choices=(*choices, *found.choices))
    understood = replace(request, workload=found.training, plan=found.plan)
    if device is None:
        return TrainingAnswer(request=understood, estimate=found, fit=_unknown(found, request))
    judged = fit(found.breakdowns, device, request.headroom_bytes)
    question = TrainingQuestion(model, request.workload, plan, device, request.headroom_bytes)
    micro_batch, sequence = largest_micro_batch(question), longest_sequence(question)
    enough = judged.verdict is Verdict.FITS
    return TrainingAnswer(
        request=understood,
        estimate=found,
        fit=judged,
        largest_micro_batch=micro_batch,
        longest_sequence=sequence,
        cheapest_recompute=cheapest_recompute(question),
        device_options=device_options(question, all_devices()),
        changes=() if enough else smallest_change(question, micro_batch, sequence),
    )


def spread(request: TrainingRequest) -> tuple[Plan, tuple[Choice, ...]]:
    """Return the plan as asked; devices that its degrees leave over are data-parallel, as the framework has it."""
    plan, devices = request.plan, request.device_count
    if devices is None or plan.dp_replicate * plan.dp_shard > 1:
        return plan, ()
    check_size(devices, "device_count")
    left = devices // plan.num_devices
    if left < 2 or devices % plan.num_devices:
        return plan, ()
    framework, _ = find_framework(request.workload.framework, request.workload.framework_version)
    sharded = replace(plan, dp_shard=left)
    copies = sharding_of(framework, sharded) in {Sharding.NONE, Sharding.DDP, Sharding.MEGATRON}
    name = "dp_replicate" if copies else "dp_shard"
    spread_over = replace(plan, dp_replicate=left) if copies else sharded
    why = f"{devices} devices and no data-parallel degree: as {framework.name} does by default"
    return spread_over, (Choice(field=f"plan.{name}", value=left, why=why),)


def _unknown(found: TrainingEstimate, request: TrainingRequest) -> Fit:
    """Return the verdict where no device was named."""
    worst = found.worst
    largest = max((i for i in worst.items if worst.peak_phase in i.phases), key=lambda i: i.bytes)
    return Fit(
        verdict=Verdict.UNKNOWN,
        device="",
        capacity_bytes=0,
        headroom_bytes=request.headroom_bytes,
        margin_bytes=0,
        high_margin_bytes=0,
        worst_rank=worst.rank,
        largest_item=largest.name,
    )
