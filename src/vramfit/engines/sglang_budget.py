"""SGLang's shares of the card by version: chunk of prefill, largest captured batch, ``mem_fraction_static``.

Read from srt/server_args.py of 0.3.6, 0.4.1, 0.4.3, 0.4.6, 0.4.7, 0.4.9, 0.5.2, 0.5.3, 0.5.4, 0.5.6, 0.5.9, 0.5.12 and
0.5.16, and from srt/arg_groups/memory_hook.py, handle_gpu_memory_settings, of 0.5.23. All sizes there are MiB of what
nvidia-smi prints as total; ours is the total that a process sees, up to 1 % less: the third decimal may differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from vramfit.device import Device
from vramfit.request import Plan
from vramfit.units import GIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Defaults on cards below a size."""

    below_gib: float
    chunk_tokens: int
    graph_batch: int
    """Largest batch that is captured below four ranks."""
    graph_batch_wide: int
    """The same from four ranks on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SglangFacts:
    """What changed between versions, as far as memory is concerned."""

    rule: str
    """``"ranks"``: a table by ranks; ``"ranks, large"`` and ``"ranks, larger"``: the same, large cards apart;
    ``"tiers"``: a reserve by card; ``"sum"``: a reserve that is added up."""
    tiers: tuple[Tier, ...]
    graphs_of_prefill: bool = False
    """True: prefill passes are captured too."""
    shrinks_for_vision: str = "0.9"
    """``"0.9"``: times 0.90; ``"tower"``: times 0.95 and a factor of the tower's size."""
    window_ratio: float | None = None
    """Tokens of window layers over tokens of full layers; None = window layers keep everything."""
    windowed: frozenset[str] | None = None
    """Families whose window layers have a pool of their own; None = all but Llama 4."""
    state_ratio: float | None = None
    """Memory of recurrent states over that of the cache; None = such models are not served."""


def _tiers(*rows: tuple[float, int, int, int]) -> tuple[Tier, ...]:
    return tuple(Tier(below_gib=b, chunk_tokens=c, graph_batch=g, graph_batch_wide=w) for b, c, g, w in rows)


_LARGE = ((60, 4096, 32, 160), (160, 8192, 256, 512), (inf, 16384, 512, 512))
_OLD = _tiers((25_000 / 1024, 2048, 8, 80), (80, 8192, 160, 160), (inf, 8192, 160, 160))

WINDOWED = frozenset({
    "llama4", "llama4_text", "gpt_oss", "mimo_v2_flash", "step3p5", "gemma4", "gemma4_text", "gemma4_unified",
    "gemma4_unified_text",
})  # fmt: skip
"""Source: srt/configs/model_config.py, is_hybrid_swa_model, 0.5.9 and 0.5.23 (which adds Gemma 4)."""

_BY_CARD = SglangFacts(
    rule="tiers",
    tiers=_tiers((35, 2048, 8, 80), (80, 8192, 160, 160), (160, 8192, 256, 256), (inf, 16384, 512, 512)),
)
_SUM = SglangFacts(
    rule="sum",
    shrinks_for_vision="tower",
    window_ratio=0.8,
    state_ratio=0.9,
    tiers=_tiers((20, 2048, 8, 8), (35, 2048, 16, 80), *_LARGE),
)
_LISTED = replace(_SUM, windowed=WINDOWED, tiers=_tiers((20, 2048, 8, 8), (35, 2048, 24, 80), *_LARGE))

FACTS = {
    "0.4": SglangFacts(rule="ranks", tiers=_OLD),
    "0.4.6": SglangFacts(
        rule="ranks, large", tiers=_tiers((25_000 / 1024, 2048, 8, 80), (80, 8192, 160, 160), (inf, 8192, 256, 256))
    ),
    "0.4.7": SglangFacts(
        rule="ranks, larger",
        tiers=_tiers((25_000 / 1024, 2048, 8, 80), (80, 8192, 160, 160), (175, 8192, 256, 256), (inf, 16384, 256, 256)),
    ),
    "0.4.8": _BY_CARD,
    "0.5": replace(_BY_CARD, shrinks_for_vision="tower", window_ratio=0.8),
    "0.5.3": _SUM,
    "0.5.6": replace(_SUM, tiers=_tiers((20, 2048, 8, 8), (35, 2048, 24, 80), *_LARGE)),
    "0.5.9": _LISTED,
    "0.5.12": replace(_LISTED, graphs_of_prefill=True),
    "0.5.23": replace(
        _LISTED, graphs_of_prefill=True, tiers=_tiers((20, 2048, 8, 8), (35, 4096, 48, 160), *_LARGE)
    ),
}  # fmt: skip
"""By the version of the profile."""

