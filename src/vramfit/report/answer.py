"""An answer for people: verdict first, then what takes what and why, then what else would do."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.report.rows import Row, Section, Tone
from vramfit.report.tables import money
from vramfit.result import Answer, Breakdown, Change, Choice, Counter, DeviceOption, Item, Limit, Verdict, in_words
from vramfit.units import count_of, format_bytes, format_count, format_gib

TONES = {
    Verdict.FITS: Tone.GOOD,
    Verdict.TIGHT: Tone.WARN,
    Verdict.DOES_NOT_FIT: Tone.BAD,
    Verdict.UNKNOWN: Tone.STRONG,
}
GROUPS = {
    "weights": "weights",
    "load": "while loading",
    "kv_cache": "KV cache",
    "recurrent_state": "recurrent state",
    "activations": "activations",
    "logits": "logits",
    "runtime": "CUDA, libraries, allocator",
}
SMALLEST_BAND_BYTES = 10 * 2**20
"""A band narrower than what two decimals of a GiB show is left out."""
MOST_OPTIONS = 10
SHOWN_DEGREES = ("dp_shard", "tp", "pp", "cp", "ep")
MOST_CHANGES = 6
HOW_FAR = "How far these devices go"


def brief(answer: Answer) -> tuple[Section, ...]:
    """Return the verdict, what each group takes, and how far it goes."""
    memory = _memory(answer)
    groups = Section(memory.title, tuple(row for row in memory.rows if row.indent == 0))
    return (_headline(answer), groups, *change_section(answer.changes, most=2), *_limits(answer))


def sections(answer: Answer) -> tuple[Section, ...]:
    """Return the whole report of one answer."""
    parts = [
        _headline(answer),
        _memory(answer),
        _phases(answer),
        *change_section(answer.changes),
        *_limits(answer),
        *device_section(answer.device_options),
        *choice_section(answer.estimate.choices, answer.estimate.assumptions),
        left_out_section(answer.estimate.not_counted),
    ]
    return tuple(parts)


def _headline(answer: Answer) -> Section:
    model, fit = answer.estimate.model, answer.fit
    parameters = f"{format_count(model.parameters)} parameters"
    if model.active_parameters != model.parameters:
        parameters += f", {format_count(model.active_parameters)} active per token"
    layers = ", ".join(f"{count} x {kind}" for kind, count in model.layers.items())
    return Section(
        "",
        (
            Row(_verdict(answer), tone=TONES[fit.verdict]),
            Row(f"{model.name} ({model.family}): {parameters}; {layers}"),
            Row(_asked(answer)),
        ),
    )


def _verdict(answer: Answer) -> str:
    fit, worst = answer.fit, answer.estimate.worst
    need = f"{format_gib(worst.peak().expected_bytes)} GiB"
    many = sum(b.num_ranks for b in answer.estimate.breakdowns)
    each = " on the fullest of its devices" if many > 1 else ""
    if fit.verdict is Verdict.UNKNOWN:
        return f"Needs {need}{each}"
    name = f"{many} x {fit.device}" if many > 1 else fit.device
    has = f"{format_gib(fit.capacity_bytes)} GiB"
    if worst.reservation is not None and worst.reservation.limit_bytes < fit.capacity_bytes:
        taken = format_gib(worst.reservation.limit_bytes)
        has = f"{has} and {answer.request.workload.engine} takes {taken} of it"
    left = f"{format_gib(abs(fit.margin_bytes))} GiB"
    headroom = f" after {format_gib(fit.headroom_bytes)} GiB of headroom" if fit.headroom_bytes else ""
    match fit.verdict:
        case Verdict.FITS:
            return f"Fits on {name}: needs {need}{each}, a device has {has}, {left} left{headroom}"
        case Verdict.TIGHT:
            if answer.request.workload.context_tokens is None:  # a diffusion pipeline: no context, and more to come
                return f"Weights fit on {name}: {need}{each}, a device has {has}, {left} left for the rest{headroom}"
            high = format_gib(worst.peak().high_bytes)
            return f"Tight on {name}: needs {need}{each} and up to {high}, a device has {has}, {left} left{headroom}"
        case _:
            return f"Does not fit on {name}: needs {need}{each}, a device has {has}, {left} short{headroom}"


def _asked(answer: Answer) -> str:
    estimate, workload = answer.estimate, answer.request.workload
    if workload.context_tokens is None:
        made = f"{workload.image_height} x {workload.image_width} pixels, {workload.frames} frames"
        rest = "the rest is not counted" if workload.image_height is None else f"batch {workload.batch} of {made}"
        return f"engine {workload.engine}; weights {format_gib(estimate.weights_bytes)} GiB, {rest}"
    cache = (
        f"{format_bytes(estimate.kv_bytes_per_token)} of cache per token" if estimate.kv_bytes_per_token else "no cache"
    )
    weights = f"weights {format_gib(estimate.weights_bytes)} GiB"
    asked = f"{count_of(workload.batch, 'sequence')} of {workload.context_tokens:,} tokens"
    return f"{asked}, engine {workload.engine}; {weights}, {cache}"


def _memory(answer: Answer) -> Section:
    worst = answer.estimate.worst
    phase, whole = worst.peak_phase, worst.peak().expected_bytes
    rows: list[Row] = []
    for group, title in GROUPS.items():
        items = [i for i in worst.items if i.name.split("/")[0] == group]
        if not items:
            continue
        at_peak = sum(i.bytes for i in items if phase in i.phases)
        rows.append(Row(title, format_gib(at_peak), "", Tone.STRONG, 0, at_peak / whole))
        rows.extend(_item(i, at_peak=phase in i.phases) for i in items)
    rows.append(Row("sum at the peak", format_gib(whole), f"in {phase.value}", Tone.STRONG))
    if answer.fit.headroom_bytes:
        rows.append(Row("headroom", format_gib(answer.fit.headroom_bytes), "left free, as asked"))
    rank = "" if worst.rank == "the only rank" else f", {worst.rank} ({worst.num_ranks} alike)"
    return Section(f"What takes memory, GiB{rank}", tuple(rows))


def _item(item: Item, *, at_peak: bool) -> Row:
    band = ""
    if item.high_bytes - item.low_bytes > SMALLEST_BAND_BYTES:
        band = f" ({format_gib(item.low_bytes)} to {format_gib(item.high_bytes)})"
    phases = "" if at_peak else f" [only {', '.join(p.value for p in item.phases)}]"
    name = item.name.split("/")[1].replace("_", " ")
    text = f"{item.formula}{band} [{item.basis.value}]{phases}"
    return Row(name, format_gib(item.bytes), text, Tone.PLAIN if at_peak else Tone.QUIET, 1)


def _phases(answer: Answer) -> Section:
    worst = answer.estimate.worst
    whole = max(worst.peak().expected_bytes, answer.fit.capacity_bytes)
    rows = []
    for phase in worst.phases:
        total = worst.total(phase)
        band = f"{format_gib(total.low_bytes)} to {format_gib(total.high_bytes)}"
        peak = ", the peak" if phase is worst.peak_phase else ""
        rows.append(
            Row(
                phase.value,
                format_gib(total.expected_bytes),
                f"{band}{peak}",
                Tone.PLAIN,
                0,
                total.expected_bytes / whole,
            )
        )
    rows.append(Row("torch allocated / reserved / nvidia-smi", "", " / ".join(_readings(worst))))
    return Section("Over time, GiB", tuple(rows))


def _readings(worst: Breakdown) -> Iterable[str]:
    return (format_gib(worst.peak(counter).expected_bytes) for counter in Counter)


def change_section(changes: tuple[Change, ...], most: int = MOST_CHANGES) -> Iterable[Section]:
    """Yield what to change, smallest first; nothing when there is nothing to change."""
    if not changes:
        return
    rows = []
    for change in changes[:most]:
        left = "left" if change.margin_bytes >= 0 else "short"
        after = f"{change.verdict.value}, {format_gib(abs(change.margin_bytes))} GiB {left}"
        rows.append(Row(change.flags, format_gib(change.saves_bytes), f"{after}; {change.note}", TONES[change.verdict]))
    yield Section("What to change, GiB saved on the fullest device", tuple(rows))


def _limits(answer: Answer) -> Iterable[Section]:
    rows = (
        *limit_row("longest context", answer.longest_context, "tokens, batch as asked", answer.fit.verdict),
        *limit_row("largest batch", answer.largest_batch, "sequences, context as asked", answer.fit.verdict),
    )
    if rows:
        yield Section(HOW_FAR, rows)


def limit_row(name: str, limit: Limit | None, unit: str, verdict: Verdict) -> Iterable[Row]:
    """Yield the largest value of one knob; nothing where no device was named."""
    if limit is not None and limit.value:
        yield Row(name, f"{limit.value:,}", f"{unit}; bounded by {limit.bounded_by}")
    elif limit is not None:
        tight = verdict is Verdict.TIGHT
        text = "none fits for certain: what was asked is tight" if tight else "not even one fits on these devices"
        yield Row(name, "none", text)


def device_section(options: tuple[DeviceOption, ...]) -> Iterable[Section]:
    """Yield how many devices of which kind would do; nothing where no device was named."""
    if not options:
        return
    rows = []
    for option in options[: MOST_OPTIONS + 1]:
        plan = option.plan
        degrees = [f"{n} {getattr(plan, n)}" for n in SHOWN_DEGREES if getattr(plan, n) > 1]
        text = (
            f"{', '.join(degrees) + '; ' if degrees else ''}{format_gib(option.margin_bytes)} GiB left on the fullest"
        )
        if option.price is not None:
            text += f"; {money(option.price)}"
        if not option.count:
            text = "no number of them up to 512 holds it"
        tone = Tone.STRONG if option is options[0] else Tone.PLAIN
        rows.append(Row(option.device, str(option.count or "-"), text, tone))
    rest = len(options) - len(rows)
    if rest > 0:
        rows.append(Row(f"and {rest} more", "", "all of them: --json", Tone.QUIET))
    yield Section("How many devices, and which others would do", tuple(rows))


def choice_section(choices: tuple[Choice, ...], assumptions: tuple[str, ...]) -> Iterable[Section]:
    """Yield what was left open and how it was decided; nothing when all was said."""
    rows = [Row(c.field, "", f"{in_words(c.value)}: {c.why}") for c in choices]
    rows.extend(Row("assumed", "", text, Tone.WARN) for text in assumptions)
    if rows:
        yield Section("Decided for you", tuple(rows))


def left_out_section(not_counted: tuple[str, ...]) -> Section:
    """Return what is not in any number."""
    return Section("Not counted", tuple(Row(f"- {text}", tone=Tone.QUIET) for text in not_counted))
