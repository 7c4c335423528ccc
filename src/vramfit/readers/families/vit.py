"""Vision transformers: an image is cut into patches, each a token, with a class token and others beside them.

ViT, DeiT, DINOv2 (with registers too), DINOv3, BEiT, MAE and YOLOS. A token is a patch: the context is one image.
Source: Dosovitskiy et al. 2021, arXiv:2010.11929, sec. 3.1; huggingface/transformers:src/transformers/models/
<model_type>/, 5.23.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.families.encoder import (
    Sizes,
    Top,
    Tops,
    bidirectional,
    chosen_class,
    class_names,
    divided_heads,
    encoder_model,
    learned,
    linears,
    norms,
    num_labels,
    one_layer,
)
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

IMAGE_TOP = "ForImageClassification"
CORNERS = 4
"""Numbers that place a box: its centre, its width and height."""
ALIGNED = 8
"""Width of DINOv2's gated networks is a multiple of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What one ``model_type`` is made of; the defaults are ViT's."""

    stem: str
    prefix: str
    tops: Tops
    block: Callable[[Fields, Sizes], Tensors]
    width: Callable[[Fields, int], int] = lambda fields, _: fields.integer("intermediate_size", 3072)
    gated: Callable[[Fields], bool] = lambda _: False
    tokens: Callable[[Fields], tuple[tuple[str, int], ...]] = lambda _: (("cls_token", 1),)
    """Learned tokens beside the patches: name, how many."""
    hidden_tokens: Callable[[Fields], tuple[tuple[str, int], ...]] = lambda _: ()
    """Learned tokens that are in the file but not in the sequence."""
    placed: Callable[[Fields], bool] = lambda _: True
    """Says whether there is a table of positions."""
    unplaced: tuple[str, ...] = ()
    """Tokens that have no row in the table of positions."""
    patch: str = "embeddings.patch_embeddings.projection"
    patch_size: int = 16
    layer_prefix: str = "encoder.layer.{layer}."
    final: str = "layernorm"
    """Norm behind the last block; empty = there is none."""
    beside: Callable[[Fields, Sizes, int], Tensors] = lambda _, __, ___: ()
    """What else stands outside the blocks; the integer is the number of tokens."""


def _vit_block(fields: Fields, sizes: Sizes) -> Tensors:
    at, hidden, width = "attention.attention.", sizes.hidden, sizes.width
    bias = fields.flag("qkv_bias", default=True)
    return (
        *linears(f"{at}query {at}key {at}value", hidden, hidden, Cut.OUTPUTS, bias=bias),
        *linear("attention.output.dense", hidden, hidden, Cut.INPUTS, bias=True),
        *linear("intermediate.dense", width, hidden, Cut.OUTPUTS, bias=True),
        *linear("output.dense", hidden, width, Cut.INPUTS, bias=True),
        *norms("layernorm_before layernorm_after", hidden),
    )


def _beit_block(fields: Fields, sizes: Sizes) -> Tensors:
    """BEiT: no bias for keys, a scale per channel, and a table of relative positions where asked for."""
    tensors = [t for t in _vit_block(fields, sizes) if t.name != "attention.attention.key.bias"]
    value = fields.values.get("layer_scale_init_value", 0.1)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValueError(fields.at("layer_scale_init_value"), value, "a number")
    scales = ("lambda_1", "lambda_2") if value > 0 else ()
    if fields.flag("use_relative_position_bias", default=False):
        name = "attention.attention.relative_position_bias.relative_position_bias_table"
        tensors.append(_relative(fields, sizes, name))
    return (*tensors, *(_scale(name, sizes.hidden) for name in scales))


def _relative(fields: Fields, sizes: Sizes, name: str) -> Tensor:
    """Return a table of distances between patches, and three more rows for the class token."""
    high, wide = _grid(fields, 16)
    rows = (2 * high - 1) * (2 * wide - 1) + 3
    return Tensor(name=name, shape=(rows, sizes.heads), role=Role.EMBEDDING, cut=Cut.SECOND)


def _scale(name: str, hidden: int) -> Tensor:
    return Tensor(name=name, shape=(hidden,), role=Role.NORM)


def _dino2_block(fields: Fields, sizes: Sizes) -> Tensors:
    at, hidden, width = "attention.attention.", sizes.hidden, sizes.width
    into, back = ("weights_in", "weights_out") if _swiglu(fields) else ("fc1", "fc2")
    return (
        *linears(
            f"{at}query {at}key {at}value", hidden, hidden, Cut.OUTPUTS, bias=fields.flag("qkv_bias", default=True)
        ),
        *linear("attention.output.dense", hidden, hidden, Cut.INPUTS, bias=True),
        *linear(f"mlp.{into}", 2 * width if _swiglu(fields) else width, hidden, Cut.OUTPUTS, bias=True),
        *linear(f"mlp.{back}", hidden, width, Cut.INPUTS, bias=True),
        *norms("norm1 norm2", hidden),
        *(_scale(f"layer_scale{i}.lambda1", hidden) for i in (1, 2)),
    )


def _swiglu(fields: Fields) -> bool:
    return fields.flag("use_swiglu_ffn", default=False)


def _dino2_width(fields: Fields, hidden: int) -> int:
    """Return the width of the network: so many times the hidden size, two thirds of it where gated."""
    width = hidden * fields.integer("mlp_ratio", 4)
    if not _swiglu(fields):
        return width
    return (int(width * 2 / 3) + ALIGNED - 1) // ALIGNED * ALIGNED


def _masking(fields: Fields) -> tuple[tuple[str, int], ...]:
    return (("mask_token", 0),) if fields.flag("use_mask_token", default=True) else ()


def _registers(fields: Fields) -> tuple[tuple[str, int], ...]:
    return (("cls_token", 1), ("register_tokens", fields.integer("num_register_tokens", 4, smallest=0)))


def _dino3_block(fields: Fields, sizes: Sizes) -> Tensors:
    at, hidden, width = "attention.", sizes.hidden, sizes.width
    biases = {"q": "query_bias", "k": "key_bias", "v": "value_bias"}
    network = fields.flag("mlp_bias", default=True)
    into = "mlp.gate_proj mlp.up_proj" if fields.flag("use_gated_mlp", default=False) else "mlp.up_proj"
    return (
        *(
            t
            for name, field in biases.items()
            for t in linear(
                f"{at}{name}_proj", hidden, hidden, Cut.OUTPUTS, bias=fields.flag(field, default=name != "k")
            )
        ),
        *linear(f"{at}o_proj", hidden, hidden, Cut.INPUTS, bias=fields.flag("proj_bias", default=True)),
        *linears(into, width, hidden, Cut.OUTPUTS, bias=network),
        *linear("mlp.down_proj", hidden, width, Cut.INPUTS, bias=network),
        *norms("norm1 norm2", hidden),
        *(_scale(f"layer_scale{i}.lambda1", hidden) for i in (1, 2)),
    )


def _pooler(fields: Fields, sizes: Sizes) -> Tensors:
    return linear(
        "pooler.dense", fields.optional("pooler_output_size") or sizes.hidden, sizes.hidden, Cut.WHOLE, bias=True
    )


def _mean_pooled(fields: Fields, sizes: Sizes) -> Tensors:
    """BEiT's pooler is a norm, and replaces the one behind the last block, unless the class token is taken."""
    mean = fields.flag("use_mean_pooling", default=True)
    return norm("pooler.layernorm", sizes.hidden, bias=True) if mean else ()


