"""Recurrent state: what state-space, linear-attention and other recurrent layers keep per sequence, at any length.

So do layers that compress blocks of tokens: the tokens of the block that is not finished yet.
"""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.engine import EngineProfile
from vramfit.formats import FP16, FP32
from vramfit.layer_kind import (
    Attention,
    Compressed,
    LinearAttention,
    Recurrence,
    Recurrent,
    ShortConvolution,
    StateSpace,
)
from vramfit.request import Inference
from vramfit.result import Basis, Item, Phase
from vramfit.shard import Shard
from vramfit.units import count_of

SOURCES = {
    "state_space": "arXiv:2405.21060, sec. 7",
    "linear_attention": "arXiv:2412.06464",
    "short_convolution": "huggingface/transformers:src/transformers/models/lfm2/modeling_lfm2.py, Lfm2ShortConv",
    "recurrence": "arXiv:2305.13048, sec. 3; arXiv:2503.14456; arXiv:2503.13427",
}


def state_elements(layer: Recurrent) -> int:
    """Elements of the recurrent state of one layer and sequence. [elements]

        state space:       num_heads * head_dim * state_size
        linear attention:  num_value_heads * value_head_dim * key_head_dim
        short convolution: none
        recurrence:        as its family counts them

    Source: Dao and Gu 2024, arXiv:2405.21060, sec. 7 (Mamba 2; Mamba 1 with head_dim 1, arXiv:2312.00752);
    Yang et al. 2024, arXiv:2412.06464 (gated delta networks).

    >>> state_elements(StateSpace(num_heads=128, head_dim=64, state_size=128, conv_kernel=4, num_groups=8))
    1048576
    """
    match layer:
        case StateSpace():
            return layer.num_heads * layer.head_dim * layer.state_size
        case LinearAttention():
            return layer.num_value_heads * layer.value_head_dim * layer.key_head_dim
        case ShortConvolution():
            return 0
        case Recurrence():
            return layer.state_elements


def convolution_channels(layer: Recurrent) -> int:
    """Channels that pass a layer's short convolution. [elements]

    state space:       num_heads * head_dim + 2 * num_groups * state_size
    linear attention:  2 * num_key_heads * key_head_dim + num_value_heads * value_head_dim
    short convolution: width
    recurrence:        none
    """
    match layer:
        case StateSpace():
            return layer.num_heads * layer.head_dim + 2 * layer.num_groups * layer.state_size
        case LinearAttention():
            return 2 * layer.num_key_heads * layer.key_head_dim + layer.num_value_heads * layer.value_head_dim
        case ShortConvolution():
            return layer.width
        case Recurrence():
            return 0


def carried_elements(layer: Recurrent) -> int:
    """Inputs of earlier tokens that one layer still needs of one sequence, in the model's format. [elements]

        with a convolution: channels * conv_kernel
        recurrence:         previous_elements (RWKV mixes the token before into the next)

    transformers keeps ``conv_kernel`` inputs, vLLM, llama.cpp and RecurrentGemma one less; the larger is counted.
    """
    if isinstance(layer, Recurrence):
        return layer.previous_elements
    return convolution_channels(layer) * layer.conv_kernel


def unfinished_elements(layer: Compressed) -> int:
    """Elements of the block of tokens that is not finished yet, one layer and sequence. [elements]

        2 * n * block_tokens * n * (head_dim + index_head_dim)     n = 2 if blocks overlap, else 1

    2: every token's vector and its score; with overlap the block before is kept too, at twice the width.
    Source: deepseek-ai/DeepSeek-V4-Pro:inference/model.py, Compressor.kv_state and score_state, both fp32.

    >>> unfinished_elements(Compressed(num_attention_heads=64, head_dim=512, block_tokens=128, overlaps=False))
    131072
    """
    times = 2 if layer.overlaps else 1
    return 2 * times * layer.block_tokens * times * (layer.head_dim + layer.index_head_dim)


def recurrent_state(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the state of one rank's recurrent layers. [B]

        (state elements * bytes of their format + carried elements * bytes of the model's format) * sequences * layers

    The state is kept as the model says, else in fp32 (expected), or in 16 bit by runtimes that then take the
    model's format (low); fp32 always is the upper bound. Flat in context, linear in sequences.
    """
    del engine
    plain = shard.model.scheme.plain
    for facts, count in ((mixer, count) for layer, count in shard.model.groups for mixer in layer.mixers):
        if isinstance(facts, Compressed):
            yield _unfinished(facts, count, workload)
        if not isinstance(facts, Recurrent):
            continue
        said = None if isinstance(facts, ShortConvolution) else facts.state_format
        state, carried, copies = state_elements(facts), carried_elements(facts), count * workload.batch
        inputs, fmt, kind = plain.bytes_for(carried), said or FP32, recurrent_kind(facts)
        yield Item(
            name=f"recurrent_state/{kind}",
            bytes=(fmt.bytes_for(state) + inputs) * copies,
            low_bytes=((said or FP16).bytes_for(state) + min(inputs, FP16.bytes_for(carried))) * copies,
            high_bytes=(FP32.bytes_for(state) + inputs) * copies,
            phases=(Phase.PREFILL, Phase.SAMPLE, Phase.DECODE),
            basis=Basis.DERIVED,
            formula=f"({state:,} x {fmt.bytes_for(1)} B + {carried:,} x {plain.bytes_for(1)} B)"
            f" x {count_of(count, 'layer')} x {count_of(workload.batch, 'sequence')}, whatever the context",
            source=SOURCES[kind],
        )


def recurrent_kind(mixer: Attention) -> str:
    """Name the kind of state for people: ``state_space``, ``linear_attention`` ..."""
    match mixer:
        case StateSpace():
            return "state_space"
        case LinearAttention():
            return "linear_attention"
        case ShortConvolution():
            return "short_convolution"
        case _:
            return "recurrence"


def _unfinished(facts: Compressed, count: int, workload: Inference) -> Item:
    """Return the unfinished blocks of equal layers, in fp32 (expected, high) or in 16 bit (low)."""
    elements = unfinished_elements(facts) * count * workload.batch
    return Item(
        name="recurrent_state/unfinished_blocks",
        bytes=4 * elements,
        low_bytes=2 * elements,
        high_bytes=4 * elements,
        phases=(Phase.PREFILL, Phase.SAMPLE, Phase.DECODE),
        basis=Basis.DERIVED,
        formula=f"{unfinished_elements(facts):,} x 4 B x {count_of(count, 'layer')}"
        f" x {count_of(workload.batch, 'sequence')}, for the last {facts.block_tokens} tokens of any context",
        source="deepseek-ai/DeepSeek-V4-Pro:inference/model.py, Compressor.kv_state",
    )
