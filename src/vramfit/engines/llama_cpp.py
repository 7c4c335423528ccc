"""llama.cpp: every buffer that its start-up log names, on each device and on the host.

Source: ggml-org/llama.cpp:src/llama-model.cpp (load_tensors), src/llama-kv-cache.cpp, src/llama-memory-recurrent.cpp
and src/llama-context.cpp; what changed from build to build is in ``llama_cpp_version``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from vramfit.device import Device
from vramfit.engine import Engine, EngineProfile, Rank
from vramfit.engines.library import takes_what_it_needs
from vramfit.engines.llama_buffers import (
    cache_bytes,
    compute,
    context_cells,
    host_compute,
    host_model_bytes,
    is_named,
    micro_batch,
    on_device,
    row_padding,
    state_bytes,
)
from vramfit.engines.llama_cpp_version import PROFILES, facts_of
from vramfit.engines.open_field import fill
from vramfit.errors import ImpossiblePlanError, InvalidValueError
from vramfit.formats import GGUF_TYPES, Role
from vramfit.layer_kind import Recurrent
from vramfit.memory.kv_cache import mixer_kind
from vramfit.memory.recurrent_state import recurrent_kind
from vramfit.memory.runtime import context_bytes
from vramfit.memory.weights import weight_bytes, weights
from vramfit.request import Inference, Plan, refuse_arrays
from vramfit.result import ALWAYS, Basis, Breakdown, Choice, Counter, Item, Quantity, Reading, Reservation, exactly
from vramfit.shard import Shard
from vramfit.spec import ModelSpec
from vramfit.units import MIB, Size, count_of

KNOBS = frozenset({"slots", "ubatch_tokens", "batch_tokens", "gpu_layers", "flash_attention", "swa_full"})
BATCH_TOKENS, MICRO_BATCH_TOKENS = 2048, 512
"""Defaults of -b and -ub. Source: common/common.h, common_params, every build since b2424."""
LABEL_SHARE = 100
"""Files of one label by different owners differ by about this share (1 %): 4,941 MiB were seen where llama.cpp's own
mixture for Q5_K_S gives 4,988, 7,106.7 where that for Q4_K_M gives 7,110.8."""
MORE_BITS = "Q6_K"
"""Type in which publishers keep projections of recurrent layers at most: Qwen3.5-9B in Q4_K_M was seen 5 % larger
than llama.cpp's own mixture; all of those projections in this type would make it 6 %."""
UNNAMED_CONTEXT_BYTES = 150 * MIB
"""CUDA context on a card that nobody named: 140 to 153 MiB were seen beside llama.cpp's buffers on RTX 4070s."""
QUANTISED_CACHE = frozenset({"q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"})
SOURCE = "ggml-org/llama.cpp:src/llama-model.cpp, llama-kv-cache.cpp, llama-context.cpp"

ONE_BY_ONE = "llama.cpp's buffers are worked out one by one"


def defaults(
    model: ModelSpec, workload: Inference, engine: EngineProfile, device: Device | None
) -> tuple[Inference, tuple[Choice, ...]]:
    """Fill in slots, batches, flash attention and the layers on devices, as this build does."""
    del device
    refuse_arrays(workload, ONE_BY_ONE)
    facts = facts_of(engine)
    flash = facts.flash if workload.attention is None else workload.attention == "flash"
    return decide(
        workload,
        {
            "slots": (max(facts.slots, workload.batch), f"default of --parallel since b{engine.version}"),
            "batch_tokens": (BATCH_TOKENS, "default of -b"),
            "ubatch_tokens": (MICRO_BATCH_TOKENS, "default of -ub"),
            "flash_attention": (flash, "default of -fa"),
            "swa_full": (False, "windows keep what they need"),
            "gpu_layers": (len(model.layers) + 1, "all layers and the output projection"),
        },
    )


def decide(workload: Inference, found: dict[str, tuple[Any, str]]) -> tuple[Inference, tuple[Choice, ...]]:
    """Fill in the fields that are open; flash attention or not decides how attention is computed."""
    filled, choices = fill(workload, found)
    return replace(filled, attention="flash" if filled.flash_attention else "eager"), choices


