"""The verdict: does it fit, by how much, and which rank and item decide.

Headroom is the user's policy and enters here and nowhere below.
"""

from __future__ import annotations

from vramfit.device import Device
from vramfit.result import Breakdown, Fit, Verdict


def fit(ranks: tuple[Breakdown, ...], device: Device, headroom_bytes: int = 0) -> Fit:
    """Judge the worst rank against one device.

    Fits: even the high figure does. Tight: the expected figure does, the high one does not.
    Both after headroom is set aside.
    """
    worst = max(ranks, key=lambda rank: rank.peak().expected_bytes)
    peak = worst.peak()
    room = device.capacity_bytes - headroom_bytes
    verdict = Verdict.DOES_NOT_FIT
    if peak.expected_bytes <= room:
        highest = max(rank.peak().high_bytes for rank in ranks)
        verdict = Verdict.FITS if highest <= room else Verdict.TIGHT
    phase = worst.peak_phase
    largest = max((i for i in worst.items if phase in i.phases), key=lambda i: i.bytes)
    return Fit(
        verdict=verdict,
        device=device.name,
        capacity_bytes=device.capacity_bytes,
        headroom_bytes=headroom_bytes,
        margin_bytes=room - peak.expected_bytes,
        worst_rank=worst.rank,
        largest_item=largest.name,
    )
