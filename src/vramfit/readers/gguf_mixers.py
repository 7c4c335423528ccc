"""What a block of a GGUF file keeps of the tokens: which kind of mixer its tensors show, how wide its metadata say.

Source: ggml-org/llama.cpp:src/llama-hparams.cpp (n_embd_k_gqa, n_embd_r, n_embd_s, is_swa) and src/models/*.cpp.
"""

from __future__ import annotations

from vramfit.errors import UnsupportedModelError
from vramfit.layer_kind import (
    Attention,
    CrossAttention,
    GroupedQuery,
    Latent,
    LinearAttention,
    Recurrence,
    ShortConvolution,
    StateSpace,
)
from vramfit.readers.gguf_architectures import (
    CACHELESS,
    DELTA,
    ENCODERS,
    FIXED_WINDOW_TOKENS,
    SHARES_FROM,
    TOKEN_SHIFTS,
    WINDOW_TOKENS,
    WINDOWS,
    WKV,
)
from vramfit.readers.gguf_metadata import Metadata

Shapes = dict[str, tuple[int, ...]]

_KDA = "ssm_f_a.weight"
_QUERIES = frozenset({"attn_q.weight", "attn_q_b.weight", "attn_qkv.weight"})


def mixers_of(metadata: Metadata, number: int, shapes: Shapes) -> tuple[Attention | None, Attention | None]:
    """Return the mixers of a block: attention first, a recurrence beside it; None = it has no such tensors.

    Raises:
        UnsupportedModelError: a key that is missing.
    """
    recurrent, attention = _state(metadata, shapes), _attention(metadata, number, shapes)
    if "cross_attn_q.weight" in shapes:
        return attention, _crossed(metadata, shapes)
    return (attention, recurrent) if attention is not None else (recurrent, None)


def _attention(metadata: Metadata, number: int, shapes: Shapes) -> Attention | None:
    """Return the facts of a block's attention; a delta network has queries and keys too, and keeps none of them."""
    delta = _KDA in shapes or (metadata.architecture in DELTA and "ssm_conv1d.weight" in shapes)
    if delta or not _QUERIES & set(shapes):
        return None
    if "attn_kv_a_mqa.weight" in shapes and metadata.optional("attention.key_length_mla"):
        return _latent(metadata, number)
    heads = metadata.per_layer("attention.head_count", number)
    if heads == 0:
        raise metadata.wrong("attention.head_count", f"an integer from 1 for layer {number}, which has queries")
    window = window_of(metadata, number)
    key, value = _widths(metadata, heads, slides=window is not None)
    return GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=metadata.per_layer("attention.head_count_kv", number, heads),
        head_dim=key,
        v_head_dim=None if value == key else value,
        window_tokens=window,
        causal=is_causal(metadata),
        shares_cache=_shares(metadata, number),
    )


def _widths(metadata: Metadata, heads: int, *, slides: bool) -> tuple[int, int]:
    """Return the widths of a key and of a value; sliding layers may have their own."""
    usual = metadata.integer("embedding_length") // heads
    key, value = metadata.integer("attention.key_length", usual), metadata.integer("attention.value_length", usual)
    if not slides:
        return key, value
    return metadata.integer("attention.key_length_swa", key), metadata.integer("attention.value_length_swa", value)


def is_causal(metadata: Metadata) -> bool:
    """Say whether tokens attend to earlier ones only, and so are kept."""
    return metadata.architecture not in ENCODERS | CACHELESS and metadata.value("attention.causal") is not False


def _latent(metadata: Metadata, number: int) -> Latent:
    """Return the facts of latent attention; files of before ``key_length_mla`` keep whole keys and values instead."""
    rope = metadata.integer("rope.dimension_count")
    return Latent(
        num_attention_heads=metadata.per_layer("attention.head_count", number),
        kv_lora_rank=metadata.integer("attention.kv_lora_rank"),
        qk_rope_head_dim=rope,
        qk_nope_head_dim=max(0, metadata.integer("attention.key_length_mla") - rope),
        v_head_dim=metadata.integer("attention.value_length_mla"),
        q_lora_rank=metadata.optional("attention.q_lora_rank") or None,
        index_head_dim=metadata.optional("attention.indexer.key_length") or 0,
    )


