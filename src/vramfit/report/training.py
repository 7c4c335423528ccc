"""An answer about training for people: verdict, why the peak is where it is, the step over time, what takes what."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.report.answer import (
    HOW_FAR,
    SMALLEST_BAND_BYTES,
    TONES,
    change_section,
    choice_section,
    device_section,
    left_out_section,
    limit_row,
)
from vramfit.report.rows import CHART_WIDTH, Row, Section, Tone
from vramfit.request import Plan
from vramfit.result import Breakdown, Counter, Item, Phase, Verdict
from vramfit.timeline import PART_TITLES, Moment, Timeline
from vramfit.training_result import TrainingAnswer
from vramfit.units import count_of, format_count, format_gib

LETTERS = {"weights": "W", "master": "M", "optimizer": "O", "gradients": "G", "activations": "A", "working": "T",
           "autocast": "C", "buffers": "B", "rounding": "R", "models": "P", "rollout": "V"}  # fmt: skip
"""First word of an item's name -> its letter in the chart."""
PARTS = {name: (LETTERS[name], title) for name, title in PART_TITLES.items()}
OTHER = ("X", "other parts")
GROUPS = {**{name: title for name, (_, title) in PARTS.items()}, "runtime": "CUDA, libraries, allocator"}
MOST_MOMENTS = 14
SMALLEST_SHOWN_BYTES = 5 * 2**20
"""Less than this prints as 0.00 GiB."""
READINGS = {
    Counter.ALLOCATED: ("torch allocated", "torch.cuda.max_memory_allocated"),
    Counter.RESERVED: ("torch reserved", "torch.cuda.max_memory_reserved"),
    Counter.PROCESS: ("process", "nvidia-smi"),
}
DEGREES = ("dp_replicate", "dp_shard", "tp", "pp", "cp", "ep")


def brief(answer: TrainingAnswer) -> tuple[Section, ...]:
    """Return the verdict, the readings, what each group takes, and the smallest changes."""
    memory = _memory(answer)
    groups = Section(memory.title, tuple(row for row in memory.rows if row.indent == 0))
    return (_headline(answer), _readings(answer), groups, *change_section(answer.changes, most=2), *_limits(answer))


def sections(answer: TrainingAnswer) -> tuple[Section, ...]:
    """Return the whole report of one answer."""
    estimate = answer.estimate
    return (
        _headline(answer),
        _readings(answer),
        *_timeline(answer),
        _memory(answer),
        *_ranks(answer),
        *_host(answer),
        *change_section(answer.changes),
        *_limits(answer),
        *device_section(answer.device_options),
        *choice_section(estimate.choices, estimate.assumptions),
        left_out_section(estimate.not_counted),
    )


def _headline(answer: TrainingAnswer) -> Section:
    model, fit = answer.estimate.model, answer.fit
    layers = ", ".join(f"{count} x {kind}" for kind, count in model.layers.items())
    rows = (
        Row(_verdict(answer), tone=TONES[fit.verdict]),
        Row(answer.estimate.why),
        Row(f"{model.name} ({model.family}): {format_count(model.parameters)} parameters; {layers}"),
        Row(_asked(answer)),
    )
    return Section("", rows)


def _verdict(answer: TrainingAnswer) -> str:
    fit, worst = answer.fit, answer.estimate.worst
    need = f"{format_gib(worst.peak().expected_bytes)} GiB"
    many = sum(rank.num_ranks for rank in answer.estimate.breakdowns)
    each = " on the fullest of its devices" if many > 1 else ""
    if fit.verdict is Verdict.UNKNOWN:
        return f"Needs {need}{each}"
    name = f"{many} x {fit.device}" if many > 1 else fit.device
    left = f"{format_gib(abs(fit.margin_bytes))} GiB"
    headroom = f" after {format_gib(fit.headroom_bytes)} GiB of headroom" if fit.headroom_bytes else ""
    has = f"a device has {format_gib(fit.capacity_bytes)} GiB"
    match fit.verdict:
        case Verdict.FITS:
            return f"Fits on {name}: needs {need}{each}, {has}, {left} left{headroom}"
        case Verdict.TIGHT:
            high = format_gib(worst.peak().high_bytes)
            return f"Tight on {name}: needs {need}{each} and up to {high}, {has}, {left} left{headroom}"
        case _:
            return f"Does not fit on {name}: needs {need}{each}, {has}, {left} short{headroom}"


