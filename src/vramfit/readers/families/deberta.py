"""DeBERTa 1 to 3: a table of relative positions beside the blocks, projected anew in each or by its own query and key.

Source: He et al. 2021, arXiv:2006.03654, sec. 3.1, and 2023, arXiv:2111.09543 (version 3 has version 2's shapes);
huggingface/transformers:src/transformers/models/deberta/ and models/deberta_v2/, 5.23.0.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.families.bert import ANSWERS, BERT_MASKED, TOKENS
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
    norms,
    num_labels,
    table,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, ModelSpec, Tensor


def _pooled(sizes: Sizes) -> Tensors:
    """Return a classifier behind a pooler, which stands outside the encoder here."""
    return (*linear("pooler.dense", sizes.hidden, sizes.hidden, Cut.WHOLE, bias=True), *TOKENS.tensors(sizes))


TOPS = {
    "Model": Top(),
    "ForMaskedLM": Top(tensors=BERT_MASKED, vocabulary=True),
    "ForSequenceClassification": Top(tensors=_pooled, labelled=True),
    "ForTokenClassification": TOKENS,
    "ForQuestionAnswering": ANSWERS,
}
STEMS = {"deberta": "Deberta", "deberta-v2": "DebertaV2"}
CLASSES = {kind: class_names(stem, TOPS) for kind, stem in STEMS.items()}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a DeBERTa configuration; files of version 3 call themselves version 2."""
    kind = fields.text("model_type") or ""
    second = kind == "deberta-v2"
    end, top = chosen_class(fields, STEMS[kind], TOPS)
    if not second:
        fields.refuse("conv_kernel_size", "a convolution beside the first block")
    sizes = replace(_sizes(fields), labels=num_labels(fields) if top.labelled else 0)
    relative = fields.flag("relative_attention", default=False, recorded=True)
    looks = _directions(fields) if relative else frozenset()
    tensors = _second(fields, sizes, looks) if second else _first(sizes, looks)
    prefix = "" if end == "Model" else "deberta."
    around = _around(fields, sizes, relative=relative, second=second)
    return encoder_model(
        fields,
        named,
        sizes,
        prefix,
        positions=fields.integer("max_position_embeddings", 512, largest=LARGEST_CONTEXT),
        embeddings=_embeddings(fields, sizes),
        layers=(bidirectional(sizes, tensors),) * fields.num_layers,
        layer_prefix="encoder.layer.{layer}.",
        behind=around,
        top=top.tensors(sizes),
        tied=top.vocabulary,
        not_counted=("scores of queries with relative positions, one matrix per direction and head",)
        if relative
        else (),
    )


def _sizes(fields: Fields) -> Sizes:
    hidden, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    vocab = fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    embedding = fields.optional("embedding_size") or 0
    width = fields.integer("intermediate_size")
    return divided_heads(fields, Sizes(hidden=hidden, width=width, heads=heads, vocab=vocab, embedding=embedding))


def _directions(fields: Fields) -> frozenset[str]:
    """Return which way positions are looked at: a list, or a text with a bar between."""
    value = fields.values.get("pos_att_type")
    words = value.lower().split("|") if isinstance(value, str) else value
    if words is None:
        return frozenset()
    if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
        raise InvalidValueError(fields.at("pos_att_type"), value, "c2p, p2c, or both with a bar between")
    return frozenset(str(word).strip() for word in words)


def _embeddings(fields: Fields, sizes: Sizes) -> Tensors:
    at, narrow = "embeddings.", sizes.narrow
    positions = fields.integer("max_position_embeddings", 512, largest=LARGEST_CONTEXT)
    biased = fields.flag("position_biased_input", default=True, recorded=True)
    types = fields.integer("type_vocab_size", 0, smallest=0)
    return (
        table(f"{at}word_embeddings", sizes.vocab, narrow, Cut.VOCABULARY),
        *((table(f"{at}position_embeddings", positions, narrow),) if biased else ()),
        *((table(f"{at}token_type_embeddings", types, narrow),) if types else ()),
        *(linear(f"{at}embed_proj", sizes.hidden, narrow, Cut.WHOLE) if narrow != sizes.hidden else ()),
        *norms(f"{at}LayerNorm", sizes.hidden),
    )


