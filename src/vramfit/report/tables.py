"""Lists for people: models, devices, rules of thumb, and what one item or format is."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.device import Device, Price
from vramfit.formats import KV_FORMATS, WEIGHT_FORMATS
from vramfit.report.rows import Row, Section, Tone
from vramfit.result import Estimate
from vramfit.units import format_gib


def devices(found: Iterable[Device]) -> Section:
    """List devices with what their drivers report."""
    rows = []
    for d in found:
        bandwidth = "" if d.bandwidth_bytes_per_second is None else f"{d.bandwidth_bytes_per_second / 1e9:,.0f} GB/s"
        kind = f"compute {d.compute_capability}" if d.compute_capability else str(d.architecture)
        shared = ", shared with the CPU" if d.unified else ""
        rent = f"; {money(d.price)}" if d.price else ""
        doubt = f"; unverified: {', '.join(d.unverified)}" if d.unverified else ""
        facts = "; ".join(text for text in (f"sold as {d.marketing_gb} GB", bandwidth, kind) if text)
        rows.append(Row(d.name, format_gib(d.capacity_bytes), f"{facts}{shared}{rent}{doubt}"))
    return Section("Devices, GiB that a process sees", tuple(rows))


def money(price: Price) -> str:
    """Show a price with who asked it and when.

    >>> money(Price(usd_per_hour=0.526, provider="AWS", date="2026-01-21"))
    '0.53 USD/h (AWS, 2026-01-21)'
    """
    return f"{price.usd_per_hour:.2f} USD/h ({price.provider}, {price.date})"


def models(found: Iterable[tuple[str, str, str]]) -> Section:
    """List models: name, parameters, what is known."""
    return Section("Models in the catalogue", tuple(Row(name, number, text) for name, number, text in found))


def formats() -> tuple[Section, ...]:
    """List storage formats with their blocks and sources."""
    weights = []
    for f in WEIGHT_FORMATS.values():
        bits = 8 * f.tensor_size((4096, 4096)) / 4096**2
        roles = ", ".join(sorted(role.value for role in f.quantises))
        weights.append(Row(f.name, f"{bits:.3f}", f"applies to: {roles}; {f.source}"))
    caches = tuple(Row(n, f"{8 * f.block_bytes / f.block_elements:.3f}", f.source) for n, f in KV_FORMATS.items())
    return (
        Section("Weight formats, bits per weight of a 4,096 x 4,096 matrix", tuple(weights)),
        Section("KV-cache formats, bits per element", caches),
    )


def explanation(estimate: Estimate, wanted: str) -> Section:
    """Show every item (or those whose name starts with ``wanted``) with formula, band, basis and source."""
    rows = []
    for i in estimate.worst.items:
        if not i.name.startswith(wanted):
            continue
        rows.append(Row(i.name, format_gib(i.bytes), i.formula, Tone.STRONG))
        band = f"{format_gib(i.low_bytes)} to {format_gib(i.high_bytes)}"
        alive = ", ".join(p.value for p in i.phases)
        rows.append(
            Row(
                "",
                band,
                f"{i.basis.value}; alive in {alive}; seen in torch/{i.counter.value}"
                if i.counter != "process"
                else f"{i.basis.value}; alive in {alive}; seen by nvidia-smi only",
                Tone.QUIET,
            )
        )
        rows.append(Row("", "", f"source: {i.source}", Tone.QUIET))
    return Section(f"{estimate.model.name}: each item, GiB", tuple(rows))
