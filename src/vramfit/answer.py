"""One request in, everything that answers it out: the door behind every door."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vramfit.catalogue.device import all_devices, find_device
from vramfit.device import Device
from vramfit.engines.profile import find_engine
from vramfit.errors import ImpossiblePlanError, InvalidValueError
from vramfit.estimate import breakdowns, count, estimate, readings, summarise
from vramfit.fit import fit
from vramfit.request import Plan, Request, refuse_arrays
from vramfit.result import Answer, Choice, Estimate, Fit, Verdict
from vramfit.search import (
    Question,
    device_options,
    largest_batch,
    longest_context,
    plans_for,
    smallest_change,
)
from vramfit.source import read_model
from vramfit.spec import ModelSpec
from vramfit.understand import understand
from vramfit.units import check_size

if TYPE_CHECKING:
    from vramfit.training import TrainingRequest  # only training pays for its nouns


def answer(request: Request, *, hub: bool = False) -> Answer:
    """Return estimate, verdict, limits, device counts and changes for one request.

    Args:
        request: one question; sizes must be integers, not arrays.
        hub: True = ask the Hub even when the catalogue knows the model.

    Raises:
        VramfitError: anything about the request that cannot be; the message says what and where.
    """
    model, device, plan, choices = _asked(request, hub=hub)
    understood = understand(model, request.workload, device)
    counted = count(understood, plan)
    ranks = readings(counted, breakdowns(counted, device), device)
    result = summarise(understood, ranks)
    result = replace(result, choices=(*choices, *result.choices))
    asked = replace(request, workload=understood.workload, plan=plan)
    if device is None:
        return _without_device(asked, result)
    question = Question(
        model=model, workload=request.workload, plan=plan, device=device, headroom_bytes=request.headroom_bytes
    )
    judged = fit(ranks, device, request.headroom_bytes)
    options = device_options(question, all_devices())
    enough = judged.verdict is Verdict.FITS
    if model.components:
        whole = find_engine(request.workload.engine).pipelines
        most = largest_batch(question) if whole else None
        tight = enough and not whole  # what grows with batch and image is not counted: weights that fit are not all
        return Answer(
            request=asked,
            estimate=result,
            fit=replace(judged, verdict=Verdict.TIGHT) if tight else judged,
            longest_context=None,
            largest_batch=most,
            device_options=options,
            changes=() if enough else smallest_change(question, None, most, options[0]),
        )
    context = longest_context(question)
    batch = largest_batch(question)
    return Answer(
        request=asked,
        estimate=result,
        fit=judged,
        longest_context=context,
        largest_batch=batch,
        device_options=options,
        changes=() if enough else smallest_change(question, context, batch, options[0]),
    )


def forward(request: Request, *, hub: bool = False) -> Estimate:
    """Return the estimate of one request, without verdicts and inverses.

    Raises:
        VramfitError: anything about the request that cannot be; the message says what and where.
    """
    model, device, plan, choices = _asked(request, hub=hub)
    found = estimate(model, request.workload, plan, device)
    return replace(found, choices=(*choices, *found.choices))


def _asked(request: Request, *, hub: bool) -> tuple[ModelSpec, Device | None, Plan, tuple[Choice, ...]]:
    """Return model, device and plan of a request, and what was chosen for the plan."""
    refuse_arrays(request.workload, "use estimate() for whole grids")
    check_size(request.headroom_bytes, "headroom_bytes", smallest=0)
    model, device = asked_model(request, hub=hub), asked_device(request)
    return model, device, *_plan(request, model, device)


def asked_model(request: Request | TrainingRequest, *, hub: bool) -> ModelSpec:
    """Return the model of a request, read from its config or looked up."""
    if request.config is not None:
        return read_model(request.config, name=request.model or "config")
    if request.model is None:
        raise InvalidValueError("model", None, "a Hub id, a catalogue name or a path", "or give config")
    return read_model(request.model, hub=hub)


def asked_device(request: Request | TrainingRequest) -> Device | None:
    """Return the named device, with the memory that was read from the real card if that was given."""
    size = request.device_memory_bytes
    if size is not None:
        check_size(size, "device_memory_bytes", smallest=2**20)
    if request.device is not None:
        found = find_device(request.device)
        return found if size is None else replace(found, total_bytes=size, usable_bytes=None)
    if size is None:
        return None
    return Device(name="this device", product="this device", vendor="unknown", total_bytes=size, marketing_gb=None)


def _plan(request: Request, model: ModelSpec, device: Device | None) -> tuple[Plan, tuple[Choice, ...]]:
    """Return the plan as asked, or the best one over ``device_count`` devices."""
    num, plan = request.device_count, request.plan
    if num is not None:
        check_size(num, "device_count")
    if num is None or num == plan.num_devices:
        return plan, ()
    if plan.num_devices > 1:
        raise ImpossiblePlanError(
            f"device_count: {num}: expected {plan.num_devices}, the product of the plan's degrees "
            f"(dp_replicate {plan.dp_replicate} x tp {plan.tp} x pp {plan.pp}); change one of them"
        )
    if device is None:
        raise InvalidValueError(
            "device_count", num, "a device beside it, or a plan", "name a card with --gpu, or --tp/--pp"
        )
    if model.components:
        raise ImpossiblePlanError(
            f"device_count: {num}: expected 1: this version does not divide diffusion pipelines; --dp {num} gives "
            "each device a copy"
        )
    best = plans_for(model, request.workload).best(num, device, request.headroom_bytes)
    if best is None:
        raise ImpossiblePlanError(
            f"device_count: {num}: no tensor degree up to 8 and pipeline degree up to {len(model.layers)} divide "
            f"{model.name} so; expected a count such as 2, 4 or 8, or an explicit plan"
        )
    how = "fewest stages of the plans that fit" if best[1].verdict is Verdict.FITS else "largest margin of the plans"
    why = f"{how} on {num} devices"
    return best[0], (Choice(field="plan", value=f"tp {best[0].tp}, pp {best[0].pp}", why=why),)


def _without_device(request: Request, result: Estimate) -> Answer:
    worst = result.worst
    largest = max((i for i in worst.items if worst.peak_phase in i.phases), key=lambda i: i.bytes)
    unknown = Fit(
        verdict=Verdict.UNKNOWN,
        device="",
        capacity_bytes=0,
        headroom_bytes=request.headroom_bytes,
        margin_bytes=0,
        high_margin_bytes=0,
        worst_rank=worst.rank,
        largest_item=largest.name,
    )
    return Answer(
        request=request,
        estimate=result,
        fit=unknown,
        longest_context=None,
        largest_batch=None,
        device_options=(),
        changes=(),
    )
