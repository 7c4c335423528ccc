"""Autoencoders of residual blocks: images (AutoencoderKL, FLUX.2's), and videos (HunyuanVideo, CogVideoX).

Source: huggingface/diffusers@v0.42.1:src/diffusers/models/autoencoders/, one file per class.
"""

from __future__ import annotations

from math import log2

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.pipeline import Autoencoder
from vramfit.readers.diffusion.block import (
    Anatomy,
    Tensors,
    attention,
    bounded,
    convolution,
    count,
    integers,
    norm,
    one_of,
    resnet,
    under,
    yes,
)
from vramfit.readers.fields import Fields
from vramfit.spec import Tensor

VIDEO = (3, 3, 3)
CAUSAL = ".conv"
"""Name of the layer inside a causal convolution."""


def _levels(fields: Fields, down: str, up: str) -> tuple[int, ...]:
    """Return channels per level; every block must be of the usual kind."""
    channels = integers(fields, "block_out_channels")
    for name, kind in (("down_block_types", down), ("up_block_types", up)):
        kinds = fields.values.get(name)
        if not channels or not isinstance(kinds, list | tuple) or len(kinds) != len(channels):
            raise InvalidValueError(fields.at(name), kinds, f"a list of {len(channels)} block types, one per level")
        for value in kinds:
            one_of(Fields({name: value}, fields.path), name, (kind,))
    bounded(fields, "layers_per_block", 2 * len(channels) * (count(fields, "layers_per_block") + 2))
    return channels


def _facts(fields: Fields, channels: tuple[int, ...], temporal: int = 1) -> Autoencoder:
    return Autoencoder(
        latent_channels=fields.integer("latent_channels"),
        spatial_ratio=2 ** (len(channels) - 1),
        temporal_ratio=temporal,
        block_out_channels=channels,
        layers_per_block=count(fields, "layers_per_block"),
    )


def _middle(width: int, *, attends: bool, kernel: tuple[int, ...] = (3, 3), conv: str = "") -> Tensors:
    """Return two residual blocks with attention over all pixels between them."""
    mixing = (
        *norm("mid_block.attentions.0.group_norm", width, bias=True),
        *attention("mid_block.attentions.0", width, width),
    )
    return (
        *(mixing if attends else ()),
        *(t for i in range(2) for t in resnet(f"mid_block.resnets.{i}", width, width, kernel=kernel, conv=conv)),
    )


def _encoder(
    fields: Fields, channels: tuple[int, ...], *, attends: bool, kernel: tuple[int, ...], conv: str
) -> Tensors:
    """Return the half that runs from pixels to latents; it writes a mean and a variance."""
    last, latent = channels[-1], fields.integer("latent_channels")
    inner = convolution(f"conv_in{conv}", channels[0], fields.integer("in_channels"), kernel)
    ends = (*norm("conv_norm_out", last, bias=True), *convolution(f"conv_out{conv}", 2 * latent, last, kernel))
    blocks = _blocks(channels, count(fields, "layers_per_block"), ("down_blocks", "downsamplers"), kernel, conv)
    return under("encoder", (*inner, *blocks, *_middle(last, attends=attends, kernel=kernel, conv=conv), *ends))


def _decoder(
    fields: Fields, channels: tuple[int, ...], *, attends: bool, kernel: tuple[int, ...], conv: str
) -> Tensors:
    """Return the half that runs from latents to pixels: one residual block more per level."""
    coarse, fine = channels[-1], channels[0]
    inner = convolution(f"conv_in{conv}", coarse, fields.integer("latent_channels"), kernel)
    ends = (
        *norm("conv_norm_out", fine, bias=True),
        *convolution(f"conv_out{conv}", fields.integer("out_channels"), fine, kernel),
    )
    layers = count(fields, "layers_per_block") + 1
    blocks = _blocks(tuple(reversed(channels)), layers, ("up_blocks", "upsamplers"), kernel, conv)
    return under("decoder", (*inner, *blocks, *_middle(coarse, attends=attends, kernel=kernel, conv=conv), *ends))


def _blocks(
    channels: tuple[int, ...], layers: int, names: tuple[str, str], kernel: tuple[int, ...], conv: str
) -> Tensors:
    """Return levels of residual blocks; all but the last change the resolution."""
    block, sampler = names
    found: list[Tensors] = []
    inputs = channels[0]
    for i, width in enumerate(channels):
        for j in range(layers):
            found.append(resnet(f"{block}.{i}.resnets.{j}", inputs, width, kernel=kernel, conv=conv))
            inputs = width
        if i < len(channels) - 1:
            found.append(convolution(f"{block}.{i}.{sampler}.0.conv{conv}", width, width, kernel))
    return tuple(t for tensors in found for t in tensors)


def _between(fields: Fields, kernel: tuple[int, ...] = (1, 1)) -> Tensors:
    """Return the convolutions of one pixel on either side of the latents."""
    latent = fields.integer("latent_channels")
    first, second = (name in fields.values and yes(fields, name) for name in ("use_quant_conv", "use_post_quant_conv"))
    return (
        *(convolution("quant_conv", 2 * latent, 2 * latent, kernel) if first else ()),
        *(convolution("post_quant_conv", latent, latent, kernel) if second else ()),
    )


