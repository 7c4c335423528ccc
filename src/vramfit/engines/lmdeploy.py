"""LMDeploy with TurboMind: a share of the memory that is free after loading becomes blocks of cache.

    blocks = cache_max_entry_count * free // block, block = 64 tokens * layers * KV heads * head_dim * 2 * bytes

Read from InternLM/lmdeploy: src/turbomind/models/llama/BlockManager.cc, GetBlockCount, and SequenceManager.cc (0.2.0,
0.2.2, 0.6.4, 0.10.0, 0.12.0); src/turbomind/turbomind.cc, CreateEngine (0.16.0);
src/turbomind/kernels/attention/block.h, Layout (0.10.0); lmdeploy/messages.py and utils.py, get_max_batch_size
(0.6.4, 0.10.0).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vramfit.device import Device
from vramfit.engine import Engine, EngineProfile, Rank
from vramfit.engines.communicators import runtime_with
from vramfit.engines.open_field import fill
from vramfit.engines.pool import cell, reading, starting_with, tokens_readings
from vramfit.engines.refusal import refuse_encoders, refuse_pipelines
from vramfit.engines.served_weights import allocations, reserved_bytes
from vramfit.engines.span import Span, exact, share, span
from vramfit.errors import ImpossiblePlanError
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.memory.activations import activations, towers
from vramfit.memory.adapters import adapters
from vramfit.memory.kv_cache import kv_cache
from vramfit.memory.logits import logits
from vramfit.memory.recurrent_state import recurrent_state
from vramfit.memory.runtime import COLLECTIVE_BYTES
from vramfit.memory.weights import tensor_bytes, weights
from vramfit.request import Inference, Plan
from vramfit.result import ALWAYS, Basis, Choice, Item, Quantity, Reading, Reservation, exactly
from vramfit.shard import Shard
from vramfit.spec import ModelSpec
from vramfit.units import count_of

_BASE = EngineProfile(
    name="lmdeploy",
    version="0.1",
    checked="0.1.0a2, 0.2.0 and 0.2.1",
    attention="flash",
    prefill_chunk_tokens=8192,
    windowed_cache=False,
    not_counted=("the PyTorch engine, which first sets aside 2 B for each logit of its largest pass",),
)
PROFILES = (
    _BASE,
    replace(_BASE, version="0.2.2", checked="0.2.2"),
    replace(_BASE, version="0.3", checked="0.4.0, 0.6.4 and 0.7.2"),
    replace(_BASE, version="0.9", checked="0.9.0, 0.10.0 and 0.12.0"),
    replace(_BASE, version="0.16", checked="0.16.0"),
)
OF_TOTAL = frozenset({"0.1"})
"""Profiles whose share is of the card's total, whatever is free."""
CONVERTS_IN_TORCH = frozenset({"0.2.2", "0.3"})
"""Profiles that do not empty torch's cache before they count blocks, so copies made by the conversion stay reserved.
Source: lmdeploy/turbomind/deploy/target_model/base.py, export_weight and export (0.6.4, 0.8.0); emptied by
deploy/loader.py since 0.9.0."""
FFN_COPIES = 6
"""Three matrices of a layer and their transposed copies. Source: deploy/module.py, Ffn._export, 0.6.4."""
LONG_BLOCKS = frozenset({"0.1", "0.2.2"})
"""Profiles whose blocks hold 128 tokens."""
KNOBS = frozenset({"max_num_seqs", "max_num_batched_tokens", "memory_fraction", "prefix_caching", "block_tokens"})
SHARE, SHARE_OF_TOTAL = 0.8, 0.5
"""Defaults of ``cache_max_entry_count``. Source: lmdeploy/messages.py, TurbomindEngineConfig, 0.10.0 and 0.2.0."""
BLOCK_TOKENS, BLOCK_TOKENS_OLD = 64, 128
"""Defaults of ``cache_block_seq_len``. Source: the same, 0.4.0 and 0.2.2."""
SEQUENCES = {"a100": 384, "a800": 384, "h100": 1024, "h800": 1024, "l20y": 1024, "h200": 1024}
OTHER_SEQUENCES = 128
"""Source: lmdeploy/utils.py, get_max_batch_size, 0.10.0; it reads the product's name."""
SCALE_BYTES = 2 * (2 + 2)
"""Scale and zero of each key and of each value of a head, when the cache is kept in 8 or 4 bits.
Source: src/turbomind/kernels/attention/block.h, token_param_size, 0.10.0."""
SOURCE = "InternLM/lmdeploy:src/turbomind/models/llama/BlockManager.cc, GetBlockCount"


