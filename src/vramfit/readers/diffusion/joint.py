"""Transformers whose image and text streams attend together.

SD3, FLUX.1, FLUX.2, Chroma, AuraFlow, Qwen-Image, HunyuanVideo 1 and 1.5, Mochi.
Source: huggingface/diffusers@v0.42.1:src/diffusers/models/transformers/, one file per class.
"""

from __future__ import annotations

from vramfit.pipeline import Denoiser
from vramfit.readers.diffusion.block import (
    TIME_CHANNELS,
    Anatomy,
    Stack,
    Tensors,
    added_attention,
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
    yes,
)
from vramfit.readers.diffusion.size import Width, patch, width_of
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Layer
from vramfit.units import ceil_div

REGISTER_TOKENS = 8
"""AuraFlow's learned tokens, fixed in its code."""
TEXT_2_CHANNELS = 2048
"""Inner width of HunyuanVideo 1.5's embedder of glyph texts, fixed in its code."""
CONDITION_KINDS = 3
"""HunyuanVideo 1.5 marks a token as text, glyph text or image."""


def _time_text(name: str, w: Width, *, guidance: bool, text: int = 0) -> Tensors:
    """Return embedders of the time step, of guidance and of the pooled text (``text`` wide, 0 = none)."""
    names = ("timestep_embedder", *(("guidance_embedder",) if guidance else ()))
    return (
        *(t for n in names for t in two_linears(f"{name}.{n}", w.inner, TIME_CHANNELS)),
        *(two_linears(f"{name}.text_embedder", w.inner, text) if text else ()),
    )


def _facts(fields: Fields, w: Width, *, text: str, folded: bool = False, frames: int = 1) -> Denoiser:
    """Return the facts; ``folded``: the pipeline folds patches, so that four channels of the field are one latent's."""
    side, each = (2, 4) if folded else (patch(fields)[1], 1)
    return Denoiser(
        in_channels=fields.integer("in_channels") // each,
        out_channels=(fields.optional("out_channels") or fields.integer("in_channels")) // each,
        hidden_size=w.inner,
        num_attention_heads=w.heads,
        head_dim=w.head_dim,
        patch_size=(frames, side, side),
        text_width=fields.integer(text),
    )


def _joint(w: Width, *, qk_norm: bool = True, last: bool = False) -> Tensors:
    """Return attention and networks of a block with two streams; in SD3's last the text's output is dropped."""
    normed = w.head_dim if qk_norm else 0
    return (
        *attention("attn", w.inner, w.inner, qk_norm=normed),
        *added_attention("attn", w.inner, w.inner, qk_norm=normed, output=not last),
        *feed_forward("ff", w.inner, w.mlp),
        *(() if last else feed_forward("ff_context", w.inner, w.mlp)),
    )


def _modulated(w: Width, tensors: Tensors) -> Layer:
    """Return a block of two streams with six scales and shifts for each."""
    scales = (
        *linear("norm1.linear", 6 * w.inner, w.inner),
        *linear("norm1_context.linear", 6 * w.inner, w.inner),
    )
    return block(w.heads, w.head_dim, w.mlp, (*scales, *tensors))


def _single(w: Width, *, modulated: bool = True) -> Layer:
    """Return FLUX.1's block of one stream, attention and network side by side."""
    return block(
        w.heads,
        w.head_dim,
        w.mlp,
        (
            *(linear("norm.linear", 3 * w.inner, w.inner) if modulated else ()),
            *linear("proj_mlp", w.mlp, w.inner),
            *linear("proj_out", w.inner, w.inner + w.mlp),
            *attention("attn", w.inner, w.inner, qk_norm=w.head_dim, output=False),
        ),
    )


def _stacks(*stacks: tuple[str, int, Layer]) -> tuple[Stack, ...]:
    return tuple(Stack(prefix=f"{name}.{{layer}}.", layers=(layer,) * num) for name, num, layer in stacks)


def _out(w: Width, outputs: int, *, bias: bool = True) -> Tensors:
    """Return the last modulated norm and the projection back to latents."""
    return (
        *linear("norm_out.linear", 2 * w.inner, w.inner, bias=bias),
        *linear("proj_out", outputs, w.inner, bias=bias),
    )


