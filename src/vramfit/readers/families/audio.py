"""Audio towers: Whisper's encoder, and those of Qwen and Voxtral that grew from it.

Each function reads the tower's own section; the caller names the place in the file. Nothing is divided between
devices. Source: huggingface/transformers:src/transformers/models/<tower>/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Tensors, linear, norm
from vramfit.readers.families.vision import convolution, matrices, position_table
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, Part


def whisper(fields: Fields, prefix: str) -> Part:
    """Read Whisper's encoder: two convolutions over the spectrum, a table of positions, blocks, a norm."""
    hidden, positions = fields.integer("d_model", 384), fields.integer("max_source_positions", 1500)
    return encoder(
        fields,
        prefix,
        (
            *_stem(f"{prefix}conv", hidden, fields.integer("num_mel_bins", 80)),
            position_table(f"{prefix}embed_positions", positions, hidden),
            *norm(f"{prefix}layer_norm", hidden, bias=True),
        ),
    )


def whisper_large(fields: Fields, prefix: str) -> Part:
    """Read Whisper's large encoder as Qwen2-Audio and Voxtral have it, under either set of names."""
    return whisper(_large(fields), prefix)


def qwen2_5_omni(fields: Fields, prefix: str) -> Part:
    """Read Qwen2.5-Omni's encoder: Whisper's with computed positions, and a projection."""
    f = _large(fields).filled(output_dim=3584)
    hidden, out = f.integer("d_model"), f.integer("output_dim")
    around = (
        *_stem(f"{prefix}conv", hidden, f.integer("num_mel_bins")),
        position_table(f"{prefix}audio_bos_eos_token", 2, out),
        *norm(f"{prefix}ln_post", hidden, bias=True),
        *linear(f"{prefix}proj", out, hidden, Cut.WHOLE, bias=True),
    )
    return encoder(f, prefix, around)


def qwen3_omni(fields: Fields, prefix: str) -> Part:
    """Read Qwen3-Omni's encoder: three convolutions over the spectrum as a picture, biases on keys too."""
    f = _large(fields).filled(output_dim=3584, downsample_hidden_size=480)
    hidden, bins, channels = f.integer("d_model"), f.integer("num_mel_bins"), f.integer("downsample_hidden_size")
    out = f.integer("output_dim")
    for _ in range(3):  # each convolution has stride 2
        bins = (bins + 1) // 2
    around = (
        *convolution(f"{prefix}conv2d1", channels, 1, 3, 3),
        *(t for i in (2, 3) for t in convolution(f"{prefix}conv2d{i}", channels, channels, 3, 3)),
        *linear(f"{prefix}conv_out", hidden, channels * bins, Cut.WHOLE),
        *norm(f"{prefix}ln_post", hidden, bias=True),
        *linear(f"{prefix}proj1", hidden, hidden, Cut.WHOLE, bias=True),
        *linear(f"{prefix}proj2", out, hidden, Cut.WHOLE, bias=True),
    )
    return encoder(f, prefix, around, key_bias=True)


def qwen3_asr(fields: Fields, prefix: str) -> Part:
    """Read Qwen3-ASR's encoder: Qwen3-Omni's, whose last two layers stand outside."""
    f = fields.filled(
        encoder_layers=24, encoder_attention_heads=16, encoder_ffn_dim=4096, d_model=1024, output_dim=3584
    )
    part = qwen3_omni(f, prefix)
    outside = (f"{prefix}proj1.", f"{prefix}proj2.")
    return replace(part, tensors=tuple(t for t in part.tensors if not t.name.startswith(outside)))


