"""What makes the Omni models sound: Qwen2.5-Omni's flow-matching transformer and vocoder, Qwen3-Omni's decoder.

Source: huggingface/transformers:src/transformers/models/qwen2_5_omni/ and models/qwen3_omni_moe/, 5.23.0, class
defaults as there.
"""

from __future__ import annotations

from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Tensors, gated_mlp, linear, norm
from vramfit.readers.families.vision import convolution, learned, matrices, position_table
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_WIDTH, Fields
from vramfit.spec import Cut, Layer, Part

KERNEL, TIME_WIDTH = 7, 256
"""Side of the vocoders' outer convolutions, and width of a time's sinusoids: literals in the modelling code."""
LARGEST_STEPS = 4096


def token2wav(fields: Fields) -> tuple[Part, ...]:
    """Read Qwen2.5-Omni's way from words of the codec to sound; absent = class defaults throughout."""
    empty = Fields({}, "token2wav_config", fields.assumed)
    f = fields.section("token2wav_config") if fields.has("token2wav_config") else empty
    inner = (f.section(n) if f.has(n) else Fields({}, f.at(n), f.assumed) for n in ("dit_config", "bigvgan_config"))
    flow, voice = inner
    at = "token2wav.code2wav_dit_model."
    return (_flow(flow, at), _part("vocoder", _vocoder(voice, "token2wav.code2wav_bigvgan_model.")))


def _flow(fields: Fields, at: str) -> Part:
    f = fields.filled(
        hidden_size=1024, num_hidden_layers=22, num_attention_heads=16, head_dim=64, ff_mult=2, emb_dim=512,
        num_embeds=8193, mel_dim=80, enc_emb_dim=192, enc_dim=128,
    )  # fmt: skip
    hidden, heads, dim = f.integer("hidden_size"), f.integer("num_attention_heads"), f.integer("head_dim")
    width, bins = hidden * f.integer("ff_mult", largest=64), f.integer("mel_dim")
    word, voice = f.integer("emb_dim"), f.integer("enc_dim")
    tensors = (
        *linear("attn_norm.linear", 6 * hidden, hidden, Cut.WHOLE, bias=True),
        *matrices((f"attn.to_{n}" for n in "qkv"), heads * dim, hidden, bias=True),
        *linear("attn.to_out.0", hidden, heads * dim, Cut.WHOLE, bias=True),
        *linear("ff.ff.0", width, hidden, Cut.WHOLE, bias=True),
        *linear("ff.ff.3", hidden, width, Cut.WHOLE, bias=True),
    )
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=dim, causal=False)
    around = (
        *linear(f"{at}time_embed.time_mlp.0", hidden, TIME_WIDTH, Cut.WHOLE, bias=True),
        *linear(f"{at}time_embed.time_mlp.2", hidden, hidden, Cut.WHOLE, bias=True),
        position_table(f"{at}text_embed.codec_embed", f.integer("num_embeds") + 1, word),
        *linear(f"{at}input_embed.proj", hidden, bins + voice + f.integer("enc_emb_dim") + word, Cut.WHOLE, bias=True),
        *_speaker(f, f"{at}input_embed.spk_encoder.", bins, voice),
        *linear(f"{at}norm_out.linear", 2 * hidden, hidden, Cut.WHOLE, bias=True),
        *linear(f"{at}proj_out", bins, hidden, Cut.WHOLE, bias=True),
    )
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=False), tensors=tensors)
    return Part(
        name="token2wav",
        layers=(layer,) * f.integer("num_hidden_layers", largest=LARGEST_LAYERS),
        layer_prefix=f"{at}transformer_blocks.{{layer}}.",
        tensors=around,
        resident=True,
    )


