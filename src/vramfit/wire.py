"""Requests as JSON, version 1: decoding with exact errors, encoding, JSON Schema; answers are in ``answer_wire``.

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
from vramfit.request import ATTENTIONS, PP_SCHEDULES, TRAINING_ONLY, Inference, Plan, Request
from vramfit.training import (
    IMPLEMENTATIONS,
    LOSSES,
    METHODS,
    OBJECTIVES,
    OFFLOAD_TARGETS,
    OPTIMIZERS,
    PRECISIONS,
    RECOMPUTES,
    TRAINING_ATTENTIONS,
    AdapterAsked,
    BucketsAsked,
    OffloadAsked,
    Training,
    TrainingRequest,
)

REQUEST_LIMIT_BYTES = 16 * 2**20

ELSEWHERE = {"parameters": "the rule of thumb takes it: vramfit rough"}
"""Fields of JSON version 1 that are answered by another command, and by which."""
KINDS = ("serve", "train")
SERVERS_CUT_BY = "servers are cut by dp_replicate, tp and pp; this one is for training"


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
NotNegative: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Share: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1)]
Engine: TypeAlias = Annotated[str, msgspec.Meta(examples=list(ENGINES))]
Kernel: TypeAlias = Annotated[str, msgspec.Meta(examples=list(ATTENTIONS))]
Method: TypeAlias = Annotated[str, msgspec.Meta(examples=list(METHODS))]
Objective: TypeAlias = Annotated[str, msgspec.Meta(examples=list(OBJECTIVES))]
Precision: TypeAlias = Annotated[str, msgspec.Meta(examples=list(PRECISIONS))]
Optimizer: TypeAlias = Annotated[str, msgspec.Meta(examples=list(OPTIMIZERS))]
Implementation: TypeAlias = Annotated[str, msgspec.Meta(examples=list(IMPLEMENTATIONS))]
Recompute: TypeAlias = Annotated[str, msgspec.Meta(examples=list(RECOMPUTES))]
TrainingKernel: TypeAlias = Annotated[str, msgspec.Meta(examples=list(TRAINING_ATTENTIONS))]
Loss: TypeAlias = Annotated[str, msgspec.Meta(examples=list(LOSSES))]
Place: TypeAlias = Annotated[str, msgspec.Meta(examples=list(OFFLOAD_TARGETS))]


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


class AdapterWire(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The small set of weights that is trained on a frozen base."""

    rank: Count | None = None
    alpha: float | None = None
    targets: tuple[str, ...] | None = None
    format: str | None = None
    modules_to_save: tuple[str, ...] | None = None
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None