def _asked(answer: TrainingAnswer) -> str:
    training, estimate = answer.request.workload, answer.estimate
    share = ""
    if estimate.trained_parameters != estimate.model.parameters:
        part = 100 * estimate.trained_parameters / max(estimate.model.parameters, 1)
        share = f" ({format_count(estimate.trained_parameters)} parameters, {part:.2f} %)"
    each = f"{count_of(training.micro_batch, 'sequence')} of {training.sequence_tokens:,} tokens at once on a rank"
    states = f"{training.precision}, {training.optimizer}"
    recompute = f"recompute {training.recompute}, attention {training.attention}, loss {training.loss}"
    return (
        f"{training.method} training{share}: {each}; {states}; {recompute}; {training.framework}{_plan(estimate.plan)}"
    )


def _plan(plan: Plan) -> str:
    degrees = [f"{name} {getattr(plan, name)}" for name in DEGREES if getattr(plan, name) > 1]
    return f"; {', '.join(degrees)}" if degrees else ""


def _readings(answer: TrainingAnswer) -> Section:
    worst = answer.estimate.worst
    rows = []
    for counter, (name, what) in READINGS.items():
        peak = worst.peak(counter)
        band = f"{format_gib(peak.low_bytes)} to {format_gib(peak.high_bytes)}"
        rows.append(Row(name, format_gib(peak.expected_bytes), f"{band}; {what}", Tone.STRONG))
    return Section("What counters will show at their peak, GiB", tuple(rows))


def _timeline(answer: TrainingAnswer) -> Iterable[Section]:
    timeline = answer.estimate.worst_timeline
    if not timeline.moments:
        return
    whole, shown = timeline.peak.total_bytes, shown_moments(timeline)
    seen = {name for moment in shown for name, size in moment.parts if 2 * size * CHART_WIDTH >= whole}
    rows = []
    for moment in shown:
        parts = tuple((_letter(name), size / whole) for name, size in ordered(moment) if name in seen)
        peak = moment is timeline.peak
        rows.append(
            Row(
                moment.label, format_gib(moment.total_bytes), "<- peak" if peak else "",
                Tone.STRONG if peak else Tone.PLAIN, chart=parts,
            )
        )  # fmt: skip
    legend = [f"{letter} {title}" for name, (letter, title) in PARTS.items() if name in seen]
    if seen - PARTS.keys():
        legend.append(" ".join(OTHER))
    rows.append(Row("; ".join(legend), tone=Tone.QUIET))
    yield Section("Over one step, GiB allocated", tuple(rows))


def _letter(name: str) -> str:
    return PARTS.get(name, OTHER)[0]


def ordered(moment: Moment) -> tuple[tuple[str, int], ...]:
    """Return the parts of a moment in the order in which they are drawn: what stands first, what passes last."""
    order = list(PARTS)
    return tuple(sorted(moment.parts, key=lambda part: order.index(part[0]) if part[0] in order else len(order)))


def shown_moments(timeline: Timeline) -> tuple[Moment, ...]:
    """Return the moments that tell the step: of each phase the first, the fullest and the last."""
    if len(timeline.moments) <= MOST_MOMENTS:
        return timeline.moments
    kept: set[int] = set()
    for phase in Phase:
        places = [i for i, moment in enumerate(timeline.moments) if moment.phase is phase]
        if places:
            kept |= {places[0], max(places, key=lambda i: timeline.moments[i].total_bytes), places[-1]}
    return tuple(timeline.moments[i] for i in sorted(kept))


