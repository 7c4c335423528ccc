"""Vision towers that language models are given eyes with: CLIP, SigLIP, Pixtral, InternViT, Llama 4's and Qwen's.

Each function reads the tower's own section and returns its blocks and what stands around them; the caller names the
place in the file. Source: huggingface/transformers:src/transformers/models/<tower>/, 5.23.0, class defaults as there.
Every tensor is whole on every device: engines copy towers rather than divide them.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.families.decoder import Tensors, head_dim, linear, norm
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Dense, GroupedQuery, Layer, Part, Tensor


def clip(fields: Fields, prefix: str) -> Part:
    """Read CLIP's tower: a class token, a norm before and one behind the blocks."""
    hidden, patches = fields.integer("hidden_size", 768), _patches(fields, image=224, patch=32)
    return _openai_like(
        fields,
        prefix,
        (
            Tensor(name=f"{prefix}embeddings.class_embedding", shape=(hidden,), role=Role.EMBEDDING),
            _patch_convolution(fields, f"{prefix}embeddings.patch_embedding", hidden, 32),
            _positions(f"{prefix}embeddings.position_embedding", patches + 1, hidden),
            *norm(f"{prefix}pre_layrnorm", hidden, bias=True),
            *norm(f"{prefix}post_layernorm", hidden, bias=True),
        ),
    )


def siglip(fields: Fields, prefix: str) -> Part:
    """Read SigLIP's tower, with its attention pooling unless ``vision_use_head`` is false."""
    hidden, width = fields.integer("hidden_size", 768), fields.integer("intermediate_size", 3072)
    around = (*_siglip_around(fields, prefix, hidden), *_pooling(fields, f"{prefix}head.", hidden, width))
    return _openai_like(fields, prefix, around)


def siglip_bare(fields: Fields, prefix: str) -> Part:
    """Read SigLIP's tower as Idefics 3 and SmolVLM have it: without pooling."""
    return _openai_like(fields, prefix, _siglip_around(fields, prefix, fields.integer("hidden_size", 1152)))


def siglip2(fields: Fields, prefix: str) -> Part:
    """Read SigLIP 2's tower as LFM2-VL has it: patches of any number, projected by a matrix."""
    hidden, width = fields.integer("hidden_size", 768), fields.integer("intermediate_size", 3072)
    inputs = fields.integer("num_channels", 3) * side(fields, "patch_size", 16) ** 2
    at = f"{prefix}embeddings."
    around = (
        *linear(f"{at}patch_embedding", hidden, inputs, Cut.WHOLE, bias=True),
        _positions(f"{at}position_embedding", fields.integer("num_patches", 256), hidden),
        *norm(f"{prefix}post_layernorm", hidden, bias=True),
        *_pooling(fields, f"{prefix}head.", hidden, width),
    )
    return _openai_like(fields, prefix, around)


def _siglip_around(fields: Fields, prefix: str, hidden: int) -> Tensors:
    convolution = f"{prefix}embeddings.patch_embedding"
    return (
        _patch_convolution(fields, convolution, hidden, 16),
        Tensor(name=f"{convolution}.bias", shape=(hidden,), role=Role.BIAS),
        _positions(f"{prefix}embeddings.position_embedding", _patches(fields, image=224, patch=16), hidden),
        *norm(f"{prefix}post_layernorm", hidden, bias=True),
    )


def _openai_like(fields: Fields, prefix: str, around: Tensors) -> Part:
    """Return the blocks that CLIP and SigLIP share."""
    hidden, width = fields.integer("hidden_size", 768), fields.integer("intermediate_size", 3072)
    names = ("k_proj", "v_proj", "q_proj", "out_proj")
    tensors = (
        *norm("layer_norm1", hidden, bias=True),
        *(t for n in names for t in linear(f"self_attn.{n}", hidden, hidden, Cut.WHOLE, bias=True)),
        *norm("layer_norm2", hidden, bias=True),
        *linear("mlp.fc1", width, hidden, Cut.WHOLE, bias=True),
        *linear("mlp.fc2", hidden, width, Cut.WHOLE, bias=True),
    )
    heads = fields.integer("num_attention_heads", 12)
    return _tower(fields, (hidden, heads, width), tensors, f"{prefix}encoder.layers.{{layer}}.", around)


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
    around = (_patch_convolution(fields, f"{prefix}patch_conv", hidden, 16), *norm(f"{prefix}ln_pre", hidden))
    widths = (hidden, fields.integer("num_attention_heads", 16), width)
    return _tower(fields, widths, tensors, f"{prefix}transformer.layers.{{layer}}.", around, gated=True, layers=24)


