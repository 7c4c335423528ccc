"""Vision towers that fold neighbouring patches into one token: Qwen2-VL's, Qwen2.5-VL's, Qwen3-VL's and GLM-4.1V's.

Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.readers.families.decoder import Tensors, linear, norm
from vramfit.readers.families.vision import convolution, matrices, patch_count, position_table, tower_of
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Part, Tensor


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


def qwen2_5(fields: Fields, prefix: str, *, split: bool = False) -> Part:
    """Read Qwen2.5-VL's tower: gated networks, norms without bias; ``split``: query, key and value stand apart."""
    inside, width = fields.integer("hidden_size", 3584), fields.integer("intermediate_size", 3420)
    tensors = (
        *norm("norm1", inside),
        *norm("norm2", inside),
        *(matrices((f"attn.{n}" for n in ("q", "k", "v", "proj")), inside, inside, bias=True) if split else ()),
        *(() if split else _qwen_attention(inside)),
        *(t for n in ("gate_proj", "up_proj") for t in linear(f"mlp.{n}", width, inside, Cut.WHOLE, bias=True)),
        *linear("mlp.down_proj", inside, width, Cut.WHOLE, bias=True),
    )
    out = fields.integer("out_hidden_size", 3584)
    around = (*_qwen_patches(fields, prefix, inside), *_qwen_merger(fields, prefix, inside, out, norm_bias=False))
    return _qwen_tower(fields, (inside, fields.integer("num_heads", 16), width), tensors, prefix, around, gated=True)


def qwen2_5_omni(fields: Fields, prefix: str) -> Part:
    """Read Qwen2.5-Omni's tower: Qwen2.5-VL's with query, key and value apart."""
    return qwen2_5(fields, prefix, split=True)


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
        position_table(f"{prefix}pos_embed", fields.integer("num_position_embeddings", 2304), inside),
        *(t for name, normed in mergers for t in _qwen3_merger(name, normed, wide, out)),
    )
    return _qwen_tower(fields, (inside, fields.integer("num_heads", 16), width), tensors, prefix, around, layers=27)


_OMNI_NAMES = (
    ("deepstack_merger_list", "merger_list"), (".norm.", ".ln_q."), ("linear_fc1", "mlp.0"), ("linear_fc2", "mlp.2"),
)  # fmt: skip


def qwen3_omni(fields: Fields, prefix: str) -> Part:
    """Read Qwen3-Omni's tower: Qwen3-VL's, its mergers under other names."""
    part = qwen3(fields.filled(deepstack_visual_indexes=[8, 16, 24]), prefix)

    def named(tensor: Tensor) -> Tensor:
        name = tensor.name
        for ours, theirs in _OMNI_NAMES if "merger" in name else ():
            name = name.replace(ours, theirs)
        return replace(tensor, name=name)

    return replace(part, tensors=tuple(named(t) for t in part.tensors))


def glm4v(fields: Fields, prefix: str) -> Part:
    """Read GLM-4.1V's and GLM-4.5V's tower, whose networks are as wide as the language model."""
    f = fields.filled(
        hidden_size=1536, depth=24, num_heads=12, image_size=336, out_hidden_size=4096, intermediate_size=13696
    )
    inside, out = f.integer("hidden_size"), f.integer("out_hidden_size")
    tensors = (
        *norm("norm1", inside),
        *norm("norm2", inside),
        *linear("attn.qkv", 3 * inside, inside, Cut.WHOLE, bias=f.flag("attention_bias", default=False)),
        *linear("attn.proj", inside, inside, Cut.WHOLE),
        *matrices(("mlp.gate_proj", "mlp.up_proj"), out, inside),
        *linear("mlp.down_proj", inside, out, Cut.WHOLE),
    )
    around = (
        position_table(f"{prefix}embeddings.position_embedding", patch_count(f, image=336, patch=14), inside),
        *_glm_around(f, prefix, inside, out, f.integer("intermediate_size")),
        *norm(f"{prefix}post_conv_layernorm", inside),
    )
    return _qwen_tower(f, (inside, f.integer("num_heads"), out), tensors, prefix, around, gated=True)


def glm_ocr(fields: Fields, prefix: str) -> Part:
    """Read GLM-OCR's tower: biases, norms on queries and keys, positions by rotation alone."""
    f = fields.filled(hidden_size=1024, depth=24, num_heads=16, out_hidden_size=1536, intermediate_size=4096)
    inside, width, heads = f.integer("hidden_size"), f.integer("intermediate_size"), f.integer("num_heads")
    bias, out = f.flag("attention_bias", default=True, recorded=True), f.integer("out_hidden_size")
    tensors = (
        *norm("norm1", inside),
        *norm("norm2", inside),
        *linear("attn.qkv", 3 * inside, inside, Cut.WHOLE, bias=bias),
        *linear("attn.proj", inside, inside, Cut.WHOLE, bias=bias),
        *norm("attn.q_norm", inside // heads),
        *norm("attn.k_norm", inside // heads),
        *matrices(("mlp.gate_proj", "mlp.up_proj"), width, inside, bias=bias),
        *linear("mlp.down_proj", inside, width, Cut.WHOLE, bias=bias),
    )
    around = _glm_around(f, prefix, inside, out, out * f.integer("in_channels", 3))
    return _qwen_tower(f, (inside, heads, width), tensors, prefix, around, gated=True)


def _glm_around(fields: Fields, prefix: str, inside: int, out: int, wide: int) -> Tensors:
    """Return patches, the convolution that folds them, and the merger."""
    merge, at = fields.integer("spatial_merge_size", 2, largest=64), f"{prefix}merger."
    return (
        *_qwen_patches(fields, prefix, inside),
        Tensor(name=f"{prefix}patch_embed.proj.bias", shape=(inside,), role=Role.BIAS),
        *linear(f"{at}proj", out, out, Cut.WHOLE),
        *norm(f"{at}post_projection_norm", out, bias=True),
        *matrices((f"{at}gate_proj", f"{at}up_proj"), wide, out),
        *linear(f"{at}down_proj", out, wide, Cut.WHOLE),
        *convolution(f"{prefix}downsample", out, inside, merge, merge),
        *norm(f"{prefix}post_layernorm", inside),
    )


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
    return tower_of(
        fields, widths, tensors, f"{prefix}blocks.{{layer}}.", around, gated=gated, layers=layers, counted="depth"
    )
