"""Vision towers that language models are given eyes with: CLIP, SigLIP, Pixtral, InternViT, Llama 4's and Qwen's.

Each function reads the tower's own section and returns its blocks and what stands around them; the caller names the
place in the file. Source: huggingface/transformers:src/transformers/models/<tower>/, 5.23.0, class defaults as there.
Every tensor is whole on every device: engines copy towers rather than divide them.
"""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Tensors, head_dim, linear, norm
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, Part, Tensor

LARGEST_RATIO = 64
"""Of a network's width to the hidden size."""


def clip(fields: Fields, prefix: str) -> Part:
    """Read CLIP's tower: a class token, a norm before and one behind the blocks."""
    hidden, patches = fields.integer("hidden_size", 768), patch_count(fields, image=224, patch=32)
    return _openai_like(
        fields,
        prefix,
        (
            Tensor(name=f"{prefix}embeddings.class_embedding", shape=(hidden,), role=Role.EMBEDDING),
            patch_convolution(fields, f"{prefix}embeddings.patch_embedding", hidden, 32),
            position_table(f"{prefix}embeddings.position_embedding", patches + 1, hidden),
            *norm(f"{prefix}pre_layrnorm", hidden, bias=True),
            *norm(f"{prefix}post_layernorm", hidden, bias=True),
        ),
    )


def siglip(fields: Fields, prefix: str) -> Part:
    """Read SigLIP's tower, with its attention pooling unless ``vision_use_head`` is false."""
    hidden, width = fields.integer("hidden_size", 768), fields.integer("intermediate_size", 3072)
    around = (*_siglip_around(fields, prefix, hidden), *_pooling(fields, f"{prefix}head.", hidden, width))
    return _openai_like(fields, prefix, around)


def siglip_bare(fields: Fields, prefix: str, *, output: str = "out_proj") -> Part:
    """Read SigLIP's tower without pooling; ``output``: what the attention's last matrix is called."""
    around = _siglip_around(fields, prefix, fields.integer("hidden_size", 768))
    return _openai_like(fields, prefix, around, output=output)


def idefics3(fields: Fields, prefix: str) -> Part:
    """Read the tower of Idefics 3, SmolVLM and Aria: SigLIP without pooling, other class defaults."""
    return siglip_bare(fields.filled(hidden_size=1152, num_attention_heads=16, image_size=224, patch_size=32), prefix)


def idefics2(fields: Fields, prefix: str) -> Part:
    """Read Idefics 2's tower: SigLIP without pooling."""
    return siglip_bare(fields.filled(image_size=224, patch_size=32), prefix)


def siglip_large(fields: Fields, prefix: str) -> Part:
    """Read PaddleOCR-VL's tower: SigLIP without pooling, other class defaults."""
    filled = fields.filled(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384,
        patch_size=14,
    )  # fmt: skip
    return siglip_bare(filled, prefix)


def siglip_rotated(fields: Fields, prefix: str) -> Part:
    """Read VideoLLaMA 3's tower: SigLIP without pooling, positions by rotation instead of a table."""
    hidden = fields.integer("hidden_size", 768)
    around = _siglip_around(fields.filled(image_size=224), prefix, hidden)
    return _openai_like(fields, prefix, tuple(t for t in around if "position_embedding" not in t.name))


def idefics(fields: Fields, prefix: str) -> Part:
    """Read the tower of the first Idefics: CLIP with class defaults of its own."""
    filled = fields.filled(
        embed_dim=768, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14
    )
    return clip(
        Fields({**filled.values, "hidden_size": filled.values["embed_dim"]}, fields.path, fields.assumed), prefix
    )