def check(model: ModelSpec, workload: Inference, plan: Plan) -> None:
    """Refuse what llama.cpp refuses.

    Raises:
        InvalidValueError: a quantised cache of values without flash attention.
        ImpossiblePlanError: tensor parallelism.
    """
    del model
    if workload.kv_format_v in QUANTISED_CACHE and not workload.flash_attention:
        raise InvalidValueError(
            "workload.kv_format_v",
            workload.kv_format_v,
            "fp16, bf16 or fp32 without flash attention",
            "llama.cpp refuses a quantised V cache without it: add --flash-attention",
        )
    if plan.tp > 1:
        raise ImpossiblePlanError(
            f"plan.tp: {plan.tp}: expected 1 with {workload.engine}, which splits layers over devices; use pp {plan.tp}"
        )


def model_buffer(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the weights on the device: its layers, the output projection, a tied embedding once more. [B]"""
    there = on_device(shard, workload, facts_of(engine))
    for item in weights(there, workload, engine):
        low, high = _by_label(item.bytes, there.model)
        yield replace(item, low_bytes=low, high_bytes=high)
    yield from _recurrent_in_more_bits(there)
    padding = row_padding(there)
    if padding:
        source = "ggml-org/llama.cpp:ggml/src/ggml-cuda/ggml-cuda.cu, MATRIX_ROW_PADDING"
        yield exactly("weights/row_padding", padding, ALWAYS, "rows to whole 512 elements", source, Basis.DERIVED)


def _recurrent_in_more_bits(shard: Shard) -> Iterable[Item]:
    """Yield what projections of recurrent layers may take beyond the label's own mixture: nothing expected. [B]"""
    scheme, more = shard.model.scheme, GGUF_TYPES[MORE_BITS]
    high = sum(
        max(0, more.tensor_size(t.shape) - scheme.format_of(t).tensor_size(t.shape)) * times
        for layer, times in shard.model.groups
        if any(isinstance(m, Recurrent) for m in layer.mixers)
        for t in layer.tensors
        if t.role is Role.LINEAR and "mlp" not in t.name
    )
    if _labelled(shard.model) and high:
        yield Item(
            name="weights/recurrent_in_more_bits",
            bytes=0,
            low_bytes=0,
            high_bytes=high,
            phases=ALWAYS,
            basis=Basis.ASSUMED,
            formula=f"projections of recurrent layers in {MORE_BITS}, as some publishers keep them",
            source="Qwen3.5-9B in Q4_K_M, 5,060.88 MiB by a log of b8571",
        )


def _labelled(model: ModelSpec) -> bool:
    """Say whether the types of the tensors are known from a file's label only, not from its header."""
    quantised = model.scheme.quantised
    return quantised.name.startswith("gguf:") and not quantised.is_plain and model.evidence == "config"


def _by_label(size: int, model: ModelSpec) -> tuple[int, int]:
    """Return the bounds of weights whose types are known from a file label only. [B]"""
    share = size // LABEL_SHARE if _labelled(model) else 0
    return size - share, size + share


def projector(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield towers beside the language model, which are loaded from a file of their own or not at all. [B]"""
    del workload, engine
    parts = tuple(part for part in shard.model.parts if part.resident)
    if parts:
        size = weight_bytes(replace(shard.model, layers=(shard.model.layers[0],), parts=parts)) - weight_bytes(
            replace(shard.model, layers=(shard.model.layers[0],), parts=())
        )
        yield Item(
            name="weights/projector",
            bytes=size,
            low_bytes=0,
            high_bytes=size,
            phases=ALWAYS,
            basis=Basis.DERIVED,
            formula=f"{', '.join(part.name for part in parts)}, when an mmproj file is loaded",
            source="ggml-org/llama.cpp:tools/mtmd/clip.cpp",
        )


def caches(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the KV buffer by kind of layer. [B]

    bytes per token of a layer * cells; the cells are allocated for the whole context and all slots at once
    """
    facts, totals = facts_of(engine), dict[str, list[int]]()
    for mixer, size, cells in cache_bytes(on_device(shard, workload, facts), workload, facts):
        entry = totals.setdefault(mixer_kind(mixer), [0, 0, cells, 0])
        entry[0], entry[1], entry[3] = entry[0] + size.expected, entry[1] + 1, entry[3] + size.high
    for kind, (expected, layers, cells, high) in totals.items():
        yield Item(
            name=f"kv_cache/{kind}",
            bytes=expected,
            low_bytes=expected,
            high_bytes=high,
            phases=ALWAYS,
            basis=Basis.DERIVED,
            formula=f"{count_of(layers, 'layer')} x {cells:,} cells"
            f" ({workload.kv_format_k} keys, {workload.kv_format_v} values)",
            source="ggml-org/llama.cpp:src/llama-kv-cache.cpp and llama-kv-cache-iswa.cpp",
        )


def states(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the states of recurrent layers, in fp32, one per slot. [B]"""
    facts, totals = facts_of(engine), dict[str, list[int]]()
    for layer in on_device(shard, workload, facts).model.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, Recurrent):
                entry = totals.setdefault(recurrent_kind(mixer), [0, 0])
                entry[0], entry[1] = entry[0] + state_bytes(mixer), entry[1] + 1
    slots = workload.slots or 1
    for kind, (size, layers) in totals.items():
        yield exactly(
            f"recurrent_state/{kind}",
            size * slots,
            ALWAYS,
            f"{size // layers:,} B in fp32 x {count_of(layers, 'layer')} x {count_of(slots, 'slot')}",
            "ggml-org/llama.cpp:src/llama-hparams.cpp, n_embd_r and n_embd_s",
            Basis.DERIVED,
        )


def compute_buffer(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the buffer for the largest graph, reserved at the start and never grown. [B]"""
    found = compute(shard, workload, facts_of(engine), named=is_named(workload, engine))
    yield Item(
        name="activations/compute_buffer",
        bytes=found.expected,
        low_bytes=found.low,
        high_bytes=found.high,
        phases=ALWAYS,
        basis=Basis.DERIVED,
        formula=f"allocator followed over {micro_batch(workload):,} tokens and {context_cells(workload):,} cells",
        source="ggml-org/llama.cpp:ggml/src/ggml-alloc.c over the graph of src/llama-graph.cpp",
    )


def context(shard: Shard, device: Device | None) -> Iterable[Item]:
    """Yield the CUDA context of the process. [B]"""
    del shard
    known = device is not None and bool(device.multiprocessors)
    size = context_bytes(device) if known else UNNAMED_CONTEXT_BYTES
    yield Item(
        name="runtime/cuda_context",
        bytes=size,
        low_bytes=size // 2,
        high_bytes=size * 12 // 10 if known else context_bytes(None),
        phases=ALWAYS,
        basis=Basis.MEASURED if known else Basis.ASSUMED,
        formula="by the card's multiprocessors" if known else "no card named: as beside llama.cpp on RTX 4070s",
        source="fit to measured contexts, see memory/runtime.py, CONTEXT_BYTES_PER_THREAD",
        counter=Counter.PROCESS,
    )


GROUPS = {
    Quantity.MODEL_BUFFER: ("weights/", "sum of the tensors on this device"),
    Quantity.KV_BUFFER: ("kv_cache/", "all layers' cells on this device"),
    Quantity.RECURRENT_STATE: ("recurrent_state/", "states of all slots on this device"),
    Quantity.COMPUTE_BUFFER: ("activations/", "largest graph"),
}
"""Quantity -> the items of which it is the sum."""


def readings(rank: Rank) -> Iterable[Reading]:
    """Yield the lines of the start-up log."""
    for quantity, (prefix, formula) in GROUPS.items():
        items = [i for i in rank.items if i.name.startswith(prefix) and i.name != "weights/projector"]
        low, value, high = (sum(getattr(i, f) for i in items) for f in ("low_bytes", "bytes", "high_bytes"))
        if value:
            yield _reading(quantity, value, low, high, formula)
    facts, job = facts_of(rank.engine), rank.workload
    stored = host_model_bytes(rank.shard, job, facts)
    if stored and rank.shard.first:
        low, high = _by_label(stored, rank.model)
        yield _reading(Quantity.HOST_MODEL_BUFFER, stored, low, high, "token embedding and layers")
    host = host_compute(rank.shard, job, facts, named=is_named(job, rank.engine))
    yield _reading(Quantity.HOST_COMPUTE_BUFFER, host.expected, host.low, host.high, "inputs of the graph")
    peak = Breakdown(rank="", num_ranks=1, items=rank.items).peak()
    yield _reading(Quantity.PROCESS_PEAK, peak.expected_bytes, peak.low_bytes, peak.high_bytes, "buffers and context")


def _reading(quantity: Quantity, value: Size, low: Size, high: Size, formula: str) -> Reading:
    return Reading(quantity=quantity, value=value, low=low, high=high, formula=formula, source=SOURCE)


def reservation(rank: Rank) -> Reservation | None:
    """Reserve nothing beyond what is needed."""
    return takes_what_it_needs(rank)


ENGINE = Engine(
    profiles=PROFILES,
    components=(model_buffer, projector, caches, states, compute_buffer),
    runtime=context,
    readings=readings,
    defaults=defaults,
    reservation=reservation,
    knobs=KNOBS,
    check=check,
)
