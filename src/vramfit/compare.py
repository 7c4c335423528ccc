"""Sets a real log beside its prediction, and asks the forward formulas which knob explains the difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vramfit.accuracy import validate
from vramfit.answer import answer, forward
from vramfit.catalogue.device import find_device
from vramfit.commands.flag import Flag, Nested, Switch
from vramfit.commands.read import PROGRAMS
from vramfit.comparison import Advice, Comparison, Part, Turn
from vramfit.engines.profile import ENGINES, find_engine
from vramfit.errors import VramfitError
from vramfit.log_facts import LogFacts
from vramfit.measured import Evidence, MeasuredRun, Measurement
from vramfit.own_context import with_own_context
from vramfit.request import KNOBS, Given, Request, request_of
from vramfit.result import COUNTED, Change, Quantity, Verdict
from vramfit.units import format_bytes

SHARES = ("workload.memory_fraction", (0.5, 0.6, 0.7, 0.8, 0.85, 0.88, 0.92, 0.95, 0.98))
TOKENS = (SHARES, ("workload.kv_format", ("fp8", "bf16")), ("workload.max_num_seqs", (64, 256, 1024)))
CANDIDATES: dict[Quantity, tuple[tuple[str, tuple[object, ...]], ...]] = {
    Quantity.WEIGHTS: (
        ("workload.weight_format", ("fp8", "int8", "int4", "nf4-dq", "bf16")),
        ("plan.tp", (1, 2, 4, 8)),
        ("plan.pp", (1, 2, 4)),
    ),
    Quantity.ACTIVATION_PEAK: (
        ("workload.max_num_seqs", (16, 64, 128, 256, 512, 1024)),
        ("workload.max_num_batched_tokens", (512, 2048, 4096, 8192, 16384, 32768)),
        ("workload.chunked_prefill", (True, False)),
    ),
    Quantity.KV_CACHE: (
        SHARES,
        ("workload.max_num_seqs", (64, 256, 1024)),
        ("workload.max_num_batched_tokens", (2048, 8192, 16384)),
        ("workload.eager", (True, False)),
    ),
    Quantity.KV_CACHE_TOKENS: TOKENS,
    Quantity.REQUESTS_AT_CONTEXT: TOKENS,
    Quantity.CUDA_GRAPHS: (("workload.eager", (True,)), ("workload.max_num_seqs", (64, 256, 512, 1024))),
    Quantity.KV_BUFFER: (
        ("workload.kv_format", ("fp16", "q8_0", "q5_1", "q4_0")),
        ("workload.context_tokens", (2048, 4096, 8192, 16384, 32768, 65536, 131072)),
        ("workload.slots", (1, 2, 4)),
        ("workload.swa_full", (True, False)),
    ),
    Quantity.COMPUTE_BUFFER: (
        ("workload.flash_attention", (True, False)),
        ("workload.ubatch_tokens", (256, 512, 1024, 2048, 4096)),
    ),
    Quantity.MODEL_BUFFER: (("workload.gpu_layers", (16, 24, 32, 48)),),
    Quantity.RECURRENT_STATE: (("workload.slots", (1, 2, 4, 8)),),
}
"""Quantity -> knobs that move it, and values that people use."""
BETTER = 0.5
"""A knob explains a difference when it leaves at most this share of it."""
WORTH_EXPLAINING = 0.02
"""Differences below this share of the printed figure are left alone."""


def compare(
    facts: LogFacts,
    said: tuple[Given, ...],
    *,
    device: str | None = None,
    memory_bytes: int | None = None,
    hub: bool = False,
) -> Comparison:
    """Return what the log printed beside what is predicted for the same request.

    Args:
        facts: as ``read_log`` returns them.
        said: fields that the user adds or corrects; they win over the log.
        device: name of the card; None = only its size counts.
        memory_bytes: what the card reports; None = what the log says, then the catalogue.
        hub: ask the Hub even when the catalogue knows the model.

    Raises:
        VramfitError: a model or card that is not known, or a request that cannot be.
    """
    paths = {each.path for each in said}
    given = (*said, *(each for each in facts.given if each.path not in paths))
    given, left = _known_knobs(given)
    if "model" not in {each.path for each in given}:
        return _without_model(facts)
    total = memory_bytes or _printed_total(facts, device)
    request = replace(request_of(with_own_context(given, hub=hub)), device=device, device_memory_bytes=total)
    estimate = forward(request, hub=hub)
    parts, missing = _parts(facts, request)
    return Comparison(
        facts=facts,
        request=request,
        parts=parts,
        need=estimate.worst.peak(),
        explanations=tuple(_explanations(facts, request, parts, {each.path for each in given})),
        ways_out=tuple(_ways_out(facts, request, hub=hub)),
        not_predicted=(*missing, *(f"{g.said}: {g.path} is not modelled for this engine" for g in left)),
        assumptions=(*_assumed(facts, request), *estimate.assumptions),
    )


def _printed_total(facts: LogFacts, device: str | None) -> int | None:
    """Return what the log says the card has; None when the named card's own figure rounds to the same. [B]"""
    printed = facts.device_total_bytes
    if printed is None or device is None:
        return printed
    exact = find_device(device).total_bytes
    return None if abs(exact - printed) <= max(1, facts.device_resolution_bytes) else printed