def internvit(fields: Fields, prefix: str) -> Part:
    """Read InternVL's tower: a scale per channel behind attention and network."""
    hidden, width = fields.integer("hidden_size", 1024), fields.integer("intermediate_size", 4096)
    fields.refuse("use_qk_norm", "norms on queries and keys")
    fields.refuse("use_mask_token", "a mask token")
    bias = fields.flag("attention_bias", default=False)
    patches = _patches(fields, image=448, patch=14)
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
        _patch_convolution(fields, f"{at}patch_embeddings.projection", hidden, 14),
        Tensor(name=f"{at}patch_embeddings.projection.bias", shape=(hidden,), role=Role.BIAS),
        Tensor(name=f"{at}position_embeddings", shape=(1, patches + 1, hidden), role=Role.EMBEDDING),
        *(() if fields.flag("use_mean_pooling", default=True) else norm(f"{prefix}layernorm", hidden, bias=True)),
    )
    widths = (hidden, fields.integer("num_attention_heads", 16), width)
    return _tower(fields, widths, tensors, f"{prefix}encoder.layer.{{layer}}.", around, layers=24)


def llama4(fields: Fields, prefix: str) -> Part:
    """Read Llama 4's tower and the adapter that folds neighbouring patches into one token."""
    hidden, width = fields.integer("hidden_size", 768), fields.integer("intermediate_size", 5632)
    patch, patches = fields.integer("patch_size", 14), _patches(fields, image=448, patch=14)
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
    return _tower(fields, widths, tensors, f"{prefix}model.layers.{{layer}}.", around, layers=34)


def qwen2(fields: Fields, prefix: str) -> Part:
    """Read Qwen2-VL's tower, whose merger writes at the language model's width (``hidden_size``)."""
    inside, out = fields.integer("embed_dim", 1280), fields.integer("hidden_size", 3584)
    width = inside * fields.integer("mlp_ratio", 4)
    tensors = (
        *norm("norm1", inside, bias=True),
        *norm("norm2", inside, bias=True),
        *_qwen_attention(inside),
        *linear("mlp.fc1", width, inside, Cut.WHOLE, bias=True),
        *linear("mlp.fc2", inside, width, Cut.WHOLE, bias=True),
    )
    around = (*_qwen_patches(fields, prefix, inside), *_qwen_merger(fields, prefix, inside, out, norm_bias=True))
    return _qwen_tower(fields, (inside, fields.integer("num_heads", 16), width), tensors, prefix, around)


def qwen2_5(fields: Fields, prefix: str) -> Part:
    """Read Qwen2.5-VL's tower: gated networks, norms without bias."""
    inside, width = fields.integer("hidden_size", 3584), fields.integer("intermediate_size", 3420)
    tensors = (
        *norm("norm1", inside),
        *norm("norm2", inside),
        *_qwen_attention(inside),
        *(t for n in ("gate_proj", "up_proj") for t in linear(f"mlp.{n}", width, inside, Cut.WHOLE, bias=True)),
        *linear("mlp.down_proj", inside, width, Cut.WHOLE, bias=True),
    )
    out = fields.integer("out_hidden_size", 3584)
    around = (*_qwen_patches(fields, prefix, inside), *_qwen_merger(fields, prefix, inside, out, norm_bias=False))
    return _qwen_tower(fields, (inside, fields.integer("num_heads", 16), width), tensors, prefix, around, gated=True)


