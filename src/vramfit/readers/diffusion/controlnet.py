"""ControlNet of Stable Diffusion: a U-Net's way down and middle, with a convolution behind everything it hands over.

Source: huggingface/diffusers@v0.42.1:src/diffusers/models/controlnets/controlnet.py.
"""

from __future__ import annotations

from itertools import pairwise

from vramfit.pipeline import Denoiser
from vramfit.readers.diffusion.block import Anatomy, Tensors, convolution, integers
from vramfit.readers.diffusion.unet import Built, embedded_times, middle, shape_of, way_down
from vramfit.readers.diffusion.unet_shape import Shape
from vramfit.readers.fields import Fields

SQUARE, PIXEL = (3, 3), (1, 1)


def controlnet(fields: Fields) -> Anatomy:
    """Read a ControlNet."""
    shape = shape_of(fields, mirrored=False)
    first, inputs = shape.channels[0], fields.integer("in_channels")
    built = Built(shape)
    way_down(built)
    middle(fields, built)
    tensors = (
        *convolution("conv_in", first, inputs, SQUARE),
        *embedded_times(fields, first, shape.time),
        *_picture(fields, first),
        *(t for tensors in built.tensors for t in tensors),
        *_handed_over(shape),
    )
    facts = Denoiser(
        in_channels=inputs,
        out_channels=inputs,
        hidden_size=first,
        num_attention_heads=shape.levels[0].heads,
        head_dim=max(1, first // shape.levels[0].heads),
        text_width=shape.levels[0].text,
        block_out_channels=shape.channels,
        layers_per_block=tuple(level.layers for level in shape.levels),
        transformer_layers=tuple(level.transformers if level.attends else 0 for level in shape.levels),
    )
    return Anatomy(tensors=tensors, stacks=tuple(built.stacks), facts=facts)


def _picture(fields: Fields, first: int) -> Tensors:
    """Return the convolutions that bring the picture to follow down to the latents' size."""
    at, channels = "controlnet_cond_embedding", integers(fields, "conditioning_embedding_out_channels")
    pairs = tuple(pairwise(channels))
    return (
        *convolution(f"{at}.conv_in", channels[0], fields.integer("conditioning_channels"), SQUARE),
        *(t for i, (a, _) in enumerate(pairs) for t in convolution(f"{at}.blocks.{2 * i}", a, a, SQUARE)),
        *(t for i, (a, b) in enumerate(pairs) for t in convolution(f"{at}.blocks.{2 * i + 1}", b, a, SQUARE)),
        *convolution(f"{at}.conv_out", first, channels[-1], SQUARE),
    )


def _handed_over(shape: Shape) -> Tensors:
    """Return a convolution for the input, for each residual block and for each change of resolution."""
    widths = [shape.channels[0]]
    for level in shape.levels:
        widths.extend([level.channels] * (level.layers + (level is not shape.levels[-1])))
    last = shape.channels[-1]
    return (
        *(t for i, w in enumerate(widths) for t in convolution(f"controlnet_down_blocks.{i}", w, w, PIXEL)),
        *convolution("controlnet_mid_block", last, last, PIXEL),
    )