def _speaker(f: Fields, at: str, bins: int, out: int) -> Tensors:
    """Return the encoder of a speaker's voice (ECAPA-TDNN): blocks that squeeze, their sum, statistics over time."""
    widths = f.row("enc_channels", (256, 256, 256, 256, 768), largest=LARGEST_WIDTH)
    sides = f.row("enc_kernel_sizes", (5, 3, 3, 3, 1), largest=LARGEST_STEPS)
    seen, squeezed = f.integer("enc_attention_channels", 64), f.integer("enc_se_channels", 64)
    scale, last = f.integer("enc_res2net_scale", 2, largest=64), widths[-1]
    tensors = convolution(f"{at}blocks.0.conv", widths[0], bins, sides[0])
    for i in range(1, len(widths) - 1):
        wide, b = widths[i], f"{at}blocks.{i}."
        tensors += (
            *convolution(f"{b}tdnn1.conv", wide, widths[i - 1], 1),
            *(
                t
                for j in range(scale - 1)
                for t in convolution(f"{b}res2net_block.blocks.{j}.conv", wide // scale, wide // scale, sides[i])
            ),
            *convolution(f"{b}tdnn2.conv", wide, wide, 1),
            *convolution(f"{b}se_block.conv1", squeezed, wide, 1),
            *convolution(f"{b}se_block.conv2", wide, squeezed, 1),
        )
    return (
        *tensors,
        *convolution(f"{at}mfa.conv", last, last, sides[-1]),
        *convolution(f"{at}asp.tdnn.conv", seen, 3 * last, 1),
        *convolution(f"{at}asp.conv", last, seen, 1),
        *convolution(f"{at}fc", out, 2 * last, 1),
    )


def _vocoder(f: Fields, at: str) -> Tensors:
    """Return the vocoder (BigVGAN): each step halves the channels and has a block per kernel."""
    width, bins = f.integer("upsample_initial_channel", 1536), f.integer("mel_dim", 80)
    sides = f.row("resblock_kernel_sizes", (3, 7, 11), largest=LARGEST_STEPS)
    steps = f.row("upsample_kernel_sizes", (11, 7, 4, 4, 4, 4), largest=LARGEST_STEPS)
    dilations = f.values.get("resblock_dilation_sizes", [[1, 3, 5]] * 3)
    if dilations not in ([[1, 3, 5]] * 3, ((1, 3, 5),) * 3):
        f.refuse("resblock_dilation_sizes", "other blocks than three convolutions each")
    tensors = convolution(f"{at}conv_pre", width, bins, KERNEL)
    for i, step in enumerate(steps):
        narrow = width // 2
        tensors += (*_transposed(f"{at}ups.{i}.0", width, narrow, step),)
        for j, side in enumerate(sides):
            tensors += _sounding(f"{at}resblocks.{i * len(sides) + j}.", narrow, side)
        width = narrow
    post = _snake(f"{at}activation_post.act.", width)
    return (*tensors, *post, *convolution(f"{at}conv_post", 1, width, KERNEL, bias=False))


def _sounding(at: str, width: int, side: int) -> Tensors:
    convolutions = (f"{at}convs{n}.{i}" for n in (1, 2) for i in range(3))
    return (
        *(t for name in convolutions for t in convolution(name, width, width, side)),
        *(t for i in range(6) for t in _snake(f"{at}activations.{i}.act.", width)),
    )


def _snake(at: str, width: int) -> Tensors:
    """Return frequency and size of a periodic activation, one of each per channel."""
    return (learned(f"{at}alpha", width), learned(f"{at}beta", width))


def _transposed(name: str, inputs: int, outputs: int, side: int) -> Tensors:
    """Return a convolution that lengthens: its weight stands [inputs, outputs, side]."""
    weight, _ = convolution(name, inputs, outputs, side)
    return (weight, *convolution(name, outputs, inputs, side)[1:])


def code2wav(fields: Fields) -> Part:
    """Read Qwen3-Omni's decoder from codebooks to sound: a small transformer, then convolutions that lengthen."""
    there = fields.has("code2wav_config")
    f = fields.section("code2wav_config") if there else Fields({}, "code2wav_config", fields.assumed)
    f = f.filled(
        codebook_size=2048, hidden_size=1024, num_attention_heads=16, num_key_value_heads=16, intermediate_size=3072,
        num_hidden_layers=8, num_quantizers=16, decoder_dim=1536, sliding_window=72,
    )  # fmt: skip
    hidden, heads, width = f.integer("hidden_size"), f.integer("num_attention_heads"), f.integer("intermediate_size")
    kv, at, dim = f.integer("num_key_value_heads"), "code2wav.", f.integer("head_dim", hidden // heads)
    bias = f.flag("attention_bias", default=False)
    tensors = (
        *linear("self_attn.q_proj", heads * dim, hidden, Cut.WHOLE, bias=bias),
        *matrices(("self_attn.k_proj", "self_attn.v_proj"), kv * dim, hidden, bias=bias),
        *linear("self_attn.o_proj", hidden, heads * dim, Cut.WHOLE, bias=bias),
        learned("self_attn_layer_scale.scale", hidden),
        learned("mlp_layer_scale.scale", hidden),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
        *gated_mlp(hidden, width),
    )
    facts = GroupedQuery(
        num_attention_heads=heads, num_key_value_heads=kv, head_dim=dim, window_tokens=f.integer("sliding_window")
    )
    words = f.integer("codebook_size") * f.integer("num_quantizers", largest=1024)
    around = (
        position_table(f"{at}code_embedding", words, hidden),
        *norm(f"{at}pre_transformer.norm", hidden),
        *_lengthening(f, at, hidden),
    )
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width), tensors=tensors)
    return Part(
        name="code2wav",
        layers=(layer,) * f.integer("num_hidden_layers", largest=LARGEST_LAYERS),
        layer_prefix=f"{at}pre_transformer.layers.{{layer}}.",
        tensors=around,
        resident=True,
    )