def voxtral_realtime(fields: Fields, prefix: str) -> Part:
    """Read Voxtral Realtime's encoder: causal, gated, in a sliding window; positions by rotation."""
    f = fields.filled(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=32, num_mel_bins=128,
        head_dim=64, sliding_window=750,
    )  # fmt: skip
    hidden, width, heads = f.integer("hidden_size"), f.integer("intermediate_size"), f.integer("num_attention_heads")
    inside = heads * f.integer("head_dim")
    tensors = (
        *matrices(("self_attn.q_proj", "self_attn.v_proj"), inside, hidden, bias=True),
        *linear("self_attn.k_proj", inside, hidden, Cut.WHOLE),
        *linear("self_attn.o_proj", hidden, inside, Cut.WHOLE, bias=True),
        *norm("self_attn_layer_norm", hidden),
        *norm("final_layer_norm", hidden),
        *matrices(("mlp.gate_proj", "mlp.up_proj"), width, hidden),
        *linear("mlp.down_proj", hidden, width, Cut.WHOLE, bias=True),
    )
    facts = GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=f.integer("head_dim"),
        window_tokens=f.integer("sliding_window"),
    )
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width), tensors=tensors)
    return Part(
        name="audio tower",
        layers=(layer,) * f.integer("num_hidden_layers", largest=LARGEST_LAYERS),
        layer_prefix=f"{prefix}layers.{{layer}}.",
        tensors=(*_stem(f"{prefix}embedder.conv", hidden, f.integer("num_mel_bins")), *norm(f"{prefix}norm", hidden)),
        resident=True,
    )


def _large(fields: Fields) -> Fields:
    """Return the section under Whisper's names, with the defaults of its large encoder."""
    names = (
        ("hidden_size", "d_model", 1280),
        ("num_hidden_layers", "encoder_layers", 32),
        ("num_attention_heads", "encoder_attention_heads", 20),
        ("intermediate_size", "encoder_ffn_dim", 5120),
    )
    own = {w: fields.values[name] for name, w, _ in names if fields.has(name) and not fields.has(w)}
    renamed = Fields({**fields.values, **own}, fields.path, fields.assumed)
    return renamed.filled(**{w: value for _, w, value in names}, num_mel_bins=128, max_source_positions=1500)


def _stem(conv: str, hidden: int, bins: int) -> Tensors:
    """Return the two convolutions that turn a spectrum into half as many vectors."""
    return (*convolution(f"{conv}1", hidden, bins, 3), *convolution(f"{conv}2", hidden, hidden, 3))


def encoder(fields: Fields, prefix: str, around: Tensors, *, key_bias: bool = False, name: str = "audio tower") -> Part:
    """Put an encoder together from Whisper's blocks."""
    hidden, heads = fields.integer("d_model", 384), fields.integer("encoder_attention_heads", 6)
    width = fields.integer("encoder_ffn_dim", 1536)
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads, causal=False)
    tensors = (
        *attention("self_attn", hidden, cut=False, key_bias=key_bias),
        *linear("fc1", width, hidden, Cut.WHOLE, bias=True),
        *linear("fc2", hidden, width, Cut.WHOLE, bias=True),
        *norm("final_layer_norm", hidden, bias=True),
    )
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=False), tensors=tensors)
    return Part(
        name=name,
        layers=(layer,) * fields.integer("encoder_layers", 4, largest=LARGEST_LAYERS),
        layer_prefix=f"{prefix}layers.{{layer}}.",
        tensors=around,
        resident=True,
    )


def attention(at: str, hidden: int, *, cut: bool, key_bias: bool = False) -> Tensors:
    """Return one attention of Whisper's with the norm before it: biases everywhere but on keys."""
    into, out = (Cut.OUTPUTS, Cut.INPUTS) if cut else (Cut.WHOLE, Cut.WHOLE)
    return (
        *linear(f"{at}.k_proj", hidden, hidden, into, bias=key_bias),
        *linear(f"{at}.v_proj", hidden, hidden, into, bias=True),
        *linear(f"{at}.q_proj", hidden, hidden, into, bias=True),
        *linear(f"{at}.out_proj", hidden, hidden, out, bias=True),
        *norm(f"{at}_layer_norm", hidden, bias=True),
    )
