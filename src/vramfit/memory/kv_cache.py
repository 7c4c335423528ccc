"""KV cache: what attention keeps of every token of every sequence, layer by layer.

Full attention keeps all tokens, sliding windows keep the last ones, latent attention keeps one
compressed vector. State-space and linear-attention layers keep no tokens; see ``recurrent_state``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from itertools import product

from vramfit.engine import EngineProfile
from vramfit.formats import StorageFormat, kv_format
from vramfit.layer_kind import Attention, Compressed, CrossAttention, GroupedQuery, Latent
from vramfit.request import Inference
from vramfit.result import Basis, Item, Phase, exactly
from vramfit.shard import Shard
from vramfit.spec import ModelSpec
from vramfit.units import Size, ceil_div, count_of, larger, smaller

INDEX_SCALE_BYTES = 4
"""One fp32 scale for each key of a sparse index, which is kept in fp8."""

_ALIVE = (Phase.PREFILL, Phase.SAMPLE, Phase.DECODE)


def kv_bytes_per_token(attention: GroupedQuery | CrossAttention, key: StorageFormat, value: StorageFormat) -> int:
    """KV-cache bytes that one more token costs in one layer. [B/token]

        num_key_value_heads * head_dim   elements, once for the key and once for the value (v_head_dim if it differs)
        index_head_dim                   elements more where a sparse index keeps a key of its own (MiniMax-M3)

    Holds until the window is full. Source: Ainslie et al. 2023, arXiv:2305.13245, sec. 2.
    Llama 3.1 8B has 32 such layers, hence 128 KiB per token:

    >>> from vramfit.formats import BF16
    >>> layer = GroupedQuery(num_attention_heads=32, num_key_value_heads=8, head_dim=128)
    >>> 32 * kv_bytes_per_token(layer, BF16, BF16)
    131072
    """
    heads = attention.num_key_value_heads
    values, index = attention.head_dim, 0
    if isinstance(attention, GroupedQuery):
        values = attention.head_dim if attention.v_head_dim is None else attention.v_head_dim
        index = attention.index_head_dim
    return key.bytes_for(heads * attention.head_dim) + value.bytes_for(heads * values) + key.bytes_for(index)


def latent_bytes_per_token(attention: Latent, fmt: StorageFormat) -> int:
    """Bytes that one more token costs in one layer of latent attention. [B/token]

        kv_lora_rank + qk_rope_head_dim   elements, shared by all heads, hence whole on every rank
        index_head_dim + 4                bytes more where a sparse index keeps a key in fp8 and its scale

    Source: DeepSeek-V2, arXiv:2405.04434, sec. 2.1.2 and 2.1.3; the index: DeepSeek-V3.2, arXiv:2512.02556, sec. 2.1,
    and vllm-project/vllm:vllm/model_executor/models/deepseek_v2.py, DeepseekV32IndexerCache.
    DeepSeek-V3 has 61 such layers:

    >>> from vramfit.formats import BF16
    >>> sizes = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
    >>> layer = Latent(num_attention_heads=128, **sizes)
    >>> 61 * latent_bytes_per_token(layer, BF16)
    70272
    """
    index = attention.index_head_dim + INDEX_SCALE_BYTES if attention.index_head_dim else 0
    return fmt.bytes_for(attention.kv_lora_rank + attention.qk_rope_head_dim) + index


def compressed_bytes_per_block(attention: Compressed, fmt: StorageFormat) -> int:
    """Bytes that one more block of tokens costs in one layer of compressed attention. [B/block]

        head_dim             elements, key and value at once, shared by all heads, hence whole on every rank
        index_head_dim + 4   bytes more where a sparse index keeps a key in fp8 and its scale

    vLLM's own 8-bit layout keeps the rotated 64 elements in 16 bit and 8 scales: 584 bytes, not 512.
    Source: deepseek-ai/DeepSeek-V4-Pro:inference/model.py, Attention.kv_cache and Indexer.kv_cache;
    vllm-project/vllm@01cc1d3:vllm/models/deepseek_v4/compressor.py.
    A layer of DeepSeek-V4 that compresses 4 tokens to one costs 289 bytes a token:

    >>> from vramfit.formats import BF16
    >>> layer = Compressed(num_attention_heads=64, head_dim=512, block_tokens=4, overlaps=True, index_head_dim=128)
    >>> compressed_bytes_per_block(layer, BF16) / 4
    289.0
    """
    index = attention.index_head_dim + INDEX_SCALE_BYTES if attention.index_head_dim else 0
    return fmt.bytes_for(attention.head_dim) + index


def expanded_bytes_per_token(attention: Latent, key: StorageFormat, value: StorageFormat) -> int:
    """Bytes per token and layer when a runtime caches latent attention's expanded heads. [B/token]

        num_attention_heads * (qk_nope_head_dim + qk_rope_head_dim)   elements of keys
        num_attention_heads * v_head_dim                              elements of values

    What transformers did before it cached the compressed vector
    (huggingface/transformers:src/transformers/models/deepseek_v3/modeling_deepseek_v3.py, v4.57.1).

    >>> from vramfit.formats import BF16
    >>> sizes = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
    >>> layer = Latent(num_attention_heads=128, **sizes)
    >>> expanded_bytes_per_token(layer, BF16, BF16) // latent_bytes_per_token(layer, BF16)
    71
    """
    heads = attention.num_attention_heads
    keys = key.bytes_for(heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim))
    return keys + value.bytes_for(heads * attention.v_head_dim)


def token_bytes(mixer: Attention, workload: Inference, *, latent: bool = True) -> int:
    """Bytes one token of one sequence adds to the cache of a mixer; 0 when it caches no tokens. [B/token]

    For compressed attention: what one block of tokens adds.
    """
    key, value = kv_format(workload.kv_format_k or ""), kv_format(workload.kv_format_v or "")
    match mixer:
        case GroupedQuery(causal=True, shares_cache=False) | CrossAttention():
            return kv_bytes_per_token(mixer, key, value)
        case Latent() if latent:
            return latent_bytes_per_token(mixer, key)
        case Latent():
            return expanded_bytes_per_token(mixer, key, value)
        case Compressed():
            return compressed_bytes_per_block(mixer, key)
        case _:
            return 0


def model_bytes_per_token(model: ModelSpec, workload: Inference, *, latent: bool = True) -> int:
    """Bytes one token of one sequence adds in all layers before any window is full; 0 without a cache. [B/token]"""
    if not model.generates:
        return 0
    return sum(
        ceil_div(n * token_bytes(mixer, workload, latent=latent), _tokens_each(mixer))
        for layer, n in model.groups
        for mixer in layer.mixers
        if not isinstance(mixer, CrossAttention)
    )


def _tokens_each(mixer: Attention) -> int:
    """Tokens that share one entry of a mixer's cache."""
    return mixer.block_tokens if isinstance(mixer, Compressed) else 1


