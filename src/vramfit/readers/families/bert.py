"""BERT and the encoders that differ from it in names, tables and tops: one row of facts each.

Every token sees every other, nothing is cached, nothing is generated. What stands on top follows ``architectures``.
Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vramfit.errors import InvalidValueError
from vramfit.readers.families.decoder import Named, Tensors, linear
from vramfit.readers.families.encoder import (
    Sizes,
    Top,
    Tops,
    bidirectional,
    chosen_class,
    class_names,
    divided_heads,
    encoder_model,
    linears,
    masked,
    norms,
    num_labels,
    one_layer,
    table,
    two_layers,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec

BERT_MASKED = masked("cls.predictions.bias", "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm")
ROBERTA_MASKED = masked("lm_head.bias", "lm_head.dense", "lm_head.layer_norm")
RELATIONSHIP = 2
"""Classes of BERT's second training task: the next sentence, or another one."""
ANSWERS = Top(tensors=one_layer("qa_outputs"), labelled=True)
TOKENS = Top(tensors=one_layer("classifier"), labelled=True)
POOLED_CLASSES = replace(TOKENS, pooled=True)
DEEP_CLASSES = Top(tensors=two_layers("classifier"), labelled=True)


def _pretraining(sizes: Sizes) -> Tensors:
    second = linear("cls.seq_relationship", RELATIONSHIP, sizes.hidden, Cut.WHOLE, bias=True)
    return (*BERT_MASKED(sizes), *second)


def _block(sizes: Sizes, query: str, output: str, into: str, back: str, behind: str) -> Tensors:
    """Return a block: query, key and value, output, two matrices of the network, two norms."""
    hidden, width = sizes.hidden, sizes.width
    return (
        *linears(query, hidden, hidden, Cut.OUTPUTS),
        *linear(output, hidden, hidden, Cut.INPUTS, bias=True),
        *linear(into, width, hidden, Cut.OUTPUTS, bias=True),
        *linear(back, hidden, width, Cut.INPUTS, bias=True),
        *norms(behind, hidden),
    )


_QUERY = "attention.self.query attention.self.key attention.self.value"
_GLOBAL = "attention.self.query_global attention.self.key_global attention.self.value_global"
_OUT, _INTO, _BACK = "attention.output.dense", "intermediate.dense", "output.dense"
_BEHIND = "attention.output.LayerNorm output.LayerNorm"


def bert_block(sizes: Sizes, query: str = _QUERY, behind: str = _BEHIND) -> Tensors:
    """Return BERT's block."""
    return _block(sizes, query, _OUT, _INTO, _BACK, behind)


def _mpnet_block(sizes: Sizes) -> Tensors:
    query = "attention.attn.q attention.attn.k attention.attn.v"
    return _block(sizes, query, "attention.attn.o", _INTO, _BACK, "attention.LayerNorm output.LayerNorm")


def _distilbert_block(sizes: Sizes) -> Tensors:
    query = "attention.q_lin attention.k_lin attention.v_lin"
    return _block(sizes, query, "attention.out_lin", "ffn.lin1", "ffn.lin2", "sa_layer_norm output_layer_norm")


def _distilbert_classes(sizes: Sizes) -> Tensors:
    return (*linear("pre_classifier", sizes.hidden, sizes.hidden, Cut.WHOLE, bias=True), *TOKENS.tensors(sizes))


def _no_tables(_: Fields, __: Sizes) -> Tensors:
    return ()


def _task_types(fields: Fields, sizes: Sizes) -> Tensors:
    if not fields.flag("use_task_id", default=False):
        return ()
    return (table("embeddings.task_type_embeddings", fields.integer("task_type_vocab_size", 3), sizes.hidden),)


def _boxes(fields: Fields, sizes: Sizes) -> Tensors:
    rows = fields.integer("max_2d_position_embeddings", 1024)
    return tuple(table(f"embeddings.{axis}_position_embeddings", rows, sizes.hidden) for axis in "xyhw")


def _projected(_: Fields, sizes: Sizes) -> Tensors:
    if sizes.narrow == sizes.hidden:
        return ()
    return linear("embeddings_project", sizes.hidden, sizes.narrow, Cut.WHOLE, bias=True)


def _distances(fields: Fields, sizes: Sizes) -> Tensors:
    return (
        table("encoder.relative_attention_bias", fields.integer("relative_attention_num_buckets", 32), sizes.heads),
    )


def _last_norm(_: Fields, sizes: Sizes) -> Tensors:
    return norms("encoder.LayerNorm", sizes.hidden)


def _sizes_as_bert(fields: Fields) -> Sizes:
    return Sizes(
        hidden=fields.integer("hidden_size", 768),
        width=fields.integer("intermediate_size", 3072),
        heads=fields.integer("num_attention_heads", 12),
    )


def _sizes_as_electra(fields: Fields) -> Sizes:
    return replace(_sizes_as_bert(fields), embedding=fields.integer("embedding_size", 128))


