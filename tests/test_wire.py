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
from vramfit.request import PP_SCHEDULES, TRAINING_ONLY, Inference, Plan, Request
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
from vramfit.training_answer import answer_training
from vramfit.training_wire import training_answer_schema, training_answer_to_json
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


NAMES = st.lists(st.text(min_size=1, max_size=10), max_size=3).map(tuple)
SWITCHES = st.none() | st.booleans()


def one_of(names: tuple[str, ...]) -> st.SearchStrategy[str | None]:
    """Return none or one of the names."""
    return st.none() | st.sampled_from(names)


ADAPTERS = st.builds(
    AdapterAsked,
    rank=st.none() | SIZES,
    alpha=st.none() | st.floats(0, 1024),
    targets=st.none() | NAMES,
    format=one_of(("bf16", "fp32")),
    modules_to_save=NAMES,
    dropout=st.none() | st.floats(0, 0.5),
)
PLACES = one_of(OFFLOAD_TARGETS)
TRAININGS = st.builds(
    Training,
    framework=st.sampled_from(["pytorch", "torchtitan"]),
    framework_version=st.none() | st.just("2.13.0"),
    method=st.sampled_from(METHODS),
    objective=st.sampled_from(OBJECTIVES),
    micro_batch=SIZES,
    sequence_tokens=st.none() | SIZES,
    gradient_accumulation_steps=st.none() | SIZES,
    precision=one_of(PRECISIONS),
    parameter_format=one_of(("bf16",)),
    gradient_format=one_of(("fp32",)),
    master_format=one_of(("none", "fp32")),
    optimizer_state_format=one_of(("bf16",)),
    reduce_format=one_of(("fp32",)),
    optimizer=one_of(OPTIMIZERS),
    optimizer_implementation=one_of(IMPLEMENTATIONS),
    optimizer_in_backward=SWITCHES,
    recompute=one_of(RECOMPUTES),
    recompute_modules=st.none() | NAMES,
    attention=one_of(TRAINING_ATTENTIONS),
    loss=one_of(LOSSES),
    loss_chunk_tokens=st.none() | SIZES,
    compile=SWITCHES,
    adapter=st.none() | ADAPTERS,
    base_format=one_of(("nf4-dq",)),
    offload=st.none()
    | st.builds(OffloadAsked, parameters=PLACES, gradients=PLACES, optimizer=PLACES, activations=PLACES),
    buckets=st.none()
    | st.builds(
        BucketsAsked,
        reduce=st.none() | SIZES,
        prefetch=st.none() | st.integers(0, 2**40),
        persistence=st.none() | st.integers(0, 2**40),
        max_live=st.none() | SIZES,
        overlap=SWITCHES,
        by_hidden_size=st.booleans(),
    ),
    freeze=st.none() | NAMES,
    image_height=st.none() | SIZES,
    image_width=st.none() | SIZES,
    frames=st.none() | SIZES,
)
DEGREES = st.integers(1, 64)
TRAINING_REQUESTS = st.builds(
    TrainingRequest,
    model=st.none() | st.text(min_size=1, max_size=20),
    config=st.none() | st.just({"model_type": "llama", "hidden_size": 4096}),
    workload=TRAININGS,
    plan=st.builds(
        Plan,
        dp_replicate=DEGREES,
        dp_shard=DEGREES,
        tp=DEGREES,
        pp=DEGREES,
        vocab_tp=st.booleans(),
        cp=DEGREES,
        ep=DEGREES,
        etp=st.none() | DEGREES,
        zero_stage=st.none() | st.integers(0, 3),
        sequence_parallel=SWITCHES,
        pp_schedule=one_of(PP_SCHEDULES),
        virtual_stages=st.none() | DEGREES,
        micro_batches=st.none() | DEGREES,
        distributed_optimizer=SWITCHES,
        reshard_after_forward=SWITCHES,
        layers_per_stage=st.none() | st.lists(DEGREES, min_size=1, max_size=4).map(tuple),
    ),
    device=st.none() | st.just("l4"),
    device_count=st.none() | st.integers(1, 1024),
    device_memory_bytes=st.none() | SIZES,
    headroom_bytes=st.integers(0, 2**40),
)
EITHER = REQUESTS | TRAINING_REQUESTS


