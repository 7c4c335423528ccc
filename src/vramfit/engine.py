"""What a runtime does differently, as facts that formulas read; profiles by version live in ``engines``."""

from __future__ import annotations

from dataclasses import dataclass


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
    prompt_logits: bool
    """True: logits are computed for every prompt token; False: for the last token of each sequence."""
    grown_cache: bool
    """True: each new token copies the layer's cache into a larger tensor; False: allocated once."""
    windowed_cache: bool
    """True: sliding-window layers keep the window only; False: they keep everything."""
    latent_cache: bool
    """True: latent attention caches the compressed vector; False: expanded keys and values of every head."""
    experts_at_once: bool
    """True: all routed tokens pass their experts in one grouped kernel; False: expert by expert."""
    not_counted: tuple[str, ...] = ()
    """What this engine may also allocate and is left out, with the reason."""
