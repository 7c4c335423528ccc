"""ollama: llama.cpp's buffers under ollama's defaults, and the graph that its scheduler reckons with.

Source: ollama/ollama:envconfig/config.go, server/sched.go, server/routes.go, fs/ggml/ggml.go (GraphSize) at
v0.5.7, v0.9.6, v0.15.5 and v0.33.0-rc2 (fb30760).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vramfit.device import Device
from vramfit.engine import EngineProfile, Rank
from vramfit.engines import llama_cpp
from vramfit.engines.llama_buffers import context_cells, micro_batch
from vramfit.engines.llama_cpp_version import OLLAMA, facts_of
from vramfit.layer_kind import GroupedQuery, Latent
from vramfit.memory.kv_cache import token_bytes
from vramfit.request import Inference, refuse_arrays
from vramfit.result import Choice, Quantity, Reading
from vramfit.spec import ModelSpec
from vramfit.units import GIB

BATCH_TOKENS = 512
"""Default of num_batch. Source: api/types.go, DefaultOptions, every version since v0.1."""
CONTEXTS = {"0.1": 2048, "0.2": 2048, "0.6.8": 4096, "0.10": 4096}
"""Default of num_ctx. Source: api/types.go until v0.5, then envconfig/config.go, OLLAMA_CONTEXT_LENGTH."""
GRAPHS = {
    "llama": (1, 4), "llama4": (1, 4), "mistral": (1, 4), "mixtral": (1, 4), "qwen2": (1, 2), "cohere": (2, 4),
    "phi": (1, 4),
}  # fmt: skip
"""Family -> what GraphSize adds per token to the scores: so many elements, and so many hidden sizes."""
TIERS = ((47 * GIB, 262144), (23 * GIB, 32768), (0, 4096))
"""From v0.15.5 on: total memory from which a context is the default. Source: server/routes.go, Serve."""

PROFILES = tuple(
    EngineProfile(
        name="ollama",
        version=version,
        checked={"0.1": "v0.1.33", "0.2": "v0.5.7", "0.6.8": "v0.9.6", "0.30": "v0.33.0-rc2"}.get(version, version),
        attention="flash" if facts.flash else "eager",
        prefill_chunk_tokens=BATCH_TOKENS,
        windowed_cache=facts.window_cells,
        latent_cache=facts.latent,
        not_counted=(
            "memory that the server is told to leave free on every card",
            "models that are loaded beside this one",
        ),
    )
    for version, facts in OLLAMA.items()
)


def context(engine: EngineProfile, device: Device | None) -> tuple[int, str] | None:
    """Return num_ctx when nobody sets it: by version, later by the memory of the card.

    >>> context(PROFILES[1], None)
    (2048, 'default of num_ctx since ollama 0.2')
    """
    if engine.version in CONTEXTS:
        return CONTEXTS[engine.version], f"default of num_ctx since ollama {engine.version}"
    total = 0 if device is None else device.total_bytes
    return next(c for least, c in TIERS if total >= least), "default of num_ctx on a card of this size"


def defaults(
    model: ModelSpec, workload: Inference, engine: EngineProfile, device: Device | None
) -> tuple[Inference, tuple[Choice, ...]]:
    """Fill in slots, batches, flash attention and layers; a model that is not wholly on devices gets one slot."""
    del device
    refuse_arrays(workload, llama_cpp.ONE_BY_ONE)
    partial = workload.gpu_layers is not None and workload.gpu_layers <= len(model.layers)
    slots = max(1 if partial else facts_of(engine).slots, workload.batch)
    return llama_cpp.decide(
        workload,
        {
            "slots": (slots, "one where the model is cut" if partial else "default of OLLAMA_NUM_PARALLEL"),
            "batch_tokens": (BATCH_TOKENS, "default of num_batch"),
            "ubatch_tokens": (BATCH_TOKENS, "default of num_batch"),
            "flash_attention": (workload.attention == "flash", "default of OLLAMA_FLASH_ATTENTION"),
            "swa_full": (False, "windows keep what they need"),
            "gpu_layers": (len(model.layers) + 1, "all layers and the output projection"),
        },
    )


def readings(rank: Rank) -> Iterable[Reading]:
    """Yield llama.cpp's lines; before 0.30 the scheduler's own figure stands for the compute buffer."""
    reckoned = None if facts_of(rank.engine).few_outputs else graph_bytes(rank.model, rank.workload)
    for reading in llama_cpp.readings(rank):
        if reading.quantity is Quantity.COMPUTE_BUFFER and reckoned:
            yield replace(
                reading,
                value=reckoned,
                low=min(reckoned, reading.low),
                high=max(reckoned, reading.high),
                formula="graph of the scheduler, without flash attention",
                source="ollama/ollama:fs/ggml/ggml.go, GraphSize",
            )
        else:
            yield reading


def graph_bytes(model: ModelSpec, workload: Inference) -> int:
    """Bytes that the scheduler reckons for the graph of a model that is wholly on one device. [B]

        4 * batch * max(embedding + vocabulary, a * embedding + context * (1 + heads) + ...)     by architecture
        KV cache * (heads / KV heads) / 6                                                        for all others

    Source: ollama/ollama:fs/ggml/ggml.go, GraphSize, and llm/memory.go, EstimateGPULayers (v0.5.7).
    """
    mixer = next((m for layer in model.layers for m in layer.mixers if isinstance(m, GroupedQuery | Latent)), None)
    if mixer is None:
        return 0
    width, heads, family = model.hidden_size, mixer.num_attention_heads, model.family
    outputs, scores = width + (model.vocab_size or 0), context_cells(workload) * (1 + heads)
    if family in GRAPHS:
        one, widths = GRAPHS[family]
        elements = max(outputs, one + widths * width + scores)
    elif family == "stablelm":
        elements = scores + 3 * width + 2
    elif family.startswith("gemma") and isinstance(mixer, GroupedQuery):
        elements = max(outputs, 2 + scores + 2 * width + 2 * mixer.head_dim * heads)
        elements *= 4 if family.startswith("gemma3n") else 1
    elif family.startswith("deepseek") and isinstance(mixer, Latent):
        keys = (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim) * heads
        elements = max(outputs + 2 * width, 3 * width + 2 + scores + 2 * keys)
    else:
        return _other(model, workload)
    return 4 * micro_batch(workload) * elements


def _other(model: ModelSpec, workload: Inference) -> int:
    """Return the KV cache by the heads that share one, over six: what is reckoned where no rule is known."""
    mixers = [m for layer in model.layers for m in layer.mixers if isinstance(m, GroupedQuery)]
    if not mixers:
        return 0
    cache = sum(token_bytes(m, workload) for m in mixers) * context_cells(workload)
    return mixers[0].num_attention_heads // max(1, mixers[0].num_key_value_heads) * cache // 6


ENGINE = replace(
    llama_cpp.ENGINE, profiles=PROFILES, readings=readings, defaults=defaults, context=context, knobs=llama_cpp.KNOBS
)