def defaults(
    model: ModelSpec, workload: Inference, engine: EngineProfile, device: Device | None
) -> tuple[Inference, tuple[Choice, ...]]:
    """Fill in the share, the block and the limits as this version does on this card."""
    del model
    old = engine.version in OF_TOTAL
    product = device.product.lower() if device is not None else "h100"
    sequences = next((n for name, n in SEQUENCES.items() if name in product), OTHER_SEQUENCES)
    found = {
        "memory_fraction": (SHARE_OF_TOTAL if old else SHARE, "default of cache_max_entry_count"),
        "block_tokens": (
            BLOCK_TOKENS_OLD if engine.version in LONG_BLOCKS else BLOCK_TOKENS,
            "default of cache_block_seq_len",
        ),
        "max_num_seqs": (sequences, "default of max_batch_size on this card"),
        "max_num_batched_tokens": (engine.prefill_chunk_tokens, "default of max_prefill_token_num"),
    }
    return fill(workload, found)


def check(model: ModelSpec, workload: Inference, plan: Plan) -> None:
    """Refuse pipeline stages, and a share of everything, as the engine does."""
    refuse_pipelines(model, "lmdeploy")
    refuse_encoders(model, "lmdeploy")
    if plan.pp > 1:
        raise ImpossiblePlanError(
            f"plan.pp: {plan.pp}: expected 1: LMDeploy has tensor parallelism only; raise tp instead"
        )
    if workload.memory_fraction is not None and workload.memory_fraction >= 1:
        raise ImpossiblePlanError(
            f"workload.memory_fraction: {workload.memory_fraction}: expected a share below 1: "
            "cache_max_entry_count from 1 on counts blocks; take 0.8"
        )