def _no_pooler(_: Fields, __: Sizes) -> Tensors:
    return ()


def _both_tokens(sizes: Sizes) -> Tensors:
    """DINOv2's classifier reads the class token and the mean of the patches."""
    return linear("classifier", sizes.labels, 2 * sizes.hidden, Cut.WHOLE, bias=True)


def _teacher(sizes: Sizes) -> Tensors:
    names = "cls_classifier distillation_classifier"
    return linears(names, sizes.labels, sizes.hidden, Cut.WHOLE)


def _boxes(sizes: Sizes) -> Tensors:
    """YOLOS: two small networks of three layers; one label more says that there is nothing."""
    ends = {"class_labels_classifier": sizes.labels + 1, "bbox_predictor": CORNERS}
    widths = (sizes.hidden, sizes.hidden)
    return tuple(
        t
        for name, out in ends.items()
        for i, outputs in enumerate((*widths, out))
        for t in linear(f"{name}.layers.{i}", outputs, sizes.hidden, Cut.WHOLE, bias=True)
    )


def _middle_positions(fields: Fields, sizes: Sizes, tokens: int) -> Tensors:
    """YOLOS adds positions again behind every block but the last."""
    if not fields.flag("use_mid_position_embeddings", default=True):
        return ()
    return (learned("encoder.mid_position_embeddings", fields.num_layers - 1, 1, tokens, sizes.hidden),)


