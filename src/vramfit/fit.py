"""The verdict: does it fit, by how much, and which rank and item decide.

Headroom is the user's policy and enters here and nowhere below.
"""

from __future__ import annotations

from vramfit.device import Device
from vramfit.result import Breakdown, Fit, Reservation, Total, Verdict


def fit(ranks: tuple[Breakdown, ...], device: Device, headroom_bytes: int = 0) -> Fit:
    """Judge the worst rank against one device.

    Fits: even the high figure does. Tight: the expected figure does, the high one does not.
    Both after headroom is set aside, and on servers within what the engine lets itself take.
    """
    over_time = [(rank, rank.totals()) for rank in ranks]
    worst, totals = max(over_time, key=lambda pair: max(t.expected_bytes for t in pair[1].values()))
    phase = max(totals, key=lambda p: totals[p].expected_bytes)
    room = device.capacity_bytes - headroom_bytes
    margin = room - totals[phase].expected_bytes
    high_margin = room - max(t.high_bytes for _, each in over_time for t in each.values())
    for rank in ranks:
        if rank.reservation is not None:
            inside = _under(rank.reservation, rank)
            limit = min(rank.reservation.limit_bytes, room)
            margin, high_margin = (
                min(margin, limit - inside.expected_bytes), min(high_margin, limit - inside.high_bytes),
            )  # fmt: skip
    verdict = Verdict.DOES_NOT_FIT
    if margin >= 0:
        verdict = Verdict.FITS if high_margin >= 0 else Verdict.TIGHT
    largest = max((i for i in worst.items if phase in i.phases), key=lambda i: i.bytes)
    return Fit(
        verdict=verdict,
        device=device.name,
        capacity_bytes=device.capacity_bytes,
        headroom_bytes=headroom_bytes,
        margin_bytes=margin,
        high_margin_bytes=high_margin,
        worst_rank=worst.rank,
        largest_item=largest.name,
    )


def _under(reservation: Reservation, rank: Breakdown) -> Total:
    """Return the peak of what counts against a reservation."""
    inside = tuple(item for item in rank.items if not item.name.startswith(reservation.outside))
    return Breakdown(rank=rank.rank, num_ranks=rank.num_ranks, items=inside).peak()
