"""Transformers that read the text by cross attention, or in one sequence with the image.

PixArt, Wan, LTX-Video, Sana, CogVideoX, Lumina 2, Z-Image.
Source: huggingface/diffusers@v0.42.1:src/diffusers/models/transformers/, one file per class.
"""

from __future__ import annotations

from vramfit.pipeline import Denoiser
from vramfit.readers.diffusion.block import (
    TIME_CHANNELS,
    Anatomy,
    Stack,
    Tensors,
    attention,
    block,
    convolution,
    count,
    feed_forward,
    integers,
    linear,
    norm,
    one_of,
    swiglu,
    table,
    two_linears,
    under,
    whole_heads,
    yes,
)
from vramfit.readers.diffusion.size import LARGEST_PATCH, Width, patch, scaled, width_of
from vramfit.readers.fields import Fields
from vramfit.spec import Layer
from vramfit.units import ceil_div

ADALN_CHANNELS, LUMINA_ADALN_CHANNELS = 256, 1024
"""Widest embedding of a time step in Z-Image and in Lumina 2, fixed in their code."""
ZIMAGE_TIME_INNER = 1024
"""Inner width of Z-Image's embedder of time steps, fixed in its code."""


def _facts(fields: Fields, w: Width, text: str) -> Denoiser:
    return Denoiser(
        in_channels=fields.integer("in_channels"),
        out_channels=fields.optional("out_channels") or fields.integer("in_channels"),
        hidden_size=w.inner,
        num_attention_heads=w.heads,
        head_dim=w.head_dim,
        patch_size=patch(fields),
        text_width=fields.optional(text),
    )


def _stack(fields: Fields, name: str, layer: Layer, counted: str = "num_layers") -> Stack:
    return Stack(prefix=f"{name}.{{layer}}.", layers=(layer,) * count(fields, counted))


def _outputs(fields: Fields) -> int:
    frames, side, other = patch(fields)
    return frames * side * other * (fields.optional("out_channels") or fields.integer("in_channels"))


def _caption(fields: Fields, w: Width) -> Tensors:
    """Return the projection of the text; null = the text arrives at the right width."""
    text = fields.optional("caption_channels")
    return two_linears("caption_projection", w.inner, text) if text else ()


def pixart(fields: Fields) -> Anatomy:
    """Read PixArt alpha and sigma; the alpha's 1024-pixel models also read the image's size and shape."""
    w, side = width_of(fields), fields.integer("patch_size")
    bias, text = yes(fields, "attention_bias"), fields.integer("cross_attention_dim")
    sized = fields.flag("use_additional_conditions", default=fields.values.get("sample_size") == 128)
    third = w.inner // 3
    sizes = ("resolution_embedder", "aspect_ratio_embedder") if sized else ()
    tensors = (
        *table("scale_shift_table", 2, w.inner),
        *convolution("pos_embed.proj", w.inner, fields.integer("in_channels"), (side, side)),
        *two_linears("adaln_single.emb.timestep_embedder", w.inner, TIME_CHANNELS),
        *(t for n in sizes for t in two_linears(f"adaln_single.emb.{n}", third, TIME_CHANNELS)),
        *linear("adaln_single.linear", 6 * w.inner, w.inner),
        *_caption(fields, w),
        *linear("proj_out", _outputs(fields), w.inner),
    )
    layer = (
        *table("scale_shift_table", 6, w.inner),
        *attention("attn1", w.inner, w.inner, bias=bias),
        *attention("attn2", w.inner, w.inner, context=text, bias=bias),
        *feed_forward("ff", w.inner, w.mlp),
    )
    made = block(w.heads, w.head_dim, w.mlp, layer, crosses=True)
    return Anatomy(
        tensors=tensors,
        stacks=(_stack(fields, "transformer_blocks", made),),
        facts=_facts(fields, w, "caption_channels"),
    )


