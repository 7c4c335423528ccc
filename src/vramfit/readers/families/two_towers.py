"""CLIP, SigLIP and their kin: a tower for texts and one for images, or one of the two alone.

Of both together the text tower is the layers and the vision tower a part that is loaded with them. Source: Radford et
al. 2021, arXiv:2103.00020; Zhai et al. 2023, arXiv:2303.15343;
huggingface/transformers:src/transformers/models/<clip, siglip, siglip2, chinese_clip>/, 5.23.0, names as in published
files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vramfit.errors import UnsupportedModelError
from vramfit.formats import Role
from vramfit.readers.families import bert, vision
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.families.encoder import (
    Sizes,
    bidirectional,
    divided_heads,
    encoder_model,
    linears,
    norms,
    table,
)
from vramfit.readers.families.vit import pair
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

TEXT, IMAGE = "text_model.", "vision_model."


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What one pair of towers is made of."""

    stem: str
    vocab: int
    positions: int
    hidden: int
    heads: int
    width: int
    """Class defaults of the text tower."""
    tower: Callable[[Fields, str], Part]
    patch: int
    projected: bool
    """True: both towers end in a projection of ``projection_dim``; False: the text tower has a head, and a bias is
    learned beside the scale."""
    beside: int
    """Tokens beside the patches."""


_CLIP = Kind(
    stem="CLIP", vocab=49408, positions=77, hidden=512, heads=8, width=2048, tower=vision.clip, patch=32,
    projected=True, beside=1,
)  # fmt: skip
_SIGLIP = Kind(
    stem="Siglip", vocab=32000, positions=64, hidden=768, heads=12, width=3072, tower=vision.siglip, patch=16,
    projected=False, beside=0,
)  # fmt: skip


def _siglip2(fields: Fields, prefix: str) -> Part:
    """SigLIP 2 with images of any shape: patches pass a matrix, positions have a row for each of ``num_patches``."""
    patches, channels = fields.integer("num_patches", 256), fields.integer("num_channels", 3)
    side, hidden = fields.integer("patch_size", 16), fields.integer("hidden_size", 768)
    part = vision.siglip(Fields({**fields.values, "image_size": side}, fields.path, fields.assumed), prefix)
    at = f"{prefix}embeddings."
    shapes = {f"{at}patch_embedding.weight": (hidden, channels * side**2)}
    shapes[f"{at}position_embedding.weight"] = (patches, hidden)
    return replace(part, tensors=tuple(replace(t, shape=shapes.get(t.name, t.shape)) for t in part.tensors))