def qwen3(fields: Fields, prefix: str) -> Part:
    """Read Qwen3-VL's and Qwen3.5's tower; features of some blocks pass mergers of their own (deepstack)."""
    inside, width = fields.integer("hidden_size", 1152), fields.integer("intermediate_size", 4304)
    out, merge = fields.integer("out_hidden_size", 3584), fields.integer("spatial_merge_size", 2, largest=64)
    wide = inside * merge**2
    tensors = (
        *norm("norm1", inside, bias=True),
        *norm("norm2", inside, bias=True),
        *_qwen_attention(inside),
        *linear("mlp.linear_fc1", width, inside, Cut.WHOLE, bias=True),
        *linear("mlp.linear_fc2", inside, width, Cut.WHOLE, bias=True),
    )
    deep = len(fields.integers("deepstack_visual_indexes", LARGEST_LAYERS))
    if fields.absent("deepstack_visual_indexes") and "qwen3_vl" in (fields.text("model_type") or "qwen3_vl"):
        deep = 3
        fields.assume("deepstack_visual_indexes", "8, 16, 24")
    mergers = ((f"{prefix}merger", inside), *((f"{prefix}deepstack_merger_list.{i}", wide) for i in range(deep)))
    around = (
        *_qwen_patches(fields, prefix, inside, patch=16),
        Tensor(name=f"{prefix}patch_embed.proj.bias", shape=(inside,), role=Role.BIAS),
        _positions(f"{prefix}pos_embed", fields.integer("num_position_embeddings", 2304), inside),
        *(t for name, normed in mergers for t in _qwen3_merger(name, normed, wide, out)),
    )
    return _qwen_tower(fields, (inside, fields.integer("num_heads", 16), width), tensors, prefix, around, layers=27)


def _qwen3_merger(name: str, normed: int, wide: int, out: int) -> Tensors:
    return (
        *norm(f"{name}.norm", normed, bias=True),
        *linear(f"{name}.linear_fc1", wide, wide, Cut.WHOLE, bias=True),
        *linear(f"{name}.linear_fc2", out, wide, Cut.WHOLE, bias=True),
    )


def _qwen_attention(inside: int) -> Tensors:
    return (
        *linear("attn.qkv", 3 * inside, inside, Cut.WHOLE, bias=True),
        *linear("attn.proj", inside, inside, Cut.WHOLE, bias=True),
    )


def _qwen_patches(fields: Fields, prefix: str, inside: int, *, patch: int = 14) -> Tensors:
    channels = fields.integer("in_channels", 3) if fields.has("in_channels") else fields.integer("in_chans", 3)
    side, frames = fields.integer("patch_size", patch), fields.integer("temporal_patch_size", 2)
    shape = (inside, channels, frames, side, side)
    return (Tensor(name=f"{prefix}patch_embed.proj.weight", shape=shape, role=Role.CONVOLUTION),)


def _qwen_merger(fields: Fields, prefix: str, inside: int, out: int, *, norm_bias: bool) -> Tensors:
    wide = inside * fields.integer("spatial_merge_size", 2, largest=64) ** 2
    return (
        *norm(f"{prefix}merger.ln_q", inside, bias=norm_bias),
        *linear(f"{prefix}merger.mlp.0", wide, wide, Cut.WHOLE, bias=True),
        *linear(f"{prefix}merger.mlp.2", out, wide, Cut.WHOLE, bias=True),
    )


def _qwen_tower(  # noqa: PLR0913 - what a tower is made of
    fields: Fields,
    widths: tuple[int, int, int],
    tensors: Tensors,
    prefix: str,
    around: Tensors,
    *,
    gated: bool = False,
    layers: int = 32,
) -> Part:
    return _tower(
        fields, widths, tensors, f"{prefix}blocks.{{layer}}.", around, gated=gated, layers=layers, counted="depth"
    )


def _tower(  # noqa: PLR0913 - so
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


def side(fields: Fields, name: str, default: int, *, smallest: int = 1) -> int:
    """Return a side length in pixels; some files write it twice, for height and width."""
    value = fields.values.get(name)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        return Fields({name: value[0]}, fields.path, fields.assumed).integer(name, default, smallest=smallest)
    return fields.integer(name, default, smallest=smallest)


def _patches(fields: Fields, *, image: int, patch: int) -> int:
    """Return the number of patches of a square image."""
    wide = side(fields, "patch_size", patch)
    pixels = side(fields, "image_size", image, smallest=wide)
    return (pixels // wide) ** 2


def _patch_convolution(fields: Fields, name: str, hidden: int, patch: int) -> Tensor:
    wide = side(fields, "patch_size", patch)
    shape = (hidden, fields.integer("num_channels", 3), wide, wide)
    return Tensor(name=f"{name}.weight", shape=shape, role=Role.CONVOLUTION)


def _positions(name: str, count: int, hidden: int) -> Tensor:
    return Tensor(name=f"{name}.weight", shape=(count, hidden), role=Role.EMBEDDING)