def janus(fields: Fields, prefix: str) -> Part:
    """Read Janus's tower: SigLIP without pooling, its network as wide as ``mlp_ratio`` says."""
    fields.refuse("use_qk_norm", "norms on queries and keys")
    fields.insist("attention_bias", on=True, why="attention without biases")
    filled = fields.filled(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, image_size=384, patch_size=16, mlp_ratio=4
    )
    ratio = filled.values["mlp_ratio"]
    if not isinstance(ratio, int | float) or not 0 < ratio <= LARGEST_RATIO:
        raise InvalidValueError(fields.at("mlp_ratio"), ratio, f"a number above 0 and at most {LARGEST_RATIO}")
    width = int(filled.integer("hidden_size") * ratio)
    wide = Fields({**filled.values, "intermediate_size": width}, fields.path, fields.assumed)
    return siglip_bare(wide, prefix, output="projection_layer")


def blip2(fields: Fields, prefix: str) -> Part:
    """Read the tower of BLIP-2 and InstructBLIP: EVA-CLIP with query, key and value in one matrix."""
    f = fields.filled(
        hidden_size=1408, intermediate_size=6144, num_hidden_layers=39, num_attention_heads=16, image_size=224,
        patch_size=14, qkv_bias=True,
    )  # fmt: skip
    hidden, width, heads = f.integer("hidden_size"), f.integer("intermediate_size"), f.integer("num_attention_heads")
    tensors = (
        *linear("self_attn.qkv", 3 * hidden, hidden, Cut.WHOLE, bias=f.flag("qkv_bias", default=True)),
        *linear("self_attn.projection", hidden, hidden, Cut.WHOLE, bias=True),
        *norm("layer_norm1", hidden, bias=True),
        *linear("mlp.fc1", width, hidden, Cut.WHOLE, bias=True),
        *linear("mlp.fc2", hidden, width, Cut.WHOLE, bias=True),
        *norm("layer_norm2", hidden, bias=True),
    )
    at, side_length = f"{prefix}embeddings.", f.integer("patch_size")
    around = (
        learned(f"{at}class_embedding", 1, 1, hidden),
        learned(f"{at}position_embedding", 1, patch_count(f, image=224, patch=14) + 1, hidden),
        *convolution(f"{at}patch_embedding", hidden, 3, side_length, side_length),
        *norm(f"{prefix}post_layernorm", hidden, bias=True),
    )
    return tower_of(f, (hidden, heads, width), tensors, f"{prefix}encoder.layers.{{layer}}.", around)


def ovis2(fields: Fields, prefix: str) -> Part:
    """Read Ovis 2's tower: AIMv2, whose features choose among words of a visual vocabulary."""
    f = fields.filled(
        hidden_size=1024, intermediate_size=2816, num_hidden_layers=24, num_attention_heads=8, image_size=224,
        patch_size=14, vocab_size=16384, hidden_stride=1, num_visual_indicator_tokens=5,
    )  # fmt: skip
    hidden, width, heads = f.integer("hidden_size"), f.integer("intermediate_size"), f.integer("num_attention_heads")
    bias, mlp_bias = f.flag("qkv_bias", default=False), f.flag("mlp_bias", default=False)
    tensors = (
        *matrices((f"attention.{n}_proj" for n in ("q", "k", "v", "out")), hidden, hidden, bias=bias),
        *matrices(("ffn.gate_proj", "ffn.up_proj"), width, hidden, bias=mlp_bias),
        *linear("ffn.down_proj", hidden, width, Cut.WHOLE, bias=mlp_bias),
        *norm("rms_norm1", hidden),
        *norm("rms_norm2", hidden),
    )
    at = f"{prefix}transformer."
    words = f.integer("vocab_size") - f.integer("num_visual_indicator_tokens", smallest=0)
    around = (
        patch_convolution(f, f"{at}embeddings.patch_embedding", hidden, 14),
        Tensor(name=f"{at}embeddings.patch_embedding.bias", shape=(hidden,), role=Role.BIAS),
        position_table(f"{at}embeddings.position_embedding", patch_count(f, image=224, patch=14), hidden),
        *norm(f"{at}embeddings.rms_norm", hidden),
        *norm(f"{at}rms_norm", hidden),
        *linear(f"{prefix}head_linear", words, hidden * f.integer("hidden_stride", largest=64) ** 2, Cut.WHOLE),
        *norm(f"{prefix}head_norm", words, bias=True),
    )
    return tower_of(f, (hidden, heads, width), tensors, f"{at}encoder.layers.{{layer}}.", around, gated=True)