def _known_knobs(given: tuple[Given, ...]) -> tuple[tuple[Given, ...], tuple[Given, ...]]:
    """Separate the fields that the engine, as it is modelled, does not take."""
    engine = next((str(each.value) for each in given if each.path == "workload.engine"), "generic")
    knobs = find_engine(engine).knobs
    names = [(each, each.path.removeprefix("workload.")) for each in given]
    left = tuple(each for each, name in names if name in KNOBS and name not in knobs)
    return tuple(each for each in given if each not in left), left


def _without_model(facts: LogFacts) -> Comparison:
    asked = "the log names no model: add it with --model to get a prediction"
    return Comparison(
        facts=facts,
        request=None,
        parts=(),
        explanations=(),
        ways_out=tuple(_of_allocator(facts)),
        not_predicted=(),
        assumptions=(asked,),
    )


def _parts(facts: LogFacts, request: Request) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Return each printed figure with its prediction, and why some have none."""
    parts, missing = [], []
    for measurement in facts.measured:
        found = _predicted(request, measurement)
        if isinstance(found, Part):
            parts.append(found)
        else:
            missing.append(found)
    return tuple(parts), tuple(missing)


def _predicted(request: Request, measurement: Measurement) -> Part | str:
    """Return the prediction of one figure, or why there is none."""
    run = MeasuredRun(id="log", request=request, measured=(measurement,), source="log", evidence=Evidence.EXACT_LOG)
    found = validate((run,))
    if found.skipped:
        return found.skipped[0].reason
    row = found.rows[0]
    return Part(
        quantity=row.quantity,
        scope=measurement.scope,
        measured=row.measured,
        predicted=row.predicted,
        low=row.low,
        high=row.high,
        inside=row.inside,
    )


def _explanations(facts: LogFacts, request: Request, parts: tuple[Part, ...], stated: set[str]) -> Iterator[Advice]:
    """Yield knobs that the log does not state and of which another value would bring the worst part nearer."""
    worst = Comparison(
        facts=facts, request=request, parts=parts, explanations=(), ways_out=(), not_predicted=(), assumptions=()
    ).worst
    if worst is None or abs(worst.error_ratio) < WORTH_EXPLAINING or worst.inside:
        return
    measurement = next(m for m in facts.measured if m.quantity is worst.quantity and m.scope == worst.scope)
    before, tried = abs(worst.predicted - worst.measured), []
    captured = any(m.quantity is Quantity.CUDA_GRAPHS and m.value > 0 for m in facts.measured)
    settled = stated | ({"workload.eager"} if captured else set())
    for path, values in CANDIDATES.get(worst.quantity, ()):
        for value in values if path not in settled else ():
            changed = _with(request, path, value)
            part = None if changed is None else _quietly(changed, measurement)
            if part is not None and abs(part.predicted - part.measured) <= BETTER * before:
                tried.append((abs(part.predicted - part.measured), path, value, part))
    best: dict[str, tuple[float, str, object, Part]] = {}
    for each in sorted(tried, key=lambda entry: entry[0]):
        best.setdefault(each[1], each)
    name = worst.quantity.value.replace("_", " ")
    for _, path, value, part in best.values():
        yield Advice(
            turns=(
                Turn(
                    flag=flag_of(request.workload.engine, path, value),
                    seen=f"{_at(request, path)}, not stated in the log",
                    wanted=str(value),
                ),
            ),
            why=f"then {name} would be {_figure(part)}, printed {_figure(part, printed=True)}",
        )


def _with(request: Request, path: str, value: object) -> Request | None:
    """Return the request with one field changed; None = it cannot be, or is no change."""
    part, _, name = path.partition(".")
    noun = getattr(request, part)
    if getattr(noun, name) == value:
        return None
    try:
        return replace(request, **{part: replace(noun, **{name: value})})
    except VramfitError:
        return None


def _quietly(request: Request, measurement: Measurement) -> Part | None:
    found = _predicted(request, measurement)
    return found if isinstance(found, Part) else None


def _at(request: Request, path: str) -> object:
    part, _, name = path.partition(".")
    value = getattr(getattr(request, part), name)
    return "the default" if value is None or value == "auto" else value


def _figure(part: Part, *, printed: bool = False) -> str:
    value = part.measured if printed else part.predicted
    return f"{value:,.2f}".rstrip("0").rstrip(".") if part.quantity in COUNTED else format_bytes(int(value))


def _ways_out(facts: LogFacts, request: Request, *, hub: bool) -> Iterator[Advice]:
    """Yield what would have kept a failed run alive: our smallest changes in the engine's words."""
    if facts.failure is None:
        return
    yield from _of_allocator(facts)
    if request.device is None and request.device_memory_bytes is None:
        return
    for change in answer(request, hub=hub).changes:
        if change.verdict is Verdict.FITS:
            yield _advice(change, request)


