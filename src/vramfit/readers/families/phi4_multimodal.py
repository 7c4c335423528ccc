"""Phi-4 Multimodal: Phi-3's blocks, a SigLIP tower, and a conformer for sound, each with a way in of its own.

Source: huggingface/transformers:src/transformers/models/phi4_multimodal/, 5.23.0, class defaults as there. The
adapters that the first release holds beside the model (``phi4mm``) are another layout.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families import phi3, vision
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.families.vision import convolution, learned, matrices, position_table
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

SECTIONS = {"phi4_multimodal": ("vision_config", "audio_config")}
CLASSES = {"phi4_multimodal": ("Phi4MultimodalForCausalLM",)}
AT = "model.embed_tokens_extend."
SIDE = 3
"""Of the convolutions that shorten a spectrum: a literal in the modelling code."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Phi-4 Multimodal configuration."""
    spec = phi3.read(fields.filled(num_key_value_heads=8), named)
    return replace(spec, parts=(_eye(fields, spec.hidden_size), _ear(fields, spec.hidden_size)))


def _eye(fields: Fields, text: int) -> Part:
    f = fields.section("vision_config").filled(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=448,
        patch_size=14,
    )  # fmt: skip
    at, inside = f"{AT}image_embed.", f.integer("hidden_size")
    tower = vision.siglip(f, f"{at}img_processor.")
    joint = (
        learned(f"{at}global_img_feature_extensor", 1, 1, inside),
        learned(f"{at}sub_img_feature_extensor", 1, 1, 1, inside),
        *linear(f"{at}img_projection_up", text, inside, Cut.WHOLE, bias=True),
        *linear(f"{at}img_projection_down", text, text, Cut.WHOLE, bias=True),
    )
    return replace(tower, tensors=(*tower.tensors, *joint))


def _ear(fields: Fields, text: int) -> Part:
    f = fields.section("audio_config").filled(
        hidden_size=1024, intermediate_size=1536, num_blocks=24, num_attention_heads=16, ext_pw_out_channel=1024,
        depthwise_separable_out_channel=1024, depthwise_multiplier=1, kernel_size=3, input_size=80, time_reduction=8,
        bias_max_distance=1000, nemo_conv_channels=1024, downsample_rate=1,
    )  # fmt: skip
    hidden, heads, width = f.integer("hidden_size"), f.integer("num_attention_heads"), f.integer("intermediate_size")
    at, encoder = f"{AT}audio_embed.", f"{AT}audio_embed.encoder."
    inside = hidden * f.integer("downsample_rate", largest=64)
    buckets = f.integer("bias_max_distance") * (1 if f.flag("bias_symmetric", default=False) else 2)
    ways = ("speech", "vision_speech")
    around = (
        *_shortening(f, encoder, hidden),
        position_table(f"{encoder}relative_attention_bias_layer.bias_values", buckets, heads),
        *matrices((f"{at}up_proj_for_{way}" for way in ways), text, inside, bias=True),
        *matrices((f"{at}down_proj_for_{way}" for way in ways), text, text, bias=True),
    )
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads, causal=False)
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width), tensors=_block(f, hidden, width))
    return Part(
        name="audio tower",
        layers=(layer,) * f.integer("num_blocks", largest=LARGEST_LAYERS),
        layer_prefix=f"{encoder}encoders.{{layer}}.",
        tensors=around,
        resident=True,
    )


def _block(f: Fields, hidden: int, width: int) -> Tensors:
    out, deep = f.integer("ext_pw_out_channel"), hidden * f.integer("depthwise_multiplier", largest=64)
    return (
        *(t for at in ("feed_forward_in.", "feed_forward_out.") for t in _network(at, hidden, width)),
        *matrices((f"self_attn.{n}_proj" for n in "qkvo"), hidden, hidden, bias=True),
        *norm("conv.layer_norm", hidden, bias=True),
        learned("conv.glu.b1", 1, out, 1),
        learned("conv.glu.b2", 1, out, 1),
        *convolution("conv.glu.ext_pw_conv_1d", 2 * out, hidden, 1),
        *convolution("conv.dw_sep_conv_1d.dw_conv", deep, 1, f.integer("kernel_size", largest=4096)),
        *convolution("conv.dw_sep_conv_1d.pw_conv", f.integer("depthwise_separable_out_channel"), deep, 1),
        *convolution("conv.ext_pw_conv_1d", out, hidden, 1),
        *norm("layer_norm_att", hidden, bias=True),
        *norm("layer_norm", hidden, bias=True),
    )


def _network(at: str, hidden: int, width: int) -> Tensors:
    return (
        *norm(f"{at}layer_norm", hidden, bias=True),
        *linear(f"{at}gate_up_proj", 2 * width, hidden, Cut.WHOLE, bias=True),
        *linear(f"{at}down_proj", hidden, width, Cut.WHOLE, bias=True),
    )


def _shortening(f: Fields, at: str, hidden: int) -> Tensors:
    """Return the norm of the spectrum, which no training changes, and the convolutions that halve it."""
    bins, channels, conv = f.integer("input_size"), f.integer("nemo_conv_channels"), f"{at}embed.conv."
    halvings = f.integer("time_reduction", largest=1024).bit_length() - 1
    tensors, number, left = convolution(f"{conv}0", channels, 1, SIDE, SIDE), 2, (bins + 1) // 2
    for _ in range(halvings - 1):
        tensors += convolution(f"{conv}{number}", channels, 1, SIDE, SIDE)
        tensors += convolution(f"{conv}{number + 1}", channels, channels, 1, 1)
        number, left = number + 3, (left + 1) // 2
    means = tuple(
        Tensor(name=f"{at}encoder_embedding.{n}", shape=(bins,), role=Role.NORM, buffer=True)
        for n in ("global_mean", "global_invstd")
    )
    return (*means, *tensors, *linear(f"{at}embed.out", hidden, channels * left, Cut.WHOLE, bias=True))