def siglip2(fields: Fields, prefix: str) -> Part:
    """Read SigLIP 2's tower as LFM2-VL has it: patches of any number, projected by a matrix."""
    hidden, width = fields.integer("hidden_size", 768), fields.integer("intermediate_size", 3072)
    inputs = fields.integer("num_channels", 3) * side(fields, "patch_size", 16) ** 2
    at = f"{prefix}embeddings."
    around = (
        *linear(f"{at}patch_embedding", hidden, inputs, Cut.WHOLE, bias=True),
        position_table(f"{at}position_embedding", fields.integer("num_patches", 256), hidden),
        *norm(f"{prefix}post_layernorm", hidden, bias=True),
        *_pooling(fields, f"{prefix}head.", hidden, width),
    )
    return _openai_like(fields, prefix, around)


def _siglip_around(fields: Fields, prefix: str, hidden: int) -> Tensors:
    convolution = f"{prefix}embeddings.patch_embedding"
    return (
        patch_convolution(fields, convolution, hidden, 16),
        Tensor(name=f"{convolution}.bias", shape=(hidden,), role=Role.BIAS),
        position_table(f"{prefix}embeddings.position_embedding", patch_count(fields, image=224, patch=16), hidden),
        *norm(f"{prefix}post_layernorm", hidden, bias=True),
    )


def _openai_like(fields: Fields, prefix: str, around: Tensors, *, output: str = "out_proj") -> Part:
    """Return the blocks that CLIP and SigLIP share."""
    hidden, width = fields.integer("hidden_size", 768), fields.integer("intermediate_size", 3072)
    names = ("k_proj", "v_proj", "q_proj", output)
    tensors = (
        *norm("layer_norm1", hidden, bias=True),
        *(t for n in names for t in linear(f"self_attn.{n}", hidden, hidden, Cut.WHOLE, bias=True)),
        *norm("layer_norm2", hidden, bias=True),
        *linear("mlp.fc1", width, hidden, Cut.WHOLE, bias=True),
        *linear("mlp.fc2", hidden, width, Cut.WHOLE, bias=True),
    )
    heads = fields.integer("num_attention_heads", 12)
    return tower_of(fields, (hidden, heads, width), tensors, f"{prefix}encoder.layers.{{layer}}.", around)


def _pooling(fields: Fields, head: str, hidden: int, width: int) -> Tensors:
    if not fields.flag("vision_use_head", default=True):
        return ()
    return (
        Tensor(name=f"{head}probe", shape=(1, 1, hidden), role=Role.EMBEDDING),
        Tensor(name=f"{head}attention.in_proj_weight", shape=(3 * hidden, hidden), role=Role.LINEAR),
        Tensor(name=f"{head}attention.in_proj_bias", shape=(3 * hidden,), role=Role.BIAS),
        *linear(f"{head}attention.out_proj", hidden, hidden, Cut.WHOLE, bias=True),
        *norm(f"{head}layernorm", hidden, bias=True),
        *linear(f"{head}mlp.fc1", width, hidden, Cut.WHOLE, bias=True),
        *linear(f"{head}mlp.fc2", hidden, width, Cut.WHOLE, bias=True),
    )