def _outputs(fields: Fields, cells: int) -> int:
    """Return the values written per token: output channels (absent: input channels) for each cell of the patch."""
    return cells * (fields.optional("out_channels") or fields.integer("in_channels"))


def sd3(fields: Fields) -> Anatomy:
    """Read Stable Diffusion 3 and 3.5."""
    w, num = width_of(fields), count(fields, "num_layers", smallest=1)
    side, text = fields.integer("patch_size"), fields.integer("joint_attention_dim")
    qk = one_of(fields, "qk_norm", (None, "rms_norm")) is not None
    dual = set(integers(fields, "dual_attention_layers", largest=LARGEST_LAYERS, smallest=0, empty=True))
    kinds = {
        key: _sd3_block(w, qk_norm=qk, dual=key[0], last=key[1]) for key in ((a, b) for a in (0, 1) for b in (0, 1))
    }
    layers = tuple(kinds[int(i in dual), int(i == num - 1)] for i in range(num))
    tensors = (
        *table("pos_embed.pos_embed", 1, fields.integer("pos_embed_max_size") ** 2, w.inner, buffer=True),
        *convolution("pos_embed.proj", w.inner, fields.integer("in_channels"), (side, side)),
        *_time_text("time_text_embed", w, guidance=False, text=fields.integer("pooled_projection_dim")),
        *linear("context_embedder", fields.integer("caption_projection_dim"), text),
        *_out(w, _outputs(fields, side**2)),
    )
    stack = Stack(prefix="transformer_blocks.{layer}.", layers=layers)
    return Anatomy(tensors=tensors, stacks=(stack,), facts=_facts(fields, w, text="joint_attention_dim"))


def _sd3_block(w: Width, *, qk_norm: bool, dual: int, last: int) -> Layer:
    """Return one block; ``dual``: the image attends to itself a second time."""
    tensors = (
        *linear("norm1.linear", (9 if dual else 6) * w.inner, w.inner),
        *linear("norm1_context.linear", (2 if last else 6) * w.inner, w.inner),
        *_joint(w, qk_norm=qk_norm, last=bool(last)),
        *(attention("attn2", w.inner, w.inner, qk_norm=w.head_dim if qk_norm else 0) if dual else ()),
    )
    return block(w.heads, w.head_dim, w.mlp, tensors)


def flux(fields: Fields) -> Anatomy:
    """Read FLUX.1: dev, schnell, Kontext, Fill, and what shares its class."""
    w, side = width_of(fields), fields.integer("patch_size")
    pooled = fields.integer("pooled_projection_dim")
    tensors = (
        *_time_text("time_text_embed", w, guidance=yes(fields, "guidance_embeds"), text=pooled),
        *linear("context_embedder", w.inner, fields.integer("joint_attention_dim")),
        *linear("x_embedder", w.inner, fields.integer("in_channels")),
        *_out(w, _outputs(fields, side**2)),
    )
    stacks = _stacks(
        ("transformer_blocks", count(fields, "num_layers"), _modulated(w, _joint(w))),
        ("single_transformer_blocks", count(fields, "num_single_layers"), _single(w)),
    )
    return Anatomy(tensors=tensors, stacks=stacks, facts=_facts(fields, w, text="joint_attention_dim", folded=True))


def chroma(fields: Fields) -> Anatomy:
    """Read Chroma: FLUX.1 whose scales and shifts all come from one small network."""
    w, inside = width_of(fields), fields.integer("approximator_hidden_dim")
    at, depth = "distilled_guidance_layer", count(fields, "approximator_layers")
    tensors = (
        *linear(f"{at}.in_proj", inside, fields.integer("approximator_num_channels")),
        *(t for i in range(depth) for t in two_linears(f"{at}.layers.{i}", inside, inside)),
        *(t for i in range(depth) for t in norm(f"{at}.norms.{i}", inside)),
        *linear(f"{at}.out_proj", w.inner, inside),
        *linear("context_embedder", w.inner, fields.integer("joint_attention_dim")),
        *linear("x_embedder", w.inner, fields.integer("in_channels")),
        *linear("proj_out", _outputs(fields, fields.integer("patch_size") ** 2), w.inner),
    )
    stacks = _stacks(
        ("transformer_blocks", count(fields, "num_layers"), block(w.heads, w.head_dim, w.mlp, _joint(w))),
        ("single_transformer_blocks", count(fields, "num_single_layers"), _single(w, modulated=False)),
    )
    return Anatomy(tensors=tensors, stacks=stacks, facts=_facts(fields, w, text="joint_attention_dim", folded=True))


