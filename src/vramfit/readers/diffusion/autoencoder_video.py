"""Video autoencoders that are not a 2-D one over three axes: Wan 2.1 and 2.2 (and Qwen-Image's), LTX-Video.

Source: huggingface/diffusers@v0.42.1:src/diffusers/models/autoencoders/autoencoder_kl_wan.py and autoencoder_kl_ltx.py.
"""

from __future__ import annotations

from math import prod

from vramfit.errors import InvalidValueError
from vramfit.pipeline import Autoencoder
from vramfit.readers.diffusion.block import (
    TIME_CHANNELS,
    Anatomy,
    Tensors,
    bounded,
    convolution,
    count,
    integers,
    norm,
    one_of,
    table,
    two_linears,
    under,
    yes,
)
from vramfit.readers.fields import LARGEST_LAYERS, Fields

VIDEO, POINT, TIME = (3, 3, 3), (1, 1, 1), (3, 1, 1)
LTX_BLOCK, LTX_LATER = "LTXVideoDownBlock3D", "LTXVideo095DownBlock3D"
STEPS = {"spatial": (2, 1), "temporal": (1, 2), "spatiotemporal": (2, 2)}
"""Kind of a level of LTX-Video 0.9.5 and later -> by how much it shrinks rows and columns, and frames."""


def _flags(fields: Fields, name: str, num: int) -> tuple[bool, ...]:
    """Return one boolean per level."""
    value = fields.values.get(name)
    if (
        not num
        or not isinstance(value, list | tuple)
        or len(value) < num
        or not all(isinstance(v, bool) for v in value)
    ):
        raise InvalidValueError(fields.at(name), value, f"a list of {num} booleans, one per change of resolution")
    return tuple(value)


def wan(fields: Fields) -> Anatomy:
    """Read Wan's, with levels side by side (2.1) or in residual blocks with a shortcut around each (2.2)."""
    mult, base, latent = integers(fields, "dim_mult", largest=1024), fields.integer("base_dim"), fields.integer("z_dim")
    halves, blocks = _flags(fields, "temperal_downsample", len(mult) - 1), count(fields, "num_res_blocks")
    residual = "is_residual" in fields.values and yes(fields, "is_residual")
    bounded(fields, "num_res_blocks", 2 * len(mult) * (blocks + 2))
    one_of(fields, "attn_scales", ([], (), None))
    outer = fields.optional("decoder_base_dim") or base
    inputs, outputs = fields.integer("in_channels"), fields.integer("out_channels")
    encoder = _wan_encoder((inputs, base, 2 * latent), mult, blocks, halves, residual=residual)
    decoder = _wan_decoder((latent, outer, outputs), mult, blocks, halves[: len(mult) - 1][::-1], residual=residual)
    tensors = (
        *under("encoder", encoder),
        *convolution("quant_conv", 2 * latent, 2 * latent, POINT),
        *convolution("post_quant_conv", latent, latent, POINT),
        *under("decoder", decoder),
    )
    side = fields.optional("patch_size", largest=64) or 1
    facts = Autoencoder(
        latent_channels=latent,
        spatial_ratio=2 ** (len(mult) - 1) * side,
        temporal_ratio=2 ** sum(halves[: len(mult) - 1]),
        block_out_channels=tuple(base * m for m in mult),
        layers_per_block=blocks,
    )
    return Anatomy(tensors=tensors, facts=facts)


def _wan_encoder(
    ends: tuple[int, int, int], mult: tuple[int, ...], blocks: int, halves: tuple[bool, ...], *, residual: bool
) -> Tensors:
    """Return the half from pixels to latents; ``ends``: channels of the input, of the first level, of the output."""
    inputs, base, outputs = ends
    found = [convolution("conv_in", base, inputs, VIDEO)]
    width, number = base, 0
    for i, times in enumerate(mult):
        previous, width = width, base * times
        for j in range(blocks):
            name = f"down_blocks.{i}.resnets.{j}" if residual else f"down_blocks.{number}"
            found.append(_wan_resnet(name, previous, width))
            previous, number = width, number + 1
        if i < len(mult) - 1:
            name = f"down_blocks.{i}.downsampler" if residual else f"down_blocks.{number}"
            found.append(convolution(f"{name}.resample.1", width, width, (3, 3)))
            found.append(convolution(f"{name}.time_conv", width, width, TIME) if halves[i] else ())
            number += 1
    return (*(t for tensors in found for t in tensors), *_wan_middle(width), *_wan_out(width, outputs))


