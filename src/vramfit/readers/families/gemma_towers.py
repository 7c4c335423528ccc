"""Towers of Gemma 3n and 4: SigLIP-like vision without fixed sizes, a Conformer that hears.

Source: huggingface/transformers:src/transformers/models/ gemma4/ and gemma3n/, 5.23.0, class defaults as there.
Every tensor is whole on every device: engines copy towers rather than divide them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families import mobilenet_v5
from vramfit.readers.families.decoder import Tensors, block_norms, linear, norm
from vramfit.readers.families.gemma import NORMS
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

PREFIX = "model.language_model."
LIMITS = ("input_min", "input_max", "output_min", "output_max")
"""Numbers beside a matrix whose input and output are clipped."""
COLOURS = 3
RELATIVE = "attn.relative_position_embedding.pos_proj"
CONVOLUTIONS = {"sscp_conv_kernel_size": ([[3, 3], [3, 3]],), "sscp_conv_stride_size": ([[2, 2], [2, 2]],)}
"""Shapes of the convolutions that shorten sound, the only ones published."""


def with_towers(fields: Fields, spec: ModelSpec) -> ModelSpec:
    """Return the language model where it stands in a multimodal file, and the towers that the file names."""
    kind = fields.text("model_type")
    text = spec.hidden_size
    if kind == "gemma3n":  # has both towers, whether the file describes them or not
        parts = [_vision_3n(_section(fields, "vision_config"), text), _audio_3n(_section(fields, "audio_config"), text)]
    else:
        readers = READERS["unified" if kind == "gemma4_unified" else ""]
        parts = [read(fields.section(name), text) for name, read in readers if fields.has(name)]
    return replace(
        spec,
        embeddings=tuple(_moved(t) for t in spec.embeddings),
        head=tuple(_moved(t) for t in spec.head),
        layer_prefix=PREFIX + spec.layer_prefix.removeprefix("model."),
        parts=(*(replace(p, layer_prefix=PREFIX + p.layer_prefix.removeprefix("model.")) for p in spec.parts), *parts),
    )


def _section(fields: Fields, name: str) -> Fields:
    return fields.section(name) if fields.has(name) else Fields({}, name, fields.assumed)


def _moved(tensor: Tensor) -> Tensor:
    if not tensor.name.startswith("model."):
        return tensor
    return replace(tensor, name=PREFIX + tensor.name.removeprefix("model."))


def _clipped(name: str, outputs: int, inputs: int, *, clipped: bool) -> Tensors:
    """Return a matrix and, where the model clips, the limits of its input and output."""
    limits = (Tensor(name=f"{name}.{limit}", shape=(), role=Role.NORM, buffer=True) for limit in LIMITS)
    return (*linear(f"{name}.linear", outputs, inputs, Cut.WHOLE), *(limits if clipped else ()))


def _vision(fields: Fields, text: int) -> Part:
    """Read Gemma 4's vision tower: positions in two tables, one per axis."""
    hidden, width = fields.integer("hidden_size", 768), fields.integer("intermediate_size", 3072)
    heads, side = fields.integer("num_attention_heads", 12), fields.integer("head_dim", 64)
    kv = fields.integer("num_key_value_heads", 12)
    bias_free = fields.flag("attention_bias", default=False)
    if bias_free:
        fields.refuse("attention_bias", "biases that no published tower has")
    clipped = fields.flag("use_clipped_linears", default=False)
    shapes = (
        ("self_attn.q_proj", heads * side, hidden), ("self_attn.k_proj", kv * side, hidden),
        ("self_attn.v_proj", kv * side, hidden), ("self_attn.o_proj", hidden, heads * side),
        ("mlp.gate_proj", width, hidden), ("mlp.up_proj", width, hidden), ("mlp.down_proj", hidden, width),
    )  # fmt: skip
    layer = Layer(
        attention=GroupedQuery(num_attention_heads=heads, num_key_value_heads=kv, head_dim=side, causal=False),
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *(t for name, out, into in shapes for t in _clipped(name, out, into, clipped=clipped)),
            *norm("self_attn.q_norm", side),
            *norm("self_attn.k_norm", side),
            *block_norms(hidden, NORMS),
        ),
    )
    return Part(
        name="vision tower",
        layers=(layer,) * fields.integer("num_hidden_layers", 16, largest=LARGEST_LAYERS),
        layer_prefix="model.vision_tower.encoder.layers.{layer}.",
        tensors=(
            *_around_vision(fields, hidden),
            *linear("model.embed_vision.embedding_projection", text, hidden, Cut.WHOLE),
        ),
        resident=True,
    )