def passes(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the activations of a prefill pass and a decode step. [B]"""
    return activations(shard, workload, replace(engine, prefill_chunk_tokens=workload.max_num_batched_tokens))


def second_table(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the output projection of tied models: TurboMind loads the embeddings twice. [B]

    Source: InternLM/lmdeploy:lmdeploy/turbomind/deploy/module.py, save_split of output.weight, 0.10.0.
    """
    del workload, engine
    model = shard.model
    if model.tied and shard.first and shard.last and model.generates and model.embeddings:
        yield exactly(
            "weights/second_table", tensor_bytes(model.embeddings[0], model.scheme), ALWAYS,
            "token embeddings once more, as output projection",
            "InternLM/lmdeploy@v0.10.0:lmdeploy/turbomind/deploy/module.py, output.weight", Basis.DERIVED,
        )  # fmt: skip


def scales(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the scales of a cache in 8 or 4 bits for the asked sequences: 8 B a token, layer and KV head. [B]"""
    del engine
    size = _scale_bytes(shard, workload)
    if size:
        tokens = workload.context_tokens * workload.batch
        yield exactly(
            "kv_cache/scales", size * tokens, (*ALWAYS[1:],), f"{size:,} B per token x {count_of(tokens, 'token')}",
            "InternLM/lmdeploy@v0.10.0:src/turbomind/kernels/attention/block.h, token_param_size", Basis.DERIVED,
        )  # fmt: skip


def _scale_bytes(shard: Shard, workload: Inference) -> int:
    """Bytes of scales that a token costs in all layers. [B/token]"""
    if workload.kv_format not in {"int8", "int4"}:
        return 0
    return sum(
        SCALE_BYTES * times * mixer.num_key_value_heads
        for layer, times in shard.model.groups
        for mixer in layer.mixers
        if isinstance(mixer, GroupedQuery)
    )


def held(rank: Rank) -> Span:
    """What is taken when the blocks are counted: context, kernels, communicators and weights. [B]

    TurboMind's own allocator rounds little; a vision tower is held by torch in whole segments (high). Until 0.8
    torch also keeps what the conversion copied: one vocabulary matrix and six of a layer's feed-forward network.
    """
    stored = sum(item.bytes for item in starting_with(rank.items, "weights/"))
    segments = max(stored, reserved_bytes(allocations(rank.shard)))
    taken = starting_with(rank.items, "runtime/cuda_context", "runtime/loaded_kernels", "runtime/collectives")
    copies = _conversion_bytes(rank)
    expected = copies if rank.engine.version in CONVERTS_IN_TORCH else 0
    return span(taken) + Span(low=stored, expected=stored + expected, high=segments + 2 * copies)


def _conversion_bytes(rank: Rank) -> int:
    """Bytes of the copies that the conversion of weights makes on the card at a time. [B]"""
    model, scheme = rank.shard.model, rank.shard.model.scheme
    table = max((tensor_bytes(t, scheme) for t in (*model.embeddings, *model.head)), default=0)
    dense = (layer for layer, _ in model.groups if isinstance(layer.feed_forward, Dense))
    matrix = max((tensor_bytes(t, scheme) for layer in dense for t in layer.tensors), default=0)
    return table + FFN_COPIES * matrix


def pool(rank: Rank) -> Span | None:
    """What becomes blocks of cache; None without a card. [B]

        until 0.2.1   share * total
        since 0.2.2   share * what is free after loading, on the rank with least

    Buffers for passes are allocated later, from the rest.
    """
    device, part = rank.device, rank.workload.memory_fraction
    if device is None or part is None:
        return None
    if rank.engine.version in OF_TOTAL:
        limit = int(share(part) * device.total_bytes)
        return Span(low=limit, expected=limit, high=limit)
    return held(rank).left_of(device.total_bytes).times(share(part))


def reservation(rank: Rank) -> Reservation | None:
    """Return what weights and cache may take: the rest is for buffers and activations; None without a card."""
    blocks = pool(rank)
    if rank.device is None or blocks is None:
        return None
    stored = sum(item.bytes for item in starting_with(rank.items, "weights/"))
    what = "total" if rank.engine.version in OF_TOTAL else "what is free after loading"
    return Reservation(
        limit_bytes=stored + blocks.expected,
        outside=("runtime/", "activations/", "logits/"),
        formula=f"weights + cache_max_entry_count {rank.workload.memory_fraction} x {what}",
    )


def readings(rank: Rank) -> Iterable[Reading]:
    """Yield weights and blocks; the engine prints the block's size, their number and nothing of activations."""
    stored = sum(item.bytes for item in starting_with(rank.items, "weights/"))
    yield reading(Quantity.WEIGHTS, exact(stored), "sum of all weights", SOURCE)
    blocks = pool(rank)
    one = cell(rank.shard, rank.workload, rank.engine)
    if blocks is None or not one.full_bytes or not one.pages or not rank.model.generates:
        return
    per_token = one.full_bytes + _scale_bytes(rank.shard, rank.workload)
    yield from tokens_readings(rank, blocks, per_token, rank.workload.block_tokens or BLOCK_TOKENS, SOURCE)


ENGINE = Engine(
    profiles=PROFILES,
    components=(weights, second_table, adapters, kv_cache, scales, recurrent_state, passes, towers, logits),
    runtime=runtime_with(COLLECTIVE_BYTES),
    readings=readings,
    defaults=defaults,
    reservation=reservation,
    knobs=KNOBS,
    check=check,
)
