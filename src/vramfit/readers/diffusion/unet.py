"""The U-Net of Stable Diffusion 1, 2 and XL: levels of residual blocks, some with transformers that read the text.

Source: huggingface/diffusers@v0.42.1:src/diffusers/models/unets/unet_2d_condition.py and unet_2d_blocks.py.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.pipeline import Denoiser
from vramfit.readers.diffusion.block import (
    Anatomy,
    Tensors,
    attention,
    convolution,
    feed_forward,
    integers,
    linear,
    norm,
    one_of,
    per_level,
    resnet,
    two_linears,
    under,
    yes,
)
from vramfit.readers.diffusion.unet_shape import Level, Shape
from vramfit.readers.fields import Fields

ATTENDING = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
DOWN, UP = ("CrossAttnDownBlock2D", "DownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")


def unet(fields: Fields) -> Anatomy:
    """Read a conditional U-Net over latents."""
    shape = _shape(fields)
    first, time = shape.channels[0], shape.time
    kernel = (fields.integer("conv_in_kernel", largest=15),) * 2
    end = (fields.integer("conv_out_kernel", largest=15),) * 2
    tensors = (
        *convolution("conv_in", first, fields.integer("in_channels"), kernel),
        *_times(fields, first, time),
        *_down(shape),
        *_middle(fields, shape),
        *_up(shape),
        *norm("conv_norm_out", first, bias=True),
        *convolution("conv_out", fields.integer("out_channels"), first, end),
    )
    return Anatomy(tensors=tensors, facts=_facts(fields, shape))


def _facts(fields: Fields, shape: Shape) -> Denoiser:
    return Denoiser(
        in_channels=fields.integer("in_channels"),
        out_channels=fields.integer("out_channels"),
        hidden_size=shape.channels[0],
        num_attention_heads=shape.levels[0].heads,
        head_dim=max(1, shape.channels[0] // shape.levels[0].heads),
        text_width=shape.levels[0].text,
        block_out_channels=shape.channels,
        layers_per_block=tuple(level.layers for level in shape.levels),
        transformer_layers=tuple(level.transformers if level.attends else 0 for level in shape.levels),
    )


def _shape(fields: Fields) -> Shape:
    """Return what each level is made of."""
    channels = integers(fields, "block_out_channels")
    num = len(channels)
    down, up = (_kinds(fields, name, known, num) for name, known in (("down_block_types", DOWN), ("up_block_types", UP)))
    if not num or [k in ATTENDING for k in down] != [k in ATTENDING for k in reversed(up)]:
        raise InvalidValueError(fields.at("up_block_types"), list(up), "the down blocks' kinds in reverse")
    heads = "attention_head_dim" if not fields.has("num_attention_heads") else "num_attention_heads"
    numbers = per_level(fields, heads, num)  # the field named after the width holds the count, see the source
    texts, layers = per_level(fields, "cross_attention_dim", num), per_level(fields, "layers_per_block", num)
    blocks = per_level(fields, "transformer_layers_per_block", num)
    levels = tuple(
        Level(channels[i], layers[i], blocks[i], numbers[i], texts[i], down[i] in ATTENDING) for i in range(num)
    )
    return Shape(levels=levels, linear=yes(fields, "use_linear_projection"))


def _kinds(fields: Fields, name: str, known: tuple[str, ...], num: int) -> tuple[str, ...]:
    value = fields.values.get(name)
    if not isinstance(value, list | tuple) or len(value) != num:
        raise InvalidValueError(fields.at(name), value, f"a list of {num} block types, one per level")
    return tuple(one_of(Fields({name: v}, fields.path), name, known) for v in value)


def _times(fields: Fields, first: int, time: int) -> Tensors:
    """Return embedders of the time step, of guidance (latent consistency models) and of sizes (SDXL)."""
    condition = fields.optional("time_cond_proj_dim")
    added = one_of(fields, "addition_embed_type", (None, "text_time"))
    return (
        *two_linears("time_embedding", time, first),
        *(linear("time_embedding.cond_proj", first, condition, bias=False) if condition else ()),
        *(two_linears("add_embedding", time, fields.integer("projection_class_embeddings_input_dim")) if added else ()),
    )


def _down(shape: Shape) -> Tensors:
    found: list[Tensors] = []
    inputs = shape.channels[0]
    for i, level in enumerate(shape.levels):
        at = f"down_blocks.{i}"
        for j in range(level.layers):
            found.append(resnet(f"{at}.resnets.{j}", inputs, level.channels, time=shape.time))
            inputs = level.channels
            if level.attends:
                found.append(_transformer(f"{at}.attentions.{j}", level, linear_in=shape.linear))
        if i < len(shape.levels) - 1:
            found.append(convolution(f"{at}.downsamplers.0.conv", inputs, inputs, (3, 3)))
    return tuple(t for tensors in found for t in tensors)


def _middle(fields: Fields, shape: Shape) -> Tensors:
    last, at = shape.levels[-1], "mid_block"
    kind = one_of(fields, "mid_block_type", ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None))
    if kind is None:
        return ()
    attends = kind == "UNetMidBlock2DCrossAttn"
    num = 2 if attends else 1  # the plain one of a U-Net has a single residual block
    return (
        *(t for i in range(num) for t in resnet(f"{at}.resnets.{i}", last.channels, last.channels, time=shape.time)),
        *(_transformer(f"{at}.attentions.0", last, linear_in=shape.linear) if attends else ()),
    )


def _up(shape: Shape) -> Tensors:
    """Return the way up: one residual block more per level, each reading what the way down left for it."""
    found: list[Tensors] = []
    levels = tuple(reversed(shape.levels))
    previous = levels[0].channels
    for i, level in enumerate(levels):
        at, below = f"up_blocks.{i}", levels[min(i + 1, len(levels) - 1)].channels
        for j in range(level.layers + 1):
            skip = below if j == level.layers else level.channels
            inputs = (previous if j == 0 else level.channels) + skip
            found.append(resnet(f"{at}.resnets.{j}", inputs, level.channels, time=shape.time))
            if level.attends:
                found.append(_transformer(f"{at}.attentions.{j}", level, linear_in=shape.linear))
        if i < len(levels) - 1:
            found.append(convolution(f"{at}.upsamplers.0.conv", level.channels, level.channels, (3, 3)))
        previous = level.channels
    return tuple(t for tensors in found for t in tensors)


def _transformer(name: str, level: Level, *, linear_in: bool) -> Tensors:
    """Return a norm, a projection, blocks of self and cross attention, and the projection back."""
    width, inner = level.channels, level.inner
    ends = (
        (*linear("proj_in", inner, width), *linear("proj_out", width, inner))
        if linear_in
        else (*convolution("proj_in", inner, width, (1, 1)), *convolution("proj_out", width, inner, (1, 1)))
    )
    one = (
        *(t for n in ("norm1", "norm2", "norm3") for t in norm(n, inner, bias=True)),
        *attention("attn1", inner, inner, bias=False),
        *attention("attn2", inner, inner, context=level.text, bias=False),
        *feed_forward("ff", inner, 4 * inner, gated=True),
    )
    blocks = tuple(t for i in range(level.transformers) for t in under(f"transformer_blocks.{i}", one))
    return under(name, (*norm("norm", width, bias=True), *ends, *blocks))
