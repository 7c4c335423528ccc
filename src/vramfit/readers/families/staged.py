"""Image models in stages: convolutional ones (ResNet, ConvNeXt) and shifted windows or reduced keys (Swin, SegFormer).

Each stage has fewer and wider places than the one before, so its activations are feature maps of several sizes, which
no formula here counts: ``UNCOUNTED`` says so in every answer. Source: He et al. 2016, arXiv:1512.03385; Liu et al.
2022, arXiv:2201.03545; Liu et al. 2021, arXiv:2103.14030; Xie et al. 2021, arXiv:2105.15203;
huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vramfit.errors import InvalidValueError
from vramfit.formats import INT64, Role
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.families.encoder import (
    Sizes,
    Top,
    Tops,
    chosen_class,
    class_names,
    encoder_model,
    learned,
    linears,
    norms,
    num_labels,
    one_layer,
    prefixed,
)
from vramfit.readers.families.vit import IMAGE_TOP, pair
from vramfit.readers.fields import LARGEST_WIDTH, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

UNCOUNTED = "activations: the feature maps of all stages, which grow with the image's area"
LARGEST_STAGES = 64
MOST_BLOCKS = 512
"""Of all stages together, each with tensors of its own names; published models have at most 50."""
REDUCTION = 4
"""A bottleneck is so many times narrower than what it reads and writes."""
EXPANSION = 4
"""ConvNeXt's networks are so many times wider than their stage."""
KERNEL = 7
"""Side of ConvNeXt's depthwise convolutions and of ResNet's first one."""
MERGED = 4
"""Neighbouring places that Swin joins into one between stages."""
POSITION_WIDTH = 512
"""Width of the small network that gives Swin 2 its position biases."""
SEGMENTATION = "ForSemanticSegmentation"
_CLASSES = Top(tensors=one_layer("classifier"), labelled=True)
_TOPS: Tops = {"Model": Top(), IMAGE_TOP: _CLASSES}


def _conv(name: str, out: int, into: int, side: int, *, bias: bool = False) -> Tensors:
    weight = Tensor(name=f"{name}.weight", shape=(out, into, side, side), role=Role.CONVOLUTION)
    return (weight, Tensor(name=f"{name}.bias", shape=(out,), role=Role.BIAS)) if bias else (weight,)


def batch_norm(name: str, width: int) -> Tensors:
    """Return a norm with the running mean and variance of training, which are in the file but no parameters."""
    running = tuple(
        Tensor(name=f"{name}.running_{what}", shape=(width,), role=Role.NORM, buffer=True) for what in ("mean", "var")
    )
    seen = Tensor(name=f"{name}.num_batches_tracked", shape=(), role=Role.NORM, buffer=True, stored=INT64)
    return (*norm(name, width, bias=True), *running, seen)


def integers(fields: Fields, name: str, default: tuple[int, ...], *, largest: int = LARGEST_WIDTH) -> tuple[int, ...]:
    """Return one positive integer per stage; the class default is recorded when taken."""
    value = fields.values.get(name)
    if value is None:
        fields.assume(name, list(default))
        return default
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= LARGEST_STAGES:
        raise InvalidValueError(fields.at(name), value, f"a list of 1 to {LARGEST_STAGES} integers, one per stage")
    return tuple(Fields({name: v}, fields.path, fields.assumed).integer(name, largest=largest) for v in value)


