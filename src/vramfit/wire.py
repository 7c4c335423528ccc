"""Requests and answers as JSON, version 1: decoding with exact errors, encoding, JSON Schema.

The shapes are declared once, as structs; decoding and encoding come from them, and so do the schemas
in ``schema/``, which ``scripts/docs`` writes with the words of ``request`` and ``result`` as descriptions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, TypeAlias

import msgspec

from vramfit.engines.profile import ENGINES
from vramfit.errors import InvalidValueError
from vramfit.names import nearest
from vramfit.readers.json_text import parse_json_object
from vramfit.request import ATTENTIONS, Inference, Plan, Request
from vramfit.result import Answer, Basis, Breakdown, Counter, DeviceOption, Phase, Verdict

REQUEST_LIMIT_BYTES = 16 * 2**20

LATER = {
    "parameters": "the rule of thumb takes it: vramfit rough",
    **dict.fromkeys(
        (
            "dp_shard", "zero_stage", "sequence_parallel", "pp_schedule", "virtual_stages", "micro_batches", "cp",
            "ep", "etp", "distributed_optimizer", "reshard_after_forward", "layers_per_stage",
        ),
        "this version cuts by dp_replicate, tp and pp",
    ),
}  # fmt: skip
"""Fields of JSON version 1 that are named in the form and not answered yet, and why."""


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
NotNegative: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Share: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1)]
Engine: TypeAlias = Annotated[str, msgspec.Meta(examples=list(ENGINES))]
Kernel: TypeAlias = Annotated[str, msgspec.Meta(examples=list(ATTENTIONS))]


class ServeWire(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="serve"):
    """Inference: a serving engine or a library. Absent and null mean that the tool decides, and says how."""

    engine: Engine | None = None
    engine_version: str | None = None
    weight_format: str | None = None
    group_size: int | None = None
    kv_format: str | None = None
    kv_format_k: str | None = None
    kv_format_v: str | None = None
    context_tokens: Count | None = None
    prompt_tokens: Count | None = None
    new_tokens: NotNegative | None = None
    batch: Count | None = None
    attention: Kernel | None = None
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    memory_fraction: Share | None = None
    eager: bool | None = None
    prefix_caching: bool | None = None
    chunked_prefill: bool | None = None
    block_tokens: Count | None = None
    slots: Count | None = None
    ubatch_tokens: Count | None = None
    batch_tokens: Count | None = None
    gpu_layers: NotNegative | None = None
    flash_attention: bool | None = None
    swa_full: bool | None = None
    draft_model: str | None = None
    speculative_tokens: Count | None = None
    max_loras: Count | None = None
    max_lora_rank: Count | None = None
    image_height: Count | None = None
    image_width: Count | None = None
    frames: Count | None = None
    offload: str | None = None


class PlanWire(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How the work is cut over devices."""

    dp_replicate: Count | None = None
    tp: Count | None = None
    pp: Count | None = None
    vocab_tp: bool | None = None