BY_RANKS = ((16, 0.79), (8, 0.81), (4, 0.85), (2, 0.87), (1, 0.88))
"""From so many ranks on: the fraction until 0.4.7."""
FLOOR_MIB = 10 * 1024
"""Least reserve on cards above 60 GiB since 0.5.3."""
GRAPH_MIB = 2
"""Reserve for each sequence of the largest captured batch since 0.5.3."""
PREFILL_GRAPH_MIB = 8
LATENT_GRAPH_MIB = 1536
"""Reserve for each captured prefill size, and for all of them with latent attention, since 0.5.12."""
VISION_LAYERS, VISION_HIDDEN = 24, 1024
"""The tower that is taken as one: CLIP's ViT-L/14."""


def tier(facts: SglangFacts, device: Device | None) -> Tier:
    """Return the defaults for a card; an unnamed one counts as 80 GB."""
    size = 80 if device is None else device.total_bytes / GIB
    return next(t for t in facts.tiers if size < t.below_gib)


def graph_batch(facts: SglangFacts, device: Device | None, ranks: int) -> int:
    """Return the largest batch that is captured by default."""
    found = tier(facts, device)
    return found.graph_batch if ranks < 4 else found.graph_batch_wide


def prefill_sizes(largest: int) -> int:
    """Count the prefill sizes that are captured: dense when small, every 512 tokens from 4,608 on.

    Source: srt/arg_groups/cuda_graph_hook.py, generate_prefill_cuda_graph_batch_sizes, 0.5.23.

    >>> prefill_sizes(2048), prefill_sizes(8192)
    (42, 58)
    """
    steps = (
        range(4, 33, 4), range(48, 257, 16), range(288, 513, 32), range(576, 1025, 64), range(1280, 4097, 256),
        range(4608, largest + 1, 512),
    )  # fmt: skip
    return sum(size <= largest for step in steps for size in step)


def fraction(facts: SglangFacts, device: Device, plan: Plan, chunk_tokens: int, *, latent: bool, eager: bool) -> float:
    """Return the default of ``mem_fraction_static``, before a tower makes it smaller.

    until 0.4.5   0.88 on one rank to 0.79 on 16
    0.4.6         the same up to 80 GiB; above 1 - 13 GiB / total
    0.4.7         the same up to 80 GiB; 0.88 up to 96; above the smaller of 1 - 0.12 * (1 - 48 GiB / total)
                  and 1 - 18 GiB / total; 0.79 from 180,000 MiB on
    until 0.5.2   1 - reserve / total, reserve by card: 2.8 + ranks / 10, 9.5 + ranks / 2 or 12 + ranks / 2 GiB, or 32
    since 0.5.3   reserve = 512 + 1.5 * max(chunk, 2048) + 128 * ranks + 2 * largest captured batch MiB,
                  at least 10 GiB on cards above 60 GiB; rounded to three decimals
    """
    ranks, total = plan.tp * plan.pp, device.total_bytes / MIB
    if facts.rule.startswith("ranks"):
        return _by_ranks(facts.rule, total, ranks)
    reserve = _by_card(total / 1024, ranks) if facts.rule == "tiers" else 0.0
    if facts.rule == "sum":
        reserve = 512 + 1.5 * max(chunk_tokens, 2048) + ranks / 8 * 1024
        if not eager:
            reserve += GRAPH_MIB * graph_batch(facts, device, plan.tp)
        if facts.graphs_of_prefill and not eager:
            reserve += LATENT_GRAPH_MIB if latent else PREFILL_GRAPH_MIB * prefill_sizes(chunk_tokens)
        if total > 60 * 1024:
            reserve = max(reserve, FLOOR_MIB)
    return round((total - reserve) / total, 3)


def _by_ranks(rule: str, total: float, ranks: int) -> float:
    """Fraction until 0.4.7."""
    if rule == "ranks" or total <= 80 * 1024:
        return next(value for least, value in BY_RANKS if ranks >= least)
    if rule == "ranks, large":
        return (total - 13 * 1024) / total
    if total > 180_000:
        return 0.79
    if total <= 96 * 1024:
        return 0.88
    return min(0.88 + 48 * 1024 * 0.12 / total, (total - 18 * 1024) / total)


def _by_card(gib: float, ranks: int) -> float:
    """Reserve from 0.4.8 to 0.5.2. [MiB]"""
    if gib < 35:
        return (2.8 + ranks / 10) * 1024
    if gib < 90:
        return (9.5 + ranks / 2) * 1024
    return (12 + ranks / 2) * 1024 if gib < 160 else 32 * 1024


def vision_factor(facts: SglangFacts, layers: int, hidden_size: int) -> float:
    """Return what a vision tower leaves of the fraction: less for a larger one, 0.76 at least.

        0.95 * (1 - 0.1 * (layers * hidden_size ** 2 / (24 * 1024 ** 2) - 1)), the second factor within 0.8 and 1.05

    Source: srt/server_args.py, adjust_mem_fraction_for_vlm, 0.5.6.

    >>> vision_factor(FACTS["0.5.6"], 24, 1024)
    0.95
    """
    if facts.shrinks_for_vision == "0.9":
        return 0.9
    size = layers * hidden_size**2 / (VISION_LAYERS * VISION_HIDDEN**2)
    return 0.95 * max(0.8, min(1.05, 1 - 0.1 * (size - 1)))