def _sizes_as_distilbert(fields: Fields) -> Sizes:
    return Sizes(
        hidden=fields.integer("dim", 768), width=fields.integer("hidden_dim", 3072), heads=fields.integer("n_heads", 12)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What one ``model_type`` is made of; the defaults are BERT's."""

    stem: str
    """Beginning of its classes' names."""
    prefix: str
    """Before the encoder's tensors in all classes but the bare one."""
    tops: Tops
    sizes: Callable[[Fields], Sizes] = _sizes_as_bert
    layers: str = "num_hidden_layers"
    positions: int = 512
    """Class default of ``max_position_embeddings``."""
    padded: bool = False
    """True: positions begin behind the padding token's number, so that many fewer tokens fit."""
    types: int | None = 2
    """Class default of ``type_vocab_size``; None = there are no token types."""
    normed: bool = True
    """True: a norm behind the embeddings."""
    beside: Callable[[Fields, Sizes], Tensors] = _no_tables
    """Tables beside the usual ones."""
    block: Callable[[Sizes], Tensors] = bert_block
    layer_prefix: str = "encoder.layer.{layer}."
    windowed: bool = False
    """True: ``attention_window`` limits what a token sees."""
    pooler: str = "pooler.dense"
    behind: Callable[[Fields, Sizes], Tensors] = _no_tables
    """What follows the last block."""


_BERT_TOPS = {
    "Model": Top(pooled=True),
    "ForMaskedLM": Top(tensors=BERT_MASKED, vocabulary=True),
    "ForPreTraining": Top(tensors=_pretraining, pooled=True, vocabulary=True),
    "ForSequenceClassification": POOLED_CLASSES,
    "ForTokenClassification": TOKENS,
    "ForQuestionAnswering": ANSWERS,
}
_ROBERTA_TOPS = {
    "Model": Top(pooled=True),
    "ForMaskedLM": Top(tensors=ROBERTA_MASKED, vocabulary=True),
    "ForSequenceClassification": DEEP_CLASSES,
    "ForTokenClassification": TOKENS,
    "ForQuestionAnswering": ANSWERS,
}
_LAYOUTLM_TOPS = {
    "Model": Top(pooled=True),
    "ForMaskedLM": Top(tensors=BERT_MASKED, pooled=True, vocabulary=True),
    "ForSequenceClassification": POOLED_CLASSES,
    "ForTokenClassification": POOLED_CLASSES,
    "ForQuestionAnswering": replace(ANSWERS, pooled=True),
}
_BIG_BIRD_TOPS = {
    "Model": Top(pooled=True),
    "ForMaskedLM": Top(tensors=BERT_MASKED, pooled=True, vocabulary=True),
    "ForSequenceClassification": replace(DEEP_CLASSES, pooled=True),
    "ForTokenClassification": POOLED_CLASSES,
}
_ELECTRA_TOPS = {
    "Model": Top(),
    "ForMaskedLM": Top(
        tensors=masked("generator_lm_head.bias", "generator_predictions.dense", "generator_predictions.LayerNorm"),
        vocabulary=True,
    ),
    "ForPreTraining": Top(
        tensors=lambda s: (
            *linear("discriminator_predictions.dense", s.hidden, s.hidden, Cut.WHOLE, bias=True),
            *linear("discriminator_predictions.dense_prediction", 1, s.hidden, Cut.WHOLE, bias=True),
        )
    ),
    "ForSequenceClassification": DEEP_CLASSES,
    "ForTokenClassification": TOKENS,
    "ForQuestionAnswering": ANSWERS,
}
_DISTILBERT_TOPS = {
    "Model": Top(),
    "ForMaskedLM": Top(tensors=masked("vocab_projector.bias", "vocab_transform", "vocab_layer_norm"), vocabulary=True),
    "ForSequenceClassification": Top(tensors=_distilbert_classes, labelled=True),
    "ForTokenClassification": TOKENS,
    "ForQuestionAnswering": ANSWERS,
}
_ROBERTA = Kind(stem="Roberta", prefix="roberta.", tops=_ROBERTA_TOPS, padded=True)

KINDS: dict[str, Kind] = {
    "bert": Kind(stem="Bert", prefix="bert.", tops=_BERT_TOPS),
    "big_bird": Kind(stem="BigBird", prefix="bert.", tops=_BIG_BIRD_TOPS, positions=4096, pooler="pooler"),
    "camembert": replace(_ROBERTA, stem="Camembert"),
    "distilbert": Kind(
        stem="DistilBert", prefix="distilbert.", tops=_DISTILBERT_TOPS, sizes=_sizes_as_distilbert, layers="n_layers",
        types=None, block=_distilbert_block, layer_prefix="transformer.layer.{layer}.",
    ),
    "electra": Kind(
        stem="Electra", prefix="electra.", tops=_ELECTRA_TOPS, sizes=_sizes_as_electra, beside=_projected
    ),
    "ernie": Kind(stem="Ernie", prefix="ernie.", tops=_BERT_TOPS, beside=_task_types),
    "layoutlm": Kind(stem="LayoutLM", prefix="layoutlm.", tops=_LAYOUTLM_TOPS, beside=_boxes),
    "longformer": replace(
        _ROBERTA, stem="Longformer", prefix="longformer.", windowed=True,
        block=lambda sizes: bert_block(sizes, f"{_QUERY} {_GLOBAL}"),
    ),
    "mpnet": Kind(
        stem="MPNet", prefix="mpnet.", tops=_ROBERTA_TOPS, padded=True, types=None, block=_mpnet_block,
        behind=_distances,
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": replace(_ROBERTA, stem="XLMRoberta"),
    "xlm-roberta-xl": replace(
        _ROBERTA, stem="XLMRobertaXL", types=1, positions=514, normed=False, behind=_last_norm,
        block=lambda sizes: bert_block(sizes, behind="attention.self_attn_layer_norm LayerNorm"),
    ),
}  # fmt: skip
"""``model_type`` -> its kind."""
CLASSES = {kind: class_names(facts.stem, facts.tops) for kind, facts in KINDS.items()}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the kinds in ``KINDS``."""
    family = fields.text("model_type") or ""
    kind = KINDS[family]
    fields.refuse("is_decoder", "makes a decoder of it")
    fields.refuse("add_cross_attention", "adds attention to another stream")
    if fields.text("position_embedding_type") not in {None, "absolute"}:
        fields.refuse("position_embedding_type", "adds a table of distances to every layer")
    end, top = chosen_class(fields, kind.stem, kind.tops)
    sizes = _sizes(fields, kind, top)
    prefix = "" if end == "Model" else kind.prefix
    positions = fields.integer("max_position_embeddings", kind.positions, largest=LARGEST_CONTEXT)
    pooler = linear(kind.pooler, sizes.hidden, sizes.hidden, Cut.WHOLE, bias=True) if top.pooled else ()
    return encoder_model(
        fields,
        named,
        sizes,
        prefix,
        positions=_longest(fields, positions) if kind.padded else positions,
        embeddings=_embeddings(fields, kind, sizes, positions),
        layers=_layers(fields, kind, sizes),
        behind=(*kind.behind(fields, sizes), *pooler),
        top=top.tensors(sizes),
        tied=top.vocabulary,
        layer_prefix=kind.layer_prefix,
        not_counted=("blocks of keys gathered by block-sparse attention",) if family == "big_bird" else (),
    )


def _sizes(fields: Fields, kind: Kind, top: Top) -> Sizes:
    """Return all widths; heads must divide the hidden size."""
    return replace(
        divided_heads(fields, kind.sizes(fields)),
        vocab=fields.integer("vocab_size", 30522 if kind.stem == "Bert" else None, largest=LARGEST_VOCABULARY),
        labels=num_labels(fields) if top.labelled else 0,
    )


def _longest(fields: Fields, positions: int) -> int:
    """Return how many tokens fit: position numbers begin behind the padding token's."""
    padding = fields.integer("pad_token_id", 1, largest=LARGEST_VOCABULARY, smallest=0)
    if padding + 1 >= positions:
        raise InvalidValueError(
            fields.at("pad_token_id"), padding, f"a number below max_position_embeddings ({positions}) - 1"
        )
    return positions - padding - 1


def _embeddings(fields: Fields, kind: Kind, sizes: Sizes, positions: int) -> Tensors:
    at, narrow = "embeddings.", sizes.narrow
    types = () if kind.types is None else (("token_type_embeddings", fields.integer("type_vocab_size", kind.types)),)
    tables = (("position_embeddings", positions), *types)
    return (
        table(f"{at}word_embeddings", sizes.vocab, narrow, Cut.VOCABULARY),
        *(table(f"{at}{name}", rows, narrow) for name, rows in tables),
        *(norms(f"{at}LayerNorm", narrow) if kind.normed else ()),
        *kind.beside(fields, sizes),
    )


def _layers(fields: Fields, kind: Kind, sizes: Sizes) -> tuple[Layer, ...]:
    tensors = kind.block(sizes)
    count = fields.integer(kind.layers, largest=LARGEST_LAYERS)
    windows = _windows(fields, count) if kind.windowed else (None,) * count
    distinct = {window: bidirectional(sizes, tensors, window=window) for window in dict.fromkeys(windows)}
    return tuple(distinct[window] for window in windows)


def _windows(fields: Fields, count: int) -> tuple[int, ...]:
    """Return Longformer's window of each layer: one number for all, or one each."""
    value = fields.values.get("attention_window")
    if not isinstance(value, list):
        return (fields.integer("attention_window", 512, largest=LARGEST_CONTEXT),) * count
    if len(value) != count:
        raise InvalidValueError(fields.at("attention_window"), value, f"{count} numbers, one per layer")
    return tuple(Fields({"attention_window": w}, fields.path).integer("attention_window") for w in value)
