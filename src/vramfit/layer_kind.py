"""What a layer does: how it mixes tokens and how it transforms them, each a small value with its own facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from vramfit.formats import StorageFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedQuery:
    """Softmax attention that caches one key and one value vector per token and KV head.

    Multi-head (as many KV heads as heads) and multi-query (one) attention are special cases.
    """

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    window_tokens: int | None = None
    """Sliding window; None = attends to everything."""
    causal: bool = True
    """False for encoders, which keep no cache."""
    v_head_dim: int | None = None
    """Width of a value vector where it differs from the key's; None = ``head_dim``."""
    shares_cache: bool = False
    """True: reads the cache of an earlier layer and keeps none of its own (cross-layer sharing)."""
    index_head_dim: int = 0
    """Width of the key that a sparse-attention index keeps of every token (MiniMax-M3); 0 = there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttention:
    """Attention to another stream: the encoder's output, or an image; its keys and values are kept, and never grow."""

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    source_tokens: int | None = None
    """Tokens of the other stream where the architecture fixes them (Whisper: 1,500); None = the prompt's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Multi-head latent attention (DeepSeek V2 and V3): caches one compressed vector per token."""

    num_attention_heads: int
    kv_lora_rank: int
    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None
    """Rank of the compressed query; None = the query is not compressed."""
    index_head_dim: int = 0
    """Width of the key that a sparse-attention index keeps of every token (DeepSeek V3.2); 0 = there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """Attention to earlier tokens by the block: so many of them become one vector (DeepSeek V4), beside a window."""

    num_attention_heads: int
    head_dim: int
    """Width of the vector that a block becomes, key and value at once, shared by all heads."""
    block_tokens: int
    """Tokens that become one vector."""
    overlaps: bool
    """True: a block is made of the tokens of the one before it too, which doubles what it is computed from."""
    index_head_dim: int = 0
    """Width of the key that a sparse index keeps of every block; 0 = all blocks are attended to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpace:
    """Mamba 1 and 2, RG-LRU: a recurrent state per sequence that does not grow with the context."""

    num_heads: int
    """Mamba 2 heads; for Mamba 1 and RG-LRU the inner width, with ``head_dim`` 1."""
    head_dim: int
    state_size: int
    """Elements of state per channel; RG-LRU has one."""
    conv_kernel: int
    num_groups: int
    """Groups of B and C that pass the convolution with x (Mamba 2); 0 = only x does (Mamba 1)."""
    state_format: StorageFormat | None = None
    """Format in which the configuration or the family's own code keeps the state; None = neither says, hence fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttention:
    """Gated delta networks, Kimi delta attention, lightning attention: one matrix of state per value head."""

    num_key_heads: int
    num_value_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_kernel: int
    """0 = queries, keys and values pass no convolution (lightning attention)."""
    state_format: StorageFormat | None = None
    """Format in which the configuration or the family's own code keeps the state; None = neither says, hence fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConvolution:
    """Gated short convolution (LFM2): keeps its last inputs, and no other state."""

    width: int
    conv_kernel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """RWKV and xLSTM: states that are more than one matrix, and what is left of the token before."""

    num_heads: int
    width: int
    """Channels of all heads together."""
    state_elements: int
    """Elements of state of all heads together, of one sequence."""
    state_format: StorageFormat | None = None
    """Format in which the configuration or the family's own code keeps the state; None = neither says, hence fp32."""
    previous_elements: int = 0
    """Inputs of the token before that RWKV mixes into the next, in the model's format and whole on every rank."""


Recurrent: TypeAlias = StateSpace | LinearAttention | ShortConvolution | Recurrence
"""Mixers that keep a state of fixed size and no tokens."""
Attention: TypeAlias = GroupedQuery | CrossAttention | Latent | Compressed | Recurrent


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """One feed-forward network for all tokens."""

    intermediate_size: int
    gated: bool = True
    """True for gate and up projections side by side (SwiGLU, GeGLU)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Mixture of experts: a router sends each token to a few of many small networks."""

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_intermediate_size: int = 0
    """Width of the experts every token passes, all together; 0 = there are none."""
    gated: bool = True
    latent_size: int | None = None
    """Width at which routed experts read and write (Nemotron 3 Super and Ultra); None = the hidden size."""


FeedForward: TypeAlias = Dense | Experts