KINDS = {
    "chinese_clip": replace(_CLIP, stem="ChineseCLIP", tower=vision.clip),
    "clip": _CLIP,
    "siglip": _SIGLIP,
    "siglip2": replace(_SIGLIP, stem="Siglip2", tower=_siglip2),
}
"""``model_type`` of both together -> its kind; ``<kind>_text_model`` and ``<kind>_vision_model`` are one alone."""
SECTIONS = dict.fromkeys(KINDS, ("text_config", "vision_config"))
CLASSES = {
    **{kind: (f"{facts.stem}Model",) for kind, facts in KINDS.items()},
    "clip_text_model": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "clip_vision_model": ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
    "siglip_text_model": ("SiglipTextModel",),
    "siglip_vision_model": ("SiglipVisionModel",),
    "siglip2_text_model": ("Siglip2TextModel",),
    "siglip2_vision_model": ("Siglip2VisionModel",),
}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read both towers, or one."""
    family = fields.text("model_type") or ""
    kind = KINDS[family.removesuffix("_text_model").removesuffix("_vision_model")]
    named_classes = fields.values.get("architectures")
    projects = isinstance(named_classes, list) and named_classes[:1] != [] and "WithProjection" in str(named_classes[0])
    if family.endswith("_text_model"):
        return _text(fields, named, kind, projects=projects)
    if family.endswith("_vision_model"):
        return _images(fields, named, kind, projects=projects)
    return _both(fields, named, kind, chinese=family == "chinese_clip")


def _both(fields: Fields, named: Named, kind: Kind, *, chinese: bool) -> ModelSpec:
    """Return the text tower with the vision tower beside it."""
    for old in ("text_config_dict", "vision_config_dict"):
        _refuse_contradiction(fields, old)
    text = fields.section("text_config") if fields.has("text_config") else Fields({}, "text_config", fields.assumed)
    image = (
        fields.section("vision_config") if fields.has("vision_config") else Fields({}, "vision_config", fields.assumed)
    )
    spec = _chinese(text, named) if chinese else _text(text, named, kind, projects=False)
    part = kind.tower(image, IMAGE)
    inside = image.integer("hidden_size", 768)
    scale = Tensor(name="logit_scale", shape=() if kind.projected else (1,), role=Role.NORM)
    top: Tensors = (scale,)
    if kind.projected:
        out = fields.integer("projection_dim", 512)
        top = (
            scale,
            *linear("visual_projection", out, inside, Cut.WHOLE),
            *linear("text_projection", out, spec.hidden_size, Cut.WHOLE),
        )
    else:
        top = (scale, Tensor(name="logit_bias", shape=(1,), role=Role.BIAS))
    part = replace(part, hidden_size=inside, input_tokens=_tokens(image, kind))
    return replace(spec, head=(*spec.head, *top), parts=(part,))


def _refuse_contradiction(fields: Fields, old: str) -> None:
    """Refuse an older copy of a section that says otherwise: transformers lets it win, readers overlook it."""
    copied, section = fields.values.get(old), fields.values.get(old.removesuffix("_dict"))
    if not isinstance(copied, dict) or not isinstance(section, dict):
        return
    for name, value in copied.items():
        if (
            name in section
            and section[name] != value
            and name.endswith(("size", "layers", "heads", "dim", "embeddings"))
        ):
            raise UnsupportedModelError(
                f"{old}.{name}: {value!r:.100}: expected {section[name]!r:.100} as in {old.removesuffix('_dict')}; "
                "remove one of the two sections"
            )


def _sizes(fields: Fields, kind: Kind) -> Sizes:
    sizes = Sizes(
        hidden=fields.integer("hidden_size", kind.hidden),
        width=fields.integer("intermediate_size", kind.width),
        heads=fields.integer("num_attention_heads", kind.heads),
        vocab=fields.integer("vocab_size", kind.vocab, largest=LARGEST_VOCABULARY),
    )
    return divided_heads(fields, sizes)


def _block(sizes: Sizes) -> Tensors:
    at, hidden, width = "self_attn.", sizes.hidden, sizes.width
    return (
        *linears(f"{at}k_proj {at}v_proj {at}q_proj", hidden, hidden, Cut.OUTPUTS),
        *linear(f"{at}out_proj", hidden, hidden, Cut.INPUTS, bias=True),
        *linear("mlp.fc1", width, hidden, Cut.OUTPUTS, bias=True),
        *linear("mlp.fc2", hidden, width, Cut.INPUTS, bias=True),
        *norms("layer_norm1 layer_norm2", hidden),
    )


def _layers(fields: Fields, sizes: Sizes) -> tuple[Layer, ...]:
    count = fields.integer("num_hidden_layers", 12, largest=LARGEST_LAYERS)
    return (bidirectional(sizes, _block(sizes)),) * count


def _text(fields: Fields, named: Named, kind: Kind, *, projects: bool) -> ModelSpec:
    """Return the text tower; CLIP's is causal, but keeps no cache."""
    sizes = _sizes(fields, kind)
    positions = fields.integer("max_position_embeddings", kind.positions, largest=LARGEST_CONTEXT)
    out = fields.optional("projection_size") or sizes.hidden
    head = () if kind.projected else linear("head", out, sizes.hidden, Cut.WHOLE, bias=True)
    top = linear("text_projection", fields.integer("projection_dim", 512), sizes.hidden, Cut.WHOLE) if projects else ()
    return encoder_model(
        fields,
        named,
        sizes,
        TEXT,
        positions=positions,
        embeddings=(
            table("embeddings.token_embedding", sizes.vocab, sizes.hidden, Cut.VOCABULARY),
            table("embeddings.position_embedding", positions, sizes.hidden),
        ),
        layers=_layers(fields, sizes),
        layer_prefix="encoder.layers.{layer}.",
        behind=(*norm("final_layer_norm", sizes.hidden, bias=True), *head),
        top=top,
    )


def _chinese(fields: Fields, named: Named) -> ModelSpec:
    """Return Chinese CLIP's text tower: BERT without a pooler."""
    inner = Fields({**fields.values, "model_type": "bert", "architectures": ["BertModel"]}, fields.path, fields.assumed)
    spec = bert.read(inner, named)
    return replace(
        spec,
        embeddings=tuple(replace(t, name=TEXT + t.name) for t in spec.embeddings),
        head=(),
        layer_prefix=TEXT + spec.layer_prefix,
    )


def _images(fields: Fields, named: Named, kind: Kind, *, projects: bool) -> ModelSpec:
    """Return the vision tower alone: its tokens are patches."""
    part = kind.tower(fields, IMAGE)
    sizes = Sizes(
        hidden=fields.integer("hidden_size", 768),
        width=fields.integer("intermediate_size", 3072),
        heads=fields.integer("num_attention_heads", 12),
    )
    tokens = _tokens(fields, kind)
    top = linear("visual_projection", fields.integer("projection_dim", 512), sizes.hidden, Cut.WHOLE)
    spec = encoder_model(
        fields,
        named,
        divided_heads(fields, sizes),
        IMAGE,
        positions=tokens,
        embeddings=(),
        layers=_layers(fields, sizes),
        layer_prefix="encoder.layers.{layer}.",
        top=top if projects else (),
    )
    return replace(spec, embeddings=part.tensors)


def _tokens(fields: Fields, kind: Kind) -> int:
    """Return how many tokens an image is, and say so."""
    if kind.stem == "Siglip2":
        count, shape = fields.integer("num_patches", 256), "num_patches"
    else:
        image, patch = pair(fields, "image_size", 224), pair(fields, "patch_size", kind.patch)
        high, wide = image[0] // patch[0], image[1] // patch[1]
        count, shape = high * wide + kind.beside, f"{high} x {wide} patches and {kind.beside} beside them"
    fields.assumed.append(f"an image is {count:,} tokens: {shape} (one image for each sequence of the batch)")
    return count
