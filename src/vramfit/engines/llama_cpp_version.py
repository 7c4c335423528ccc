"""What changed between builds of llama.cpp, as far as memory is concerned; versions are build numbers (b8571).

Read from the sources at 75cd4c7 (March 2024), 7841fc7 (March 2025), 4227c9b (August 2025), 63d93d1 and 0c1e570
(2026). Between those, the build of the pull request that made the change, give or take a few dozen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.engine import EngineProfile
from vramfit.engines.llama_nodes import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaFacts:
    """One build, or from that build on."""

    flash: bool
    """Whether flash attention is used when nobody says (``-fa``); from b6325 on ``auto``, which means yes on CUDA."""
    slots: int
    """Sequences served at once by default (``--parallel``)."""
    unified: bool
    """True: the slots share one cache by default; False: each has its part."""
    window_cells: bool
    """True: sliding-window layers keep the window and one micro-batch; False: the whole context."""
    window_pad: int
    """Cells of a window are rounded up to so many."""
    latent: bool
    """True: latent attention caches the compressed vector; False: every head expanded."""
    output_is_layer: bool
    """True: the output projection counts as the last of the layers that ``-ngl`` puts on devices."""
    few_outputs: bool
    """True: the server computes logits for one token of each slot at once; False: for a whole micro-batch."""
    rules: Rules


_FIRST = LlamaFacts(
    flash=False, slots=1, unified=True, window_cells=False, window_pad=32, latent=False, output_is_layer=False,
    few_outputs=False,
    rules=Rules(half_mask=False, indices=False, two_embeddings=False, fused_gate=False, copied_projections=True),
)  # fmt: skip
_LATENT = replace(_FIRST, latent=True)
_WINDOWS = replace(_LATENT, window_cells=True)
_INDICES = replace(
    _WINDOWS, rules=replace(_WINDOWS.rules, indices=True, fused_gate=True, copied_projections=False), unified=False
)
_AUTO = replace(_INDICES, flash=True)
_PADDED = replace(_AUTO, slots=4, unified=True, window_pad=256)
_OUTPUT = replace(_PADDED, output_is_layer=True, rules=replace(_PADDED.rules, two_embeddings=True))
_HALF = replace(
    _OUTPUT, few_outputs=True, rules=replace(_OUTPUT.rules, half_mask=True, flash_copies=True, rotates=True)
)

FACTS = {
    "2400": _FIRST,  # b2424: micro-batches (-ub); b2775: flash attention when asked for
    "5133": _LATENT,  # pull request 12801
    "5427": _WINDOWS,  # pull request 13194
    "5819": _INDICES,  # pull requests 14158, 14285 and 14363
    "6325": _AUTO,  # pull request 15434
    "6923": _PADDED,  # pull requests 16736 and 17046
    "7700": _OUTPUT,  # pull request 18550; 63d93d1
    "9000": _HALF,  # between b8571 and 0c1e570
}
"""By the build of the profile."""

OLLAMA = {
    "0.1": _FIRST,
    "0.2": replace(_FIRST, slots=4),  # v0.3.0:server/sched.go, defaultParallel
    "0.6.8": replace(_FIRST, slots=2, window_cells=True, window_pad=1),  # v0.9.6:server/sched.go; windows: kvcache
    "0.10": replace(_FIRST, window_cells=True, window_pad=1),  # 20c3266: one slot
    "0.15.5": replace(_FIRST, window_cells=True, window_pad=1),  # 0334ffa: context by memory
    "0.30": replace(_HALF, slots=1),  # 9db4bdb: llama-server, b10488 at v0.33.0-rc2
}
"""By the version of ollama, each with what it brings of llama.cpp. Source: ollama/ollama at the tags named."""


def facts_of(engine: EngineProfile) -> LlamaFacts:
    """Return what a profile of llama.cpp or of ollama does with memory."""
    return (OLLAMA if engine.name == "ollama" else FACTS)[engine.version]


PROFILES = tuple(
    EngineProfile(
        name="llama.cpp",
        version=version,
        checked={"2400": "75cd4c7 and 7841fc7", "5819": "4227c9b", "7700": "63d93d1 and logs of b8571"}.get(
            version, "0c1e570" if facts.few_outputs else "sources before and after"
        ),
        attention="flash" if facts.flash else "eager",
        prefill_chunk_tokens=512,
        windowed_cache=facts.window_cells,
        latent_cache=facts.latent,
        not_counted=(
            "weights that --n-cpu-moe or --override-tensor keep on the host: the request has no field for them",
            "the pool of the CUDA backend, which grows while prompts are processed",
        ),
    )
    for version, facts in FACTS.items()
)