@given(EITHER)
def test_a_request_comes_back_from_json(request_: Request | TrainingRequest) -> None:
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
        ({"workload": {"kind": "tune"}}, r"workload\.kind: 'tune'.*\"serve\" or \"train\""),
        ({"workload": {"kind": ["train"]}}, r"workload\.kind: \['train'\]"),
        ({"workload": {"kind": "train", "batch": 1}}, r"workload\.batch: 1.*nearest: micro_batch"),
        ({"workload": {"kind": "train", "micro_batch": 0}}, r"workload\.micro_batch: 0"),
        ({"workload": {"kind": "train", "method": "lorra"}}, r"workload\.method: 'lorra': expected one of full, lora"),
        ({"workload": {"kind": "train", "optimizer": "adan"}}, r"workload\.optimizer: 'adan'"),
        (
            {"workload": {"kind": "train", "adapter": {"r": 8}}},
            r"workload\.adapter\.r: 8: expected a known field .alpha",
        ),
        ({"workload": {"kind": "train", "adapter": 8}}, r"workload\.adapter: 8"),
        ({"workload": {"kind": "train", "adapter": {"rank": 0}}}, r"workload\.adapter\.rank: 0"),
        ({"workload": {"kind": "train", "adapter": {"targets": "q_proj"}}}, r"workload\.adapter\.targets: 'q_proj'"),
        ({"workload": {"kind": "train", "adapter": {"targets": [1]}}}, r"workload\.adapter\.targets\[0\]: \[1\]"),
        ({"workload": {"kind": "train", "offload": {"optimizer": "disk"}}}, r"workload\.offload\.optimizer: 'disk'"),
        ({"workload": {"kind": "train", "offload": {"weights": "cpu"}}}, r"workload\.offload\.weights: 'cpu'"),
        ({"workload": {"kind": "train"}, "plan": {"zero_stage": 4}}, r"plan\.zero_stage: 4"),
        ({"workload": {"kind": "train"}, "plan": {"dp": 4}}, r"plan\.dp: 4: expected a known field"),
        ({"workload": {"kind": "train"}, "plan": {"layers_per_stage": [0]}}, r"plan\.layers_per_stage\[0\]"),
        ({"workload": {}}, r"workload\.kind"),
        ({"workload": None}, "workload: None"),
        ({"workload": {"kind": "serve", "memory_fraction": 1.5}}, r"workload\.memory_fraction: 1\.5"),
        *[({"plan": {name: 1}}, rf"plan\.{name}: 1: .*left out; servers are cut by") for name in TRAINING_ONLY],
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


def test_a_plan_without_training_says_nothing_of_it() -> None:
    """A server's plan is written with the four fields that servers have."""
    plan = json.loads(request_to_json(Request(workload=Inference(), plan=Plan(tp=2))))["plan"]
    assert {"dp_replicate": 1, "tp": 2, "pp": 1, "vocab_tp": True} == plan


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
    """All are valid; every field of a request says what it means, or means what it says."""
    for schema in (request_schema(), answer_schema(), training_answer_schema()):
        jsonschema.Draft202012Validator.check_schema(schema)
    serve = request_schema()["$defs"]["Serve"]["properties"]
    assert "generated per sequence" in serve["new_tokens"]["description"]
    assert {"minimum": 1, "type": "integer"} in serve["batch"]["anyOf"]
    assert (
        "what the loss is made of"
        in request_schema()["$defs"]["Train"]["properties"]["objective"]["description"].lower()
    )


@given(EITHER)
def test_every_request_we_write_validates(request_: Request | TrainingRequest) -> None:
    """The schema takes whatever the encoder writes."""
    jsonschema.validate(json.loads(request_to_json(request_)), request_schema())


@pytest.mark.parametrize(
    "change", [{"modle": "m"}, {"workload": {"kind": "serve", "batch": 0}}, {"plan": {"tp": "2"}}, {"workload": {}}]
)
def test_the_schema_refuses_what_the_decoder_refuses(change: dict[str, Any]) -> None:
    """Unknown names, zero, wrong types, no kind."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": "m", "workload": {"kind": "serve"}, **change}, request_schema())


def test_an_answer_about_training_validates() -> None:
    """The encoder writes what the shipped schema says; sums and readings agree."""
    asked = TrainingRequest(
        model="meta-llama/Llama-3.1-8B",
        workload=Training(
            method="lora", sequence_tokens=512, adapter=AdapterAsked(rank=8), offload=OffloadAsked(optimizer="cpu")
        ),
        device="h100-sxm-80gb",
    )
    found = json.loads(training_answer_to_json(answer_training(asked)))
    jsonschema.validate(found, training_answer_schema())
    assert found["readings"]["process"]["expected_bytes"] == found["peak_bytes"] == found["breakdowns"][0]["peak_bytes"]
    assert found["allocated_bytes"] <= found["reserved_bytes"] <= found["process_bytes"]
    assert {"low_bytes", "expected_bytes", "high_bytes"} == set(found["readings"]["process"])
    assert found["readings"]["process"] == {name: found[name] for name in found["readings"]["process"]}
    assert found["low_bytes"] < found["expected_bytes"] < found["high_bytes"]
    assert {"rank": 8, "alpha": 8.0} == {
        name: found["request"]["workload"]["adapter"][name] for name in ("rank", "alpha")
    }
    assert max(moment["total_bytes"] for moment in found["timelines"][0]["moments"]) > found["host_bytes"] > 0
    again = request_from_json(json.dumps(found["request"]).encode())
    assert found["peak_bytes"] == json.loads(training_answer_to_json(answer_training(again)))["peak_bytes"]  # type: ignore[arg-type]
