"""What a server carries: the answers to ``--lengths``, ``--requests``, ``--beside`` and several devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vramfit.capacity import Capacity, Lengths
from vramfit.catalogue.device import find_device
from vramfit.device import Device
from vramfit.errors import InvalidValueError
from vramfit.request import Inference, Request
from vramfit.result import Answer
from vramfit.search import Question
from vramfit.serving import ranked_plans, requests_at_once, smallest_fraction, two_models
from vramfit.source import read_model
from vramfit.spec import ModelSpec
from vramfit.units import parse_count


def capacity(options: dict[str, Any], request: Request, answered: Answer) -> Capacity:
    """Return the answers that were asked for.

    Raises:
        VramfitError: no device, lengths that cannot be, an engine without a fraction.
    """
    device = _device(request)
    if device is None:
        if options["lengths"] or options["requests"] or options["beside"]:
            raise InvalidValueError("device", None, "a card", "name one with --gpu")
        return Capacity()
    model = _model(request, hub=options["hub"])
    if model.components:
        return Capacity()
    question = Question(
        model=model,
        workload=request.workload,
        plan=answered.request.plan,
        device=device,
        headroom_bytes=request.headroom_bytes,
    )
    number = options["requests"]
    many = (request.device_count or 1) > 1
    return Capacity(
        requests=requests_at_once(question, _lengths(options)) if options["lengths"] else None,
        fraction=smallest_fraction(question, number) if number and not options["beside"] else None,
        plans=ranked_plans(question, request.device_count or 1) if many else (),
        pair=None if not options["beside"] else _pair(question, options, number or 1),
    )


def _pair(question: Question, options: dict[str, Any], number: int) -> Any:  # noqa: ANN401 - capacity.Pair
    other = read_model(options["beside"], hub=options["hub"])
    workload = replace(
        question.workload,
        weight_format="auto",
        context_tokens=_within(other, question.workload),
        prompt_tokens=None,
        new_tokens=None,
    )
    return two_models(question, replace(question, model=other, workload=workload), number)


def _within(model: ModelSpec, workload: Inference) -> int | None:
    """Return the context for the second model: the same, as far as it was made for it."""
    asked: int | None = workload.context_tokens
    limit = model.max_position_embeddings
    return asked if asked is None or limit is None else min(asked, limit)


def _lengths(options: dict[str, Any]) -> Lengths:
    parts = options["lengths"].split(",")
    if len(parts) != 2:
        raise InvalidValueError("--lengths", options["lengths"], "a median and a 95th percentile such as 2000,9000")
    median, p95 = (parse_count(part.strip(), "--lengths") for part in parts)
    return Lengths(median_tokens=median, p95_tokens=p95, shared_prefix_tokens=options["shared_prefix"])


def _device(request: Request) -> Device | None:
    if request.device is not None:
        found = find_device(request.device)
        size = request.device_memory_bytes
        return found if size is None else replace(found, total_bytes=size, usable_bytes=None)
    if request.device_memory_bytes is None:
        return None
    size = request.device_memory_bytes
    return Device(name="this device", product="this device", vendor="unknown", total_bytes=size, marketing_gb=None)


def _model(request: Request, *, hub: bool) -> ModelSpec:
    assert request.model is not None
    return read_model(request.model, hub=hub)


def as_mapping(found: Capacity) -> dict[str, Any]:
    """Return the answers for JSON."""
    return {
        "requests": None if found.requests is None else {
            **_fields(found.requests), "lengths": _fields(found.requests.lengths),
            "users_per_device": found.requests.users_per_device,
        },
        "fraction": None if found.fraction is None else _fields(found.fraction),
        "plans": [{**_fields(c), "plan": _fields(c.plan), "verdict": c.verdict.value} for c in found.plans],
        "pair": None if found.pair is None else {
            **_fields(found.pair), "shares": [_fields(share) for share in found.pair.shares],
        },
    }  # fmt: skip


def _fields(noun: Any) -> dict[str, Any]:  # noqa: ANN401 - any noun
    return {name: getattr(noun, name) for name in noun.__slots__}
