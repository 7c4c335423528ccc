"""The deep-compression autoencoder (DC-AE), which Sana works behind: 32 pixels per latent, attention without softmax.

Source: huggingface/diffusers@v0.42.1:src/diffusers/models/autoencoders/autoencoder_dc.py.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.pipeline import Autoencoder
from vramfit.readers.diffusion.block import (
    Anatomy,
    Tensors,
    bounded,
    convolution,
    integers,
    linear,
    norm,
    one_of,
    under,
)
from vramfit.readers.fields import LARGEST_LAYERS, Fields

SQUARE = (3, 3)
SHUFFLED = 4
"""Pixels that a shuffle folds into channels, or takes out of them."""
EXPANSION = 4
Side = tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...], tuple[tuple[int, ...], ...]]
"""Channels, layers, kinds of block and kernels of each level of one half."""


def deep(fields: Fields) -> Anatomy:
    """Read a DC-AE; the first and last level must have layers of their own, as all published ones do not lack."""
    latent, colours, width = (fields.integer(n) for n in ("latent_channels", "in_channels", "attention_head_dim"))
    encoder, decoder = _side(fields, "encoder"), _side(fields, "decoder")
    shrink = one_of(fields, "downsample_block_type", ("pixel_unshuffle", "conv", "Conv")) == "pixel_unshuffle"
    grow = one_of(fields, "upsample_block_type", ("pixel_shuffle", "interpolate")) == "pixel_shuffle"
    tensors = (
        *under("encoder", _encoder(encoder, (colours, latent), width, shuffles=shrink)),
        *under("decoder", _decoder(decoder, (latent, colours), width, shuffles=grow)),
    )
    facts = Autoencoder(
        latent_channels=latent,
        spatial_ratio=2 ** (len(encoder[0]) - 1),
        block_out_channels=encoder[0],
        layers_per_block=max(encoder[1]),
    )
    return Anatomy(tensors=tensors, facts=facts)


def _side(fields: Fields, half: str) -> Side:
    """Return the levels of one half, the finest first."""
    channels = integers(fields, f"{half}_block_out_channels")
    layers = integers(fields, f"{half}_layers_per_block", largest=LARGEST_LAYERS)
    scales = fields.values.get(f"{half}_qkv_multiscales")
    kinds = fields.values.get(f"{half}_block_types")
    kinds = [kinds] * len(channels) if isinstance(kinds, str) else kinds
    for name, value in (("layers_per_block", layers), ("qkv_multiscales", scales), ("block_types", kinds)):
        if not isinstance(value, list | tuple) or len(value) != len(channels):
            raise InvalidValueError(fields.at(f"{half}_{name}"), value, f"a list of {len(channels)}, one per level")
    bounded(fields, f"{half}_layers_per_block", sum(layers))
    assert isinstance(kinds, list | tuple)
    assert isinstance(scales, list | tuple)
    words = tuple(one_of(Fields({"t": k}, fields.path), "t", ("ResBlock", "EfficientViTBlock")) for k in kinds)
    kernels = tuple(integers(Fields({"k": s}, fields.path), "k", largest=31, empty=True) for s in scales)
    return channels, layers, words, kernels


def _encoder(side: Side, ends: tuple[int, int], head: int, *, shuffles: bool) -> Tensors:
    channels, layers, kinds, kernels = side
    found = [convolution("conv_in", channels[0], ends[0], SQUARE)]
    for i, width in enumerate(channels):
        found.extend(_block(f"down_blocks.{i}.{j}", kinds[i], width, kernels[i], head) for j in range(layers[i]))
        if i < len(channels) - 1:
            after = channels[i + 1] // (SHUFFLED if shuffles else 1)
            found.append(convolution(f"down_blocks.{i}.{layers[i]}.conv", after, width, SQUARE))
    found.append(convolution("conv_out", ends[1], channels[-1], SQUARE))
    return tuple(t for tensors in found for t in tensors)


def _decoder(side: Side, ends: tuple[int, int], head: int, *, shuffles: bool) -> Tensors:
    channels, layers, kinds, kernels = side
    found = [convolution("conv_in", channels[-1], ends[0], SQUARE)]
    for i, width in enumerate(channels):
        rises = i < len(channels) - 1
        if rises:
            wide = width * (SHUFFLED if shuffles else 1)
            found.append(convolution(f"up_blocks.{i}.0.conv", wide, channels[i + 1], SQUARE))
        places = range(rises, layers[i] + rises)
        found.extend(_block(f"up_blocks.{i}.{j}", kinds[i], width, kernels[i], head) for j in places)
    found.append(norm("norm_out", channels[0], bias=True))
    found.append(convolution("conv_out", ends[1], channels[0], SQUARE))
    return tuple(t for tensors in found for t in tensors)


def _block(name: str, kind: str, width: int, kernels: tuple[int, ...], head: int) -> Tensors:
    if kind == "ResBlock":
        plain = (
            *convolution("conv1", width, width, SQUARE),
            *convolution("conv2", width, width, SQUARE, bias=False),
            *norm("norm", width, bias=True),
        )
        return under(name, plain)
    inner = width // head * head
    attention = (
        *(t for n in "qkv" for t in linear(f"to_{n}", inner, width, bias=False)),
        *(t for i, k in enumerate(kernels) for t in _scale(f"to_qkv_multiscale.{i}", inner, head, k)),
        *linear("to_out", width, inner * (1 + len(kernels)), bias=False),
        *norm("norm_out", width, bias=True),
    )
    wide = EXPANSION * width
    network = (
        *convolution("conv_inverted", 2 * wide, width, (1, 1)),
        *convolution("conv_depth", 2 * wide, 1, SQUARE),
        *convolution("conv_point", width, wide, (1, 1), bias=False),
        *norm("norm", width, bias=True),
    )
    return (*under(f"{name}.attn", attention), *under(f"{name}.conv_out", network))


def _scale(name: str, inner: int, head: int, kernel: int) -> Tensors:
    """Return queries, keys and values of a wider neighbourhood."""
    return (
        *convolution(f"{name}.proj_in", 3 * inner, 1, (kernel, kernel), bias=False),
        *convolution(f"{name}.proj_out", 3 * inner, head, (1, 1), bias=False),
    )