def wan(fields: Fields) -> Anatomy:
    """Read Wan 2.1 and 2.2, from text and from images."""
    w, kernel, at = width_of(fields), patch(fields), "condition_embedder"
    width, image = fields.integer("ffn_dim"), fields.optional("image_dim")
    tensors = (
        *table("scale_shift_table", 1, 2, w.inner),
        *convolution("patch_embedding", w.inner, fields.integer("in_channels"), kernel),
        *two_linears(f"{at}.time_embedder", w.inner, fields.integer("freq_dim")),
        *linear(f"{at}.time_proj", 6 * w.inner, w.inner),
        *two_linears(f"{at}.text_embedder", w.inner, fields.integer("text_dim")),
        *(_wan_image(fields, f"{at}.image_embedder", w, image) if image else ()),
        *linear("proj_out", _outputs(fields), w.inner),
    )
    added = fields.optional("added_kv_proj_dim")
    layer = (
        *table("scale_shift_table", 1, 6, w.inner),
        *attention("attn1", w.inner, w.inner, qk_norm=w.inner),
        *attention("attn2", w.inner, w.inner, qk_norm=w.inner),
        *(_wan_added(w, added) if added else ()),
        *(norm("norm2", w.inner, bias=True) if yes(fields, "cross_attn_norm") else ()),
        *feed_forward("ffn", w.inner, width),
    )
    made = block(w.heads, w.head_dim, width, layer, crosses=True)
    return Anatomy(tensors=tensors, stacks=(_stack(fields, "blocks", made),), facts=_facts(fields, w, "text_dim"))


def _wan_image(fields: Fields, name: str, w: Width, image: int) -> Tensors:
    """Return the embedder of CLIP's view of the first image."""
    length = fields.optional("pos_embed_seq_len")
    return (
        *norm(f"{name}.norm1", image, bias=True),
        *linear(f"{name}.ff.net.0.proj", image, image),
        *linear(f"{name}.ff.net.2", w.inner, image),
        *norm(f"{name}.norm2", w.inner, bias=True),
        *(table(f"{name}.pos_embed", 1, length, image) if length else ()),
    )


def _wan_added(w: Width, width: int) -> Tensors:
    """Return keys and values of the image beside those of the text."""
    return (
        *linear("attn2.add_k_proj", w.inner, width),
        *linear("attn2.add_v_proj", w.inner, width),
        *norm("attn2.norm_added_k", w.inner),
    )


def ltx(fields: Fields) -> Anatomy:
    """Read LTX-Video."""
    w = width_of(fields)
    mixing = {"bias": yes(fields, "attention_bias"), "out_bias": yes(fields, "attention_out_bias")}
    layer = (
        *table("scale_shift_table", 6, w.inner),
        *attention("attn1", w.inner, w.inner, qk_norm=w.inner, **mixing),
        *attention("attn2", w.inner, w.inner, context=fields.integer("cross_attention_dim"), qk_norm=w.inner, **mixing),
        *feed_forward("ff", w.inner, w.mlp),
    )
    tensors = (
        *table("scale_shift_table", 2, w.inner),
        *linear("proj_in", w.inner, fields.integer("in_channels")),
        *two_linears("time_embed.emb.timestep_embedder", w.inner, TIME_CHANNELS),
        *linear("time_embed.linear", 6 * w.inner, w.inner),
        *_caption(fields, w),
        *linear("proj_out", fields.optional("out_channels") or fields.integer("in_channels"), w.inner),
    )
    made = block(w.heads, w.head_dim, w.mlp, layer, crosses=True)
    return Anatomy(
        tensors=tensors,
        stacks=(_stack(fields, "transformer_blocks", made),),
        facts=_facts(fields, w, "caption_channels"),
    )


def sana(fields: Fields) -> Anatomy:
    """Read Sana: linear attention over the image, cross attention to the text, networks of convolutions."""
    w, side = width_of(fields), fields.integer("patch_size")
    guided = yes(fields, "guidance_embeds")
    normed = one_of(fields, "qk_norm", (None, "rms_norm_across_heads")) is not None
    crossed = fields.integer("num_cross_attention_heads") * fields.integer("cross_attention_head_dim")
    text, wide = fields.integer("cross_attention_dim"), scaled(fields, "mlp_ratio", w.inner)
    steps = ("timestep_embedder", "guidance_embedder") if guided else ("emb.timestep_embedder",)
    tensors = (
        *table("scale_shift_table", 2, w.inner),
        *convolution("patch_embed.proj", w.inner, fields.integer("in_channels"), (side, side)),
        *(t for n in steps for t in two_linears(f"time_embed.{n}", w.inner, TIME_CHANNELS)),
        *linear("time_embed.linear", 6 * w.inner, w.inner),
        *two_linears("caption_projection", w.inner, fields.integer("caption_channels")),
        *norm("caption_norm", w.inner),
        *linear("proj_out", _outputs(fields), w.inner),
    )
    layer = (
        *table("scale_shift_table", 6, w.inner),
        *attention("attn1", w.inner, w.inner, bias=yes(fields, "attention_bias"), qk_norm=w.inner if normed else 0),
        *attention("attn2", w.inner, crossed, context=text, qk_norm=crossed if normed else 0),
        *convolution("ff.conv_inverted", 2 * wide, w.inner, (1, 1)),
        *convolution("ff.conv_depth", 2 * wide, 1, (3, 3)),
        *convolution("ff.conv_point", w.inner, wide, (1, 1), bias=False),
    )
    made = block(w.heads, w.head_dim, wide, layer, crosses=True, gated=True)
    return Anatomy(
        tensors=tensors,
        stacks=(_stack(fields, "transformer_blocks", made),),
        facts=_facts(fields, w, "caption_channels"),
    )


