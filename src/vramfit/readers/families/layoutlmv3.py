"""LayoutLMv3: RoBERTa's blocks over words, their boxes on the page, and the page's own patches.

Source: Huang et al. 2022, arXiv:2204.08387, sec. 3.1;
huggingface/transformers:src/transformers/models/layoutlmv3/, 5.23.0.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.readers.families.bert import DEEP_CLASSES, TOKENS, bert_block
from vramfit.readers.families.decoder import Named, Tensors, linear
from vramfit.readers.families.encoder import (
    Sizes,
    Top,
    bidirectional,
    chosen_class,
    class_names,
    divided_heads,
    encoder_model,
    learned,
    norms,
    num_labels,
    table,
    two_layers,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, ModelSpec, Tensor

FEW_LABELS = 10
"""From so many labels on, a token's classifier has two layers."""


def _words(sizes: Sizes) -> Tensors:
    return TOKENS.tensors(sizes) if sizes.labels < FEW_LABELS else DEEP_CLASSES.tensors(sizes)


TOPS = {
    "Model": Top(),
    "ForSequenceClassification": DEEP_CLASSES,
    "ForTokenClassification": Top(tensors=_words, labelled=True),
    "ForQuestionAnswering": Top(tensors=two_layers("qa_outputs"), labelled=True),
}
CLASSES = {"layoutlmv3": class_names("LayoutLMv3", TOPS)}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a LayoutLMv3 configuration."""
    end, top = chosen_class(fields, "LayoutLMv3", TOPS)
    sizes = Sizes(
        hidden=fields.integer("hidden_size", 768),
        width=fields.integer("intermediate_size", 3072),
        heads=fields.integer("num_attention_heads", 12),
        vocab=fields.integer("vocab_size", 50265, largest=LARGEST_VOCABULARY),
        labels=num_labels(fields) if top.labelled else 0,
    )
    positions = fields.integer("max_position_embeddings", 512, largest=LARGEST_CONTEXT)
    patches, page = _page(fields, sizes.hidden)
    fields.assumed.append(f"beside the words a page is {patches + 1:,} tokens: give --context for both together")
    return encoder_model(
        fields,
        named,
        divided_heads(fields, sizes),
        "" if end == "Model" else "layoutlmv3.",
        positions=positions + patches + 1,
        embeddings=(*_text(fields, sizes, positions), *page),
        layers=(bidirectional(sizes, bert_block(sizes)),) * fields.num_layers,
        layer_prefix="encoder.layer.{layer}.",
        behind=_distances(fields, sizes.heads),
        top=top.tensors(sizes),
    )


def _text(fields: Fields, sizes: Sizes, positions: int) -> Tensors:
    """Return the tables of words, of their place in the text and of their boxes."""
    at, hidden, rows = "embeddings.", sizes.hidden, fields.integer("max_2d_position_embeddings", 1024)
    place, shape = fields.integer("coordinate_size", 128), fields.integer("shape_size", 128)
    boxes = (("x", place), ("y", place), ("h", shape), ("w", shape))
    return (
        table(f"{at}word_embeddings", sizes.vocab, hidden, Cut.VOCABULARY),
        table(f"{at}token_type_embeddings", fields.integer("type_vocab_size", 2), hidden),
        table(f"{at}position_embeddings", positions, hidden),
        *(table(f"{at}{axis}_position_embeddings", rows, width) for axis, width in boxes),
        *norms(f"{at}LayerNorm", hidden),
    )


def _page(fields: Fields, hidden: int) -> tuple[int, Tensors]:
    """Return how many patches a page has, and what embeds them."""
    if not fields.flag("visual_embed", default=True):
        return -1, ()
    side, pixels = fields.integer("patch_size", 16), fields.integer("input_size", 224)
    patches = (pixels // side) ** 2
    shape = (hidden, fields.integer("num_channels", 3), side, side)
    return patches, (
        learned("cls_token", 1, 1, hidden),
        learned("pos_embed", 1, patches + 1, hidden),
        Tensor(name="patch_embed.proj.weight", shape=shape, role=Role.CONVOLUTION),
        Tensor(name="patch_embed.proj.bias", shape=(hidden,), role=Role.BIAS),
        *norms("LayerNorm norm", hidden),
    )


def _distances(fields: Fields, heads: int) -> Tensors:
    """Return what each head adds for distances in the text and on the page."""
    text, page = fields.integer("rel_pos_bins", 32), fields.integer("rel_2d_pos_bins", 64)
    found: list[Tensor] = []
    if fields.flag("has_relative_attention_bias", default=True):
        found += linear("encoder.rel_pos_bias", heads, text, Cut.WHOLE)
    if fields.flag("has_spatial_attention_bias", default=True):
        found += [t for axis in "xy" for t in linear(f"encoder.rel_pos_{axis}_bias", heads, page, Cut.WHOLE)]
    return tuple(replace(t, role=Role.EMBEDDING) for t in found)