def _around_vision(fields: Fields, hidden: int) -> Tensors:
    at, patch = "model.vision_tower.", fields.integer("patch_size", 16)
    places = fields.integer("position_embedding_size", 10_240)
    standard = tuple(
        Tensor(name=f"{at}{name}", shape=(hidden,), role=Role.NORM, buffer=True) for name in ("std_bias", "std_scale")
    )
    return (
        *(standard if fields.flag("standardize", default=False) else ()),
        Tensor(name=f"{at}patch_embedder.position_embedding_table", shape=(2, places, hidden), role=Role.EMBEDDING),
        *linear(f"{at}patch_embedder.input_proj", hidden, COLOURS * patch**2, Cut.WHOLE),
    )


def _audio(fields: Fields, text: int) -> Part:
    """Read Gemma 4's audio tower."""
    hidden, heads = fields.integer("hidden_size", 1024), fields.integer("num_attention_heads", 8)
    side, kernel = _side(fields, "num_attention_heads", hidden, heads), fields.integer("conv_kernel_size", 5)
    clipped = fields.flag("use_clipped_linears", default=True)
    wide, out = _channels(fields, "subsampling_conv_channels"), fields.integer("output_proj_dims", 1536)
    at = "model.audio_tower.subsample_conv_projection."

    def halves(name: str) -> Tensors:
        return (
            *_clipped(f"{name}.ffw_layer_1", 4 * hidden, hidden, clipped=clipped),
            *_clipped(f"{name}.ffw_layer_2", hidden, 4 * hidden, clipped=clipped),
            *norm(f"{name}.pre_layer_norm", hidden),
            *norm(f"{name}.post_layer_norm", hidden),
        )

    tensors = (
        *halves("feed_forward1"),
        *halves("feed_forward2"),
        Tensor(name="self_attn.per_dim_scale", shape=(side,), role=Role.NORM),
        *(
            t for name in ("q_proj", "k_proj", "v_proj", "post")
            for t in _clipped(f"self_attn.{name}", hidden, hidden, clipped=clipped)
        ),
        *linear("self_attn.relative_k_proj", hidden, hidden, Cut.WHOLE),
        *_clipped("lconv1d.linear_start", 2 * hidden, hidden, clipped=clipped),
        *_clipped("lconv1d.linear_end", hidden, hidden, clipped=clipped),
        Tensor(name="lconv1d.depthwise_conv1d.weight", shape=(hidden, 1, kernel), role=Role.CONVOLUTION),
        *(
            t for name in ("lconv1d.pre_layer_norm", "lconv1d.conv_norm", "norm_pre_attn", "norm_post_attn", "norm_out")
            for t in norm(name, hidden)
        ),
    )  # fmt: skip
    around = (
        *_convolutions(at, ("layer0", "layer1"), wide),
        *linear(f"{at}input_proj_linear", hidden, wide[0] // 4 * wide[1], Cut.WHOLE),
        *linear("model.audio_tower.output_proj", out, hidden, Cut.WHOLE, bias=True),
        *linear("model.embed_audio.embedding_projection", text, out, Cut.WHOLE),
    )
    count = fields.integer("num_hidden_layers", 12, largest=LARGEST_LAYERS)
    return _hearing((hidden, heads, side), tensors, around, "layers", count)


def _patches(fields: Fields, text: int) -> Part:
    """Read the 12B model's way in for images: patches are brought to the width at once, without a tower."""
    wide, out = fields.integer("mm_embed_dim", 3840), fields.integer("output_proj_dims", 3840)
    pixels = COLOURS * (fields.integer("patch_size", 16) * fields.integer("pooling_kernel_size", 3)) ** 2
    places, at = fields.integer("mm_posemb_size", 1120), "model.vision_embedder."
    tensors = (
        *norm(f"{at}patch_ln1", pixels, bias=True),
        *linear(f"{at}patch_dense", wide, pixels, Cut.WHOLE, bias=True),
        *norm(f"{at}patch_ln2", wide, bias=True),
        Tensor(name=f"{at}pos_embedding", shape=(places, 2, wide), role=Role.EMBEDDING),
        *norm(f"{at}pos_norm", wide, bias=True),
        *linear("model.embed_vision.embedding_projection", text, out, Cut.WHOLE),
    )
    return Part(name="image patches", layers=(), layer_prefix="", tensors=tensors, resident=True)


def _samples(fields: Fields, text: int) -> Part:
    """Read the 12B model's way in for sound: one matrix."""
    tensors = linear("model.embed_audio.embedding_projection", text, fields.integer("audio_embed_dim", 640), Cut.WHOLE)
    return Part(name="sound frames", layers=(), layer_prefix="", tensors=tensors, resident=True)


READERS: dict[str, tuple[tuple[str, Callable[[Fields, int], Part]], ...]] = {
    "": (("vision_config", _vision), ("audio_config", _audio)),
    "unified": (("vision_config", _patches), ("audio_config", _samples)),
}
"""Kind of Gemma 4 -> (section, its reader), each read where the file has it."""


def _hearing(widths: tuple[int, int, int], tensors: Tensors, around: Tensors, blocks: str, count: int) -> Part:
    """Put an audio tower together; ``widths``: hidden size, heads, width of one."""
    hidden, heads, side = widths
    layer = Layer(
        attention=GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=side, causal=False),
        feed_forward=Dense(intermediate_size=4 * hidden, gated=False),
        tensors=tensors,
    )
    return Part(
        name="audio tower",
        layers=(layer,) * count,
        layer_prefix=f"model.audio_tower.{blocks}.{{layer}}.",
        tensors=around,
        resident=True,
    )