def cogvideox(fields: Fields) -> Anatomy:
    """Read CogVideoX: text and video in one sequence, a norm and a modulation for both."""
    w, (frames, side, _) = width_of(fields), patch(fields)
    times, text = fields.integer("time_embed_dim"), fields.integer("text_embed_dim")
    affine, ofs = yes(fields, "norm_elementwise_affine"), fields.optional("ofs_embed_dim")
    cells, inputs = frames * side**2, fields.integer("in_channels")
    if fields.has("patch_size_t"):
        patches = linear("patch_embed.proj", w.inner, cells * inputs)
    else:
        patches = convolution("patch_embed.proj", w.inner, inputs, (side, side), bias=yes(fields, "patch_bias"))
    tensors = (
        *_cogvideox_positions(fields, w, side),
        *patches,
        *linear("patch_embed.text_proj", w.inner, text),
        *two_linears("time_embedding", times, w.inner),
        *(two_linears("ofs_embedding", ofs, ofs) if ofs else ()),
        *(norm("norm_final", w.inner, bias=True) if affine else ()),
        *linear("norm_out.linear", 2 * w.inner, times),
        *(norm("norm_out.norm", w.inner, bias=True) if affine else ()),
        *linear("proj_out", _outputs(fields), w.inner),
    )
    layer = (
        *(t for n in ("norm1", "norm2") for t in linear(f"{n}.linear", 6 * w.inner, times)),
        *(t for n in ("norm1", "norm2") if affine for t in norm(f"{n}.norm", w.inner, bias=True)),
        *attention("attn1", w.inner, w.inner, bias=yes(fields, "attention_bias")),
        *(t for n in "qk" for t in norm(f"attn1.norm_{n}", w.head_dim, bias=True)),
        *feed_forward("ff", w.inner, w.mlp),
    )
    made = block(w.heads, w.head_dim, w.mlp, layer)
    return Anatomy(
        tensors=tensors,
        stacks=(_stack(fields, "transformer_blocks", made),),
        facts=_facts(fields, w, "text_embed_dim"),
    )


