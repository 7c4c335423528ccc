"""Whisper and Speech2Text: an encoder of sound, and a decoder that attends to what it wrote and to what was heard.

Source: huggingface/transformers:src/transformers/models/whisper/ and models/speech_to_text/, 5.23.0.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.layer_kind import CrossAttention, Dense, GroupedQuery
from vramfit.readers.families import audio
from vramfit.readers.families.decoder import Named, linear, norm
from vramfit.readers.families.vision import convolution, position_table
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

CLASSES = {
    "whisper": ("WhisperForConditionalGeneration",),
    "speech_to_text": ("Speech2TextForConditionalGeneration",),
}
_DEFAULTS: dict[str, dict[str, object]] = {
    "whisper": {
        "d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536,
        "decoder_layers": 4, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536, "vocab_size": 51865,
        "max_source_positions": 1500, "max_target_positions": 448, "num_mel_bins": 80,
    },
    "speech_to_text": {
        "d_model": 256, "encoder_layers": 12, "encoder_attention_heads": 4, "encoder_ffn_dim": 2048,
        "decoder_layers": 6, "decoder_attention_heads": 4, "decoder_ffn_dim": 2048, "vocab_size": 10000,
        "max_source_positions": 6000, "max_target_positions": 1024, "conv_channels": 1024,
        "input_feat_per_channel": 80, "input_channels": 1, "num_conv_layers": 2,
    },
}  # fmt: skip
"""Class defaults in transformers."""
KERNEL = 5
"""Side of the convolutions of every published Speech2Text."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Whisper or Speech2Text configuration."""
    kind = fields.text("model_type") or ""
    f = fields.filled(**_DEFAULTS[kind])
    hidden, vocab = f.integer("d_model"), f.integer("vocab_size", largest=LARGEST_VOCABULARY)
    table = ("model.decoder.embed_tokens.weight", Role.EMBEDDING)
    tied = f.flag("tie_word_embeddings", default=True)
    head = ("proj_out.weight" if kind == "whisper" else "lm_head.weight", Role.HEAD)
    matrix, projection = (
        Tensor(name=name, shape=(vocab, hidden), role=role, cut=Cut.VOCABULARY) for name, role in (table, head)
    )
    written = f.integer("max_target_positions")
    places = (position_table("model.decoder.embed_positions", written, hidden),) if kind == "whisper" else ()
    return ModelSpec(
        name=named.name,
        family=kind,
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=written,
        embeddings=(matrix, *places),
        layers=(block(f, hidden, spoken=kind == "whisper"),) * f.integer("decoder_layers", largest=LARGEST_LAYERS),
        head=(*norm("model.decoder.layer_norm", hidden, bias=True), *(() if tied else (projection,))),
        tied=tied,
        layer_prefix="model.decoder.layers.{layer}.",
        scheme=named.scheme,
        parts=(audio.whisper(f, "model.encoder.") if kind == "whisper" else _speech_encoder(f, hidden),),
    )


def block(fields: Fields, hidden: int, *, spoken: bool) -> Layer:
    """Return a decoder block; a second of sound is 50 tokens to Whisper, 30 seconds at most: ``max_source_positions``.

    Speech2Text halves the frames twice, so a quarter of the positions at most reach the decoder.
    """
    heads, width = fields.integer("decoder_attention_heads"), fields.integer("decoder_ffn_dim")
    heard = fields.integer("max_source_positions") if spoken else None
    tensors = (
        *audio.attention("self_attn", hidden, cut=True, key_bias=not spoken),
        *audio.attention("encoder_attn", hidden, cut=True, key_bias=not spoken),
        *linear("fc1", width, hidden, Cut.OUTPUTS, bias=True),
        *linear("fc2", hidden, width, Cut.INPUTS, bias=True),
        *norm("final_layer_norm", hidden, bias=True),
    )
    dim = hidden // heads
    return Layer(
        attention=GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=dim),
        beside=CrossAttention(num_attention_heads=heads, num_key_value_heads=heads, head_dim=dim, source_tokens=heard),
        feed_forward=Dense(intermediate_size=width, gated=False),
        tensors=tensors,
    )


def _speech_encoder(fields: Fields, hidden: int) -> Part:
    """Return Speech2Text's encoder: gated convolutions, computed positions, biases on keys."""
    if fields.integer("num_conv_layers") != 2:
        fields.refuse("num_conv_layers", "another number of convolutions than two")
    channels, at = fields.integer("conv_channels"), "model.encoder."
    inputs = fields.integer("input_feat_per_channel") * fields.integer("input_channels")
    around = (
        *convolution(f"{at}conv.conv_layers.0", channels, inputs, KERNEL),
        *convolution(f"{at}conv.conv_layers.1", 2 * hidden, channels // 2, KERNEL),
        *norm(f"{at}layer_norm", hidden, bias=True),
    )
    return audio.encoder(fields, at, around, key_bias=True)