def _side(fields: Fields, name: str, hidden: int, heads: int) -> int:
    if hidden % heads:
        raise InvalidValueError(fields.at(name), heads, f"a divisor of hidden_size ({hidden})")
    return hidden // heads


def _channels(fields: Fields, name: str) -> tuple[int, int]:
    """Return the channels of the two convolutions that shorten sound."""
    value = fields.values.get(name)
    if value is None:
        fields.assume(name, "128, 32")
        return 128, 32
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidValueError(fields.at(name), value, "a list of two integers")
    first, second = (Fields({f"{name}[{i}]": v}, fields.path).integer(f"{name}[{i}]") for i, v in enumerate(value))
    return first, second


def _convolutions(at: str, names: tuple[str, str], channels: tuple[int, int]) -> Tensors:
    ins = (1, channels[0])
    return tuple(
        t
        for name, before, behind in zip(names, ins, channels, strict=True)
        for t in (
            Tensor(name=f"{at}{name}.conv.weight", shape=(behind, before, 3, 3), role=Role.CONVOLUTION),
            *norm(f"{at}{name}.norm", behind),
        )
    )


def _audio_3n(fields: Fields, text: int) -> Part:
    """Read Gemma 3n's audio tower, an earlier make of the same."""
    hidden, heads = fields.integer("hidden_size", 1536), fields.integer("conf_num_attention_heads", 8)
    side, kernel = _side(fields, "conf_num_attention_heads", hidden, heads), fields.integer("conf_conv_kernel_size", 5)
    at, wide = "model.audio_tower.subsample_conv_projection.", _channels(fields, "sscp_conv_channel_size")
    for name in ("sscp_conv_kernel_size", "sscp_conv_stride_size"):
        if fields.values.get(name) not in (None, *CONVOLUTIONS[name]):
            fields.refuse(name, "convolutions of another shape")

    def halves(name: str) -> Tensors:
        return (
            *norm(f"{name}.pre_layer_norm", hidden),
            *linear(f"{name}.ffw_layer_1", 4 * hidden, hidden, Cut.WHOLE),
            *linear(f"{name}.ffw_layer_2", hidden, 4 * hidden, Cut.WHOLE),
            *norm(f"{name}.post_layer_norm", hidden),
        )

    tensors = (
        *halves("ffw_layer_start"),
        *halves("ffw_layer_end"),
        Tensor(name="attention.attn.per_dim_scale", shape=(side,), role=Role.NORM),
        *(
            t for name in (RELATIVE, "attn.q_proj", "attn.k_proj", "attn.v_proj", "post")
            for t in linear(f"attention.{name}", hidden, hidden, Cut.WHOLE)
        ),
        *linear("lconv1d.linear_start", 2 * hidden, hidden, Cut.WHOLE),
        *linear("lconv1d.linear_end", hidden, hidden, Cut.WHOLE),
        Tensor(name="lconv1d.depthwise_conv1d.weight", shape=(hidden, 1, kernel), role=Role.CONVOLUTION),
        *(
            t for name in ("attention.pre_attn_norm", "attention.post_norm", "lconv1d.pre_layer_norm",
                           "lconv1d.conv_norm", "norm")
            for t in norm(name, hidden)
        ),
    )  # fmt: skip
    bins = _quarter(fields.integer("input_feat_size", 128))
    around = (
        *_convolutions(at, ("conv_0", "conv_1"), wide),
        *linear(f"{at}input_proj_linear", hidden, bins * wide[1], Cut.WHOLE),
        *_embedder(fields, "model.embed_audio.", hidden, text),
    )
    count = fields.integer("conf_num_hidden_layers", 12, largest=LARGEST_LAYERS)
    return _hearing((hidden, heads, side), tensors, around, "conformer", count)