def _lengthening(f: Fields, at: str, hidden: int) -> Tensors:
    tensors: Tensors = ()
    for i, factor in enumerate(f.row("upsampling_ratios", (2, 2), largest=LARGEST_STEPS)):
        block = f"{at}upsample.{i}.1."
        tensors += (
            *_transposed(f"{at}upsample.{i}.0.conv", hidden, hidden, factor),
            *convolution(f"{block}dwconv.conv", hidden, 1, KERNEL),
            *norm(f"{block}norm", hidden, bias=True),
            *linear(f"{block}pwconv1", 4 * hidden, hidden, Cut.WHOLE, bias=True),
            *linear(f"{block}pwconv2", hidden, 4 * hidden, Cut.WHOLE, bias=True),
            learned(f"{block}gamma", hidden),
        )
    width, rates = f.integer("decoder_dim"), f.row("upsample_rates", (8, 5, 4, 3), largest=LARGEST_STEPS)
    tensors += convolution(f"{at}decoder.0.conv", width, hidden, KERNEL)
    for i, rate in enumerate(rates, start=1):
        block, narrow = f"{at}decoder.{i}.block.", width // 2
        tensors += (*_snake(f"{block}0.", width), *_transposed(f"{block}1.conv", width, narrow, 2 * rate))
        for j in (2, 3, 4):
            tensors += (
                *_snake(f"{block}{j}.act1.", narrow),
                *convolution(f"{block}{j}.conv1.conv", narrow, narrow, KERNEL),
                *_snake(f"{block}{j}.act2.", narrow),
                *convolution(f"{block}{j}.conv2.conv", narrow, narrow, 1),
            )
        width = narrow
    last = len(rates) + 1
    end = convolution(f"{at}decoder.{last + 1}.conv", 1, width, KERNEL)
    return (*tensors, *_snake(f"{at}decoder.{last}.", width), *end)


def _part(name: str, tensors: Tensors) -> Part:
    return Part(name=name, layers=(), layer_prefix="", tensors=tensors, resident=True)
