"""Audio towers with convolutions inside every block: Granite Speech's and Parakeet's.

Source: huggingface/transformers:src/transformers/models/granite_speech/ and models/parakeet/, 5.23.0.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.families.vision import convolution, learned, matrices, position_table
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

CLASSES = {"parakeet_ctc": ("ParakeetForCTC",)}
KERNEL = 3
"""Side of the convolutions that shorten a spectrum: Parakeet's published value."""


def granite(fields: Fields, prefix: str) -> Part:
    """Read Granite Speech's tower; halfway up it spells, and what it spells flows back in."""
    f = fields.filled(
        input_dim=160, num_layers=10, hidden_dim=1024, feedforward_mult=4, num_heads=8, output_dim=42,
        max_pos_emb=512, conv_kernel_size=15, conv_expansion_factor=2,
    )  # fmt: skip
    hidden, heads, out = f.integer("hidden_dim"), f.integer("num_heads"), f.integer("output_dim")
    dim = f.integer("dim_head") if f.has("dim_head") else hidden // heads
    width = hidden * f.integer("feedforward_mult", largest=64)
    wide = hidden * f.integer("conv_expansion_factor", largest=64)
    tensors = (
        *_half("ff1", hidden, width),
        *_half("ff2", hidden, width),
        *norm("attn.pre_norm", hidden, bias=True),
        *linear("attn.to_q", heads * dim, hidden, Cut.WHOLE),
        *linear("attn.to_kv", 2 * heads * dim, hidden, Cut.WHOLE),
        *linear("attn.to_out", hidden, heads * dim, Cut.WHOLE, bias=True),
        position_table("attn.rel_pos_emb", 2 * f.integer("max_pos_emb") + 1, dim),
        *norm("conv.norm", hidden, bias=True),
        *convolution("conv.up_conv", 2 * wide, hidden, 1),
        *convolution("conv.depth_conv.conv", wide, 1, f.integer("conv_kernel_size", largest=4096), bias=False),
        *batch_norm("conv.batch_norm", wide),
        *convolution("conv.down_conv", hidden, wide, 1),
        *norm("post_norm", hidden, bias=True),
    )
    around = (
        *linear(f"{prefix}input_linear", hidden, f.integer("input_dim"), Cut.WHOLE, bias=True),
        *linear(f"{prefix}out", out, hidden, Cut.WHOLE, bias=True),
        *linear(f"{prefix}out_mid", hidden, out, Cut.WHOLE, bias=True),
    )
    return Part(
        name="audio tower",
        layers=(_layer(heads, dim, width, tensors),) * f.integer("num_layers", largest=LARGEST_LAYERS),
        layer_prefix=f"{prefix}layers.{{layer}}.",
        tensors=around,
        resident=True,
    )


def _half(at: str, hidden: int, width: int) -> Tensors:
    return (
        *norm(f"{at}.pre_norm", hidden, bias=True),
        *linear(f"{at}.up_proj", width, hidden, Cut.WHOLE, bias=True),
        *linear(f"{at}.down_proj", hidden, width, Cut.WHOLE, bias=True),
    )


def batch_norm(name: str, width: int) -> Tensors:
    """Return a norm over the batch, with the running figures that its file holds and training alone changes."""
    running = tuple(
        Tensor(name=f"{name}.{n}", shape=(width,), role=Role.NORM, buffer=True) for n in ("running_mean", "running_var")
    )
    counted = Tensor(name=f"{name}.num_batches_tracked", shape=(), role=Role.NORM, buffer=True)
    return (*norm(name, width, bias=True), *running, counted)


def _layer(heads: int, dim: int, width: int, tensors: Tensors) -> Layer:
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=dim, causal=False)
    return Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=False), tensors=tensors)


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Parakeet that spells what it hears, letter by letter (CTC)."""
    f = fields.section("encoder_config").filled(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=8, intermediate_size=4096,
        subsampling_conv_channels=256, num_mel_bins=80, conv_kernel_size=9, subsampling_factor=8,
    )  # fmt: skip
    hidden, heads, width = f.integer("hidden_size"), f.integer("num_attention_heads"), f.integer("intermediate_size")
    layer = _layer(heads, hidden // heads, width, _fast_block(f, hidden, heads, width))
    vocab = fields.integer("vocab_size", 1025)
    head = convolution("ctc_head", vocab, hidden, 1)
    return ModelSpec(
        name=named.name,
        family="parakeet_ctc",
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=None,
        embeddings=_shortening(f, hidden),
        layers=(layer,) * f.integer("num_hidden_layers", largest=LARGEST_LAYERS),
        head=head,
        tied=False,
        layer_prefix="encoder.layers.{layer}.",
        scheme=named.scheme,
        generates=False,
    )


def _fast_block(f: Fields, hidden: int, heads: int, width: int) -> Tensors:
    bias, open_ = f.flag("attention_bias", default=True), f.flag("convolution_bias", default=True)
    side, dim = f.integer("conv_kernel_size", largest=4096), hidden // heads
    norms = ("feed_forward1", "self_att", "conv", "feed_forward2", "out")
    return (
        *(t for i in (1, 2) for t in _network(f"feed_forward{i}", hidden, width, bias=bias)),
        learned("self_attn.bias_u", heads, dim),
        learned("self_attn.bias_v", heads, dim),
        *matrices((f"self_attn.{n}_proj" for n in "qkvo"), hidden, hidden, bias=bias),
        *linear("self_attn.relative_k_proj", hidden, hidden, Cut.WHOLE),
        *convolution("conv.pointwise_conv1", 2 * hidden, hidden, 1, bias=open_),
        *convolution("conv.depthwise_conv", hidden, 1, side, bias=open_),
        *batch_norm("conv.norm", hidden),
        *convolution("conv.pointwise_conv2", hidden, hidden, 1, bias=open_),
        *(t for name in norms for t in norm(f"norm_{name}", hidden, bias=True)),
    )


def _network(at: str, hidden: int, width: int, *, bias: bool) -> Tensors:
    return (
        *linear(f"{at}.linear1", width, hidden, Cut.WHOLE, bias=bias),
        *linear(f"{at}.linear2", hidden, width, Cut.WHOLE, bias=bias),
    )


def _shortening(f: Fields, hidden: int) -> Tensors:
    """Return the convolutions that halve a spectrum as often as ``subsampling_factor`` says."""
    channels, bins = f.integer("subsampling_conv_channels"), f.integer("num_mel_bins")
    side, factor = f.integer("subsampling_conv_kernel_size", KERNEL, largest=64), f.integer("subsampling_factor")
    halvings, at = factor.bit_length() - 1, "encoder.subsampling."
    tensors, number = convolution(f"{at}layers.0", channels, 1, side, side), 2
    for _ in range(halvings - 1):
        tensors += (
            *convolution(f"{at}layers.{number}", channels, 1, side, side),
            *convolution(f"{at}layers.{number + 1}", channels, channels, 1, 1),
        )
        number += 3
    return (*tensors, *linear(f"{at}linear", hidden, channels * (bins >> halvings), Cut.WHOLE, bias=True))
