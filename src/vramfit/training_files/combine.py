"""Puts what several files say into one request: contradictions refused, devices and accumulation worked out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vramfit.errors import InvalidValueError
from vramfit.request import Given, Plan
from vramfit.training import AdapterAsked, BucketsAsked, OffloadAsked, Training, TrainingRequest
from vramfit.training_files.training_file import DIVIDED_BY, GLOBAL_BATCH, NODES, PER_NODE, REST, UNLESS, TrainingFile

OURS = "our own options"
TOP, WORKLOAD, PLAN = "", "workload", "plan"
WEAK = ("trl", "transformers", "deepspeed")
"""Frameworks that others run on top of, most specific first: a file of another one decides."""
ADAPTED = frozenset({"lora", "rslora", "dora", "qlora", "gptq-lora", "adapter", "prompt-tuning"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """The request, and how each field of it came about."""

    request: TrainingRequest
    given: tuple[Given, ...]
    """One for each field."""
    notes: tuple[str, ...]
    """What was worked out from several fields, in words."""


def combine(files: Iterable[TrainingFile], own: Iterable[Given] = ()) -> Combined:
    """Return the request that files and our own options make up; what our own options say wins.

    Raises:
        InvalidValueError: two files contradict one another, a value stands for something not modelled, or the
            devices do not divide.
    """
    files, own = tuple(files), tuple(own)
    paths = {each.path for each in own}
    for file in files:
        for refused in file.refused:
            if refused.path not in paths:
                raise refused.error
    found = _agreed((*own, *_frameworks(files), *_told(files, paths)))
    found.pop(DIVIDED_BY, None)
    unless = found.pop(UNLESS, None)
    if unless is not None and found["workload.framework"].value in WEAK:
        found.setdefault("workload.precision", replace(unless, path="workload.precision"))
    _devices(found)
    open_axis = REST in found and "device_count" not in found
    notes = [*_shared_out(found), *_accumulation(found, known=not open_axis)]
    _config(files, found)
    ours = any(each.path.startswith("workload.adapter.") for each in own)
    return Combined(request=_request(found, keep_adapter=ours), given=tuple(found.values()), notes=tuple(notes))


def _told(files: tuple[TrainingFile, ...], own: set[str]) -> Iterable[Given]:
    """Yield what the files give and our own options do not."""
    degrees = {"plan.dp_replicate", "plan.dp_shard"}
    for file in files:
        for each in file.given:
            if each.path in own or each.path == "workload.framework" or (each.path == REST and own & degrees):
                continue
            yield each


def _frameworks(files: tuple[TrainingFile, ...]) -> Iterable[Given]:
    """Yield the one framework that the files are of: the most specific; two specific ones contradict."""
    said = [
        Given(path="workload.framework", value=f.framework, said=f"{f.where}: {f.kind}") for f in files if f.framework
    ]
    said += [each for f in files for each in f.given if each.path == "workload.framework"]
    explicit = [each for f in files for each in f.given if each.path == "workload.framework"]
    if explicit:
        return (explicit[-1],)
    specific = [each for each in said if each.value not in WEAK]
    if specific:
        return specific
    return tuple(each for name in WEAK for each in said if each.value == name)[:1]


def _agreed(given: Iterable[Given]) -> dict[str, Given]:
    """Return the fields by path, each said once or alike."""
    found: dict[str, Given] = {}
    for each in given:
        before = found.setdefault(each.path, each)
        if before.value != each.value and each.path != REST:
            field = each.path.rpartition(".")[2]
            raise InvalidValueError(each.path, f"{before.said} and {each.said}", f"one {field}", "they contradict")
        if each.path == REST and each.value == "dp_shard":
            found[REST] = each  # who divides states does so whatever another file says of copies
    return found


def _devices(found: dict[str, Given]) -> None:
    """Work out the devices in all from machines and devices of each."""
    per_node, nodes = found.pop(PER_NODE, None), found.pop(NODES, None)
    if "device_count" in found or per_node is None:
        return
    machines = 1 if nodes is None else nodes.value
    assert isinstance(machines, int)
    assert isinstance(per_node.value, int)
    said = per_node.said if nodes is None else f"{per_node.said}, {nodes.said}"
    found["device_count"] = Given(path="device_count", value=machines * per_node.value, said=said)


def _shared_out(found: dict[str, Given]) -> Iterable[str]:
    """Give the devices that no axis takes to the axis that the files say."""
    rest, count = found.pop(REST, None), found.get("device_count")
    axis = None if rest is None else f"{PLAN}.{rest.value}"
    if count is None or axis is None or axis in found:
        return
    taken = 1
    for name in ("dp_replicate", "dp_shard", "tp", "pp", "cp"):
        taken *= _size(found, f"{PLAN}.{name}")
    devices = _size(found, "device_count")
    if devices % taken:
        raise InvalidValueError(
            "device_count", devices, f"a multiple of {taken}, which the other degrees take", f"{count.said}; change one"
        )
    assert rest is not None
    found[axis] = Given(path=axis, value=devices // taken, said=f"{rest.said}; {count.said}")
    yield f"{axis}: {devices // taken}, the devices that no other axis takes"


def _size(found: Mapping[str, Given], path: str) -> int:
    value = found[path].value if path in found else 1
    assert isinstance(value, int)
    return value


def _accumulation(found: dict[str, Given], *, known: bool) -> Iterable[str]:
    """Work out how many micro-batches one step has on a rank."""
    whole = found.pop(GLOBAL_BATCH, None)
    pipeline = _size(found, "plan.pp") > 1
    path = "plan.micro_batches" if pipeline else "workload.gradient_accumulation_steps"
    if whole is None or path in found:
        return
    if not known:
        yield f"{whole.said}: nothing says how many devices there are: give --gpus to share it out"
        return
    ranks = _size(found, "plan.dp_replicate") * _size(found, "plan.dp_shard")
    each = _size(found, "workload.micro_batch") * ranks
    assert isinstance(whole.value, int)
    if whole.value % each:
        yield f"{whole.said}: not a multiple of {each} sequences at once on {ranks} data-parallel ranks: left open"
        return
    found[path] = Given(path=path, value=whole.value // each, said=f"{whole.said} over {ranks} ranks")
    yield f"{path}: {whole.value} sequences of a step / {each} at once"


def _config(files: tuple[TrainingFile, ...], found: dict[str, Given]) -> None:
    """Take the model that a file describes by its sizes, unless one is named."""
    described = [file for file in files if file.config is not None]
    if described and not found.keys() & {"model", "config"}:
        found["config"] = Given(
            path="config", value=described[0].config, said=f"{described[0].where}: sizes of the model"
        )


def _request(found: Mapping[str, Given], *, keep_adapter: bool) -> TrainingRequest:
    """Return the request; what only files say of adapters counts only where one is trained."""
    parts: dict[str, dict[str, Any]] = {
        TOP: {}, WORKLOAD: {}, PLAN: {}, "workload.adapter": {}, "workload.offload": {}, "workload.buckets": {},
    }  # fmt: skip
    for path, each in found.items():
        part, _, name = path.rpartition(".")
        parts[part][name] = each.value
    workload = parts[WORKLOAD]
    adapter, offload = parts["workload.adapter"], parts["workload.offload"]
    if adapter and (keep_adapter or workload.get("method", "full") in ADAPTED):
        workload["adapter"] = AdapterAsked(**adapter)
    if offload:
        workload["offload"] = OffloadAsked(**offload)
    if parts["workload.buckets"]:
        workload["buckets"] = BucketsAsked(**parts["workload.buckets"])
    return TrainingRequest(workload=Training(**workload), plan=Plan(**parts[PLAN]), **parts[TOP])
