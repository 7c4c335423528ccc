"""What a runtime does differently, as facts that formulas read; profiles by version live in ``engines``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from vramfit.device import Device
from vramfit.request import Inference, Plan
from vramfit.result import Choice, Item, Reading, Reservation
from vramfit.shard import Shard
from vramfit.spec import ModelSpec

UNPACKED = tuple((name, 1) for name in ("nf4", "nf4-dq", "int4", "gptq-int4", "awq-int4", "mxfp4"))
"""Formats that kernels without fusion unpack, whatever the pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """One engine at one version (or from that version on)."""

    name: str
    version: str
    """First version for which the facts hold."""
    checked: str
    """What the facts were read from or measured on."""
    attention: str
    """Attention implementation it takes when none is asked for."""
    prefill_chunk_tokens: int | None
    """Prompt tokens processed in one pass, all sequences together; None = whole prompts at once."""
    prompt_logits: bool = False
    """True: logits are computed for every prompt token; False: for the last token of each sequence."""
    grown_cache: bool = False
    """True: each new token copies the layer's cache into a larger tensor; False: allocated once."""
    windowed_cache: bool = True
    """True: sliding-window layers keep the window only; False: they keep everything."""
    latent_cache: bool = True
    """True: latent attention caches the compressed vector; False: expanded keys and values of every head."""
    experts_at_once: bool = True
    """True: all routed tokens pass their experts in one grouped kernel; False: expert by expert."""
    score_bytes: int = 6
    """Bytes per score that eager attention holds at once: 16-bit scores and their fp32 softmax."""
    unpacked_for: tuple[tuple[str, int], ...] = UNPACKED
    """Formats whose matrices it unpacks to 16 bit, each with the smallest pass for which it does so. [tokens]"""
    prompts_may_be_cut: bool = False
    """True: it can be told to feed prompts in pieces, so that their activations may be next to nothing."""
    weight_format: str | None = None
    """Taken for weights of this format when no version is named; None = for all others."""
    not_counted: tuple[str, ...] = ()
    """What this engine may also allocate and is left out, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One distinct rank with everything that was counted on it, before the engine prints anything."""

    shard: Shard
    items: tuple[Item, ...]
    model: ModelSpec
    """The whole model, uncut."""
    workload: Inference
    """With every open field decided."""
    engine: EngineProfile
    plan: Plan
    device: Device | None


Component: TypeAlias = Callable[[Shard, Inference, EngineProfile], Iterable[Item]]
"""Something that occupies memory because of the model; one that does not apply yields nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A runtime as a set of functions; what it does not do differently is the generic engine's."""

    profiles: tuple[EngineProfile, ...]
    """Oldest first."""
    components: tuple[Component, ...]
    """Everything it holds because of the model."""
    runtime: Callable[[Shard, Device | None], Iterable[Item]]
    """What every process of it takes beside the model."""
    readings: Callable[[Rank], Iterable[Reading]]
    """What it, or a counter beside it, would print."""
    defaults: Callable[[ModelSpec, Inference, EngineProfile, Device | None], tuple[Inference, tuple[Choice, ...]]]
    """Fills in the knobs that only this engine has, and says why."""
    reservation: Callable[[Rank], Reservation | None]
    """What it may take, or None."""
    knobs: frozenset[str]
    """Fields of a serving workload that it takes beside those that all engines share (``request.KNOBS``)."""
    check: Callable[[ModelSpec, Inference, Plan], None]
    """Refuses with ``ImpossiblePlanError`` what the engine itself would refuse."""
    context: Callable[[EngineProfile, Device | None], tuple[int, str] | None] | None = None
    """Context that it takes when none is given, and why; None = it has no default of its own."""
    pipelines: bool = False
    """True: its components count diffusion pipelines themselves; False: of a pipeline only the weights are counted."""