def _detecting(fields: Fields) -> tuple[tuple[str, int], ...]:
    return (("cls_token", 1), ("detection_tokens", fields.integer("num_detection_tokens", 100)))


_CLASSES = Top(tensors=one_layer("classifier"), labelled=True)
_PLAIN = {"Model": Top(pooled=True), IMAGE_TOP: _CLASSES}
_DINO_TOPS = {"Model": Top(), IMAGE_TOP: Top(tensors=_both_tokens, labelled=True)}
_DINO2 = Kind(
    stem="Dinov2", prefix="dinov2.", tops=_DINO_TOPS, block=_dino2_block, width=_dino2_width, gated=_swiglu,
    hidden_tokens=_masking,
)  # fmt: skip

KINDS: dict[str, Kind] = {
    "beit": Kind(
        stem="Beit", prefix="beit.", tops={"Model": Top(pooled=True), IMAGE_TOP: replace(_CLASSES, pooled=True)},
        block=_beit_block, placed=lambda f: f.flag("use_absolute_position_embeddings", default=False), final="",
        hidden_tokens=lambda f: (("mask_token", 0),) if f.flag("use_mask_token", default=False) else (),
    ),
    "deit": Kind(
        stem="DeiT", prefix="deit.", tops={**_PLAIN, f"{IMAGE_TOP}WithTeacher": Top(tensors=_teacher, labelled=True)},
        block=_vit_block, tokens=lambda _: (("cls_token", 1), ("distillation_token", 1)),
    ),
    "dinov2": _DINO2,
    "dinov2_with_registers": replace(
        _DINO2, stem="Dinov2WithRegisters", prefix="dinov2_with_registers.", tokens=_registers,
        unplaced=("register_tokens",),
    ),
    "dinov3_vit": Kind(
        stem="DINOv3ViT", prefix="", tops={"Model": Top()}, block=_dino3_block,
        gated=lambda f: f.flag("use_gated_mlp", default=False), placed=lambda _: False,
        tokens=lambda f: (("cls_token", 1), ("register_tokens", f.integer("num_register_tokens", 0, smallest=0))),
        hidden_tokens=lambda _: (("mask_token", 0),), patch="embeddings.patch_embeddings",
        layer_prefix="layer.{layer}.", final="norm",
    ),
    "vit": Kind(stem="ViT", prefix="vit.", tops=_PLAIN, block=_vit_block),
    "vit_mae": Kind(stem="ViTMAE", prefix="vit.", tops={"Model": Top(), "ForPreTraining": Top()}, block=_vit_block),
    "yolos": Kind(
        stem="Yolos", prefix="vit.", block=_vit_block, tokens=_detecting, beside=_middle_positions,
        tops={"Model": Top(pooled=True), "ForObjectDetection": Top(tensors=_boxes, labelled=True)},
    ),
}  # fmt: skip
"""``model_type`` -> its kind."""
CLASSES = {kind: class_names(facts.stem, facts.tops) for kind, facts in KINDS.items()}
POOLERS = {"beit": _mean_pooled}
"""Kinds whose pooler is no matrix."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the kinds in ``KINDS``."""
    family = fields.text("model_type") or ""
    kind = KINDS[family]
    end, top = chosen_class(fields, kind.stem, kind.tops)
    hidden = fields.integer("hidden_size", 768)
    sizes = Sizes(
        hidden=hidden,
        width=kind.width(fields, hidden),
        heads=fields.integer("num_attention_heads", 12),
        labels=num_labels(fields) if top.labelled else 0,
    )
    tensors, tokens = _embeddings(fields, kind, divided_heads(fields, sizes))
    pooler = POOLERS.get(family, _pooler) if top.pooled else _no_pooler
    final = kind.final
    if family == "beit" and not (top.pooled and fields.flag("use_mean_pooling", default=True)):
        final = "layernorm" if not fields.flag("use_mean_pooling", default=True) else ""
    spec = encoder_model(
        fields,
        named,
        sizes,
        "" if end == "Model" else kind.prefix,
        positions=tokens,
        embeddings=(*tensors, *kind.beside(fields, sizes, tokens)),
        layers=_layers(fields, kind, sizes),
        layer_prefix=kind.layer_prefix,
        behind=(
            *(norm(final, hidden, bias=True) if final else ()),
            *_shared_distances(fields, sizes, family),
            *pooler(fields, sizes),
        ),
        top=top.tensors(sizes),
    )
    return replace(spec, parts=(_painter(fields, hidden, tokens),)) if end == "ForPreTraining" else spec