def flux2(fields: Fields) -> Anatomy:
    """Read FLUX.2: no biases, one modulation for all blocks, gated networks."""
    w, times = width_of(fields, ratio="mlp_ratio"), fields.integer("timestep_guidance_channels")
    names = ("timestep_embedder", *(("guidance_embedder",) if yes(fields, "guidance_embeds") else ()))
    scales = (("double_stream_modulation_img", 6), ("double_stream_modulation_txt", 6), ("single_stream_modulation", 3))
    tensors = (
        *(t for n in names for t in two_linears(f"time_guidance_embed.{n}", w.inner, times, bias=False)),
        *(t for n, k in scales for t in linear(f"{n}.linear", k * w.inner, w.inner, bias=False)),
        *linear("x_embedder", w.inner, fields.integer("in_channels"), bias=False),
        *linear("context_embedder", w.inner, fields.integer("joint_attention_dim"), bias=False),
        *_out(w, _outputs(fields, fields.integer("patch_size") ** 2), bias=False),
    )
    double = (
        *attention("attn", w.inner, w.inner, bias=False, out_bias=False, qk_norm=w.head_dim),
        *added_attention("attn", w.inner, w.inner, bias=False, out_bias=False, qk_norm=w.head_dim),
        *(t for n in ("ff", "ff_context") for t in linear(f"{n}.linear_in", 2 * w.mlp, w.inner, bias=False)),
        *(t for n in ("ff", "ff_context") for t in linear(f"{n}.linear_out", w.inner, w.mlp, bias=False)),
    )
    single = (
        *linear("attn.to_qkv_mlp_proj", 3 * w.inner + 2 * w.mlp, w.inner, bias=False),
        *linear("attn.to_out", w.inner, w.inner + w.mlp, bias=False),
        *norm("attn.norm_q", w.head_dim),
        *norm("attn.norm_k", w.head_dim),
    )
    stacks = _stacks(
        ("transformer_blocks", count(fields, "num_layers"), block(w.heads, w.head_dim, w.mlp, double, gated=True)),
        (
            "single_transformer_blocks",
            count(fields, "num_single_layers"),
            block(w.heads, w.head_dim, w.mlp, single, gated=True),
        ),
    )
    return Anatomy(tensors=tensors, stacks=stacks, facts=_facts(fields, w, text="joint_attention_dim", folded=True))