def _memory(answer: TrainingAnswer) -> Section:
    worst = answer.estimate.worst
    phase, whole = worst.peak_phase, worst.peak().expected_bytes
    alive = [item for item in worst.items if phase in item.phases]
    groups = [*GROUPS, *sorted({i.name.partition("/")[0] for i in alive} - GROUPS.keys())]
    rows: list[Row] = []
    for group in groups:
        items = [item for item in alive if item.name.partition("/")[0] == group]
        if not items:
            continue
        size = sum(item.bytes for item in items)
        title = GROUPS.get(group, group.replace("_", " "))
        rows.append(Row(title, format_gib(size), "", Tone.STRONG, 0, size / whole))
        rows.extend(_items(items))
    rows.append(Row("sum at the peak", format_gib(whole), f"in {phase.value}", Tone.STRONG))
    if answer.fit.headroom_bytes:
        rows.append(Row("headroom", format_gib(answer.fit.headroom_bytes), "left free, as asked"))
    return Section(f"What takes memory at the peak, GiB{_rank(worst)}", tuple(rows))


def _items(items: list[Item]) -> Iterable[Row]:
    """Yield the items that show in two decimals of a GiB; the others together."""
    small = [item for item in items if max(item.bytes, item.high_bytes) < SMALLEST_SHOWN_BYTES]
    few = small if len(small) > 1 else []
    yield from (_item(item) for item in items if item not in few)
    if few:
        size = sum(item.bytes for item in few)
        names = ", ".join(_name(item) for item in few)
        yield Row(f"{len(few)} smaller", format_gib(size), names, Tone.QUIET, 1)


def _name(item: Item) -> str:
    return " ".join(item.name.split("/")[1:] or [item.name]).replace("_", " ")


def _rank(rank: Breakdown) -> str:
    return "" if rank.rank == "the only rank" else f", {rank.rank} ({rank.num_ranks} alike)"


def _item(item: Item) -> Row:
    band = ""
    if item.high_bytes - item.low_bytes > SMALLEST_BAND_BYTES:
        band = f" ({format_gib(item.low_bytes)} to {format_gib(item.high_bytes)})"
    return Row(_name(item), format_gib(item.bytes), f"{item.formula}{band} [{item.basis.value}]", Tone.PLAIN, 1)


def _ranks(answer: TrainingAnswer) -> Iterable[Section]:
    ranks = answer.estimate.breakdowns
    if len(ranks) < 2:
        return
    whole = answer.estimate.worst.peak().expected_bytes
    rows = []
    for rank in ranks:
        peak = rank.peak().expected_bytes
        heaviest = ", the heaviest" if rank is answer.estimate.worst else ""
        text = f"{count_of(rank.num_ranks, 'rank')}, fullest in {rank.peak_phase.value}{heaviest}"
        rows.append(Row(rank.rank, format_gib(peak), text, Tone.PLAIN, 0, peak / whole))
    yield Section("Every distinct rank, GiB", tuple(rows))


def _host(answer: TrainingAnswer) -> Iterable[Section]:
    hosts = answer.estimate.hosts
    items = max(hosts, key=lambda each: sum(item.bytes for item in each), default=())
    if not items:
        return
    rows = [_item(item) for item in items]
    rows.append(Row("sum on the host", format_gib(answer.estimate.host_bytes), "for each rank", Tone.STRONG))
    yield Section("In host memory, GiB", tuple(rows))


def _limits(answer: TrainingAnswer) -> Iterable[Section]:
    verdict, each = answer.fit.verdict, "sequences on a rank, all else as asked"
    rows = (
        *limit_row("largest micro-batch", answer.largest_micro_batch, each, verdict),
        *limit_row("longest sequence", answer.longest_sequence, "tokens, all else as asked", verdict),
    )
    if rows:
        cheapest = answer.cheapest_recompute
        text = "none of the framework's is enough" if cheapest is None else f"{cheapest}: the cheapest that fits"
        yield Section(HOW_FAR, (*rows, Row("recomputation", "", text)))