def _stages(fields: Fields, widths: tuple[int, ...], depths: tuple[int, ...], name: str) -> None:
    """Refuse lists of different lengths, and more blocks than a model has."""
    if len(widths) != len(depths):
        raise InvalidValueError(fields.at(name), list(widths), f"{len(depths)} values, as many as depths has")
    if sum(depths) > MOST_BLOCKS:
        raise InvalidValueError(fields.at("depths"), list(depths), f"at most {MOST_BLOCKS:,} blocks in all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a reader returns: blocks below ``layer_prefix``, what stands before and behind, the last width."""

    before: Tensors
    blocks: tuple[Tensors, ...]
    behind: Tensors
    width: int


def _resnet(fields: Fields) -> Parts:
    first = fields.integer("embedding_size", 64)
    widths = integers(fields, "hidden_sizes", (256, 512, 1024, 2048))
    depths = integers(fields, "depths", (3, 4, 6, 3), largest=MOST_BLOCKS)
    _stages(fields, widths, depths, "hidden_sizes")
    kind = fields.text("layer_type") or "bottleneck"
    if kind not in {"basic", "bottleneck"}:
        raise InvalidValueError(fields.at("layer_type"), kind, "basic or bottleneck")
    halves = fields.flag("downsample_in_first_stage", default=False)
    blocks, into = [], first
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for j in range(depth):
            shortcut = j == 0 and (into != width or i > 0 or halves)
            blocks.append(prefixed(f"{i}.layers.{j}.", _residual(into, width, kind, shortcut=shortcut)))
            into = width
    at = "embedder.embedder."
    channels = fields.integer("num_channels", 3)
    before = (*_conv(f"{at}convolution", first, channels, KERNEL), *batch_norm(f"{at}normalization", first))
    return Parts(before=before, blocks=tuple(blocks), behind=(), width=widths[-1])


def _residual(into: int, out: int, kind: str, *, shortcut: bool) -> Tensors:
    """Return a block of two or three convolutions, and one beside them where the shape changes."""
    inner = out // REDUCTION
    steps = (
        ((inner, into, 1), (inner, inner, 3), (out, inner, 1))
        if kind == "bottleneck"
        else ((out, into, 3), (out, out, 3))
    )
    return (
        *(_normed("shortcut", out, into, 1) if shortcut else ()),
        *(t for i, (wide, read, side) in enumerate(steps) for t in _normed(f"layer.{i}", wide, read, side)),
    )


def _normed(name: str, out: int, into: int, side: int) -> Tensors:
    return (*_conv(f"{name}.convolution", out, into, side), *batch_norm(f"{name}.normalization", out))


def _convnext(fields: Fields) -> Parts:
    second = fields.text("model_type") == "convnextv2"
    widths = integers(fields, "hidden_sizes", (96, 192, 384, 768))
    depths = integers(fields, "depths", (3, 3, 9, 3), largest=MOST_BLOCKS)
    _stages(fields, widths, depths, "hidden_sizes")
    value = fields.values.get("layer_scale_init_value", 1e-6)
    scaled = not second and not isinstance(value, bool) and isinstance(value, int | float) and value > 0
    blocks = []
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for j in range(depth):
            down = () if i == 0 or j else prefixed(f"{i}.downsampling_layer.", _halved(widths[i - 1], width))
            tensors = _convnext_block(width, scaled=scaled, second=second)
            blocks.append((*down, *prefixed(f"{i}.layers.{j}.", tensors)))
    at, side, channels = "embeddings.", fields.integer("patch_size", 4), fields.integer("num_channels", 3)
    before = (
        *_conv(f"{at}patch_embeddings", widths[0], channels, side, bias=True),
        *norms(f"{at}layernorm", widths[0]),
    )
    return Parts(before=before, blocks=tuple(blocks), behind=norms("layernorm", widths[-1]), width=widths[-1])


def _halved(into: int, out: int) -> Tensors:
    return (*norms("0", into), *_conv("1", out, into, 2, bias=True))


def _convnext_block(width: int, *, scaled: bool, second: bool) -> Tensors:
    wide = EXPANSION * width
    response = tuple(
        Tensor(name=f"grn.{what}", shape=(1, 1, 1, wide), role=Role.NORM) for what in ("weight", "bias") if second
    )
    return (
        *((Tensor(name="layer_scale_parameter", shape=(width,), role=Role.NORM),) if scaled else ()),
        *_conv("dwconv", width, 1, KERNEL, bias=True),
        *norms("layernorm", width),
        *linear("pwconv1", wide, width, Cut.WHOLE, bias=True),
        *response,
        *linear("pwconv2", width, wide, Cut.WHOLE, bias=True),
    )


def _swin(fields: Fields) -> Parts:
    second = fields.text("model_type") == "swinv2"
    first, heads = fields.integer("embed_dim", 96), integers(fields, "num_heads", (3, 6, 12, 24))
    depths = integers(fields, "depths", (2, 2, 6, 2), largest=MOST_BLOCKS)
    _stages(fields, heads, depths, "num_heads")
    blocks = []
    for i, (count, depth) in enumerate(zip(heads, depths, strict=True)):
        width = first * 2**i
        if width > LARGEST_WIDTH or width % count:
            raise InvalidValueError(fields.at(f"num_heads[{i}]"), count, f"a divisor of the stage's width ({width})")
        for j in range(depth):
            down = () if i == len(heads) - 1 or j < depth - 1 else _merged(width, f"{i}.downsample.", second=second)
            blocks.append((*prefixed(f"{i}.blocks.{j}.", _swin_block(fields, width, count, second=second)), *down))
    at, side, channels = "embeddings.", pair(fields, "patch_size", 4), fields.integer("num_channels", 3)
    convolution = Tensor(
        name=f"{at}patch_embeddings.projection.weight", shape=(first, channels, *side), role=Role.CONVOLUTION
    )
    before = (
        convolution,
        Tensor(name=f"{at}patch_embeddings.projection.bias", shape=(first,), role=Role.BIAS),
        *norms(f"{at}norm", first),
        *_swin_positions(fields, first, side),
    )
    last = first * 2 ** (len(heads) - 1)
    return Parts(before=before, blocks=tuple(blocks), behind=norms("layernorm", last), width=last)


def _swin_positions(fields: Fields, width: int, side: tuple[int, int]) -> Tensors:
    if not fields.flag("use_absolute_embeddings", default=False):
        return ()
    image = pair(fields, "image_size", 224)
    return (learned("embeddings.position_embeddings", 1, (image[0] // side[0]) * (image[1] // side[1]), width),)


def _merged(width: int, at: str, *, second: bool) -> Tensors:
    """Return the layer that joins four places into one of twice the width; Swin 2 norms what comes out."""
    joined = MERGED * width
    return prefixed(
        at, (*linear("reduction", 2 * width, joined, Cut.WHOLE), *norms("norm", 2 * width if second else joined))
    )


def _swin_block(fields: Fields, width: int, heads: int, *, second: bool) -> Tensors:
    at, bias, wide = "attention.self.", fields.flag("qkv_bias", default=True), _wide(fields, width)
    window = pair(fields, "window_size", 7)
    rows = (2 * window[0] - 1) * (2 * window[1] - 1)
    positions: Tensors = (Tensor(name=f"{at}relative_position_bias_table", shape=(rows, heads), role=Role.EMBEDDING),)
    if second:
        small = f"{at}continuous_position_bias_mlp."
        positions = (
            Tensor(name=f"{at}logit_scale", shape=(heads, 1, 1), role=Role.NORM),
            *linear(f"{small}0", POSITION_WIDTH, 2, Cut.WHOLE, bias=True),
            *linear(f"{small}2", heads, POSITION_WIDTH, Cut.WHOLE),
        )
    return (
        *positions,
        *linears(f"{at}query {at}value", width, width, Cut.WHOLE, bias=bias),
        *linear(f"{at}key", width, width, Cut.WHOLE, bias=bias and not second),
        *linear("attention.output.dense", width, width, Cut.WHOLE, bias=True),
        *linear("intermediate.dense", wide, width, Cut.WHOLE, bias=True),
        *linear("output.dense", width, wide, Cut.WHOLE, bias=True),
        *norms("layernorm_before layernorm_after", width),
    )


def _wide(fields: Fields, width: int) -> int:
    value = fields.values.get("mlp_ratio", 4.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST_STAGES:
        raise InvalidValueError(fields.at("mlp_ratio"), value, f"a number above 0 and at most {LARGEST_STAGES}")
    return int(value * width)


def _segformer(fields: Fields) -> Parts:
    widths = integers(fields, "hidden_sizes", (32, 64, 160, 256))
    depths = integers(fields, "depths", (2, 2, 2, 2), largest=MOST_BLOCKS)
    lists = {
        "hidden_sizes": widths,
        "sr_ratios": integers(fields, "sr_ratios", (8, 4, 2, 1)),
        "patch_sizes": integers(fields, "patch_sizes", (7, 3, 3, 3)),
        "mlp_ratios": integers(fields, "mlp_ratios", (4, 4, 4, 4)),
    }
    for name, value in lists.items():
        _stages(fields, value, depths, name)
    into, before, blocks = fields.integer("num_channels", 3), [], []
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        at = f"encoder.patch_embeddings.{i}."
        before += [
            *_conv(f"{at}proj", width, into, lists["patch_sizes"][i], bias=True),
            *norms(f"{at}layer_norm", width),
        ]
        tensors = _segformer_block(width, lists["sr_ratios"][i], lists["mlp_ratios"][i] * width)
        blocks += [prefixed(f"{i}.{j}.", tensors) for j in range(depth)]
        into = width
    behind = tuple(t for i, width in enumerate(widths) for t in norms(f"encoder.layer_norm.{i}", width))
    return Parts(before=tuple(before), blocks=tuple(blocks), behind=behind, width=widths[-1])


def _segformer_block(width: int, reduced: int, wide: int) -> Tensors:
    at = "attention.self."
    fewer = (*_conv(f"{at}sr", width, width, reduced, bias=True), *norms(f"{at}layer_norm", width))
    return (
        *linears(f"{at}query {at}key {at}value attention.output.dense", width, width, Cut.WHOLE),
        *(fewer if reduced > 1 else ()),
        *linear("mlp.dense1", wide, width, Cut.WHOLE, bias=True),
        *_conv("mlp.dwconv.dwconv", wide, 1, 3, bias=True),
        *linear("mlp.dense2", width, wide, Cut.WHOLE, bias=True),
        *norms("layer_norm_1 layer_norm_2", width),
    )


def _segmenting(fields: Fields, labels: int) -> Tensors:
    """Return SegFormer's head: every stage is brought to one width, and all are joined."""
    width, at = fields.integer("decoder_hidden_size", 256), "decode_head."
    widths = integers(fields, "hidden_sizes", (32, 64, 160, 256))
    return (
        *(t for i, w in enumerate(widths) for t in linear(f"{at}linear_c.{i}.proj", width, w, Cut.WHOLE, bias=True)),
        *_conv(f"{at}linear_fuse", width, width * len(widths), 1),
        *batch_norm(f"{at}batch_norm", width),
        *_conv(f"{at}classifier", labels, width, 1, bias=True),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a ``model_type`` is read."""

    stem: str
    prefix: str
    parts: Callable[[Fields], Parts]
    layer_prefix: str
    tops: Tops


_CONVNEXT = Kind(stem="ConvNext", prefix="convnext.", parts=_convnext, layer_prefix="encoder.stages.", tops=_TOPS)
_SWIN = Kind(stem="Swin", prefix="swin.", parts=_swin, layer_prefix="encoder.layers.", tops=_TOPS)
KINDS = {
    "convnext": _CONVNEXT,
    "convnextv2": replace(_CONVNEXT, stem="ConvNextV2", prefix="convnextv2."),
    "resnet": replace(
        _CONVNEXT, stem="ResNet", prefix="resnet.", parts=_resnet,
        tops={"Model": Top(), IMAGE_TOP: replace(_CLASSES, tensors=one_layer("classifier.1"))},
    ),
    "segformer": Kind(
        stem="Segformer", prefix="segformer.", parts=_segformer, layer_prefix="encoder.block.",
        tops={**_TOPS, SEGMENTATION: Top(labelled=True)},
    ),
    "swin": _SWIN,
    "swinv2": replace(_SWIN, stem="Swinv2", prefix="swinv2."),
}  # fmt: skip
CLASSES = {kind: class_names(facts.stem, facts.tops) for kind, facts in KINDS.items()}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the kinds in ``KINDS``."""
    kind = KINDS[fields.text("model_type") or ""]
    end, top = chosen_class(fields, kind.stem, kind.tops)
    parts = kind.parts(fields)
    fields.assumed.append("a batch of images is a batch of sequences of one token: nothing here grows with tokens")
    labels = num_labels(fields) if top.labelled else 0
    sizes = Sizes(hidden=parts.width, width=parts.width, heads=1, labels=labels)
    return encoder_model(
        fields,
        named,
        sizes,
        "" if end == "Model" else kind.prefix,
        positions=1,
        embeddings=parts.before,
        layers=tuple(Layer(attention=None, feed_forward=None, tensors=tensors) for tensors in parts.blocks),
        layer_prefix=kind.layer_prefix,
        behind=parts.behind,
        top=_segmenting(fields, labels) if end == SEGMENTATION else top.tensors(sizes),
        not_counted=(UNCOUNTED,),
    )