def _crossed(metadata: Metadata, shapes: Shapes) -> CrossAttention:
    """Return the facts of attention to an encoder, which keeps keys and values of the prompt."""
    heads = metadata.integer("attention.head_count")
    width = metadata.integer("attention.key_length", metadata.integer("embedding_length") // max(1, heads))
    kept = shapes.get("cross_attn_k.weight", (heads * width,))[0] // max(1, width)
    return CrossAttention(num_attention_heads=heads, num_key_value_heads=kept, head_dim=width)


def window_of(metadata: Metadata, number: int) -> int | None:
    """Return the window of a layer, from the pattern in the metadata or the one in llama.cpp's code."""
    named = metadata.optional("attention.sliding_window")
    default = metadata.optional("attention.chunk_size") or WINDOW_TOKENS.get(metadata.architecture)
    window = default if named is None else named
    if not window:
        return None
    window = FIXED_WINDOW_TOKENS.get(metadata.architecture, window)
    pattern = metadata.value("attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and pattern:
        return window if pattern[number % len(pattern)] else None
    known = WINDOWS.get(metadata.architecture)
    if known is None:
        return None
    period, full_first = (pattern, known[1]) if type(pattern) is int else known
    if period == 0:
        return window
    slides = number % period != 0 if full_first else number % period < period - 1
    return window if slides else None


def ignored_window(metadata: Metadata) -> tuple[str, ...]:
    """Say when the metadata name a window that llama.cpp does not use."""
    window = metadata.optional("attention.sliding_window")
    pattern = metadata.value("attention.sliding_window_pattern")
    if not window or metadata.architecture in WINDOWS or isinstance(pattern, tuple):
        return ()
    return (
        f"attention.sliding_window = {window:,} has no effect: llama.cpp has no pattern for {metadata.architecture}",
    )


def _shares(metadata: Metadata, number: int) -> bool:
    """Say whether a layer reads an earlier layer's cache."""
    shared = metadata.optional("attention.shared_kv_layers")
    if shared is not None:
        return number >= metadata.integer("block_count") - shared
    return number >= SHARES_FROM.get(metadata.architecture, number + 1)


def _state(metadata: Metadata, shapes: Shapes) -> Attention | None:
    """Return the facts of a block's recurrence; None = it has no such tensors."""
    if metadata.architecture in WKV:
        return _wkv(metadata)
    if "shortconv.conv.weight" in shapes:
        return _short_convolution(metadata)
    if _KDA in shapes:
        return _kimi_delta(metadata)
    if "ssm_conv1d.weight" not in shapes:
        unknown = next((name for name in shapes if name.startswith("ssm_") or "time_mix" in name), None)
        if unknown is not None:
            raise UnsupportedModelError(
                f"{metadata.where}: {unknown}: a recurrence of {metadata.architecture} without ssm_conv1d, which is "
                "not understood in this version, so no number is given"
            )
        return None
    return _scanned(metadata)


def _scanned(metadata: Metadata) -> Attention:
    """Return a state space (Mamba 1 and 2) or a gated delta network, which share their keys."""
    inner, state = metadata.integer("ssm.inner_size"), metadata.integer("ssm.state_size")
    kernel, steps = metadata.integer("ssm.conv_kernel"), metadata.integer("ssm.time_step_rank")
    groups = metadata.optional("ssm.group_count") or 0
    width = inner // max(1, steps)
    if metadata.architecture in DELTA:
        return LinearAttention(
            num_key_heads=groups, num_value_heads=steps, key_head_dim=state, value_head_dim=width, conv_kernel=kernel
        )
    if groups:  # Mamba 2: one step size per head
        return StateSpace(num_heads=steps, head_dim=width, state_size=state, conv_kernel=kernel, num_groups=groups)
    return StateSpace(num_heads=inner, head_dim=1, state_size=state, conv_kernel=kernel, num_groups=0)


def _wkv(metadata: Metadata) -> Recurrence:
    """Return RWKV's state: ``embedding_length * wkv.head_size`` elements, and the inputs of earlier tokens."""
    size, width = metadata.integer("wkv.head_size"), metadata.integer("embedding_length")
    shifts = metadata.integer("token_shift_count", TOKEN_SHIFTS)
    if size == 0 or width % size:
        raise metadata.wrong("wkv.head_size", f"a divisor of embedding_length ({width})")
    return Recurrence(
        num_heads=width // size, width=width, state_elements=width * size, previous_elements=shifts * width
    )


def _short_convolution(metadata: Metadata) -> ShortConvolution:
    """Return LFM2's gated short convolution: its last inputs, and no other state."""
    kernel = metadata.integer("shortconv.l_cache")
    return ShortConvolution(width=metadata.integer("embedding_length"), conv_kernel=kernel)


def _kimi_delta(metadata: Metadata) -> LinearAttention:
    """Return Kimi's delta attention: a square matrix per head, and convolutions over queries, keys and values."""
    heads, width = metadata.integer("attention.head_count"), metadata.integer("kda.head_dim")
    return LinearAttention(
        num_key_heads=heads,
        num_value_heads=heads,
        key_head_dim=width,
        value_head_dim=width,
        conv_kernel=metadata.integer("ssm.conv_kernel"),
    )