def sequence_tokens(model: ModelSpec, workload: Inference) -> Size:
    """Tokens of one sequence that pass the layers and may be kept. [tokens]

        context                        of a decoder
        context - prompt + 1           behind an encoder, which reads the prompt; 1: the token that starts the answer

    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.1;
    huggingface/transformers:src/transformers/cache_utils.py, EncoderDecoderCache.
    """
    if not model.encodes_prompt:
        return workload.context_tokens
    return workload.context_tokens - workload.prompt_tokens + 1


def kept_tokens(mixer: Attention, model: ModelSpec, workload: Inference, engine: EngineProfile) -> Size:
    """Tokens of one sequence that a mixer's cache holds. [tokens]

        min(tokens, window)    when it has a window and the engine honours it
        source_tokens          for cross attention: those of the other stream, the prompt's unless fixed
        context // block       blocks, for compressed attention: the last, unfinished one has no entry yet

    Source: Beltagy et al. 2020, arXiv:2004.05150 (sliding windows).
    """
    if isinstance(mixer, CrossAttention):
        return workload.prompt_tokens if mixer.source_tokens is None else mixer.source_tokens
    if isinstance(mixer, Compressed):
        return workload.context_tokens // mixer.block_tokens
    window, tokens = mixer.window_tokens if isinstance(mixer, GroupedQuery) else None, sequence_tokens(model, workload)
    return tokens if window is None or not engine.windowed_cache else smaller(tokens, window)


