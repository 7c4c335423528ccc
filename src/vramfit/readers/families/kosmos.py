"""Kosmos-2 and 2.5: a decoder with norms inside its halves, and a resampler that reads a tower's vectors.

Source: huggingface/transformers:src/transformers/models/kosmos2/ and models/kosmos2_5/, 5.23.0.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families import vision
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.families.vision import learned, matrices, position_table, tower_of
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

_KINDS = ("kosmos-2", "kosmos-2.5")
SECTIONS = dict.fromkeys(_KINDS, ("text_config", "vision_config"))
CLASSES = {"kosmos-2": ("Kosmos2ForConditionalGeneration",), "kosmos-2.5": ("Kosmos2_5ForConditionalGeneration",)}
_TEXT: dict[str, dict[str, object]] = {
    "kosmos-2": {"vocab_size": 65037, "max_position_embeddings": 2048, "embed_dim": 2048, "layers": 24,
                 "ffn_dim": 8192, "attention_heads": 32},
    "kosmos-2.5": {"vocab_size": 108481, "max_position_embeddings": 4096, "embed_dim": 1536, "layers": 24,
                   "ffn_dim": 6144, "attention_heads": 16},
}  # fmt: skip


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Kosmos configuration."""
    kind = fields.text("model_type") or ""
    first, f = kind == "kosmos-2", fields.section("text_config").filled(**_TEXT[kind])
    f.refuse("add_cross_attention", "a second attention in every block")
    hidden, vocab = f.integer("embed_dim"), f.integer("vocab_size", largest=LARGEST_VOCABULARY)
    fields.insist("tie_word_embeddings", on=True, why="an output projection of its own")
    table = Tensor(
        name="text_model.model.embed_tokens.weight", shape=(vocab, hidden), role=Role.EMBEDDING, cut=Cut.VOCABULARY
    )
    segments = () if first else (position_table("text_model.model.segment_emb", 2, hidden),)
    return ModelSpec(
        name=named.name,
        family=kind,
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=f.integer("max_position_embeddings"),
        embeddings=(table, *segments),
        layers=(_block(f, hidden, first=first),) * f.integer("layers", largest=LARGEST_LAYERS),
        head=norm("text_model.model.layer_norm", hidden, bias=True),
        tied=True,
        layer_prefix="text_model.model.layers.{layer}.",
        scheme=named.scheme,
        parts=_seeing(fields, hidden, first=first),
    )


def _block(f: Fields, hidden: int, *, first: bool) -> Layer:
    heads, width = f.integer("attention_heads"), f.integer("ffn_dim")
    tensors = (
        *(t for n in "kvq" for t in linear(f"self_attn.{n}_proj", hidden, hidden, Cut.OUTPUTS, bias=True)),
        *linear("self_attn.out_proj", hidden, hidden, Cut.INPUTS, bias=True),
        *(norm("self_attn.inner_attn_ln", hidden, bias=True) if first else ()),
        *norm("self_attn_layer_norm", hidden, bias=True),
        *linear("ffn.fc1", width, hidden, Cut.OUTPUTS, bias=True),
        *linear("ffn.fc2", hidden, width, Cut.INPUTS, bias=True),
        *norm("ffn.ffn_layernorm", width, bias=True),
        *norm("final_layer_norm", hidden, bias=True),
    )
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads)
    return Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=False), tensors=tensors)


def _seeing(fields: Fields, hidden: int, *, first: bool) -> tuple[Part, ...]:
    section, at = fields.section("vision_config"), "image_to_text_projection."
    if first:
        f = section.filled(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                           patch_size=14)  # fmt: skip
        tower = vision.clip(f, "vision_model.model.")
    else:
        f = section.filled(hidden_size=1536)
        tower = _pix2struct(f, "vision_model.")
    around = (
        learned(f"{at}latent_query", fields.integer("latent_query_num", 64 if first else 2048), hidden),
        *linear(f"{at}dense", hidden, f.integer("hidden_size"), Cut.WHOLE, bias=True),
        *matrices((f"{at}x_attn.{n}_proj" for n in ("k", "v", "q", "out")), hidden, hidden, bias=True),
    )
    return (tower, Part(name="resampler", layers=(), layer_prefix="", tensors=around, resident=True))


def _pix2struct(fields: Fields, prefix: str) -> Part:
    """Return Kosmos-2.5's tower (Pix2Struct): flattened patches, a table for rows and one for columns."""
    f = fields.filled(
        intermediate_size=3968, head_dim=64, num_hidden_layers=18, num_attention_heads=24, max_num_patches=4096,
        patch_embed_hidden_size=768,
    )  # fmt: skip
    hidden, heads, width = f.integer("hidden_size"), f.integer("num_attention_heads"), f.integer("intermediate_size")
    inside, at, places = heads * f.integer("head_dim"), f"{prefix}embeddings.", f.integer("max_num_patches")
    tensors: Tensors = (
        *matrices((f"attention.{n}" for n in ("query", "key", "value")), inside, hidden),
        *linear("attention.output", hidden, inside, Cut.WHOLE),
        *matrices(("mlp.wi_0", "mlp.wi_1"), width, hidden),
        *linear("mlp.wo", hidden, width, Cut.WHOLE),
        *norm("pre_mlp_layer_norm", hidden),
        *norm("pre_attention_layer_norm", hidden),
    )
    around = (
        *linear(f"{at}patch_projection", hidden, f.integer("patch_embed_hidden_size"), Cut.WHOLE, bias=True),
        position_table(f"{at}row_embedder", places, hidden),
        position_table(f"{at}column_embedder", places, hidden),
        *norm(f"{prefix}layernorm", hidden),
    )
    return tower_of(f, (hidden, heads, width), tensors, f"{prefix}encoder.layer.{{layer}}.", around, gated=True)
