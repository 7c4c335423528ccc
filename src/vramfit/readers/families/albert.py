"""ALBERT: one block, or a few, run again and again; their parameters are there once.

Source: Lan et al. 2020, arXiv:1909.11942, sec. 3.1; huggingface/transformers:src/transformers/models/albert/, 5.23.0.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.readers.families.bert import ANSWERS, POOLED_CLASSES, TOKENS
from vramfit.readers.families.decoder import Named, Tensors, linear
from vramfit.readers.families.encoder import (
    Sizes,
    Top,
    bidirectional,
    chosen_class,
    class_names,
    divided_heads,
    encoder_model,
    linears,
    masked,
    norms,
    num_labels,
    prefixed,
    table,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec

MASKED = masked("predictions.bias", "predictions.dense", "predictions.LayerNorm")
TOPS = {
    "Model": Top(pooled=True),
    "ForMaskedLM": Top(tensors=MASKED, vocabulary=True),
    "ForPreTraining": Top(
        tensors=lambda s: (*MASKED(s), *linear("sop_classifier.classifier", s.labels, s.hidden, Cut.WHOLE, bias=True)),
        pooled=True,
        vocabulary=True,
        labelled=True,
    ),
    "ForSequenceClassification": POOLED_CLASSES,
    "ForTokenClassification": TOKENS,
    "ForQuestionAnswering": ANSWERS,
}
CLASSES = {"albert": class_names("Albert", TOPS)}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an ALBERT configuration."""
    end, top = chosen_class(fields, "Albert", TOPS)
    sizes = _sizes(fields)
    sizes = replace(sizes, labels=num_labels(fields) if top.labelled else 0)
    prefix = "" if end == "Model" else "albert."
    positions = fields.integer("max_position_embeddings", 512, largest=LARGEST_CONTEXT)
    pooler = linear("pooler", sizes.hidden, sizes.hidden, Cut.WHOLE, bias=True) if top.pooled else ()
    return encoder_model(
        fields,
        named,
        sizes,
        prefix,
        positions=positions,
        embeddings=_embeddings(fields, sizes, positions),
        layers=_layers(fields, sizes),
        layer_prefix="encoder.albert_layer_groups.",
        behind=pooler,
        top=top.tensors(sizes),
        tied=top.vocabulary,
    )


def _sizes(fields: Fields) -> Sizes:
    return divided_heads(
        fields,
        Sizes(
            hidden=fields.integer("hidden_size", 4096),
            width=fields.integer("intermediate_size", 16384),
            heads=fields.integer("num_attention_heads", 64),
            vocab=fields.integer("vocab_size", 30000, largest=LARGEST_VOCABULARY),
            embedding=fields.integer("embedding_size", 128),
        ),
    )


def _embeddings(fields: Fields, sizes: Sizes, positions: int) -> Tensors:
    at, narrow = "embeddings.", sizes.narrow
    return (
        table(f"{at}word_embeddings", sizes.vocab, narrow, Cut.VOCABULARY),
        table(f"{at}position_embeddings", positions, narrow),
        table(f"{at}token_type_embeddings", fields.integer("type_vocab_size", 2), narrow),
        *norms(f"{at}LayerNorm", narrow),
        *linear("encoder.embedding_hidden_mapping_in", sizes.hidden, narrow, Cut.WHOLE, bias=True),
    )


def _layers(fields: Fields, sizes: Sizes) -> tuple[Layer, ...]:
    """Return the blocks in the order they run; the first run of each holds its tensors, the others share them."""
    runs, groups = fields.num_layers, fields.integer("num_hidden_groups", 1, largest=LARGEST_LAYERS)
    inside = fields.integer("inner_group_num", 1, largest=LARGEST_LAYERS // runs)
    if groups > runs:
        raise InvalidValueError(fields.at("num_hidden_groups"), groups, f"at most num_hidden_layers ({runs})")
    layers: list[Layer] = []
    again: dict[str, Layer] = {}
    for run in range(runs):
        group = run * groups // runs
        for place in (f"{group}.albert_layers.{i}." for i in range(inside)):
            if place in again:
                layers.append(again[place])
                continue
            tensors = prefixed(place, _block(sizes))
            again[place] = replace(bidirectional(sizes, ()), shared=tensors, shared_with=len(layers))
            layers.append(bidirectional(sizes, tensors))
    return tuple(layers)


def _block(sizes: Sizes) -> Tensors:
    hidden, width = sizes.hidden, sizes.width
    return (
        *linears("attention.query attention.key attention.value", hidden, hidden, Cut.OUTPUTS),
        *linear("attention.dense", hidden, hidden, Cut.INPUTS, bias=True),
        *linear("ffn", width, hidden, Cut.OUTPUTS, bias=True),
        *linear("ffn_output", hidden, width, Cut.INPUTS, bias=True),
        *norms("attention.LayerNorm full_layer_layer_norm", hidden),
    )