def _around(fields: Fields, sizes: Sizes, *, relative: bool, second: bool) -> Tensors:
    """Return the table of relative positions, its norm, and the convolution of version 2's largest models."""
    farthest = fields.values.get("max_relative_positions")
    if not isinstance(farthest, int) or isinstance(farthest, bool) or farthest < 1:
        farthest = fields.integer("max_position_embeddings", 512, largest=LARGEST_CONTEXT)
    reach = min(farthest, LARGEST_CONTEXT)
    buckets = fields.values.get("position_buckets")
    if second and isinstance(buckets, int) and not isinstance(buckets, bool) and 0 < buckets <= LARGEST_CONTEXT:
        reach = buckets
    normed = second and "layer_norm" in (fields.text("norm_rel_ebd") or "none").lower()
    kernel = fields.integer("conv_kernel_size", 0, smallest=0, largest=1024) if fields.has("conv_kernel_size") else 0
    shape = (sizes.hidden, sizes.hidden // fields.integer("conv_groups", 1), kernel) if kernel else ()
    return (
        *((table("encoder.rel_embeddings", 2 * reach, sizes.hidden),) if relative else ()),
        *(norms("encoder.LayerNorm", sizes.hidden) if normed else ()),
        *(
            (
                Tensor(name="encoder.conv.conv.weight", shape=shape, role=Role.CONVOLUTION),
                Tensor(name="encoder.conv.conv.bias", shape=(sizes.hidden,), role=Role.BIAS),
                *norms("encoder.conv.LayerNorm", sizes.hidden),
            )
            if kernel
            else ()
        ),
    )


def _network(sizes: Sizes) -> Tensors:
    hidden, width = sizes.hidden, sizes.width
    return (
        *linear("attention.output.dense", hidden, hidden, Cut.INPUTS, bias=True),
        *linear("intermediate.dense", width, hidden, Cut.OUTPUTS, bias=True),
        *linear("output.dense", hidden, width, Cut.INPUTS, bias=True),
        *norms("attention.output.LayerNorm output.LayerNorm", hidden),
    )


def _first(sizes: Sizes, looks: frozenset[str]) -> Tensors:
    """Return a block of version 1: query, key and value in one matrix, biases for query and value only."""
    hidden, at = sizes.hidden, "attention.self."
    return (
        *linear(f"{at}in_proj", 3 * hidden, hidden, Cut.OUTPUTS),
        *(Tensor(name=f"{at}{n}_bias", shape=(hidden,), role=Role.BIAS, cut=Cut.OUTPUTS) for n in "qv"),
        *(linear(f"{at}pos_proj", hidden, hidden, Cut.OUTPUTS) if "c2p" in looks else ()),
        *(linear(f"{at}pos_q_proj", hidden, hidden, Cut.OUTPUTS, bias=True) if "p2c" in looks else ()),
        *_network(sizes),
    )


def _second(fields: Fields, sizes: Sizes, looks: frozenset[str]) -> Tensors:
    """Return a block of version 2 and 3; positions share the query's and key's matrices unless told otherwise."""
    hidden, at = sizes.hidden, "attention.self."
    own = bool(looks) and not fields.flag("share_att_key", default=False, recorded=True)
    return (
        *linears(f"{at}query_proj {at}key_proj {at}value_proj", hidden, hidden, Cut.OUTPUTS),
        *(linear(f"{at}pos_key_proj", hidden, hidden, Cut.OUTPUTS, bias=True) if own and "c2p" in looks else ()),
        *(linear(f"{at}pos_query_proj", hidden, hidden, Cut.OUTPUTS, bias=True) if own and "p2c" in looks else ()),
        *_network(sizes),
    )
