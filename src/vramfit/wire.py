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
from vramfit.request import ATTENTIONS, Inference, Plan, Request

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


def request_wire(request: Request) -> RequestWire:
    """Return the struct of a request."""
    workload = ServeWire(**{name: getattr(request.workload, name) for name in ServeWire.__struct_fields__})
    return RequestWire(
        model=request.model,
        config=None if request.config is None else dict(request.config),
        workload=workload,
        plan=plan_wire(request.plan),
        device=request.device,
        device_count=request.device_count,
        device_memory_bytes=request.device_memory_bytes,
        headroom_bytes=request.headroom_bytes,
    )


def plan_wire(plan: Plan) -> PlanWire:
    """Return the struct of a plan."""
    return PlanWire(dp_replicate=plan.dp_replicate, tp=plan.tp, pp=plan.pp, vocab_tp=plan.vocab_tp)


def request_to_json(request: Request) -> bytes:
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
