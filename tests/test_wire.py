"""JSON: what goes in comes back, and what is wrong is refused with its path."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from vramfit.answer_wire import answer_schema
from vramfit.errors import VramfitError
from vramfit.request import Inference, Plan, Request
from vramfit.wire import request_from_json, request_schema, request_to_json

SIZES = st.integers(1, 2**40)
WORKLOADS = st.builds(
    Inference,
    engine=st.sampled_from(["generic", "transformers"]),
    engine_version=st.none() | st.just("4.57.1"),
    weight_format=st.sampled_from(["auto", "bf16", "nf4"]),
    kv_format=st.sampled_from(["auto", "fp8"]),
    context_tokens=st.none() | SIZES,
    prompt_tokens=st.none() | SIZES,
    batch=SIZES,
    attention=st.none() | st.sampled_from(["flash", "eager"]),
)
REQUESTS = st.builds(
    Request,
    model=st.none() | st.text(min_size=1, max_size=20),
    config=st.none() | st.just({"model_type": "llama", "hidden_size": 4096}),
    workload=WORKLOADS,
    plan=st.builds(Plan, tp=st.integers(1, 64), pp=st.integers(1, 64), vocab_tp=st.booleans()),
    device=st.none() | st.just("l4"),
    device_count=st.none() | st.integers(1, 1024),
    device_memory_bytes=st.none() | SIZES,
    headroom_bytes=st.integers(0, 2**40),
)


@given(REQUESTS)
def test_a_request_comes_back_from_json(request_: Request) -> None:
    """from_json(to_json(x)) == x."""
    assert request_ == request_from_json(request_to_json(request_))


def test_absent_and_null_are_the_same() -> None:
    """Null means that the tool decides."""
    plain = {"model": "m", "workload": {"kind": "serve"}}
    nulls: dict[str, Any] = {**plain, "plan": None, "device": None, "parameters": None}
    nulls["workload"] = {"kind": "serve", "batch": None, "slots": None}
    assert request_from_json(json.dumps(plain).encode()) == request_from_json(json.dumps(nulls).encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modle": "m"}, "modle.*nearest: model"),
        ({"workload": {"kind": "serve", "contextTokens": 1}}, r"workload\.contextTokens.*nearest: context_tokens"),
        ({"workload": {"kind": "serve", "batch": "4"}}, r"workload\.batch: '4'.*int"),
        ({"workload": {"kind": "serve", "batch": 1.5}}, r"workload\.batch: 1\.5"),
        ({"workload": {"kind": "serve", "batch": 0}}, r"workload\.batch: 0: expected `int` >= 1"),
        ({"workload": {"kind": "serve", "batch": -1}}, r"workload\.batch: -1"),
        ({"workload": {"kind": "train"}}, r"workload\.kind: 'train'"),
        ({"workload": {}}, r"workload\.kind"),
        ({"workload": None}, "workload: None"),
        ({"workload": {"kind": "serve", "memory_fraction": 1.5}}, r"workload\.memory_fraction: 1\.5"),
        ({"plan": {"ep": 2}}, r"plan\.ep: 2"),
        ({"plan": {"tp": 0}}, r"plan\.tp: 0"),
        ({"plan": []}, "plan"),
        ({"parameters": 7}, "parameters: 7.*vramfit rough"),
        ({"device": 3}, "device: 3"),
        ({"config": "x"}, "config: 'x'"),
    ],
)
def test_wrong_fields_name_their_path(change: dict[str, Any], message: str) -> None:
    """Unknown names, wrong types, impossible values, fields of later versions."""
    text = json.dumps({"model": "m", "workload": {"kind": "serve"}, **change}).encode()
    with pytest.raises(VramfitError, match=message):
        request_from_json(text)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_end_in_a_request_or_our_error(text: bytes) -> None:
    """Nothing but VramfitError leaves the decoder."""
    try:
        request_from_json(text)
    except VramfitError:
        return


def test_shipped_schemas_are_fresh() -> None:
    """The files in the package are what the structs and the nouns say today; `scripts/docs --update` writes them."""
    assert [] == schemas.stale()


def test_schemas_are_json_schemas() -> None:
    """Both are valid; every field of a request says what it means, or means what it says."""
    for schema in (request_schema(), answer_schema()):
        jsonschema.Draft202012Validator.check_schema(schema)
    serve = request_schema()["$defs"]["Serve"]["properties"]
    assert "generated per sequence" in serve["new_tokens"]["description"]
    assert {"minimum": 1, "type": "integer"} in serve["batch"]["anyOf"]


@given(REQUESTS)
def test_every_request_we_write_validates(request_: Request) -> None:
    """The schema takes whatever the encoder writes."""
    jsonschema.validate(json.loads(request_to_json(request_)), request_schema())


@pytest.mark.parametrize(
    "change", [{"modle": "m"}, {"workload": {"kind": "serve", "batch": 0}}, {"plan": {"tp": "2"}}, {"workload": {}}]
)
def test_the_schema_refuses_what_the_decoder_refuses(change: dict[str, Any]) -> None:
    """Unknown names, zero, wrong types, no kind."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": "m", "workload": {"kind": "serve"}, **change}, request_schema())
