"""Write src/vramfit/schema: the JSON Schemas of request and answer, version 1, with the nouns' own words in them.

The shapes come from the structs of ``vramfit.wire`` and ``vramfit.answer_wire``; a field's description is what
stands below it in ``vramfit.request`` or ``vramfit.result``. Run by ``scripts/docs``; tests fail when a file is stale.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import msgspec

from vramfit import answer_wire, device, request, result, timeline, training, training_result, training_wire, wire

FOLDER = Path(__file__).resolve().parent.parent / "src" / "vramfit" / "schema"
NOUNS: dict[str, type] = {
    "ServeWire": request.Inference,
    "TrainWire": training.Training,
    "AdapterWire": training.AdapterAsked,
    "OffloadWire": training.OffloadAsked,
    "BucketsWire": training.BucketsAsked,
    "PlanWire": request.Plan,
    "RequestWire": request.Request,
    "ModelWire": result.ModelSummary,
    "ChoiceWire": result.Choice,
    "TotalWire": result.Total,
    "ItemWire": result.Item,
    "ReadingWire": result.Reading,
    "ReservationWire": result.Reservation,
    "BreakdownWire": result.Breakdown,
    "FitWire": result.Fit,
    "LimitWire": result.Limit,
    "PriceWire": device.Price,
    "OptionWire": result.DeviceOption,
    "ChangeWire": result.Change,
    "AnswerWire": result.Estimate,
    "MomentWire": timeline.Moment,
    "TrainingAnswerWire": training_result.TrainingEstimate,
}
"""Struct -> the noun whose words describe its fields."""


def schemas() -> dict[str, str]:
    """Return the content of every schema file by its name."""
    return {
        "request.v1.json": _schema(wire.RequestWire, "vramfit request, version 1"),
        "answer.v1.json": _schema(answer_wire.AnswerWire, "vramfit answer, version 1"),
        "training_answer.v1.json": _schema(
            training_wire.TrainingAnswerWire, "vramfit answer about training, version 1"
        ),
    }


def _schema(struct: type[msgspec.Struct], title: str) -> str:
    made = msgspec.json.schema(struct)
    for name, definition in made["$defs"].items():
        words = descriptions(NOUNS[name]) if name in NOUNS else {}
        for field, shape in definition.get("properties", {}).items():
            if field in words:
                shape["description"] = words[field]
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **made}
    return re.sub(r"\b([A-Z]\w*)Wire\b", r"\1", json.dumps(whole, indent=2)) + "\n"


def descriptions(noun: type) -> dict[str, str]:
    """Return the text below each field of a noun's class.

    >>> descriptions(request.Plan)["tp"]
    'Tensor parallelism: every matrix divided.'
    """
    (definition,) = ast.parse(inspect.getsource(noun)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            words = " ".join(after.value.value.replace("``", "").split())
            found[ast.unparse(field.target)] = words.replace("None =", "null =")
    return found


def stale() -> list[str]:
    """Return the files that differ from what would be written."""
    return [n for n, t in schemas().items() if not (FOLDER / n).exists() or (FOLDER / n).read_text("utf-8") != t]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in stale():
        (FOLDER / name).write_text(schemas()[name], "utf-8")
        print(f"src/vramfit/schema/{name}: written")