def _advice(change: Change, request: Request) -> Advice:
    """Say one change in the engine's own flags."""
    words = change.flags.split()
    if "--gpus" in words:  # a plan: a degree that is not named is 1
        words += [word for name in ("--tp", "--pp") if name not in words for word in (name, "1")]
    turns = []
    for name, value in zip(words[::2], words[1::2], strict=True):
        path = _sequences(request.workload.engine) if name == "--batch" else OURS.get(name)
        if path is not None and str(_at(request, path)) != value:
            flag = flag_of(request.workload.engine, path, value)
            turns.append(Turn(flag=flag, seen=str(_at(request, path)), wanted=value))
    saved = f"frees {format_bytes(change.saves_bytes)}; {change.note}"
    return Advice(turns=tuple(turns), why=saved)


def _sequences(engine: str) -> str:
    """Return the field that bounds the sequences at once: a server's own knob, a library's batch."""
    knobs = find_engine(engine).knobs
    return "workload." + next((name for name in ("max_num_seqs", "slots") if name in knobs), "batch")


OURS = {
    "--context": "workload.context_tokens", "--batch": "workload.batch", "--kv-format": "workload.kv_format",
    "--weights": "workload.weight_format", "--fraction": "workload.memory_fraction", "--tp": "plan.tp",
    "--pp": "plan.pp", "--max-num-seqs": "workload.max_num_seqs",
    "--max-batched-tokens": "workload.max_num_batched_tokens", "--gpu-layers": "workload.gpu_layers",
}  # fmt: skip
"""Our options -> fields."""


def _of_allocator(facts: LogFacts) -> Iterator[Advice]:
    """Yield what torch's own message says about fragments."""
    failure = facts.failure
    if failure is None or failure.fragmented_bytes is None or failure.fragmented_bytes < failure.needed_bytes:
        return
    yield Advice(
        turns=(Turn(flag="PYTORCH_CUDA_ALLOC_CONF", seen="the default", wanted="expandable_segments:True"),),
        why=f"{format_bytes(failure.fragmented_bytes)} lie reserved and unused, more than the "
        f"{format_bytes(failure.needed_bytes)} that failed",
    )


def flag_of(engine: str, path: str, value: object = None) -> str:
    """Return how an engine spells a field (with that value, if one is given); our own option where it has none.

    >>> flag_of("vllm", "workload.context_tokens"), flag_of("llama.cpp", "workload.ubatch_tokens")
    ('--max-model-len', '-ub')
    """
    for program in PROGRAMS:
        if program.engine == engine:
            for flag in program.flags:
                if _stands_for(flag, path) and _can_say(flag, value):
                    return flag.names[0]
    ours = {ours: name for name, ours in OURS.items()}
    return ours.get(path, path.rpartition(".")[2] if "." in path else path)


def _can_say(flag: Flag | Switch | Nested, value: object) -> bool:
    """Say whether a flag has a word for a value."""
    if value is None or not isinstance(flag, Flag):
        return True
    try:
        return bool(flag.kind.write(value))
    except (TypeError, ValueError):
        return True


def _stands_for(flag: Flag | Switch | Nested, path: str) -> bool:
    return not isinstance(flag, Nested) and flag.path == path


def _assumed(facts: LogFacts, request: Request) -> Iterable[str]:
    """Name what the log does not say and the prediction rests on."""
    workload = request.workload
    if request.device is None and request.device_memory_bytes is None:
        yield "the log does not say how much memory the card has: add --gpu for pools and for ways out"
    if facts.program in ENGINES and workload.engine_version is None:
        yield "the log does not name its version: the newest known is taken (--engine-version)"
    if workload.context_tokens is None:
        yield "the log does not state the context: add --context"
    elif not any(each.path == "workload.context_tokens" for each in facts.given):
        yield f"context {workload.context_tokens:,}: not in the log"
