"""HiDream: streams of image and text attend together, and the image's network is a mixture of experts.

Source: huggingface/diffusers@v0.42.1:src/diffusers/models/transformers/transformer_hidream_image.py.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.layer_kind import Experts, FeedForward
from vramfit.pipeline import Denoiser
from vramfit.readers.diffusion.block import (
    TIME_CHANNELS,
    Anatomy,
    Stack,
    Tensors,
    block,
    count,
    integers,
    linear,
    norm,
    swiglu,
    two_linears,
    under,
)
from vramfit.readers.diffusion.size import Width, width_of
from vramfit.readers.families.decoder import routed_experts, router
from vramfit.readers.fields import LARGEST_EXPERTS, Fields
from vramfit.spec import Layer, Tensor
from vramfit.units import ceil_div

MULTIPLE = 256
GATE_DOWN_UP = ("w1", "w2", "w3")


def hidream(fields: Fields) -> Anatomy:
    """Read HiDream-I1 and -E1."""
    w, side, inputs = width_of(fields), fields.integer("patch_size", largest=64), fields.integer("in_channels")
    outputs = fields.optional("out_channels") or inputs
    double, single = count(fields, "num_layers"), count(fields, "num_single_layers")
    t5, llama = integers(fields, "caption_channels")[:1], integers(fields, "caption_channels")[-1:]
    captions = (*llama * (double + single), *t5)
    tensors = (
        *two_linears("t_embedder.timestep_embedder", w.inner, TIME_CHANNELS),
        *two_linears("p_embedder.pooled_embedder", w.inner, fields.integer("text_emb_dim")),
        *linear("x_embedder.proj", w.inner, side**2 * inputs),
        *linear("final_layer.linear", side**2 * outputs, w.inner),
        *linear("final_layer.adaLN_modulation.1", 2 * w.inner, w.inner),
        *(t for i, c in enumerate(captions) for t in linear(f"caption_projection.{i}.linear", w.inner, c, bias=False)),
    )
    facts = Denoiser(
        in_channels=inputs,
        out_channels=outputs,
        hidden_size=w.inner,
        num_attention_heads=w.heads,
        head_dim=w.head_dim,
        patch_size=(1, side, side),
        text_width=llama[0],
    )
    stacks = (
        Stack(prefix="double_stream_blocks.{layer}.", layers=(_block(fields, w, both=True),) * double),
        Stack(prefix="single_stream_blocks.{layer}.", layers=(_block(fields, w, both=False),) * single),
    )
    return Anatomy(tensors=tensors, stacks=stacks, facts=facts)


def _block(fields: Fields, w: Width, *, both: bool) -> Layer:
    """Return a block; ``both``: the text has projections and a network of its own."""
    network, tensors = _network(fields, w.inner)
    inside = (
        *linear("adaLN_modulation.1", (12 if both else 6) * w.inner, w.inner),
        *_attention(w.inner, ""),
        *(_attention(w.inner, "_t") if both else ()),
        *tensors,
        *(swiglu("ff_t", w.inner, _rounded(4 * w.inner), GATE_DOWN_UP) if both else ()),
    )
    named = tuple(
        Tensor(
            name=f"block.{t.name}", shape=t.shape, role=t.role, cut=t.cut, copies=t.copies, experts=t.experts
        )
        for t in inside
    )  # fmt: skip
    return block(w.heads, w.head_dim, _rounded(4 * w.inner), named, gated=True, network=network)


def _attention(inner: int, stream: str) -> Tensors:
    projections = tuple(t for n in ("q", "k", "v", "out") for t in linear(f"to_{n}{stream}", inner, inner))
    return under("attn1", (*projections, *norm(f"q_rms_norm{stream}", inner), *norm(f"k_rms_norm{stream}", inner)))


def _network(fields: Fields, inner: int) -> tuple[FeedForward | None, Tensors]:
    """Return the image's network: experts, or a plain one where there are none."""
    width, shared = _rounded(4 * inner), _rounded(2 * inner)
    num = fields.integer("num_routed_experts", largest=LARGEST_EXPERTS, smallest=0)
    if not num:
        return None, swiglu("ff_i", inner, width, GATE_DOWN_UP)
    facts = Experts(
        num_experts=num,
        num_experts_per_tok=fields.integer("num_activated_experts", largest=num),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    routed = routed_experts(num, inner, width, prefix="ff_i", names=("w1", "w3", "w2"))
    assert all(t.role is Role.EXPERT for t in routed)
    return facts, (
        *swiglu("ff_i.shared_experts", inner, shared, GATE_DOWN_UP),
        *routed,
        router("ff_i.gate", num, inner),
    )


def _rounded(width: int) -> int:
    """Return two thirds of a width, rounded up to whole multiples of 256."""
    return ceil_div(2 * width // 3, MULTIPLE) * MULTIPLE