def _cogvideox_positions(fields: Fields, w: Width, side: int) -> Tensors:
    """Return the table of positions; only a learned one is in the file, and it is a buffer."""
    if not yes(fields, "use_learned_positional_embeddings"):
        return ()
    rows, columns, images = (fields.integer(f"sample_{n}") for n in ("height", "width", "frames"))
    steps = (images - 1) // fields.integer("temporal_compression_ratio") + 1
    length = fields.integer("max_text_seq_length") + steps * (rows // side) * (columns // side)
    return table("patch_embed.pos_embedding", 1, length, w.inner, buffer=True)


def lumina2(fields: Fields) -> Anatomy:
    """Read Lumina Image 2: grouped heads, gated networks, refiners for noise and text before the main stack."""
    hidden = fields.integer("hidden_size")
    heads = whole_heads(fields, "num_attention_heads", hidden)
    w = Width(heads, hidden // heads, 4 * hidden)
    step, multiple = min(hidden, LUMINA_ADALN_CHANNELS), fields.integer("multiple_of")
    wide = scaled(fields, "ffn_dim_multiplier", 4 * hidden) if fields.has("ffn_dim_multiplier") else 4 * hidden
    wide, text = ceil_div(wide, multiple) * multiple, fields.integer("cap_feat_dim")
    kv = fields.integer("num_kv_heads", largest=heads)
    tensors = (
        *linear("x_embedder", hidden, fields.integer("patch_size") ** 2 * fields.integer("in_channels")),
        *two_linears("time_caption_embed.timestep_embedder", step, TIME_CHANNELS),
        *norm("time_caption_embed.caption_embedder.0", text),
        *linear("time_caption_embed.caption_embedder.1", hidden, text),
        *linear("norm_out.linear_1", hidden, step),
        *linear("norm_out.linear_2", _outputs(fields), hidden),
    )
    rest = (
        *attention("attn", hidden, hidden, bias=False, out_bias=False, qk_norm=w.head_dim, kv_inner=kv * w.head_dim),
        *swiglu("feed_forward", hidden, wide, ("linear_1", "linear_2", "linear_3")),
        *(t for n in ("ffn_norm1", "norm2", "ffn_norm2") for t in norm(n, hidden)),
    )
    scaled_norm = (*linear("norm1.linear", 4 * hidden, step), *norm("norm1.norm", hidden))
    modulated = block(heads, w.head_dim, wide, (*rest, *scaled_norm), gated=True, kv_heads=kv)
    plain = block(heads, w.head_dim, wide, (*rest, *norm("norm1", hidden)), gated=True, kv_heads=kv)
    stacks = (
        _stack(fields, "noise_refiner", modulated, "num_refiner_layers"),
        _stack(fields, "context_refiner", plain, "num_refiner_layers"),
        _stack(fields, "layers", modulated),
    )
    return Anatomy(tensors=tensors, stacks=stacks, facts=_facts(fields, w, "cap_feat_dim"))


def z_image(fields: Fields) -> Anatomy:
    """Read Z-Image: one sequence, gated networks, an embedder and a last layer for each size of patch."""
    hidden = fields.integer("dim")
    heads = whole_heads(fields, "n_heads", hidden)
    w, step, text = (
        Width(heads, hidden // heads, 8 * hidden // 3),
        min(hidden, ADALN_CHANNELS),
        fields.integer("cap_feat_dim"),
    )
    inputs, wide = fields.integer("in_channels"), int(hidden / 3 * 8)
    sides = integers(fields, "all_patch_size", largest=LARGEST_PATCH)
    frames = integers(fields, "all_f_patch_size", largest=LARGEST_PATCH)
    normed = w.head_dim if yes(fields, "qk_norm") else 0
    tensors = (
        *table("x_pad_token", 1, hidden),
        *table("cap_pad_token", 1, hidden),
        *(
            t
            for s, f in zip(sides, frames, strict=False)
            for t in _z_patches(f"{s}-{f}", hidden, f * s * s * inputs, step)
        ),
        *linear("t_embedder.mlp.0", ZIMAGE_TIME_INNER, TIME_CHANNELS),
        *linear("t_embedder.mlp.2", step, ZIMAGE_TIME_INNER),
        *norm("cap_embedder.0", text),
        *linear("cap_embedder.1", hidden, text),
    )
    rest = (
        *attention("attention", hidden, hidden, bias=False, out_bias=False, qk_norm=normed),
        *swiglu("feed_forward", hidden, wide, ("w1", "w2", "w3")),
        *(t for n in ("attention_norm1", "ffn_norm1", "attention_norm2", "ffn_norm2") for t in norm(n, hidden)),
    )
    plain = block(heads, w.head_dim, wide, rest, gated=True)
    modulated = block(heads, w.head_dim, wide, (*rest, *linear("adaLN_modulation.0", 4 * hidden, step)), gated=True)
    stacks = (
        _stack(fields, "noise_refiner", modulated, "n_refiner_layers"),
        _stack(fields, "context_refiner", plain, "n_refiner_layers"),
        _stack(fields, "layers", modulated, "n_layers"),
    )
    facts = Denoiser(
        in_channels=inputs,
        out_channels=inputs,
        hidden_size=hidden,
        num_attention_heads=heads,
        head_dim=w.head_dim,
        patch_size=(frames[0], sides[0], sides[0]),
        text_width=text,
    )
    return Anatomy(tensors=tensors, stacks=stacks, facts=facts)


def _z_patches(key: str, hidden: int, values: int, step: int) -> Tensors:
    return (
        *linear(f"all_x_embedder.{key}", hidden, values),
        *under(
            f"all_final_layer.{key}", (*linear("linear", values, hidden), *linear("adaLN_modulation.1", hidden, step))
        ),
    )
