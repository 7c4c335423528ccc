"""Recurrent state: what state-space and linear-attention layers keep per sequence, whatever its length."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.engine import EngineProfile
from vramfit.request import Inference
from vramfit.result import Basis, Item, Phase
from vramfit.shard import Shard
from vramfit.spec import LinearAttention, StateSpace
from vramfit.units import count_of


def state_elements(layer: StateSpace | LinearAttention) -> int:
    """Elements of the recurrent matrix of one layer and sequence. [elements]

        state space:       num_heads * head_dim * state_size
        linear attention:  num_value_heads * value_head_dim * key_head_dim

    Source: Dao and Gu 2024, arXiv:2405.21060, sec. 7 (Mamba 2; Mamba 1 with head_dim 1, arXiv:2312.00752);
    Yang et al. 2024, arXiv:2412.06464 (gated delta networks).

    >>> state_elements(StateSpace(num_heads=128, head_dim=64, state_size=128, conv_kernel=4, num_groups=8))
    1048576
    """
    if isinstance(layer, StateSpace):
        return layer.num_heads * layer.head_dim * layer.state_size
    return layer.num_value_heads * layer.value_head_dim * layer.key_head_dim


def convolution_elements(layer: StateSpace | LinearAttention) -> int:
    """Elements of the last inputs that the short convolution still needs, one layer and sequence. [elements]

        channels * conv_kernel
        state space channels:      num_heads * head_dim + 2 * num_groups * state_size
        linear attention channels: 2 * num_key_heads * key_head_dim + num_value_heads * value_head_dim

    Runtimes keep ``conv_kernel`` or one less inputs; the larger is counted.
    """
    if isinstance(layer, StateSpace):
        channels = layer.num_heads * layer.head_dim + 2 * layer.num_groups * layer.state_size
    else:
        channels = 2 * layer.num_key_heads * layer.key_head_dim + layer.num_value_heads * layer.value_head_dim
    return channels * layer.conv_kernel


def recurrent_state(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the state of one rank's recurrent layers. [B]

        (state elements * 4 + convolution elements * 2) * sequences * layers

    The matrix is kept in fp32 (expected and high) or, in some runtimes, in 16 bit (low); the
    convolution's inputs in the model's 16-bit format. Flat in context, linear in sequences.
    """
    del engine
    for facts, count in ((mixer, count) for layer, count in shard.model.groups for mixer in layer.mixers):
        if not isinstance(facts, StateSpace | LinearAttention):
            continue
        state, convolution = state_elements(facts), convolution_elements(facts)
        size = (4 * state + 2 * convolution) * count * workload.batch
        yield Item(
            name=f"recurrent_state/{'state_space' if isinstance(facts, StateSpace) else 'linear_attention'}",
            bytes=size,
            low_bytes=2 * (state + convolution) * count * workload.batch,
            high_bytes=size,
            phases=(Phase.PREFILL, Phase.SAMPLE, Phase.DECODE),
            basis=Basis.DERIVED,
            formula=f"({state:,} x 4 B + {convolution:,} x 2 B) x {count_of(count, 'layer')}"
            f" x {count_of(workload.batch, 'sequence')}, whatever the context",
            source="arXiv:2405.21060, sec. 7; arXiv:2412.06464",
        )