def _wan_decoder(
    ends: tuple[int, int, int], mult: tuple[int, ...], blocks: int, doubles: tuple[bool, ...], *, residual: bool
) -> Tensors:
    """Return the half from latents to pixels, one residual block more per level."""
    latent, base, outputs = ends
    widths = [base * m for m in reversed(mult)]
    found = [convolution("conv_in", widths[0], latent, VIDEO), _wan_middle(widths[0])]
    for i, width in enumerate(widths):
        previous = widths[max(i - 1, 0)] // (1 if residual or i == 0 else 2)
        for j in range(blocks + 1):
            found.append(_wan_resnet(f"up_blocks.{i}.resnets.{j}", previous, width))
            previous = width
        if i < len(widths) - 1:
            name = f"up_blocks.{i}." + ("upsampler" if residual else "upsamplers.0")
            found.append(convolution(f"{name}.resample.1", width if residual else width // 2, width, (3, 3)))
            found.append(convolution(f"{name}.time_conv", 2 * width, width, TIME) if doubles[i] else ())
    return (*(t for tensors in found for t in tensors), *_wan_out(widths[-1], outputs))


def _wan_resnet(name: str, inputs: int, outputs: int) -> Tensors:
    return (
        *table(f"{name}.norm1.gamma", inputs, 1, 1, 1),
        *convolution(f"{name}.conv1", outputs, inputs, VIDEO),
        *table(f"{name}.norm2.gamma", outputs, 1, 1, 1),
        *convolution(f"{name}.conv2", outputs, outputs, VIDEO),
        *(convolution(f"{name}.conv_shortcut", outputs, inputs, POINT) if inputs != outputs else ()),
    )


def _wan_middle(width: int) -> Tensors:
    """Return two residual blocks and attention within each frame."""
    return under(
        "mid_block",
        (
            *table("attentions.0.norm.gamma", width, 1, 1),
            *convolution("attentions.0.to_qkv", 3 * width, width, (1, 1)),
            *convolution("attentions.0.proj", width, width, (1, 1)),
            *(t for i in range(2) for t in _wan_resnet(f"resnets.{i}", width, width)),
        ),
    )


def _wan_out(width: int, outputs: int) -> Tensors:
    return (*table("norm_out.gamma", width, 1, 1, 1), *convolution("conv_out", outputs, width, VIDEO))


def ltx(fields: Fields) -> Anatomy:
    """Read LTX-Video's: it works on folded pixels, and its decoder may finish the denoising."""
    kinds = fields.values.get("down_block_types")
    words = list(kinds) if isinstance(kinds, list | tuple) and kinds else [kinds]
    later = words[-1] == LTX_LATER
    for value in words:
        one_of(
            Fields({"down_block_types": value}, fields.path), "down_block_types", (LTX_LATER if later else LTX_BLOCK,)
        )
    down = integers(fields, "block_out_channels")
    side, latent = fields.integer("patch_size", largest=64), fields.integer("latent_channels")
    levels = len(down) - later
    scaling = _flags(fields, "spatio_temporal_scaling", levels)
    layers = _depths(fields, "layers_per_block", levels + 1)
    steps = _steps(fields, levels) if later else ()
    bounded(fields, "layers_per_block", sum(layers))
    encoder = _ltx_encoder((fields.integer("in_channels") * side**2, latent + 1), down, layers, scaling, steps)
    tensors = (
        *(t for n in ("latents_mean", "latents_std") for t in table(n, latent, buffer=True)),
        *under("encoder", encoder),
        *under("decoder", _ltx_decoder(fields, latent, fields.integer("out_channels") * side**2)),
    )
    strides = steps or ((2, 2),) * levels
    spatial, temporal = ([s[axis] for s, scales in zip(strides, scaling, strict=False) if scales] for axis in (0, 1))
    facts = Autoencoder(
        latent_channels=latent,
        spatial_ratio=side * prod(spatial),
        temporal_ratio=fields.integer("patch_size_t", largest=64) * prod(temporal),
        block_out_channels=down,
        layers_per_block=max(layers),
    )
    return Anatomy(tensors=tensors, facts=facts)


def _depths(fields: Fields, name: str, num: int) -> tuple[int, ...]:
    found = integers(fields, name, largest=LARGEST_LAYERS)
    if len(found) != num:
        raise InvalidValueError(fields.at(name), list(found), f"a list of {num} integers, one per level and the middle")
    return found


def _steps(fields: Fields, num: int) -> tuple[tuple[int, int], ...]:
    """Return by how much each level from 0.9.5 on shrinks rows and columns, and frames."""
    value = fields.values.get("downsample_type")
    if not num or not isinstance(value, list | tuple) or len(value) < num:
        raise InvalidValueError(fields.at("downsample_type"), value, f"a list of {num} words, one per level")
    words = (one_of(Fields({"w": v}, fields.path), "w", tuple(STEPS)) for v in value[:num])
    return tuple(STEPS[word] for word in words)


def _ltx_encoder(
    ends: tuple[int, int],
    channels: tuple[int, ...],
    layers: tuple[int, ...],
    scaling: tuple[bool, ...],
    steps: tuple[tuple[int, int], ...],
) -> Tensors:
    """Return the half from pixels to latents; ``steps``: those of 0.9.5 and later, which fold pixels as they shrink."""
    found = [convolution("conv_in.conv", channels[0], ends[0], VIDEO)]
    width = channels[0]
    for i in range(len(layers) - 1):
        at, after = f"down_blocks.{i}", channels[min(i + 1, len(channels) - 1)]
        found.extend(_ltx_resnet(f"{at}.resnets.{j}", width, width) for j in range(layers[i]))
        if scaling[i] and steps:
            folded = max(1, after // (steps[i][0] ** 2 * steps[i][1]))
            found.append(convolution(f"{at}.downsamplers.0.conv.conv", folded, width, VIDEO))
        elif scaling[i]:
            found.append(convolution(f"{at}.downsamplers.0.conv", width, width, VIDEO))
        found.append(_ltx_resnet(f"{at}.conv_out", width, after) if after != width and not steps else ())
        width = after
    found.extend(_ltx_resnet(f"mid_block.resnets.{j}", width, width) for j in range(layers[-1]))
    found.append(convolution("conv_out.conv", ends[1], width, VIDEO))
    return tuple(t for tensors in found for t in tensors)


def _ltx_decoder(fields: Fields, latent: int, outputs: int) -> Tensors:
    """Return the decoder; every list of its fields runs from the finest level to the middle."""
    channels = integers(fields, "decoder_block_out_channels")[::-1]
    num = len(channels)
    if not num:
        raise InvalidValueError(fields.at("decoder_block_out_channels"), [], "at least one level")
    layers = _depths(fields, "decoder_layers_per_block", num + 1)[::-1]
    bounded(fields, "decoder_layers_per_block", sum(layers))
    scaling = _flags(fields, "decoder_spatio_temporal_scaling", num)[::-1]
    noise = _flags(fields, "decoder_inject_noise", num + 1)[::-1]
    factors = _depths(fields, "upsample_factor", num)[::-1]
    timed, width = yes(fields, "timestep_conditioning"), channels[0]
    found = [convolution("conv_in.conv", width, latent, VIDEO)]
    found.append(_ltx_time("mid_block.time_embedder", 4 * width) if timed else ())
    found.extend(
        _ltx_resnet(f"mid_block.resnets.{j}", width, width, noise=noise[0], timed=timed) for j in range(layers[0])
    )
    for i, factor in enumerate(factors):
        at, before, width = f"up_blocks.{i}", width // factor, channels[i] // factor
        kind = {"noise": noise[i + 1], "timed": timed}
        found.append(_ltx_time(f"{at}.time_embedder", 4 * before) if timed else ())
        found.append(_ltx_resnet(f"{at}.conv_in", before, width, **kind) if before != width else ())
        wide = width * factor
        up = convolution(f"{at}.upsamplers.0.conv.conv", wide * 8 // factor, wide, VIDEO)  # 8: two along each axis
        found.append(up if scaling[i] else ())
        found.extend(_ltx_resnet(f"{at}.resnets.{j}", width, width, **kind) for j in range(layers[i + 1]))
    found.append(convolution("conv_out.conv", outputs, width, VIDEO))
    last = (
        *table("timestep_scale_multiplier"),
        *_ltx_time("time_embedder", 2 * width),
        *table("scale_shift_table", 2, width),
    )
    return (*(t for tensors in found for t in tensors), *(last if timed else ()))


def _ltx_time(name: str, width: int) -> Tensors:
    return two_linears(f"{name}.timestep_embedder", width, TIME_CHANNELS)


def _ltx_resnet(name: str, inputs: int, outputs: int, *, noise: bool = False, timed: bool = False) -> Tensors:
    """Return a residual block without norms of its own, save where the width changes."""
    changes = (
        *norm(f"{name}.norm3", inputs, bias=True),
        *convolution(f"{name}.conv_shortcut.conv", outputs, inputs, POINT),
    )
    return (
        *convolution(f"{name}.conv1.conv", outputs, inputs, VIDEO),
        *convolution(f"{name}.conv2.conv", outputs, outputs, VIDEO),
        *(changes if inputs != outputs else ()),
        *(t for n in (1, 2) if noise for t in table(f"{name}.per_channel_scale{n}", inputs, 1, 1)),
        *(table(f"{name}.scale_shift_table", 4, inputs) if timed else ()),
    )
