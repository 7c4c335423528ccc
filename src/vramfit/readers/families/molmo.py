"""Molmo: OLMo's or Qwen2's blocks under names of its own, and a CLIP tower whose patches are pooled by attention.

The configuration says nothing of the tower: its widths are class defaults in the code beside the weights.
Names and shapes: vllm-project/vllm:vllm/model_executor/models/molmo.py, which loads the published files.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, grouped_query, is_tied, linear, norm
from vramfit.readers.families.vision import learned, matrices
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

CLASSES = {"molmo": ("MolmoForCausalLM",)}
IMAGE_WORDS = 128
"""Rows of the second embedding table, for the image's words; the output projection has none of them."""
TOWER_WIDTH, TOWER_HEADS, TOWER_LAYERS, TOWER_INNER = 1024, 16, 23, 4096
PATCH_ELEMENTS, TOWER_PLACES, BLOCKS_READ = 14 * 14 * 3, 577, 2
"""Class defaults of the tower: CLIP ViT-L/14 at 336 pixels without its last block; features of two blocks are read."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Molmo configuration."""
    fields.refuse("moe_num_experts", "a mixture of experts (MolmoE)")
    if fields.text("layer_norm_type") not in {None, "rms"}:
        fields.refuse("layer_norm_type", "norms with biases")
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    vocab = fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    rows = fields.integer("embedding_size", vocab, largest=LARGEST_VOCABULARY)
    tied, at = is_tied(fields), "model.transformer."
    head = Tensor(name=f"{at}ff_out.weight", shape=(vocab, hidden), role=Role.HEAD, cut=Cut.VOCABULARY)
    return ModelSpec(
        name=named.name,
        family="molmo",
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=fields.optional("max_position_embeddings", largest=LARGEST_CONTEXT),
        embeddings=(
            Tensor(name=f"{at}wte.embedding", shape=(rows, hidden), role=Role.EMBEDDING, cut=Cut.VOCABULARY),
            learned(f"{at}wte.new_embedding", IMAGE_WORDS, hidden),
        ),
        layers=(_block(fields, hidden, width),) * fields.num_layers,
        head=(*norm(f"{at}ln_f", hidden), *(() if tied else (head,))),
        tied=tied,
        layer_prefix=f"{at}blocks.{{layer}}.",
        scheme=named.scheme,
        parts=(_tower(hidden, width // 2),),
    )


def _block(fields: Fields, hidden: int, width: int) -> Layer:
    """Return a block; ``intermediate_size`` counts gate and up together."""
    facts = grouped_query(fields, hidden)
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    mixed = linear("att_proj", q + 2 * kv, hidden, Cut.QUERY_KEY_VALUE, bias=fields.flag("qkv_bias", default=True))
    normed = fields.flag("attention_layer_norm", default=False)
    tensors = (
        *norm("attn_norm", hidden),
        *norm("ff_norm", hidden),
        *mixed,
        *((*norm("q_norm", q), *norm("k_norm", kv)) if normed else ()),
        *linear("attn_out", hidden, q, Cut.INPUTS),
        *linear("ff_proj", width, hidden, Cut.OUTPUTS),
        *linear("ff_out", hidden, width // 2, Cut.INPUTS),
    )
    return Layer(attention=facts, feed_forward=Dense(intermediate_size=width // 2), tensors=tensors)


def _tower(hidden: int, width: int) -> Part:
    inside, at = TOWER_WIDTH, "model.vision_backbone."
    vit, pooling, wide = f"{at}image_vit.", f"{at}image_pooling_2d.", BLOCKS_READ * TOWER_WIDTH
    tensors = (
        *_attention("attention.", inside, inside),
        *linear("feed_forward.w1", TOWER_INNER, inside, Cut.WHOLE, bias=True),
        *linear("feed_forward.w2", inside, TOWER_INNER, Cut.WHOLE, bias=True),
        *norm("attention_norm", inside, bias=True),
        *norm("ffn_norm", inside, bias=True),
    )
    around = (
        learned(f"{vit}class_embedding", inside),
        learned(f"{vit}positional_embedding", TOWER_PLACES, inside),
        *linear(f"{vit}patch_embedding", inside, PATCH_ELEMENTS, Cut.WHOLE),
        *norm(f"{vit}pre_ln", inside, bias=True),
        *_attention(pooling, inside, wide),
        *matrices((f"{at}image_projector.w1", f"{at}image_projector.w3"), width, inside),
        *linear(f"{at}image_projector.w2", hidden, width, Cut.WHOLE),
        learned(f"{at}pad_embed", 2, wide),
    )
    facts = GroupedQuery(
        num_attention_heads=TOWER_HEADS, num_key_value_heads=TOWER_HEADS, head_dim=inside // TOWER_HEADS, causal=False
    )
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=TOWER_INNER, gated=False), tensors=tensors)
    return Part(
        name="vision tower",
        layers=(layer,) * TOWER_LAYERS,
        layer_prefix=f"{vit}transformer.resblocks.{{layer}}.",
        tensors=around,
        resident=True,
    )


def _attention(at: str, hidden: int, inside: int) -> Tensors:
    return (
        *matrices((f"{at}wq", f"{at}wk", f"{at}wv"), hidden, inside, bias=True),
        *linear(f"{at}wo", hidden, hidden, Cut.WHOLE, bias=True),
    )