def auraflow(fields: Fields) -> Anatomy:
    """Read AuraFlow: no biases, gated networks rounded up to 256."""
    w, side = width_of(fields), fields.integer("patch_size")
    mlp = ceil_div(8 * w.inner // 3, 256) * 256
    names = ("linear_1", "out_projection", "linear_2")
    mixing = {"bias": False, "out_bias": False}
    joint = (
        *(t for n in ("norm1", "norm1_context") for t in linear(f"{n}.linear", 6 * w.inner, w.inner, bias=False)),
        *attention("attn", w.inner, w.inner, **mixing),
        *added_attention("attn", w.inner, w.inner, **mixing),
        *(t for n in ("ff", "ff_context") for t in swiglu(n, w.inner, mlp, names)),
    )
    single = (
        *linear("norm1.linear", 6 * w.inner, w.inner, bias=False),
        *attention("attn", w.inner, w.inner, **mixing),
        *swiglu("ff", w.inner, mlp, names),
    )
    caption = fields.integer("caption_projection_dim")
    tensors = (
        *table("register_tokens", 1, REGISTER_TOKENS, w.inner),
        *table("pos_embed.pos_embed", 1, fields.integer("pos_embed_max_size"), w.inner),
        *linear("pos_embed.proj", w.inner, side**2 * fields.integer("in_channels")),
        *linear("context_embedder", caption, fields.integer("joint_attention_dim"), bias=False),
        *two_linears("time_step_proj", w.inner, TIME_CHANNELS),
        *_out(w, _outputs(fields, side**2), bias=False),
    )
    stacks = _stacks(
        (
            "joint_transformer_blocks",
            count(fields, "num_mmdit_layers"),
            block(w.heads, w.head_dim, mlp, joint, gated=True),
        ),
        (
            "single_transformer_blocks",
            count(fields, "num_single_dit_layers"),
            block(w.heads, w.head_dim, mlp, single, gated=True),
        ),
    )
    return Anatomy(tensors=tensors, stacks=stacks, facts=_facts(fields, w, text="joint_attention_dim"))


def qwen_image(fields: Fields) -> Anatomy:
    """Read Qwen-Image and its editing variants."""
    w, text = width_of(fields), fields.integer("joint_attention_dim")
    tensors = (
        *_time_text("time_text_embed", w, guidance=False),
        *norm("txt_norm", text),
        *linear("img_in", w.inner, fields.integer("in_channels")),
        *linear("txt_in", w.inner, text),
        *_out(w, _outputs(fields, fields.integer("patch_size") ** 2)),
    )
    both = (
        *(t for n in ("img", "txt") for t in linear(f"{n}_mod.1", 6 * w.inner, w.inner)),
        *attention("attn", w.inner, w.inner, qk_norm=w.head_dim),
        *added_attention("attn", w.inner, w.inner, qk_norm=w.head_dim),
        *(t for n in ("img", "txt") for t in feed_forward(f"{n}_mlp", w.inner, w.mlp)),
    )
    stacks = _stacks(("transformer_blocks", count(fields, "num_layers"), block(w.heads, w.head_dim, w.mlp, both)))
    latents = fields.integer("in_channels") // fields.integer("patch_size") ** 2
    facts = Denoiser(
        in_channels=latents,
        out_channels=fields.optional("out_channels") or latents,
        hidden_size=w.inner,
        num_attention_heads=w.heads,
        head_dim=w.head_dim,
        patch_size=patch(fields),
        text_width=text,
    )
    return Anatomy(tensors=tensors, stacks=stacks, facts=facts)


def _refined_text(fields: Fields, w: Width) -> tuple[Tensors, Stack]:
    """Return HunyuanVideo's embedder of the text: a few blocks of attention over the text alone."""
    at, text = "context_embedder", fields.integer("text_embed_dim")
    refine = (
        *norm("norm1", w.inner, bias=True),
        *attention("attn", w.inner, w.inner),
        *norm("norm2", w.inner, bias=True),
        *feed_forward("ff", w.inner, 4 * w.inner),
        *linear("norm_out.linear", 2 * w.inner, w.inner),
    )
    layer = block(w.heads, w.head_dim, 4 * w.inner, refine)
    return (
        (
            *_time_text(f"{at}.time_text_embed", w, guidance=False, text=text),
            *linear(f"{at}.proj_in", w.inner, text),
        ),
        Stack(
            prefix=f"{at}.token_refiner.refiner_blocks.{{layer}}.",
            layers=(layer,) * count(fields, "num_refiner_layers"),
        ),
    )


def hunyuan_video(fields: Fields) -> Anatomy:
    """Read HunyuanVideo: FLUX.1's blocks over three axes."""
    w, (frames, side, _) = width_of(fields, ratio="mlp_ratio"), patch(fields)
    one_of(fields, "image_condition_type", (None, "latent_concat", "token_replace"))
    refined, refiner = _refined_text(fields, w)
    pooled, guidance = fields.integer("pooled_projection_dim"), yes(fields, "guidance_embeds")
    tensors = (
        *convolution("x_embedder.proj", w.inner, fields.integer("in_channels"), (frames, side, side)),
        *refined,
        *_time_text("time_text_embed", w, guidance=guidance, text=pooled),
        *_out(w, _outputs(fields, frames * side**2)),
    )
    stacks = _stacks(
        ("transformer_blocks", count(fields, "num_layers"), _modulated(w, _joint(w))),
        ("single_transformer_blocks", count(fields, "num_single_layers"), _single(w)),
    )
    facts = _facts(fields, w, text="text_embed_dim", frames=frames)
    return Anatomy(tensors=tensors, stacks=(refiner, *stacks), facts=facts)


def hunyuan_video15(fields: Fields) -> Anatomy:
    """Read HunyuanVideo 1.5: two streams only, a second text embedder for glyphs, an embedder of images."""
    w, (frames, side, _) = width_of(fields, ratio="mlp_ratio"), patch(fields)
    refined, refiner = _refined_text(fields, w)
    glyph, image = fields.integer("text_embed_2_dim"), fields.integer("image_embed_dim")
    tensors = (
        *convolution("x_embedder.proj", w.inner, fields.integer("in_channels"), (frames, side, side)),
        *norm("image_embedder.norm_in", image, bias=True),
        *two_linears("image_embedder", w.inner, image, inner=image),
        *norm("image_embedder.norm_out", w.inner, bias=True),
        *refined,
        *norm("context_embedder_2.norm", glyph, bias=True),
        *two_linears("context_embedder_2", TEXT_2_CHANNELS, glyph),
        *linear("context_embedder_2.linear_3", w.inner, TEXT_2_CHANNELS),
        *_time_text("time_embed", w, guidance=False),
        *table("cond_type_embed.weight", CONDITION_KINDS, w.inner),
        *_out(w, _outputs(fields, frames * side**2)),
    )
    stacks = _stacks(("transformer_blocks", count(fields, "num_layers"), _modulated(w, _joint(w))))
    facts = _facts(fields, w, text="text_embed_dim", frames=frames)
    return Anatomy(tensors=tensors, stacks=(refiner, *stacks), facts=facts)


def mochi(fields: Fields) -> Anatomy:
    """Read Mochi: a narrow text stream beside a wide video stream."""
    w, num = width_of(fields), count(fields, "num_layers", smallest=1)
    side, text, pooled = (fields.integer(n) for n in ("patch_size", "text_embed_dim", "pooled_projection_dim"))
    tensors = (
        *table("pos_frequencies", 3, w.heads, w.head_dim // 2),
        *convolution("patch_embed.proj", w.inner, fields.integer("in_channels"), (side, side)),
        *two_linears("time_embed.timestep_embedder", w.inner, fields.integer("time_embed_dim")),
        *linear("time_embed.pooler.to_kv", 2 * text, text),
        *linear("time_embed.pooler.to_q", text, text),
        *linear("time_embed.pooler.to_out", w.inner, text),
        *linear("time_embed.caption_proj", pooled, text),
        *_out(w, _outputs(fields, side**2)),
    )
    usual, last = (_mochi_block(w, pooled, last=last) for last in (False, True))
    stack = Stack(prefix="transformer_blocks.{layer}.", layers=(*(usual,) * (num - 1), last))
    return Anatomy(tensors=tensors, stacks=(stack,), facts=_facts(fields, w, text="text_embed_dim"))


def _mochi_block(w: Width, text: int, *, last: bool) -> Layer:
    mlp = 8 * w.inner // 3
    scales = (
        linear("norm1_context.linear_1", text, w.inner) if last else linear("norm1_context.linear", 4 * text, w.inner)
    )
    tensors = (
        *linear("norm1.linear", 4 * w.inner, w.inner),
        *scales,
        *attention("attn1", w.inner, w.inner, bias=False, qk_norm=w.head_dim),
        *added_attention("attn1", text, w.inner, bias=False, qk_norm=w.head_dim, output=not last),
        *feed_forward("ff", w.inner, mlp, gated=True, bias=False),
        *(() if last else feed_forward("ff_context", text, 8 * text // 3, gated=True, bias=False)),
    )
    return block(w.heads, w.head_dim, mlp, tensors, gated=True)
