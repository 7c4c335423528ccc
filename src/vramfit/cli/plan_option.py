"""``--plan dp_shard=8,tp=2``: the fields of a plan as one word."""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.names import nearest
from vramfit.request import PP_SCHEDULES, Plan, field_names
from vramfit.training_files.key import truth

SWITCHES = frozenset({"sequence_parallel", "distributed_optimizer", "reshard_after_forward", "vocab_tp"})
NAMES = field_names(Plan)
EXPECTED = f"names and values such as dp_shard=8,tp=2; names: {', '.join(NAMES)}"


def parse_plan(text: str | None) -> dict[str, object]:
    """Return the fields that are given.

    Raises:
        InvalidValueError: an unknown name, listing all of them, a name twice, or a value of another kind.

    >>> parse_plan("dp_shard=8, tp=2,sequence_parallel=true,layers_per_stage=15/17")
    {'dp_shard': 8, 'tp': 2, 'sequence_parallel': True, 'layers_per_stage': (15, 17)}
    """
    found: dict[str, object] = {}
    for part in (text or "").split(",") if text else ():
        name, equals, value = (each.strip() for each in part.partition("="))
        if name not in NAMES or not equals:
            close = nearest(name, NAMES)
            hint = f"nearest: {', '.join(close)}" if close and name not in NAMES else ""
            raise InvalidValueError("--plan", part.strip(), EXPECTED, hint)
        if name in found:
            raise InvalidValueError("--plan", text, f"{name} once")
        found[name] = _value(name, value)
    return found


def _value(name: str, text: str) -> object:
    if name in SWITCHES:
        return truth(f"--plan {name}", text)
    if name == "pp_schedule":
        if text not in PP_SCHEDULES:
            raise InvalidValueError("--plan pp_schedule", text, f"one of {', '.join(PP_SCHEDULES)}")
        return text
    parts = text.split("/") if name == "layers_per_stage" else [text]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        expected = "layers of each stage such as 15/17" if name == "layers_per_stage" else "a whole number"
        raise InvalidValueError(f"--plan {name}", text, expected)
    return tuple(map(int, parts)) if name == "layers_per_stage" else int(text)
