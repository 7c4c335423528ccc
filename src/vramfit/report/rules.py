"""Rules of thumb for people: steps, what they ignore, mistakes, and the derived answer."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.device import Device
from vramfit.report.rows import Row, Section, Tone
from vramfit.result import Answer
from vramfit.rule import Rule
from vramfit.units import GB, GIB, ceil_div, count_of, format_gib, gb


def sections(rules: Iterable[Rule], device: Device | None, derived: Answer | None) -> tuple[Section, ...]:
    """Return the report of some rules, the derived answer last."""
    parts = [_rule(rule, device) for rule in rules]
    if derived is not None:
        parts.append(_derived(derived))
    else:
        advice = (
            "--model NAME derives the answer from the model itself, with the cache and everything the rules leave out"
        )
        parts.append(Section("", (Row(advice, tone=Tone.QUIET),)))
    return tuple(parts)


def _rule(rule: Rule, device: Device | None) -> Section:
    wrong = rule.mistake is not None
    last = len(rule.steps) - 1
    rows = [
        Row(s.label, gb(s.bytes), s.formula, (Tone.BAD if wrong else Tone.STRONG) if i == last else Tone.PLAIN)
        for i, s in enumerate(rule.steps)
    ]
    rows.append(Row("in GiB", format_gib(rule.result_bytes), "GB is 10^9 bytes, GiB is 2^30; cards are counted in GiB"))
    if device is not None:
        rows.extend(_cards(rule.result_bytes, device))
    if rule.mistake is not None:
        rows.append(Row("why it is wrong", "", rule.mistake, Tone.BAD))
    rows.extend(Row("ignores", "", text, Tone.QUIET) for text in rule.ignores)
    rows.append(Row("source", "", rule.source, Tone.QUIET))
    return Section(f"{'A known mistake' if wrong else 'Rule'}: {rule.name}", tuple(rows))


def _cards(size: int, device: Device) -> Iterable[Row]:
    """Count cards twice: as pages do, by the size on the box, and by what the driver reports."""
    if device.marketing_gb:
        cards = ceil_div(size, device.marketing_gb * GB)
        text = f"by the size on the box, {device.marketing_gb} GB: {gb(cards * device.marketing_gb * GB)} together"
        yield Row("cards, by the rule", str(cards), f"{device.name} {text}")
    cards = ceil_div(size, device.capacity_bytes)
    left = cards * device.capacity_bytes - size
    size_text = f"{device.capacity_bytes / GIB:.2f} GiB = {gb(device.capacity_bytes)}"
    text = f"by what the driver reports, {size_text}: {gb(left)} left"
    yield Row("cards, by the driver", str(cards), f"{device.name} {text}")


def _derived(derived: Answer) -> Section:
    estimate, workload = derived.estimate, derived.request.workload
    peak = estimate.worst.peak()
    band = f"{format_gib(peak.low_bytes)} to {format_gib(peak.high_bytes)} GiB"
    asked = f"{count_of(workload.batch, 'sequence')} of {workload.context_tokens:,} tokens"
    weights = f"weights {gb(estimate.weights_bytes)}"
    rows = [Row(estimate.model.name, gb(peak.expected_bytes), f"{asked} on one device: {band}; {weights}", Tone.STRONG)]
    if derived.device_options:
        option = derived.device_options[0]
        text = f"{option.device}, with {format_gib(option.margin_bytes)} GiB left on the fullest"
        rows.append(Row("devices", str(option.count or "none"), text, Tone.STRONG))
    return Section("Derived from the model", tuple(rows))