class OffloadWire(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What waits outside the device between uses."""

    parameters: Place | None = None
    gradients: Place | None = None
    optimizer: Place | None = None
    activations: Place | None = None


class BucketsWire(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Buffers through which DeepSpeed moves gradients and weights."""

    reduce: Count | None = None
    prefetch: NotNegative | None = None
    persistence: NotNegative | None = None
    max_live: Count | None = None
    overlap: bool | None = None
    by_hidden_size: bool | None = None


class TrainWire(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="train"):
    """Training. Absent and null mean that the framework decides, and the answer says how."""

    framework: str | None = None
    framework_version: str | None = None
    method: Method | None = None
    objective: Objective | None = None
    micro_batch: Count | None = None
    sequence_tokens: Count | None = None
    gradient_accumulation_steps: Count | None = None
    precision: Precision | None = None
    parameter_format: str | None = None
    gradient_format: str | None = None
    master_format: str | None = None
    optimizer_state_format: str | None = None
    reduce_format: str | None = None
    optimizer: Optimizer | None = None
    optimizer_implementation: Implementation | None = None
    optimizer_in_backward: bool | None = None
    recompute: Recompute | None = None
    recompute_modules: tuple[str, ...] | None = None
    attention: TrainingKernel | None = None
    loss: Loss | None = None
    loss_chunk_tokens: Count | None = None
    compile: bool | None = None
    adapter: AdapterWire | None = None
    base_format: str | None = None
    offload: OffloadWire | None = None
    buckets: BucketsWire | None = None
    freeze: tuple[str, ...] | None = None
    image_height: Count | None = None
    image_width: Count | None = None
    frames: Count | None = None


class PlanWire(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How the work is cut over devices."""

    dp_replicate: Count | None = None
    dp_shard: Count | None = None
    tp: Count | None = None
    pp: Count | None = None
    vocab_tp: bool | None = None
    cp: Count | None = None
    ep: Count | None = None
    etp: Count | None = None
    zero_stage: Annotated[int, msgspec.Meta(ge=0, le=3)] | None = None
    sequence_parallel: bool | None = None
    pp_schedule: Annotated[str, msgspec.Meta(examples=list(PP_SCHEDULES))] | None = None
    virtual_stages: Count | None = None
    micro_batches: Count | None = None
    distributed_optimizer: bool | None = None
    reshard_after_forward: bool | None = None
    layers_per_stage: tuple[Count, ...] | None = None


class RequestWire(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One question."""

    workload: ServeWire | TrainWire
    model: str | None = None
    config: dict[str, Any] | None = None
    plan: PlanWire | None = None
    device: str | None = None
    device_count: Count | None = None
    device_memory_bytes: Count | None = None
    headroom_bytes: NotNegative | None = None


def request_from_json(text: bytes, where: str = "request") -> Request | TrainingRequest:
    """Decode one request.

    Raises:
        UnreadableFileError: no JSON object, or one that is damaged or hostile.
        InvalidValueError: an unknown field or a wrong type, with its path and the nearest name.
    """
    return request_from_mapping(parse_json_object(text, where, REQUEST_LIMIT_BYTES))


def request_from_mapping(values: Mapping[str, object]) -> Request | TrainingRequest:
    """Return the request that a decoded JSON object stands for."""
    _check_names(values, RequestWire, "")
    workload = values.get("workload")
    if not isinstance(workload, Mapping):
        raise InvalidValueError("workload", workload, 'an object such as {"kind": "serve", "context_tokens": 8192}')
    kind = workload.get("kind")
    if kind not in KINDS:
        raise InvalidValueError("workload.kind", kind, " or ".join(f'"{name}"' for name in KINDS))
    _check_workload(workload, kind)
    plan = values.get("plan")
    if isinstance(plan, Mapping):
        _check_names(plan, PlanWire, "plan.")
        for name in TRAINING_ONLY if kind == "serve" else ():
            if plan.get(name) is not None:
                raise InvalidValueError(f"plan.{name}", plan[name], "it to be left out", SERVERS_CUT_BY)
    try:
        wire = msgspec.convert(_without_nulls(values), RequestWire)
    except msgspec.ValidationError as error:
        message, _, path = str(error).removeprefix("Expected ").partition(" - at `$.")
        raise InvalidValueError(path.rstrip("`") or "request", _at(values, path.rstrip("`")), message) from error
    return _request(wire)


def _check_workload(workload: Mapping[str, object], kind: object) -> None:
    """Refuse names that this kind of workload does not have, in the objects inside it too."""
    _check_names(workload, ServeWire if kind == "serve" else TrainWire, "workload.", {"kind"})
    for name, struct in (("adapter", AdapterWire), ("offload", OffloadWire), ("buckets", BucketsWire)):
        if kind == "train" and isinstance(workload.get(name), Mapping):
            _check_names(workload[name], struct, f"workload.{name}.")


def _check_names(values: object, struct: type[msgspec.Struct], prefix: str, also: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    assert isinstance(values, Mapping)
    known = {*struct.__struct_fields__, *also}
    for name, value in values.items():
        if name in known or (name in ELSEWHERE and value is None):
            continue
        if name in ELSEWHERE:
            raise InvalidValueError(f"{prefix}{name}", value, "it to be left out", ELSEWHERE[name])
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
    """Return what stands at a dotted path, for the error; of a list, the whole."""
    found: object = values
    for part in path.split("."):
        found = found.get(part.partition("[")[0]) if isinstance(found, Mapping) else None
    return found


def _given(struct: msgspec.Struct | None) -> dict[str, Any]:
    """Return the fields that are there."""
    pairs = {} if struct is None else {name: getattr(struct, name) for name in struct.__struct_fields__}
    return {name: value for name, value in pairs.items() if value is not None}


def _request(wire: RequestWire) -> Request | TrainingRequest:
    top = _given(wire)
    top.pop("workload"), top.pop("plan", None)
    plan = Plan(**_given(wire.plan))
    if isinstance(wire.workload, ServeWire):
        return Request(workload=Inference(**_given(wire.workload)), plan=plan, **top)
    workload = _given(wire.workload)
    if wire.workload.adapter is not None:
        workload["adapter"] = AdapterAsked(**_given(wire.workload.adapter))
    if wire.workload.offload is not None:
        workload["offload"] = OffloadAsked(**_given(wire.workload.offload))
    if wire.workload.buckets is not None:
        workload["buckets"] = BucketsAsked(**_given(wire.workload.buckets))
    return TrainingRequest(workload=Training(**workload), plan=plan, **top)


def request_wire(request: Request | TrainingRequest) -> RequestWire:
    """Return the struct of a request."""
    workload = request.workload
    return RequestWire(
        model=request.model,
        config=None if request.config is None else dict(request.config),
        workload=_train_wire(workload) if isinstance(workload, Training) else _same(workload, ServeWire),
        plan=plan_wire(request.plan),
        device=request.device,
        device_count=request.device_count,
        device_memory_bytes=request.device_memory_bytes,
        headroom_bytes=request.headroom_bytes,
    )


def _same(noun: object, struct: type[Any], **replaced: Any) -> Any:  # noqa: ANN401 - any noun, its own struct
    """Return the struct of a noun: the same fields, save those that are replaced."""
    return struct(
        **{name: replaced[name] if name in replaced else getattr(noun, name) for name in struct.__struct_fields__}
    )


def _train_wire(workload: Training) -> TrainWire:
    adapter, offload, buckets = workload.adapter, workload.offload, workload.buckets
    found: TrainWire = _same(
        workload,
        TrainWire,
        adapter=None if adapter is None else _same(adapter, AdapterWire),
        offload=None if offload is None else _same(offload, OffloadWire),
        buckets=None if buckets is None else _same(buckets, BucketsWire),
    )
    return found


def plan_wire(plan: Plan) -> PlanWire:
    """Return the struct of a plan; of what only training divides, no more than what it says."""
    silent = {name: None for name in TRAINING_ONLY if getattr(plan, name) == getattr(Plan(), name)}
    found: PlanWire = _same(plan, PlanWire, **silent)
    return found


def request_to_json(request: Request | TrainingRequest) -> bytes:
    """Encode a request so that decoding it gives it back."""
    return msgspec.json.encode(request_wire(request))


def request_schema() -> dict[str, Any]:
    """Return the JSON Schema of a request."""
    return shipped_schema("request.v1.json")


def shipped_schema(name: str) -> dict[str, Any]:
    """Return a schema that ships with the package."""
    text = files("vramfit").joinpath("schema", name).read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
