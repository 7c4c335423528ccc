"""What a search over meshes finds: candidates, what each costs by a stated proxy, and why the others were refused."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.request import Plan
from vramfit.result import Verdict

FORMULA = (
    "(1 + again / 3) / (1 - bubble) + waiting + max(0, passing - 1) + max(0, once - 1 / passes)",
    "again: share of the forward pass that runs twice (a forward pass is a third of the matrices of a step)",
    "bubble: share of a step in which a pipeline rank waits for other stages",
    "waiting: time of exchanges that matrices wait for (tp, cp, ep, pp), over the time of the matrices",
    "passing: the same for weights and gradients that travel in every pass (ZeRO 2 and 3, FSDP), beside the matrices",
    "once: the same for gradients and weights that travel once a step, beside the last of its passes",
)
"""What candidates are ranked by, and its words. 1 = a rank that computes all the time, nothing twice, and never waits.

A forward pass is a third of the matrices of a step: its backward multiplies twice as often (Kaplan et al. 2020,
arXiv:2001.08361, sec. 2.1: 6 operations for each parameter and token, 2 of them forward). Links and matrices are taken
at the rates of their data sheets: it orders plans, it predicts no time.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """How fast a device exchanges and multiplies, by its data sheet; only their ratios enter the proxy."""

    node_devices: int
    """Devices that the fast link joins."""
    inside_bytes_per_second: int
    """One way, for one device, to devices of the same node."""
    between_bytes_per_second: int
    """One way, for one device, to other nodes."""
    matrix_operations_per_second: int
    """Multiplications and additions of dense 16-bit matrices."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to train a model on so many devices."""

    plan: Plan
    """With its ZeRO stage, schedule, virtual stages and micro-batches."""
    micro_batch: int
    """Sequences of one forward pass."""
    accumulation: int
    """Forward passes of one step on every data-parallel rank; with a pipeline its micro-batches."""
    recompute: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """What one step of a candidate costs beside computing the model once; times are over the time of its matrices."""

    inside_bytes: int
    """Bytes that the busiest rank sends to ranks of its own node. [B/step]"""
    between_bytes: int
    """Bytes that it sends to other nodes. [B/step]"""
    bubble_ratio: float
    """Share of a step in which a pipeline rank waits for other stages."""
    recompute_ratio: float
    """Share of a forward pass that runs a second time."""
    waiting_ratio: float
    """Exchanges that matrices wait for."""
    passing_ratio: float
    """Exchanges of every pass that run beside matrices."""
    once_ratio: float
    """Exchanges of every step that run beside the last of its passes."""
    passes: int
    """Forward passes of a step."""

    @property
    def cost(self) -> float:
        """The value of ``FORMULA``: candidates with less come first."""
        busy = (1 + self.recompute_ratio / 3) / (1 - self.bubble_ratio)
        beside = max(0.0, self.passing_ratio - 1) + max(0.0, self.once_ratio - 1 / self.passes)
        return busy + self.waiting_ratio + beside

    @property
    def exchange_ratio(self) -> float:
        """All exchanges, those too that matrices hide."""
        return self.waiting_ratio + self.passing_ratio + self.once_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A candidate that was counted."""

    candidate: Candidate
    proxy: Proxy
    verdict: Verdict
    peak_bytes: int
    """Expected figure of the heaviest rank. [B]"""
    high_bytes: int
    """The unfavourable end of its band. [B]"""
    margin_bytes: int
    """Capacity less headroom less the expected figure. [B]"""
    heaviest_rank: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why some candidates were not ranked."""

    reason: str
    """``"does not fit"``, ``"does not divide heads or widths"`` ..."""
    num_candidates: int
    example: str
    """One of them, and what the refusal said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshAnswer:
    """Everything that a search over meshes finds."""

    model: str
    device: str
    num_devices: int
    framework: str
    sequence_tokens: int
    global_batch: int
    """Sequences of one step, all ranks together."""
    links: Links
    ranked: tuple[Ranked, ...]
    """The first of those that fit, best first, then of the tight ones, best first."""
    every: bool
    """True: all candidates are ranked; False: the best of each mesh."""
    num_fitting: int
    """Candidates whose high figure fits."""
    num_tight: int
    """Candidates of which only the expected figure fits."""
    refusals: tuple[Refusal, ...]
    """Most frequent first; one that was refused before its micro-batches were looked at counts with all of them."""
    num_candidates: int
    """All that were looked at: fitting, tight and refused ones."""
    because: str
    """Why the first is first; why there is none."""
    assumptions: tuple[str, ...]
    nearest: Ranked | None = None
    """Where nothing fits: the candidate that lacks least; None = something fits, or nothing could be counted."""