def _painter(fields: Fields, read: int, tokens: int) -> Part:
    """Return what paints the hidden patches in MAE's training, a smaller transformer."""
    sizes = Sizes(
        hidden=fields.integer("decoder_hidden_size", 512),
        width=fields.integer("decoder_intermediate_size", 2048),
        heads=fields.integer("decoder_num_attention_heads", 16),
    )
    layer = bidirectional(divided_heads(fields, sizes, "decoder_num_attention_heads"), _vit_block(fields, sizes))
    high, wide = pair(fields, "patch_size", 16)
    pixels, hidden, at = high * wide * fields.integer("num_channels", 3), sizes.hidden, "decoder."
    return Part(
        name="decoder",
        layers=(layer,) * fields.integer("decoder_num_hidden_layers", 8, largest=LARGEST_LAYERS),
        layer_prefix=f"{at}decoder_layers.{{layer}}.",
        tensors=(
            *linear(f"{at}decoder_embed", hidden, read, Cut.WHOLE, bias=True),
            learned(f"{at}mask_token", 1, 1, hidden),
            learned(f"{at}decoder_pos_embed", 1, tokens, hidden),
            *norm(f"{at}decoder_norm", hidden, bias=True),
            *linear(f"{at}decoder_pred", pixels, hidden, Cut.WHOLE, bias=True),
        ),
        resident=True,
        hidden_size=hidden,
    )


def _layers(fields: Fields, kind: Kind, sizes: Sizes) -> tuple[Layer, ...]:
    return (bidirectional(sizes, kind.block(fields, sizes), gated=kind.gated(fields)),) * fields.num_layers


def _shared_distances(fields: Fields, sizes: Sizes, family: str) -> Tensors:
    """BEiT may have one table of distances for all blocks."""
    if family != "beit" or not fields.flag("use_shared_relative_position_bias", default=False):
        return ()
    return (_relative(fields, sizes, "encoder.relative_position_bias.relative_position_bias_table"),)


def _embeddings(fields: Fields, kind: Kind, sizes: Sizes) -> tuple[Tensors, int]:
    """Return patches, learned tokens and positions; and how many tokens an image is."""
    hidden, at = sizes.hidden, "embeddings."
    high, wide = _grid(fields, kind.patch_size)
    tokens = kind.tokens(fields)
    count = high * wide + sum(n for _, n in tokens)
    rows = high * wide + sum(n for name, n in tokens if name not in kind.unplaced)
    square = pair(fields, "patch_size", kind.patch_size)
    shape = (hidden, fields.integer("num_channels", 3), *square)
    fields.assumed.append(
        f"an image is {count:,} tokens: {high} x {wide} patches and {count - high * wide} learned ones beside them "
        "(image_size and patch_size; a batch of images is a batch of sequences)"
    )
    masks = tuple(learned(f"{at}{n}", *_mask_shape(kind, hidden)) for n, _ in kind.hidden_tokens(fields))
    tensors = (
        *(learned(f"{at}{name}", 1, n, hidden) for name, n in tokens),
        *masks,
        Tensor(name=f"{kind.patch}.weight", shape=shape, role=Role.CONVOLUTION),
        Tensor(name=f"{kind.patch}.bias", shape=(hidden,), role=Role.BIAS),
        *((learned(f"{at}position_embeddings", 1, rows, hidden),) if kind.placed(fields) else ()),
    )
    return tensors, count


def _mask_shape(kind: Kind, hidden: int) -> tuple[int, ...]:
    """DINOv2 keeps its mask token as one row, the others as a sequence of one."""
    return (1, hidden) if kind.stem.startswith("Dinov2") else (1, 1, hidden)


def pair(fields: Fields, name: str, default: int) -> tuple[int, int]:
    """Return height and width in pixels: one number for both, or two."""
    value = fields.values.get(name)
    if isinstance(value, list | tuple) and len(value) == 2:
        one, two = (Fields({name: v}, fields.path, fields.assumed).integer(name) for v in value)
        return one, two
    side = fields.integer(name, default)
    return side, side


def _grid(fields: Fields, patch: int) -> tuple[int, int]:
    """Return how many patches an image is high and wide."""
    image, square = pair(fields, "image_size", 224), pair(fields, "patch_size", patch)
    high, wide = image[0] // square[0], image[1] // square[1]
    if not (high and wide):
        raise InvalidValueError(
            fields.at("image_size"), fields.values.get("image_size"), f"at least {square[0]} pixels"
        )
    return high, wide
