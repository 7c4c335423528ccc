"""A traced program for people: does it fit, what was alive at the peak and who made it, what is not counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vramfit.report.rows import Row, Section, Tone
from vramfit.trace_report import LargeTensor, Share, SpanPeak, TraceReport
from vramfit.units import count_of, format_bytes, format_gib

TIGHT_RATIO = 0.02
"""Share of the card below which what is left is tight: reserved memory is meant to be right within it."""
MOST_MODULES = 12
MOST_OPERATORS = 8
MODULE_DEPTH = 3
"""Parts of a module's path that are told apart; numbered layers are added up."""
MOST_STEPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the report says beside what was found."""

    title: str
    ended: str
    """How the program ended, in words; empty = as it should."""
    changes: tuple[str, ...] = ()
    """What ran otherwise than on a real card."""
    seconds: float = 0.0
    num_largest: int = 20
    """How many of the largest tensors are listed; equal ones count once."""


def sections(report: TraceReport, told: Told) -> tuple[Section, ...]:
    """Return the whole report of one trace."""
    found = (
        _headline(report, told),
        _readings(report),
        _spans("By phase: highest allocated, GiB", report.phases, report.allocated_peak_bytes),
        *_steps(report.steps),
        _shares("Alive at the peak, GiB", report.categories, report.peak_alive_bytes),
        _shares("By module, GiB", grouped(report.modules), report.peak_alive_bytes, MOST_MODULES),
        _shares("By operator, GiB", _plainly(report.operators), report.peak_alive_bytes, MOST_OPERATORS),
        *_largest(report.largest, told.num_largest),
        *_texts("Assumed", (*told.changes, *report.assumptions)),
        *_texts("Not counted", report.not_counted),
    )
    return tuple(section for section in found if section.rows)


def brief(report: TraceReport, told: Told) -> tuple[Section, ...]:
    """Return the verdict and the three readings."""
    return (_headline(report, told), _readings(report))


def verdict(report: TraceReport) -> tuple[str, Tone]:
    """Say whether the card holds the program, and how it is meant.

    Left over below 2 % of the card is tight: reserved memory is predicted no better than that.
    """
    need, has = report.process_peak_bytes, report.capacity_bytes
    if report.out_of_memory is not None:
        return f"Does not fit on {report.device}: {_first_line(report.out_of_memory)}", Tone.BAD
    if not report.num_allocations:
        return f"Nothing was allocated on {report.device}: did the program choose the CPU?", Tone.WARN
    left = has - need
    text = f"needs {format_gib(need)} GiB, the card has {format_gib(has)} GiB"
    if left < 0:
        return f"Does not fit on {report.device}: {text}, {format_gib(-left)} GiB too much", Tone.BAD
    if left < TIGHT_RATIO * has:
        return f"Tight on {report.device}: {text}, {format_gib(left)} GiB left", Tone.WARN
    return f"Fits on {report.device}: {text}, {format_gib(left)} GiB left", Tone.GOOD


def _headline(report: TraceReport, told: Told) -> Section:
    said, tone = verdict(report)
    work = f"{report.num_operators:,} operators, {report.num_allocations:,} allocations in {told.seconds:.1f} s"
    rows = [Row(said, tone=tone), Row(f"{told.title}: {work}")]
    if told.ended:
        rows.append(Row(told.ended, tone=Tone.WARN if report.interrupted else Tone.QUIET))
    if report.out_of_memory is not None:
        rows += [Row(line, tone=Tone.QUIET, indent=1) for line in report.out_of_memory.splitlines()[1:]]
    return Section("", tuple(rows))


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else text


def _readings(report: TraceReport) -> Section:
    low, high = report.reserved_peak_bytes, report.reserved_peak_high_bytes
    band = f"; {format_gib(high)} where other streams finish late" if low != high else ""
    phase = f"in {report.peak_phase}" if report.peak_phase else ""
    return Section(
        "Peaks, GiB",
        (
            Row("allocated", format_gib(report.allocated_peak_bytes), f"torch.cuda.max_memory_allocated; {phase}"),
            Row("reserved", format_gib(report.reserved_peak_bytes), f"torch.cuda.max_memory_reserved{band}"),
            Row(
                "process", format_gib(report.process_peak_bytes),
                f"nvidia-smi: reserved and {format_bytes(report.context_bytes)} of context and kernels", Tone.STRONG,
            ),
        ),
    )  # fmt: skip


def _spans(title: str, spans: Iterable[SpanPeak], whole: int) -> Section:
    rows = [
        Row(
            span.name, format_gib(span.allocated_bytes),
            f"reserved {format_gib(span.reserved_bytes)}",
            bar=span.allocated_bytes / whole if whole else None,
        )
        for span in spans
    ]  # fmt: skip
    return Section(title, tuple(rows))


def _steps(steps: tuple[SpanPeak, ...]) -> Iterable[Section]:
    """Yield the first steps against the later ones: states appear in the first."""
    if not steps:
        return
    whole = max(span.allocated_bytes for span in steps)
    rows = [*_spans("", steps[:MOST_STEPS], whole).rows]
    if len(steps) > MOST_STEPS:
        later = max(steps[MOST_STEPS:], key=lambda span: span.allocated_bytes)
        rows.append(Row(f"{len(steps) - MOST_STEPS} more", format_gib(later.allocated_bytes), "the highest of them"))
    growth = steps[-1].reserved_bytes - steps[0].reserved_bytes
    if len(steps) > 1:
        said = (
            f"the last step needs {format_bytes(growth)} more than the first"
            if growth > 0
            else "no later step needs more"
        )
        rows.append(Row(f"reserved: {said}", tone=Tone.QUIET))
    yield Section("By step, GiB", tuple(rows))


def grouped(shares: Iterable[Share]) -> tuple[Share, ...]:
    """Return modules by the first parts of their paths, numbered layers together, largest first.

    >>> [s.name for s in grouped([Share(name="h.0.attn", num_bytes=1, num_tensors=1),
    ...                           Share(name="h.1.attn", num_bytes=2, num_tensors=1)])]
    ['h.*.attn']
    """
    sums: dict[str, tuple[int, int]] = {}
    for share in shares:
        parts = ["*" if part.isdecimal() else part for part in share.name.split(".")]
        deep = MODULE_DEPTH + parts[:MODULE_DEPTH].count("*")
        name = ".".join(parts[:deep]) or "outside of modules"
        before = sums.get(name, (0, 0))
        sums[name] = before[0] + share.num_bytes, before[1] + share.num_tensors
    found = (Share(name=name, num_bytes=size, num_tensors=count) for name, (size, count) in sums.items())
    return tuple(sorted(found, key=lambda share: -share.num_bytes))


def _plainly(shares: Iterable[Share]) -> Iterable[Share]:
    """Yield operators by their short names."""
    return (replace(share, name=short_operator(share.name)) for share in shares)


def _shares(title: str, shares: Iterable[Share], whole: int, most: int | None = None) -> Section:
    ordered = sorted((share for share in shares if share.num_bytes), key=lambda share: -share.num_bytes)
    shown = ordered[:most]
    rows = [
        Row(
            share.name, format_gib(share.num_bytes), count_of(share.num_tensors, "tensor"),
            bar=share.num_bytes / whole if whole else None,
        )
        for share in shown
    ]  # fmt: skip
    rest = ordered[len(shown) :]
    if rest:
        rows.append(Row(f"{len(rest)} more", format_gib(sum(share.num_bytes for share in rest)), tone=Tone.QUIET))
    return Section(title, tuple(rows))


def _largest(tensors: tuple[LargeTensor, ...], most: int) -> Iterable[Section]:
    """Yield the largest tensors alive at the peak with the line that made each, equal ones of layers together."""
    groups: dict[tuple[int, str, str], list[LargeTensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.num_bytes, *_words(tensor)), []).append(tensor)
    rows = []
    ordered = sorted(groups.items(), key=lambda pair: -sum(tensor.num_bytes for tensor in pair[1]))
    for (size, what, where), each in ordered[:most]:
        count = len(each)
        times = f"{count} x {format_bytes(size)}: " if count > 1 else ""
        rows.append(Row(what, format_gib(size * count), f"{times}{where}"))
    if rows:
        yield Section("Largest tensors alive at the peak, GiB", tuple(rows))


def _words(tensor: LargeTensor) -> tuple[str, str]:
    """Return what a tensor is, and what made it where; the numbers of layers are left out."""
    named = tensor.name or tensor.module.partition(".")[2]
    named = ".".join("*" if part.isdecimal() else part for part in named.split("."))
    where = f" at {short_line(tensor.where[0])}" if tensor.where else ""
    what = tensor.category.replace("_", " ")
    return f"{what} {named}" if named else what, f"{short_operator(tensor.operator)}{where}; {tensor.phase}"


def short_operator(name: str) -> str:
    """Return an operator without namespace and overload.

    >>> short_operator("aten.mm.default"), short_operator("aten._to_copy.default"), short_operator("flash::bwd")
    ('mm', '_to_copy', 'flash::bwd')
    """
    parts = name.split(".")
    return parts[1] if parts[0] == "aten" and len(parts) > 1 else name


def short_line(where: str) -> str:
    """Return a line of code with a path that can be told apart: below site-packages, or its last two parts.

    >>> short_line("/venv/lib/python3.11/site-packages/peft/tuners/lora/layer.py:31 in forward")
    'peft/tuners/lora/layer.py:31 in forward'
    >>> short_line("/home/me/project/train.py:31 in step")
    'project/train.py:31 in step'
    """
    file, mark, rest = where.rpartition(".py:")
    below = file.rpartition("-packages/")[2]
    parts = below.split("/") if below != file else file.split("/")[-2:]
    return "/".join(parts) + mark + rest


def _texts(title: str, texts: Iterable[str]) -> Iterable[Section]:
    rows = tuple(Row(text, tone=Tone.QUIET) for text in texts)
    if rows:
        yield Section(title, rows)