class RequestWire(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One question."""

    workload: ServeWire
    model: str | None = None
    config: dict[str, Any] | None = None
    plan: PlanWire | None = None
    device: str | None = None
    device_count: Count | None = None
    device_memory_bytes: Count | None = None
    headroom_bytes: NotNegative | None = None


class ModelWire(msgspec.Struct):
    """The model as understood."""

    name: str
    family: str
    parameters: int
    active_parameters: int
    layers: dict[str, int]
    evidence: str


class ChoiceWire(msgspec.Struct):
    """A field that was left open: what was taken, and why."""

    field: str
    value: str | int | float | bool | None
    why: str


class TotalWire(msgspec.Struct):
    """Low, expected and high of one moment. [B]"""

    low_bytes: int
    expected_bytes: int
    high_bytes: int


class ItemWire(msgspec.Struct):
    """One thing that occupies memory."""

    name: str
    bytes: int
    low_bytes: int
    high_bytes: int
    phases: list[Phase]
    basis: Basis
    formula: str
    source: str
    counter: Counter


class BreakdownWire(msgspec.Struct):
    """One distinct rank."""

    rank: str
    num_ranks: int
    items: list[ItemWire]
    phases: dict[str, TotalWire]
    peak_bytes: int
    peak_phase: Phase


class FitWire(msgspec.Struct):
    """The verdict on the device for the worst rank."""

    verdict: Verdict
    device: str | None
    capacity_bytes: int | None
    headroom_bytes: int
    margin_bytes: int | None
    high_margin_bytes: int | None
    worst_rank: str
    largest_item: str


class LimitWire(msgspec.Struct):
    """The largest value that fits."""

    value: int
    bounded_by: str


class PriceWire(msgspec.Struct):
    """What devices rent for on demand: one provider's list price on one day."""

    usd_per_hour: float
    provider: str
    date: str
    terms: str
    source: str


class OptionWire(msgspec.Struct):
    """The fewest devices of one kind; ``count`` 0 = none within the search."""

    device: str
    count: int
    plan: PlanWire
    verdict: Verdict
    margin_bytes: int
    price: PriceWire | None


class ChangeWire(msgspec.Struct):
    """One change and what it brings."""

    flags: str
    saves_bytes: int
    verdict: Verdict
    margin_bytes: int
    note: str


class AnswerWire(msgspec.Struct, kw_only=True):
    """The whole answer."""

    schema: int = 1
    model: ModelWire
    weights_bytes: int
    kv_bytes_per_token: int
    request: RequestWire
    choices: list[ChoiceWire]
    assumptions: list[str]
    breakdowns: list[BreakdownWire]
    peak_bytes: int
    peak_phase: Phase
    low_bytes: int
    expected_bytes: int
    high_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    process_bytes: int
    not_counted: list[str]
    verdict: FitWire
    longest_context: LimitWire | None
    largest_batch: LimitWire | None
    device_options: list[OptionWire]
    changes: list[ChangeWire]


def request_from_json(text: bytes, where: str = "request") -> Request:
    """Decode one request.

    Raises:
        UnreadableFileError: no JSON object, or one that is damaged or hostile.
        InvalidValueError: an unknown field or a wrong type, with its path and the nearest name.
    """
    return request_from_mapping(parse_json_object(text, where, REQUEST_LIMIT_BYTES))


def request_from_mapping(values: Mapping[str, object]) -> Request:
    """Return the request that a decoded JSON object stands for."""
    _check_names(values, RequestWire, "")
    workload = values.get("workload")
    if not isinstance(workload, Mapping):
        raise InvalidValueError("workload", workload, 'an object such as {"kind": "serve", "context_tokens": 8192}')
    if workload.get("kind") != "serve":
        raise InvalidValueError(
            "workload.kind", workload.get("kind"), '"serve"', "training is not answered in this version"
        )
    _check_names(workload, ServeWire, "workload.", {"kind"})
    if isinstance(values.get("plan"), Mapping):
        _check_names(values["plan"], PlanWire, "plan.")
    try:
        wire = msgspec.convert(_without_nulls(values), RequestWire)
    except msgspec.ValidationError as error:
        message, _, path = str(error).removeprefix("Expected ").partition(" - at `$.")
        raise InvalidValueError(path.rstrip("`") or "request", _at(values, path.rstrip("`")), message) from error
    return _request(wire)


def _check_names(values: object, struct: type[msgspec.Struct], prefix: str, also: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    assert isinstance(values, Mapping)
    known = {*struct.__struct_fields__, *also}
    for name, value in values.items():
        if name in known or (name in LATER and value is None):
            continue
        if name in LATER:
            raise InvalidValueError(f"{prefix}{name}", value, "it to be left out", LATER[name])
        close = nearest(str(name), known)
        hint = f"nearest: {', '.join(close)}" if close else ""
        raise InvalidValueError(f"{prefix}{name}"[:200], value, f"a known field ({', '.join(sorted(known))})", hint)


def _without_nulls(values: Mapping[str, object]) -> dict[str, object]:
    """Return the object without fields that are null: absent and null mean the same."""
    return {
        name: _without_nulls(value) if isinstance(value, Mapping) and name != "config" else value
        for name, value in values.items()
        if value is not None
    }


def _at(values: Mapping[str, object], path: str) -> object:
    """Return what stands at a dotted path, for the error."""
    found: object = values
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _request(wire: RequestWire) -> Request:
    def given(struct: msgspec.Struct | None) -> dict[str, Any]:
        pairs = {} if struct is None else msgspec.structs.asdict(struct)
        return {name: value for name, value in pairs.items() if value is not None}

    top = given(wire)
    top.pop("workload"), top.pop("plan", None)
    return Request(workload=Inference(**given(wire.workload)), plan=Plan(**given(wire.plan)), **top)


def _request_wire(request: Request) -> RequestWire:
    workload = ServeWire(**{name: getattr(request.workload, name) for name in ServeWire.__struct_fields__})
    return RequestWire(
        model=request.model,
        config=None if request.config is None else dict(request.config),
        workload=workload,
        plan=_plan_wire(request.plan),
        device=request.device,
        device_count=request.device_count,
        device_memory_bytes=request.device_memory_bytes,
        headroom_bytes=request.headroom_bytes,
    )


def _plan_wire(plan: Plan) -> PlanWire:
    return PlanWire(dp_replicate=plan.dp_replicate, tp=plan.tp, pp=plan.pp, vocab_tp=plan.vocab_tp)


def request_to_json(request: Request) -> bytes:
    """Encode a request so that decoding it gives it back."""
    return msgspec.json.encode(_request_wire(request))


def answer_to_json(answer: Answer) -> bytes:
    """Encode an answer, indented."""
    return msgspec.json.format(msgspec.json.encode(_answer_wire(answer)), indent=2)


def request_schema() -> dict[str, Any]:
    """Return the JSON Schema of a request."""
    return _shipped("request.v1.json")


def answer_schema() -> dict[str, Any]:
    """Return the JSON Schema of an answer."""
    return _shipped("answer.v1.json")


def _shipped(name: str) -> dict[str, Any]:
    text = files("vramfit").joinpath("schema", name).read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _answer_wire(answer: Answer) -> AnswerWire:
    estimate, fit = answer.estimate, answer.fit
    worst = estimate.worst
    peak = worst.peak()
    allocated, reserved, process = (worst.peak(counter).expected_bytes for counter in Counter)
    named = bool(fit.device)
    return AnswerWire(
        model=_convert(estimate.model, ModelWire, layers=dict(estimate.model.layers)),
        weights_bytes=estimate.weights_bytes,
        kv_bytes_per_token=estimate.kv_bytes_per_token,
        request=_request_wire(answer.request),
        choices=[ChoiceWire(c.field, c.value, c.why) for c in estimate.choices],  # type: ignore[arg-type]
        assumptions=list(estimate.assumptions),
        breakdowns=[_breakdown_wire(b) for b in estimate.breakdowns],
        peak_bytes=peak.expected_bytes,
        peak_phase=worst.peak_phase,
        low_bytes=peak.low_bytes,
        expected_bytes=peak.expected_bytes,
        high_bytes=peak.high_bytes,
        allocated_bytes=allocated,
        reserved_bytes=reserved,
        process_bytes=process,
        not_counted=list(estimate.not_counted),
        verdict=FitWire(
            verdict=fit.verdict,
            device=fit.device or None,
            capacity_bytes=fit.capacity_bytes if named else None,
            headroom_bytes=fit.headroom_bytes,
            margin_bytes=fit.margin_bytes if named else None,
            high_margin_bytes=fit.high_margin_bytes if named else None,
            worst_rank=fit.worst_rank,
            largest_item=fit.largest_item,
        ),
        longest_context=_convert(answer.longest_context, LimitWire) if answer.longest_context else None,
        largest_batch=_convert(answer.largest_batch, LimitWire) if answer.largest_batch else None,
        device_options=[_option_wire(o) for o in answer.device_options],
        changes=[_convert(c, ChangeWire) for c in answer.changes],
    )


def _convert(noun: object, struct: type[Any], **replaced: Any) -> Any:  # noqa: ANN401 - any noun, its own struct
    """Return the struct of a noun: the same fields, save those that are replaced."""
    return struct(**{name: replaced.get(name, getattr(noun, name)) for name in struct.__struct_fields__})


def _option_wire(option: DeviceOption) -> OptionWire:
    price = None if option.price is None else _convert(option.price, PriceWire)
    return _convert(option, OptionWire, plan=_plan_wire(option.plan), price=price)  # type: ignore[no-any-return]


def _breakdown_wire(breakdown: Breakdown) -> BreakdownWire:
    return BreakdownWire(
        rank=breakdown.rank,
        num_ranks=breakdown.num_ranks,
        items=[_convert(i, ItemWire, phases=list(i.phases)) for i in breakdown.items],
        phases={phase.value: _convert(total, TotalWire) for phase, total in breakdown.totals().items()},
        peak_bytes=breakdown.peak().expected_bytes,
        peak_phase=breakdown.peak_phase,
    )
