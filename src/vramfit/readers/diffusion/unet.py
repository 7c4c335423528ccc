"""The U-Net of Stable Diffusion 1, 2 and XL: levels of residual blocks, some with transformers that read the text.

Source: huggingface/diffusers@v0.42.1:src/diffusers/models/unets/unet_2d_condition.py and unet_2d_blocks.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vramfit.errors import InvalidValueError
from vramfit.pipeline import Denoiser
from vramfit.readers.diffusion.block import (
    Anatomy,
    Stack,
    Tensors,
    attention,
    block,
    bounded,
    convolution,
    feed_forward,
    integers,
    linear,
    norm,
    one_of,
    per_level,
    resnet,
    two_linears,
    yes,
)
from vramfit.readers.diffusion.unet_shape import Level, Shape
from vramfit.readers.fields import Fields
from vramfit.spec import Layer

ATTENDING = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
DOWN, UP = ("CrossAttnDownBlock2D", "DownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")


def unet(fields: Fields) -> Anatomy:
    """Read a conditional U-Net over latents."""
    shape = shape_of(fields)
    first, time = shape.channels[0], shape.time
    kernel = (fields.integer("conv_in_kernel", largest=15),) * 2
    end = (fields.integer("conv_out_kernel", largest=15),) * 2
    built = Built(shape)
    way_down(built)
    middle(fields, built)
    way_up(built)
    tensors = (
        *convolution("conv_in", first, fields.integer("in_channels"), kernel),
        *embedded_times(fields, first, time),
        *(t for tensors in built.tensors for t in tensors),
        *norm("conv_norm_out", first, bias=True),
        *convolution("conv_out", fields.integer("out_channels"), first, end),
    )
    return Anatomy(tensors=tensors, stacks=tuple(built.stacks), facts=_facts(fields, shape))


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


def shape_of(fields: Fields, *, mirrored: bool = True) -> Shape:
    """Return what each level is made of; ``mirrored``: there is a way up."""
    channels = integers(fields, "block_out_channels")
    num = len(channels)
    down = _kinds(fields, "down_block_types", DOWN, num)
    up = _kinds(fields, "up_block_types", UP, num) if mirrored else down[::-1]
    if not num or [k in ATTENDING for k in down] != [k in ATTENDING for k in reversed(up)]:
        raise InvalidValueError(fields.at("up_block_types"), list(up), "the down blocks' kinds in reverse")
    heads = "attention_head_dim" if not fields.has("num_attention_heads") else "num_attention_heads"
    numbers = per_level(fields, heads, num)  # the field named after the width holds the count, see the source
    texts, layers = per_level(fields, "cross_attention_dim", num), per_level(fields, "layers_per_block", num)
    blocks = per_level(fields, "transformer_layers_per_block", num)
    for width, number in zip(channels, numbers, strict=True):
        if number > width:
            raise InvalidValueError(fields.at(heads), number, f"at most the channels of its level ({width:,})")
    levels = tuple(
        Level(channels[i], layers[i], blocks[i], numbers[i], texts[i], down[i] in ATTENDING) for i in range(num)
    )
    bounded(fields, "layers_per_block", sum((2 * level.layers + 3) * (level.transformers + 2) for level in levels))
    return Shape(levels=levels, linear=yes(fields, "use_linear_projection"))


def _kinds(fields: Fields, name: str, known: tuple[str, ...], num: int) -> tuple[str, ...]:
    value = fields.values.get(name)
    if not isinstance(value, list | tuple) or len(value) != num:
        raise InvalidValueError(fields.at(name), value, f"a list of {num} block types, one per level")
    return tuple(one_of(Fields({name: v}, fields.path), name, known) for v in value)


def embedded_times(fields: Fields, first: int, time: int) -> Tensors:
    """Return embedders of the time step, of guidance (latent consistency models) and of sizes (SDXL)."""
    condition = fields.optional("time_cond_proj_dim")
    added = one_of(fields, "addition_embed_type", (None, "text_time"))
    return (
        *two_linears("time_embedding", time, first),
        *(linear("time_embedding.cond_proj", first, condition, bias=False) if condition else ()),
        *(two_linears("add_embedding", time, fields.integer("projection_class_embeddings_input_dim")) if added else ()),
    )


@dataclass
class Built:
    """What has been put together so far: tensors, and one stack of transformer blocks per place that has some."""

    shape: Shape
    tensors: list[Tensors] = field(default_factory=list)
    stacks: list[Stack] = field(default_factory=list)
    blocks: dict[Level, Layer] = field(default_factory=dict)
    """The transformer block of each level, made once."""

    def resnet(self, name: str, inputs: int, outputs: int) -> None:
        """Add a residual block."""
        self.tensors.append(resnet(name, inputs, outputs, time=self.shape.time))

    def transformer(self, name: str, level: Level) -> None:
        """Add a norm, a projection, blocks of self and cross attention, and the projection back."""
        width, inner = level.channels, level.inner
        self.tensors.append(norm(f"{name}.norm", width, bias=True))
        for end, outputs, inputs in (("proj_in", inner, width), ("proj_out", width, inner)):
            pixel = convolution(f"{name}.{end}", outputs, inputs, (1, 1))
            self.tensors.append(linear(f"{name}.{end}", outputs, inputs) if self.shape.linear else pixel)
        if level not in self.blocks:
            self.blocks[level] = _block(level)
        layers = (self.blocks[level],) * level.transformers
        self.stacks.append(Stack(prefix=f"{name}.transformer_blocks.{{layer}}.", layers=layers))

    def sampler(self, name: str, channels: int) -> None:
        """Add the convolution that changes the resolution."""
        self.tensors.append(convolution(f"{name}.0.conv", channels, channels, (3, 3)))


def _block(level: Level) -> Layer:
    inner = level.inner
    tensors = (
        *(t for n in ("norm1", "norm2", "norm3") for t in norm(n, inner, bias=True)),
        *attention("attn1", inner, inner, bias=False),
        *attention("attn2", inner, inner, context=level.text, bias=False),
        *feed_forward("ff", inner, 4 * inner, gated=True),
    )
    return block(level.heads, inner // level.heads, 4 * inner, tensors, gated=True, crosses=True)


def way_down(built: Built) -> None:
    """Add the way down."""
    levels = built.shape.levels
    inputs = levels[0].channels
    for i, level in enumerate(levels):
        for j in range(level.layers):
            built.resnet(f"down_blocks.{i}.resnets.{j}", inputs, level.channels)
            inputs = level.channels
            if level.attends:
                built.transformer(f"down_blocks.{i}.attentions.{j}", level)
        if i < len(levels) - 1:
            built.sampler(f"down_blocks.{i}.downsamplers", inputs)


def middle(fields: Fields, built: Built) -> None:
    """Add the middle: residual blocks and attention, or one residual block alone, or nothing."""
    kind = one_of(fields, "mid_block_type", ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None))
    last = built.shape.levels[-1]
    attends = kind == "UNetMidBlock2DCrossAttn"
    for i in range(0 if kind is None else 2 if attends else 1):
        built.resnet(f"mid_block.resnets.{i}", last.channels, last.channels)
    if attends:
        built.transformer("mid_block.attentions.0", last)


def way_up(built: Built) -> None:
    """Add the way up: one residual block more per level, each reading what the way down left for it."""
    levels = tuple(reversed(built.shape.levels))
    previous = levels[0].channels
    for i, level in enumerate(levels):
        below = levels[min(i + 1, len(levels) - 1)].channels
        for j in range(level.layers + 1):
            skip = below if j == level.layers else level.channels
            built.resnet(f"up_blocks.{i}.resnets.{j}", (previous if j == 0 else level.channels) + skip, level.channels)
            if level.attends:
                built.transformer(f"up_blocks.{i}.attentions.{j}", level)
        if i < len(levels) - 1:
            built.sampler(f"up_blocks.{i}.upsamplers", level.channels)
        previous = level.channels
