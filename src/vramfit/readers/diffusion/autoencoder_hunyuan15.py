"""HunyuanVideo 1.5's autoencoder: pixels are folded into channels as the resolution falls.

Source: huggingface/diffusers@v0.42.1:src/diffusers/models/autoencoders/autoencoder_kl_hunyuanvideo15.py.
"""

from __future__ import annotations

from vramfit.pipeline import Autoencoder
from vramfit.readers.diffusion.block import (
    Anatomy,
    Tensors,
    bounded,
    convolution,
    count,
    integers,
    one_of,
    table,
    under,
)
from vramfit.readers.fields import Fields

VIDEO, POINT = (3, 3, 3), (1, 1, 1)
IN_SPACE, IN_ALL = 4, 8
"""Values folded together where rows and columns are halved, and where frames are too."""


def hunyuan_video15(fields: Fields) -> Anatomy:
    """Read the autoencoder; every level but the coarsest halves rows and columns."""
    channels, layers = integers(fields, "block_out_channels"), count(fields, "layers_per_block")
    bounded(fields, "layers_per_block", 2 * len(channels) * (layers + 2))
    one_of(fields, "spatial_compression_ratio", (2 ** (len(channels) - 1),))
    halves = one_of(fields, "temporal_compression_ratio", tuple(2**n for n in range(len(channels)))).bit_length() - 1
    latent, colours = fields.integer("latent_channels"), (fields.integer("in_channels"), fields.integer("out_channels"))
    down = [IN_ALL if i >= len(channels) - 1 - halves else IN_SPACE for i in range(len(channels) - 1)]
    up = [IN_ALL if i < halves else IN_SPACE for i in range(len(channels) - 1)]
    tensors = (
        *under("encoder", _encoder(channels, layers, (colours[0], 2 * latent), down)),
        *under("decoder", _decoder(channels[::-1], layers + 1, (latent, colours[1]), up)),
    )
    facts = Autoencoder(
        latent_channels=latent,
        spatial_ratio=2 ** (len(channels) - 1),
        temporal_ratio=2**halves,
        block_out_channels=channels,
        layers_per_block=layers,
    )
    return Anatomy(tensors=tensors, facts=facts)


def _encoder(channels: tuple[int, ...], layers: int, ends: tuple[int, int], folds: list[int]) -> Tensors:
    found = [convolution("conv_in.conv", channels[0], ends[0], VIDEO)]
    for i, width in enumerate(channels):
        found.extend(_resnet(f"down_blocks.{i}.resnets.{j}", width) for j in range(layers))
        if i < len(channels) - 1:
            folded = max(1, channels[i + 1] // folds[i])
            found.append(convolution(f"down_blocks.{i}.downsamplers.0.conv.conv", folded, width, VIDEO))
    found.extend((_middle(channels[-1]), _out(channels[-1], ends[1])))
    return tuple(t for tensors in found for t in tensors)


def _decoder(channels: tuple[int, ...], layers: int, ends: tuple[int, int], folds: list[int]) -> Tensors:
    found = [convolution("conv_in.conv", channels[0], ends[0], VIDEO), _middle(channels[0])]
    for i, width in enumerate(channels):
        found.extend(_resnet(f"up_blocks.{i}.resnets.{j}", width) for j in range(layers))
        if i < len(channels) - 1:
            folded = channels[i + 1] * folds[i]
            found.append(convolution(f"up_blocks.{i}.upsamplers.0.conv.conv", folded, width, VIDEO))
    found.append(_out(channels[-1], ends[1]))
    return tuple(t for tensors in found for t in tensors)


def _resnet(name: str, width: int) -> Tensors:
    return tuple(
        t
        for n in (1, 2)
        for t in (
            *table(f"{name}.norm{n}.gamma", width, 1, 1, 1),
            *convolution(f"{name}.conv{n}.conv", width, width, VIDEO),
        )
    )


def _middle(width: int) -> Tensors:
    at = "mid_block.attentions.0"
    return (
        *table(f"{at}.norm.gamma", width, 1, 1, 1),
        *(t for n in ("to_q", "to_k", "to_v", "proj_out") for t in convolution(f"{at}.{n}", width, width, POINT)),
        *(t for i in range(2) for t in _resnet(f"mid_block.resnets.{i}", width)),
    )


def _out(width: int, outputs: int) -> Tensors:
    return (*table("norm_out.gamma", width, 1, 1, 1), *convolution("conv_out.conv", outputs, width, VIDEO))
