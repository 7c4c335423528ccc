"""MobileNet-V5 as Gemma 3n sees with it: one network of fixed sizes, ``mobilenetv5_300m_enc``.

Source: huggingface/pytorch-image-models:timm/models/mobilenetv5.py, 1.0.31, ``mobilenetv5_300m_enc``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from vramfit.formats import Role
from vramfit.readers.families.decoder import Tensors, norm
from vramfit.spec import Tensor

NAME = "mobilenetv5_300m_enc"
STEM, COLOURS, OUT = 64, 3, 2048
"""Channels behind the first convolution, of the image, and of what the tower gives."""
EDGES, EDGE_RATIO, EDGE_CHANNELS = 3, 4, 128
"""Blocks of the first stage, how much wider they are inside, and their channels."""
FUSED_RATIO = 2
"""How much wider the network is that joins the last two stages."""

Bottleneck = tuple[int, int, int]
"""Kernel before, kernel inside (0 = none), and how much wider the block is inside."""
Stage = tuple[int, tuple[Bottleneck, ...], int, tuple[int, int, bool]]
"""Channels, blocks, pairs of attention and a block, (heads, width of one, whether keys come from half the image)."""
STAGES: tuple[Stage, ...] = (
    (256, ((3, 5, 6), (5, 0, 4), (3, 0, 4), (5, 0, 4), (3, 0, 4)), 0, (0, 0, False)),
    (640, ((5, 5, 6), *((5, 0, 4),) * 7, (0, 0, 1)), 14, (12, 64, True)),
    (1280, ((5, 5, 6),), 19, (16, 96, False)),
)
PAIRED: Bottleneck = (0, 0, 2)


@cache
def tower(prefix: str) -> Tensors:
    """Return every tensor of the tower, made once: nothing in it depends on a configuration."""
    return (
        *_convolution(f"{prefix}conv_stem.conv", STEM, COLOURS, 3),
        Tensor(name=f"{prefix}conv_stem.conv.bias", shape=(STEM,), role=Role.BIAS),
        *norm(f"{prefix}conv_stem.bn", STEM),
        *_edges(f"{prefix}blocks.0."),
        *(t for i in range(len(STAGES)) for t in _stage(f"{prefix}blocks.{i + 1}.", i)),
        *_fusion(f"{prefix}msfa."),
    )


def _convolution(name: str, out: int, into: int, kernel: int = 1) -> Tensors:
    shape = (out, into, kernel, kernel)
    return (Tensor(name=f"{name}.weight", shape=shape, role=Role.CONVOLUTION),)


def _edges(prefix: str) -> Iterator[Tensor]:
    into = STEM
    for i in range(EDGES):
        wide = EDGE_RATIO * into
        yield from _convolution(f"{prefix}{i}.conv_exp", wide, into, 3)
        yield from norm(f"{prefix}{i}.bn1", wide)
        yield from _convolution(f"{prefix}{i}.conv_pwl", EDGE_CHANNELS, wide)
        yield from norm(f"{prefix}{i}.bn2", EDGE_CHANNELS)
        into = EDGE_CHANNELS


def _stage(prefix: str, number: int) -> Iterator[Tensor]:
    channels, blocks, pairs, attention = STAGES[number]
    into = STAGES[number - 1][0] if number else EDGE_CHANNELS
    for i, block in enumerate(blocks):
        yield from _bottleneck(f"{prefix}{i}.", block, into, channels)
        into = channels
    for i in range(len(blocks), len(blocks) + 2 * pairs, 2):
        yield from _attention(f"{prefix}{i}.", attention, channels)
        yield from _bottleneck(f"{prefix}{i + 1}.", PAIRED, channels, channels)


def _bottleneck(prefix: str, block: Bottleneck, into: int, channels: int) -> Iterator[Tensor]:
    """Yield an inverted residual: depthwise, widen, depthwise, narrow."""
    before, inside, ratio = block
    wide = ratio * into
    if before:
        yield from _normed(f"{prefix}dw_start", into, 1, before)
    yield from _normed(f"{prefix}pw_exp", wide, into)
    if inside:
        yield from _normed(f"{prefix}dw_mid", wide, 1, inside)
    yield from _normed(f"{prefix}pw_proj", channels, wide)
    yield _scale(prefix, channels)


def _normed(name: str, out: int, into: int, kernel: int = 1) -> Tensors:
    return (*_convolution(f"{name}.conv", out, into, kernel), *norm(f"{name}.bn", out))


def _attention(prefix: str, facts: tuple[int, int, bool], channels: int) -> Iterator[Tensor]:
    """Yield attention with one key and value head for all."""
    heads, width, halved = facts
    yield from norm(f"{prefix}norm", channels)
    yield from _convolution(f"{prefix}attn.query.proj", heads * width, channels)
    for name in ("key", "value"):
        if halved:
            yield from _convolution(f"{prefix}attn.{name}.down_conv", channels, 1, 3)
            yield from norm(f"{prefix}attn.{name}.norm", channels)
        yield from _convolution(f"{prefix}attn.{name}.proj", width, channels)
    yield from _convolution(f"{prefix}attn.output.proj", channels, heads * width)
    yield _scale(prefix, channels)


def _scale(prefix: str, channels: int) -> Tensor:
    return Tensor(name=f"{prefix}layer_scale.gamma", shape=(channels,), role=Role.NORM)


def _fusion(prefix: str) -> Tensors:
    """Return the network over the last two stages' channels, side by side."""
    into = STAGES[-2][0] + STAGES[-1][0]
    return (
        *_normed(f"{prefix}ffn.pw_exp", FUSED_RATIO * into, into),
        *_normed(f"{prefix}ffn.pw_proj", OUT, FUSED_RATIO * into),
        *norm(f"{prefix}norm", OUT),
    )