def _quarter(bins: int) -> int:
    """Return what two convolutions of stride 2 leave of the frequencies.

    floor((bins + 2 - 3) / 2) + 1   each: kernel 3, one bin of padding on either side
    """
    for _ in range(2):
        bins = (bins - 1) // 2 + 1
    return bins


def _vision_3n(fields: Fields, text: int) -> Part:
    """Read Gemma 3n's vision tower, which has one make only."""
    if fields.text("architecture") not in {None, mobilenet_v5.NAME}:
        fields.refuse("architecture", f"another tower than {mobilenet_v5.NAME}")
    fields.refuse("model_args", "a tower made differently")
    inside = fields.integer("hidden_size", mobilenet_v5.OUT)
    joint = _embedder(fields, "model.embed_vision.", inside, text)
    tensors = (*mobilenet_v5.tower("model.vision_tower.timm_model."), *joint)
    return Part(name="vision tower", layers=(), layer_prefix="", tensors=tensors, resident=True)


def _embedder(fields: Fields, at: str, inside: int, text: int) -> Tensors:
    """Return what brings soft tokens, and hard ones of a vocabulary of their own, to the language model's width."""
    rows = fields.integer("vocab_size", 128, largest=LARGEST_VOCABULARY)
    return (
        Tensor(name=f"{at}embedding.weight", shape=(rows, inside), role=Role.EMBEDDING),
        *norm(f"{at}hard_embedding_norm", inside),
        *norm(f"{at}soft_embedding_norm", inside),
        *linear(f"{at}embedding_projection", text, inside, Cut.WHOLE),
    )