def pixtral(fields: Fields, prefix: str) -> Part:
    """Read Pixtral's tower: a small Llama without causality, positions by rotation."""
    hidden, width = fields.integer("hidden_size", 1024), fields.integer("intermediate_size", 4096)
    tensors = (
        *(t for n in "qkvo" for t in linear(f"attention.{n}_proj", hidden, hidden, Cut.WHOLE)),
        *norm("attention_norm", hidden),
        *norm("ffn_norm", hidden),
        *linear("feed_forward.gate_proj", width, hidden, Cut.WHOLE),
        *linear("feed_forward.up_proj", width, hidden, Cut.WHOLE),
        *linear("feed_forward.down_proj", hidden, width, Cut.WHOLE),
    )
    around = (patch_convolution(fields, f"{prefix}patch_conv", hidden, 16), *norm(f"{prefix}ln_pre", hidden))
    widths = (hidden, fields.integer("num_attention_heads", 16), width)
    return tower_of(fields, widths, tensors, f"{prefix}transformer.layers.{{layer}}.", around, gated=True, layers=24)


def internvit(fields: Fields, prefix: str) -> Part:
    """Read InternVL's tower: a scale per channel behind attention and network."""
    hidden, width = fields.integer("hidden_size", 1024), fields.integer("intermediate_size", 4096)
    fields.refuse("use_qk_norm", "norms on queries and keys")
    fields.refuse("use_mask_token", "a mask token")
    bias = fields.flag("attention_bias", default=False)
    patches = patch_count(fields, image=448, patch=14)
    tensors = (
        *(t for n in "qkv" for t in linear(f"attention.{n}_proj", hidden, hidden, Cut.WHOLE, bias=bias)),
        *linear("attention.projection_layer", hidden, hidden, Cut.WHOLE, bias=True),
        *(Tensor(name=name, shape=(hidden,), role=Role.NORM) for name in ("lambda_1", "lambda_2")),
        *norm("layernorm_before", hidden, bias=True),
        *norm("layernorm_after", hidden, bias=True),
        *linear("mlp.fc1", width, hidden, Cut.WHOLE, bias=True),
        *linear("mlp.fc2", hidden, width, Cut.WHOLE, bias=True),
    )
    at = f"{prefix}embeddings."
    around = (
        Tensor(name=f"{at}cls_token", shape=(1, 1, hidden), role=Role.EMBEDDING),
        patch_convolution(fields, f"{at}patch_embeddings.projection", hidden, 14),
        Tensor(name=f"{at}patch_embeddings.projection.bias", shape=(hidden,), role=Role.BIAS),
        Tensor(name=f"{at}position_embeddings", shape=(1, patches + 1, hidden), role=Role.EMBEDDING),
        *(() if fields.flag("use_mean_pooling", default=True) else norm(f"{prefix}layernorm", hidden, bias=True)),
    )
    widths = (hidden, fields.integer("num_attention_heads", 16), width)
    return tower_of(fields, widths, tensors, f"{prefix}encoder.layer.{{layer}}.", around, layers=24)


