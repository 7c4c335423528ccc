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
    over_time = [(rank, rank.totals()) for rank in ranks]
    worst, totals = max(over_time, key=lambda pair: max(t.expected_bytes for t in pair[1].values()))
    phase = max(totals, key=lambda p: totals[p].expected_bytes)
    need = totals[phase].expected_bytes
    room = device.capacity_bytes - headroom_bytes
    high_margin = room - max(t.high_bytes for _, each in over_time for t in each.values())
    verdict = Verdict.DOES_NOT_FIT
    if need <= room:
        verdict = Verdict.FITS if high_margin >= 0 else Verdict.TIGHT
    largest = max((i for i in worst.items if phase in i.phases), key=lambda i: i.bytes)
    return Fit(
        verdict=verdict,
        device=device.name,
        capacity_bytes=device.capacity_bytes,
        headroom_bytes=headroom_bytes,
        margin_bytes=room - need,
        high_margin_bytes=high_margin,
        worst_rank=worst.rank,
        largest_item=largest.name,
    )