def image(fields: Fields) -> Anatomy:
    """Read AutoencoderKL: Stable Diffusion's, FLUX.1's and most others'."""
    channels, attends = (
        _levels(fields, "DownEncoderBlock2D", "UpDecoderBlock2D"),
        yes(fields, "mid_block_add_attention"),
    )
    tensors = (
        *_encoder(fields, channels, attends=attends, kernel=(3, 3), conv=""),
        *_decoder(fields, channels, attends=attends, kernel=(3, 3), conv=""),
        *_between(fields),
    )
    return Anatomy(tensors=tensors, facts=_facts(fields, channels))


def flux2(fields: Fields) -> Anatomy:
    """Read FLUX.2's: AutoencoderKL, and the running mean and variance of folded latents."""
    found, (rows, columns) = image(fields), integers(fields, "patch_size", largest=64)
    width = rows * columns * fields.integer("latent_channels")
    tracked = (("bn.running_mean", (width,)), ("bn.running_var", (width,)), ("bn.num_batches_tracked", ()))
    buffers = tuple(Tensor(name=name, shape=shape, role=Role.NORM, buffer=True) for name, shape in tracked)
    return Anatomy(tensors=(*found.tensors, *buffers), facts=found.facts)


def hunyuan_video(fields: Fields) -> Anatomy:
    """Read HunyuanVideo's: AutoencoderKL over three axes."""
    channels = _levels(fields, "HunyuanVideoDownBlock3D", "HunyuanVideoUpBlock3D")
    attends, ratio = yes(fields, "mid_block_add_attention"), fields.integer("temporal_compression_ratio", largest=64)
    one_of(fields, "spatial_compression_ratio", (2 ** (len(channels) - 1),))
    latent = fields.integer("latent_channels")
    tensors = (
        *_encoder(fields, channels, attends=attends, kernel=VIDEO, conv=CAUSAL),
        *_decoder(fields, channels, attends=attends, kernel=VIDEO, conv=CAUSAL),
        *convolution("quant_conv", 2 * latent, 2 * latent, (1, 1, 1)),
        *convolution("post_quant_conv", latent, latent, (1, 1, 1)),
    )
    return Anatomy(tensors=tensors, facts=_facts(fields, channels, ratio))


def cogvideox(fields: Fields) -> Anatomy:
    """Read CogVideoX's: causal over time, the decoder's norms look at the latents."""
    channels = _levels(fields, "CogVideoXDownBlock3D", "CogVideoXUpBlock3D")
    latent, layers = fields.integer("latent_channels"), count(fields, "layers_per_block")
    encoder = (
        *convolution("conv_in.conv", channels[0], fields.integer("in_channels"), VIDEO),
        *_cog_blocks(channels, layers, ("down_blocks", "downsamplers"), 0),
        *(t for i in range(2) for t in _cog_resnet(f"mid_block.resnets.{i}", channels[-1], channels[-1], 0)),
        *norm("norm_out", channels[-1], bias=True),
        *convolution("conv_out.conv", 2 * latent, channels[-1], VIDEO),
    )
    decoder = (
        *convolution("conv_in.conv", channels[-1], latent, VIDEO),
        *(t for i in range(2) for t in _cog_resnet(f"mid_block.resnets.{i}", channels[-1], channels[-1], latent)),
        *_cog_blocks(tuple(reversed(channels)), layers + 1, ("up_blocks", "upsamplers"), latent),
        *_cog_norm("norm_out", channels[0], latent),
        *convolution("conv_out.conv", fields.integer("out_channels"), channels[0], VIDEO),
    )
    ratio = fields.integer("temporal_compression_ratio", largest=64)
    if log2(ratio) % 1:
        raise InvalidValueError(fields.at("temporal_compression_ratio"), ratio, "a power of two")
    tensors = (*under("encoder", encoder), *under("decoder", decoder), *_between(fields, (1, 1, 1)))
    return Anatomy(tensors=tensors, facts=_facts(fields, channels, ratio))


def _cog_blocks(channels: tuple[int, ...], layers: int, names: tuple[str, str], latent: int) -> Tensors:
    block, sampler = names
    found: list[Tensors] = []
    inputs = channels[0]
    for i, width in enumerate(channels):
        for j in range(layers):
            found.append(_cog_resnet(f"{block}.{i}.resnets.{j}", inputs, width, latent))
            inputs = width
        if i < len(channels) - 1:  # frames one by one, hence two axes
            found.append(convolution(f"{block}.{i}.{sampler}.0.conv", width, width, (3, 3)))
    return tuple(t for tensors in found for t in tensors)


def _cog_resnet(name: str, inputs: int, outputs: int, latent: int) -> Tensors:
    shortcut = convolution(f"{name}.conv_shortcut", outputs, inputs, (1, 1, 1)) if inputs != outputs else ()
    return (
        *_cog_norm(f"{name}.norm1", inputs, latent),
        *_cog_norm(f"{name}.norm2", outputs, latent),
        *convolution(f"{name}.conv1.conv", outputs, inputs, VIDEO),
        *convolution(f"{name}.conv2.conv", outputs, outputs, VIDEO),
        *shortcut,
    )


def _cog_norm(name: str, width: int, latent: int) -> Tensors:
    """Return a group norm, in the decoder with a scale and a shift made of the latents."""
    if not latent:
        return norm(name, width, bias=True)
    return (
        *norm(f"{name}.norm_layer", width, bias=True),
        *convolution(f"{name}.conv_y.conv", width, latent, (1, 1, 1)),
        *convolution(f"{name}.conv_b.conv", width, latent, (1, 1, 1)),
    )
