"""LTX-2: a video and an audio stream side by side, each reading the text and the other.

Source: huggingface/diffusers@v0.42.1:src/diffusers/models/transformers/transformer_ltx2.py.
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
    count,
    feed_forward,
    linear,
    table,
    two_linears,
    yes,
)
from vramfit.readers.diffusion.size import patch, width_of
from vramfit.readers.fields import Fields

CROSS_SHIFTS = 5
"""Rows of the table that modulates attention between the streams."""


def ltx2(fields: Fields) -> Anatomy:
    """Read LTX-2's transformer of 19 billion parameters and what shares its arrangement."""
    video = width_of(fields).inner
    audio = fields.integer("audio_num_attention_heads") * fields.integer("audio_attention_head_dim")
    streams = (("", video), ("audio_", audio))
    tensors = (
        *(t for at, inner in streams for t in _stream(fields, at, inner)),
        *_times("av_cross_attn_video_scale_shift", video, 4),
        *_times("av_cross_attn_audio_scale_shift", audio, 4),
        *_times("av_cross_attn_video_a2v_gate", video, 1),
        *_times("av_cross_attn_audio_v2a_gate", audio, 1),
    )
    mixing = {"bias": yes(fields, "attention_bias"), "out_bias": yes(fields, "attention_out_bias")}
    layer = (
        *(t for at, inner in streams for t in table(f"{at}scale_shift_table", 6, inner)),
        *table("video_a2v_cross_attn_scale_shift_table", CROSS_SHIFTS, video),
        *table("audio_a2v_cross_attn_scale_shift_table", CROSS_SHIFTS, audio),
        *(t for at, inner in streams for t in attention(f"{at}attn1", inner, inner, qk_norm=inner, **mixing)),
        *attention("attn2", video, video, context=fields.integer("cross_attention_dim"), qk_norm=video, **mixing),
        *attention(
            "audio_attn2", audio, audio, context=fields.integer("audio_cross_attention_dim"), qk_norm=audio, **mixing
        ),
        *attention("audio_to_video_attn", video, audio, context=audio, qk_norm=audio, **mixing),
        *attention("video_to_audio_attn", audio, audio, context=video, qk_norm=audio, **mixing),
        *(t for at, inner in streams for t in feed_forward(f"{at}ff", inner, 4 * inner)),
    )
    w = width_of(fields)
    made = block(w.heads, w.head_dim, w.mlp, layer, crosses=True)
    facts = Denoiser(
        in_channels=fields.integer("in_channels"),
        out_channels=fields.optional("out_channels") or fields.integer("in_channels"),
        hidden_size=video,
        num_attention_heads=w.heads,
        head_dim=w.head_dim,
        patch_size=patch(fields),
        text_width=fields.integer("caption_channels"),
    )
    stack = Stack(prefix="transformer_blocks.{layer}.", layers=(made,) * count(fields, "num_layers"))
    return Anatomy(tensors=tensors, stacks=(stack,), facts=facts)


def _stream(fields: Fields, at: str, inner: int) -> Tensors:
    """Return what stands around the blocks of one stream."""
    inputs = fields.integer(f"{at}in_channels")
    return (
        *table(f"{at}scale_shift_table", 2, inner),
        *linear(f"{at}proj_in", inner, inputs),
        *two_linears(f"{at}caption_projection", inner, fields.integer("caption_channels")),
        *_times(f"{at}time_embed", inner, 6),
        *linear(f"{at}proj_out", fields.optional(f"{at}out_channels") or inputs, inner),
    )


def _times(name: str, inner: int, rows: int) -> Tensors:
    """Return an embedder of the time step and the scales, shifts or gates made of it."""
    return (
        *two_linears(f"{name}.emb.timestep_embedder", inner, TIME_CHANNELS),
        *linear(f"{name}.linear", rows * inner, inner),
    )