def llama4(fields: Fields, prefix: str) -> Part:
    """Read Llama 4's tower and the adapter that folds neighbouring patches into one token."""
    hidden, width = fields.integer("hidden_size", 768), fields.integer("intermediate_size", 5632)
    patch, patches = fields.integer("patch_size", 14), patch_count(fields, image=448, patch=14)
    ratio = fields.values.get("pixel_shuffle_ratio", 0.5)
    if not isinstance(ratio, float) or not 0 < ratio <= 1:
        raise InvalidValueError(fields.at("pixel_shuffle_ratio"), ratio, "a number above 0 and at most 1")
    out, inside = fields.integer("projector_output_dim", 4096), fields.integer("projector_input_dim", 4096)
    tensors = (
        *(t for n in "qkvo" for t in linear(f"self_attn.{n}_proj", hidden, hidden, Cut.WHOLE, bias=True)),
        *linear("mlp.fc1", width, hidden, Cut.WHOLE, bias=True),
        *linear("mlp.fc2", hidden, width, Cut.WHOLE, bias=True),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    channels = fields.integer("num_channels", 3)
    around = (
        Tensor(name=f"{prefix}class_embedding", shape=(hidden,), role=Role.EMBEDDING),
        Tensor(name=f"{prefix}positional_embedding_vlm", shape=(patches + 1, hidden), role=Role.EMBEDDING),
        *linear(f"{prefix}patch_embedding.linear", hidden, channels * patch**2, Cut.WHOLE),
        *norm(f"{prefix}layernorm_pre", hidden, bias=True),
        *norm(f"{prefix}layernorm_post", hidden, bias=True),
        *linear(f"{prefix}vision_adapter.mlp.fc1", inside, int(hidden // ratio**2), Cut.WHOLE),
        *linear(f"{prefix}vision_adapter.mlp.fc2", out, out, Cut.WHOLE),
    )
    widths = (hidden, fields.integer("num_attention_heads", 16), width)
    return tower_of(fields, widths, tensors, f"{prefix}model.layers.{{layer}}.", around, layers=34)


def tower_of(  # noqa: PLR0913 - so
    fields: Fields,
    widths: tuple[int, int, int],
    tensors: Tensors,
    layer_prefix: str,
    around: Tensors,
    *,
    gated: bool = False,
    layers: int = 12,
    counted: str = "num_hidden_layers",
) -> Part:
    """Put a tower together; ``widths``: hidden size, heads, width of the network."""
    hidden, heads, width = widths
    facts = GroupedQuery(
        num_attention_heads=heads, num_key_value_heads=heads, head_dim=head_dim(fields, hidden, heads), causal=False
    )
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=gated), tensors=tensors)
    return Part(
        name="vision tower",
        layers=(layer,) * fields.integer(counted, layers, largest=LARGEST_LAYERS),
        layer_prefix=layer_prefix,
        tensors=around,
        resident=True,
    )


def matrices(names: Iterable[str], outputs: int, inputs: int, *, bias: bool = False) -> Tensors:
    """Return linear layers of one shape that stand whole on every device."""
    return tuple(t for name in names for t in linear(name, outputs, inputs, Cut.WHOLE, bias=bias))


def convolution(name: str, *shape: int, bias: bool = True) -> Tensors:
    """Return the weight of a convolution, ``[outputs, inputs, sides ...]``, and its bias if it has one."""
    weight = Tensor(name=f"{name}.weight", shape=shape, role=Role.CONVOLUTION)
    return (weight, Tensor(name=f"{name}.bias", shape=shape[:1], role=Role.BIAS)) if bias else (weight,)


def learned(name: str, *shape: int) -> Tensor:
    """Return a learned table that stands alone: queries, a class token, positions."""
    return Tensor(name=name, shape=shape, role=Role.EMBEDDING)


def side(fields: Fields, name: str, default: int, *, smallest: int = 1) -> int:
    """Return a side length in pixels; some files write it twice, for height and width."""
    value = fields.values.get(name)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        return Fields({name: value[0]}, fields.path, fields.assumed).integer(name, default, smallest=smallest)
    return fields.integer(name, default, smallest=smallest)


def patch_count(fields: Fields, *, image: int, patch: int) -> int:
    """Return the number of patches of a square image."""
    wide = side(fields, "patch_size", patch)
    pixels = side(fields, "image_size", image, smallest=wide)
    return (pixels // wide) ** 2


def patch_convolution(fields: Fields, name: str, hidden: int, patch: int) -> Tensor:
    """Return the convolution that turns patches into vectors; a bias stands apart."""
    wide = side(fields, "patch_size", patch)
    shape = (hidden, fields.integer("num_channels", 3), wide, wide)
    return Tensor(name=f"{name}.weight", shape=shape, role=Role.CONVOLUTION)


def position_table(name: str, count: int, hidden: int) -> Tensor:
    """Return a table with one row per position, or per whatever is looked up."""
    return Tensor(name=f"{name}.weight", shape=(count, hidden), role=Role.EMBEDDING)
