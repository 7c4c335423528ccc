"""What a server can carry, for people."""

from __future__ import annotations

from collections.abc import Iterator

from vramfit.capacity import Capacity, Pair, PlanChoice, RequestsAtOnce, SmallestFraction
from vramfit.report.rows import Row, Section, Tone
from vramfit.result import Verdict
from vramfit.units import format_bytes, format_gib

MOST_PLANS = 12


def sections(capacity: Capacity) -> Iterator[Section]:
    """Yield one section per answer that was asked for."""
    if capacity.requests is not None:
        yield _requests(capacity.requests)
    if capacity.fraction is not None:
        yield _fraction(capacity.fraction)
    if capacity.plans:
        yield _plans(capacity.plans)
    if capacity.pair is not None:
        yield _pair(capacity.pair)


def _requests(found: RequestsAtOnce) -> Section:
    lengths = found.lengths
    prefix = f", {lengths.shared_prefix_tokens:,} of them shared" if lengths.shared_prefix_tokens else ""
    safe = f"{found.safe:,} by the unfavourable ends of the bands; bounded by {found.bounded_by}"
    mean, deviation = format_bytes(found.mean_bytes), format_bytes(found.deviation_bytes)
    users = f"{found.copies} x {found.expected:,} over {found.devices}"
    rows = (
        Row("requests at once", f"{found.expected:,}", safe, Tone.STRONG),
        Row("users per device", f"{found.users_per_device:,.1f}", users),
        Row("one request", "", f"{mean} on average, deviation {deviation}"),
        Row("rule", "", found.formula, Tone.QUIET),
    )  # fmt: skip
    return Section(
        f"Requests of {lengths.median_tokens:,} tokens (median) to {lengths.p95_tokens:,} (95th){prefix}", rows
    )


def _fraction(found: SmallestFraction) -> Section:
    least = "none" if found.fraction is None else f"{found.fraction:.3f}"
    text = f"for {found.requests:,} requests of the context asked for: {format_bytes(found.needed_bytes)} of cache"
    tone = Tone.BAD if found.fraction is None else Tone.STRONG
    return Section(
        "Smallest fraction", (Row("fraction", least, text, tone), Row("rule", "", found.formula, Tone.QUIET))
    )


def _plans(found: tuple[PlanChoice, ...]) -> Section:
    rows = []
    for choice in found[:MOST_PLANS]:
        plan = choice.plan
        name = f"tp {plan.tp}, pp {plan.pp}, dp {plan.dp_replicate}"
        side = "left" if choice.margin_bytes >= 0 else "short"
        text = f"{choice.verdict.value}, {format_gib(abs(choice.margin_bytes))} GiB {side} on the fullest"
        tone = Tone.GOOD if choice.verdict is Verdict.FITS else Tone.BAD
        rows.append(Row(name, f"{choice.requests:,}", text, tone))
    if len(found) > MOST_PLANS:
        rows.append(Row(f"and {len(found) - MOST_PLANS} more", "", "all of them: --json", Tone.QUIET))
    return Section("Plans over these devices, requests at once, best first", tuple(rows))


def _pair(found: Pair) -> Section:
    rows = [
        Row(
            f"{share.order}. {share.model}",
            f"{share.fraction:.3f}",
            f"takes {format_bytes(share.takes_bytes)}, finds {format_bytes(share.free_before_bytes)} free",
            Tone.STRONG,
        )
        for share in found.shares
    ]
    if found.fits:
        rows.append(Row("left with both", "", format_bytes(found.left_bytes), Tone.GOOD))
    else:
        rows.append(Row("do not fit together", "", f"{format_bytes(abs(found.left_bytes))} short", Tone.BAD))
    rows.append(Row("rule", "", found.formula, Tone.QUIET))
    return Section("Two models on one card, fraction of each in order of starting", tuple(rows))
