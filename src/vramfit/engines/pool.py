"""The pool of a server: what the memory that is left becomes in tokens, states and requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from vramfit.engine import EngineProfile, Rank
from vramfit.engines.span import Span
from vramfit.layer_kind import Compressed, CrossAttention, GroupedQuery
from vramfit.memory.activations import activations
from vramfit.memory.kv_cache import token_bytes
from vramfit.memory.recurrent_state import recurrent_state
from vramfit.request import Inference
from vramfit.result import Item, Phase, Quantity, Reading
from vramfit.shard import Shard
from vramfit.units import count_of


def starting_with(items: Iterable[Item], *names: str) -> tuple[Item, ...]:
    """Return the items whose names begin so."""
    return tuple(item for item in items if item.name.startswith(names))


def set_aside(shard: Shard, workload: Inference, engine: EngineProfile, tokens: int) -> Iterable[Item]:
    """Yield the activations of a pass of so many tokens, whatever the prompt, and of a decode step. [B]

    Engines that try their largest pass before they size the cache keep that room for good.
    """
    whole = replace(workload, batch=1, prompt_tokens=tokens, context_tokens=tokens, new_tokens=0)
    profile = replace(engine, prefill_chunk_tokens=tokens)
    yield from (i for i in activations(shard, whole, profile) if Phase.PREFILL in i.phases)
    yield from (i for i in activations(shard, workload, profile) if Phase.PREFILL not in i.phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one token costs on a rank, and one sequence whatever its length. [B]"""

    full_bytes: int
    """Layers that keep every token. [B/token]"""
    window_bytes: int
    """Layers that keep a window. [B/token]"""
    state_bytes: int
    """Recurrent state. [B/sequence]"""
    pages: bool
    """False where a layer keeps something that no pool of tokens holds."""


def cell(shard: Shard, workload: Inference, engine: EngineProfile) -> Cell:
    """Count what a token and a sequence cost in all layers of a rank."""
    full = window = 0
    pages = True
    for layer, times in shard.model.groups:
        for mixer in layer.mixers:
            size = times * token_bytes(mixer, workload, latent=engine.latent_cache)
            if isinstance(mixer, Compressed | CrossAttention):
                pages = False
            elif isinstance(mixer, GroupedQuery) and mixer.window_tokens is not None and engine.windowed_cache:
                window += size
            else:
                full += size
    one = replace(workload, batch=1, context_tokens=1, prompt_tokens=1, new_tokens=0)
    state = sum(item.bytes for item in recurrent_state(shard, one, engine))
    return Cell(full_bytes=full, window_bytes=window, state_bytes=state, pages=pages)


def tokens_readings(
    rank: Rank, budget: Span, bytes_per_token: int | Fraction, page: int, source: str
) -> Iterable[Reading]:
    """Yield the pool in bytes and in tokens, and how many sequences of the whole context it holds."""
    tokens = {
        bound: int(max(0, size) / Fraction(bytes_per_token)) // page * page
        for bound, size in (("low", budget.low), ("value", budget.expected), ("high", budget.high))
    }
    shown = f"{float(bytes_per_token):,.0f} B per token"
    context = rank.workload.context_tokens
    yield reading(
        Quantity.KV_CACHE,
        Span(
            low=int(tokens["low"] * bytes_per_token),
            expected=int(tokens["value"] * bytes_per_token),
            high=int(tokens["high"] * bytes_per_token),
        ),
        f"{budget.expected:,} B in whole pages of {page} tokens, {shown}",
        source,
    )
    yield Reading(
        quantity=Quantity.KV_CACHE_TOKENS,
        formula=f"{budget.expected:,} B // {shown}, whole pages of {page}",
        source=source,
        **tokens,
    )
    yield Reading(
        quantity=Quantity.REQUESTS_AT_CONTEXT,
        formula=f"{tokens['value']:,} tokens / {count_of(context, 'token')} of context",
        source=source,
        **{bound: count / context for bound, count in tokens.items()},
    )


def reading(quantity: Quantity, size: Span, formula: str, source: str) -> Reading:
    """Make a reading of a span."""
    return Reading(quantity=quantity, value=size.expected, low=size.low, high=size.high, formula=formula, source=source)
