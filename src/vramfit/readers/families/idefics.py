"""The first Idefics: Llama's blocks, and before every so-manieth a gated block that attends to the images alone.

Source: huggingface/transformers:src/transformers/models/idefics/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.layer_kind import CrossAttention, Dense, GroupedQuery
from vramfit.readers.families import llama, vision
from vramfit.readers.families.decoder import Named, Tensors, block_norms, gated_mlp, linear, norm
from vramfit.readers.families.vision import learned, matrices
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

SECTIONS = {"idefics": ("vision_config",)}
CLASSES = {"idefics": ("IdeficsForVisionText2Text",)}
_DEFAULTS: dict[str, object] = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32,
}  # fmt: skip


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an Idefics configuration."""
    f = fields.filled(**_DEFAULTS)
    spec = llama.read(Fields({**f.values, "num_key_value_heads": None}, f.path, f.assumed), named)
    hidden, more = spec.hidden_size, f.integer("additional_vocab_size", 0, smallest=0)
    empty = Fields({}, "vision_config", fields.assumed)
    eye = f.section("vision_config") if f.has("vision_config") else empty
    tower = vision.idefics(eye, "model.vision_model.")
    inside = eye.integer("embed_dim", 768)
    table = Tensor(name="model.embed_tokens.additional_embedding.weight", shape=(more, hidden), role=Role.EMBEDDING)
    head = Tensor(name="lm_head.additional_fc.weight", shape=(more, hidden), role=Role.HEAD)
    resampler = (_resampler(f, inside),) if f.flag("use_resampler", default=False) else ()
    f.assumed.append("gated cross attention to images: weights counted; its keys and values are not")
    return replace(
        spec,
        embeddings=(*spec.embeddings, *((table,) if more else ())),
        head=(*spec.head, *((head,) if more and not spec.tied else ())),
        parts=(tower, *resampler, _crossing(f, hidden, inside)),
    )


def _crossing(f: Fields, hidden: int, inside: int) -> Part:
    """Return the gated blocks; their keys and values are read from the tower's vectors."""
    heads, every = f.integer("num_attention_heads"), f.integer("cross_layer_interval", 1, largest=LARGEST_LAYERS)
    dim, width = hidden // heads, f.integer("intermediate_size")
    gate = (1,) if (f.text("alpha_type") or "float") == "float" else (1, 1, hidden)
    normed = f.flag("qk_layer_norms", default=False)
    tensors = (
        *linear("cross_attn.q_proj", hidden, hidden, Cut.WHOLE),
        *matrices(("cross_attn.k_proj", "cross_attn.v_proj"), hidden, inside),
        *linear("cross_attn.o_proj", hidden, hidden, Cut.WHOLE),
        *((*norm("cross_attn.q_layer_norm", dim), *norm("cross_attn.k_layer_norm", dim)) if normed else ()),
        *gated_mlp(hidden, width),
        *block_norms(hidden),
        learned("alpha_cross_attn", *gate),
        learned("alpha_dense", *gate),
    )
    facts = CrossAttention(num_attention_heads=heads, num_key_value_heads=heads, head_dim=dim)
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width), tensors=tensors)
    return Part(
        name="gated cross attention",
        layers=(layer,) * (f.num_layers // every),
        layer_prefix="model.gated_cross_attn_layers.{layer}.",
        resident=True,
    )


def _resampler(f: Fields, inside: int) -> Part:
    empty = Fields({}, "perceiver_config", f.assumed)
    p = (f.section("perceiver_config") if f.has("perceiver_config") else empty).filled(
        resampler_n_latents=64, resampler_depth=6, resampler_n_heads=16, resampler_head_dim=96
    )
    heads, dim, at = p.integer("resampler_n_heads"), p.integer("resampler_head_dim"), "model.perceiver_resampler."
    normed = p.flag("qk_layer_norms_perceiver", default=False)
    tensors: Tensors = (
        *norm("0.context_layer_norm", inside, bias=True),
        *norm("0.latents_layer_norm", inside, bias=True),
        *((*norm("0.q_layer_norm", dim, bias=True), *norm("0.k_layer_norm", dim, bias=True)) if normed else ()),
        *matrices((f"0.{n}_proj" for n in "qkv"), heads * dim, inside),
        *linear("0.output_proj", inside, heads * dim, Cut.WHOLE),
        *norm("1.ln", inside, bias=True),
        *linear("1.fc", 4 * inside, inside, Cut.WHOLE),
        *linear("1.c_proj", inside, 4 * inside, Cut.WHOLE),
    )
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=dim, causal=False)
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=4 * inside, gated=False), tensors=tensors)
    return Part(
        name="resampler",
        layers=(layer,) * p.integer("resampler_depth", largest=LARGEST_LAYERS),
        layer_prefix=f"{at}blocks.{{layer}}.",
        tensors=(
            learned(f"{at}latents", p.integer("resampler_n_latents"), inside),
            *norm(f"{at}layer_norm", inside, bias=True),
        ),
        resident=True,
    )