def kv_cache(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the cache of one rank, one item per kind of attention layer. [B]

        bytes per token * tokens kept * sequences * layers

    ``bytes per token`` is that of the layer's kind above; alive from prefill on. A cache that grows
    with the text holds the prompt only until the first new token is there. A model that generates nothing
    (an encoder, a decoder used for embeddings or scores) keeps nothing.
    """
    if not shard.model.generates:
        return
    spans: tuple[tuple[tuple[Phase, ...], str, Inference], ...] = ((_ALIVE, "", workload),)
    if engine.grown_cache:
        prompt = replace(workload, context_tokens=workload.prompt_tokens)
        spans = ((_ALIVE[:2], "_of_prompt", prompt), (_ALIVE[2:], "", workload))
    mixers = [(mixer, count) for layer, count in shard.model.groups for mixer in layer.mixers]
    for (mixer, count), (phases, suffix, held) in product(mixers, spans):
        per_token = token_bytes(mixer, workload, latent=engine.latent_cache)
        if not per_token:
            continue
        kept = kept_tokens(mixer, shard.model, held, engine)
        unit = "block" if isinstance(mixer, Compressed) else "token"
        sizes = f"{count_of(count, 'layer')} x {count_of(kept, unit)} x {count_of(workload.batch, 'sequence')}"
        yield exactly(
            f"kv_cache/{mixer_kind(mixer)}{suffix}",
            per_token * count * kept * workload.batch,
            phases,
            f"{per_token:,} B per {unit} x {sizes}; {_facts(mixer, workload)}",
            _source(mixer),
            Basis.DERIVED,
        )


def growth(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the second copy of one layer's keys while a grown cache is copied into a larger tensor. [B]

        keys of the layer that caches most, once more: the last of them where it has a window

    ``torch.cat`` of old and new keys: both live until the layer's field is overwritten; values follow
    when the old keys are gone. Source: huggingface/transformers:src/transformers/cache_utils.py, DynamicLayer.update.
    """
    if not engine.grown_cache or not shard.model.generates:
        return
    mixers = [m for layer, _ in shard.model.groups for m in layer.mixers if not isinstance(m, CrossAttention)]
    halves = {m: token_bytes(m, workload, latent=engine.latent_cache) // 2 for m in mixers}
    if any(halves.values()):
        sizes = (half * kept_tokens(m, shard.model, workload, engine) * workload.batch for m, half in halves.items())
        size = reduce(larger, sizes)
        yield Item(
            name="kv_cache/growth_copy",
            bytes=size,
            low_bytes=0 * size,
            high_bytes=2 * size,
            phases=(Phase.DECODE,),
            basis=Basis.DERIVED,
            formula=f"up to {max(halves.values()):,} B per token of one layer's keys, while torch.cat copies them",
            source="huggingface/transformers:src/transformers/cache_utils.py, DynamicLayer.update",
        )


def mixer_kind(mixer: Attention) -> str:
    """Name the kind of attention for people: ``full_attention``, ``sliding_window`` ..."""
    match mixer:
        case GroupedQuery(window_tokens=None):
            return "full_attention"
        case GroupedQuery():
            return "sliding_window"
        case CrossAttention():
            return "cross_attention"
        case Latent():
            return "latent_attention"
        case Compressed():
            return "compressed_attention"
        case _:
            return "recurrent"


def _source(mixer: Attention) -> str:
    """Say what defines the cache of a mixer."""
    match mixer:
        case Latent():
            return "arXiv:2405.04434, sec. 2.1"
        case Compressed():
            return "deepseek-ai/DeepSeek-V4-Pro:inference/model.py, Attention.kv_cache"
        case _:
            return "arXiv:2305.13245, sec. 2"


def _facts(mixer: Attention, workload: Inference) -> str:
    """Say where the bytes per token come from."""
    formats = workload.kv_format_k
    if workload.kv_format_v != workload.kv_format_k:
        formats = f"{workload.kv_format_k} keys, {workload.kv_format_v} values"
    match mixer:
        case GroupedQuery() as a:
            window = "" if a.window_tokens is None else f", window {a.window_tokens:,}"
            widths = f"{a.head_dim}" if a.v_head_dim is None else f"({a.head_dim} + {a.v_head_dim})"
            heads = f"{a.num_key_value_heads} KV heads"
            index = f" + an index of {a.index_head_dim}" if a.index_head_dim else ""
            return f"{'2 x ' if a.v_head_dim is None else ''}{heads} x {widths}{index} in {formats}{window}"
        case CrossAttention() as a:
            return f"2 x {a.num_key_value_heads} KV heads x {a.head_dim} in {formats}"
        case Latent() as a:
            index = f", and an index of {a.index_head_dim} B + 4 B" if a.index_head_dim else ""
            sizes = f"{a.kv_lora_rank} + {a.qk_rope_head_dim} in {formats}{index}"
            return f"{sizes}, or every head expanded if the engine does so"
        case Compressed() as a:
            index = f" and an index of {a.index_head_dim} B + 4 B" if a.index_head_dim else ""
            return f"{a.head_dim} in {formats}{index} for every {a.block_tokens} tokens"
        case _:
            return ""
