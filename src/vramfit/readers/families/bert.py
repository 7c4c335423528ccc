"""BERT: an encoder; every token sees every other, nothing is cached, nothing is generated.

Source: huggingface/transformers:src/transformers/models/bert/. What stands on top follows ``architectures``.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.readers.families.decoder import Named, Tensors, head_dim, linear, norm
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Dense, GroupedQuery, Layer, ModelSpec, Tensor

CLASSES = {"bert": ("BertModel", "BertForMaskedLM", "BertForSequenceClassification")}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a BERT configuration."""
    fields.refuse("is_decoder", "makes a decoder of it")
    if fields.text("position_embedding_type") not in {None, "absolute"}:
        fields.refuse("position_embedding_type", "adds a table of distances to every layer")
    hidden, width = fields.integer("hidden_size", 768), fields.integer("intermediate_size", 3072)
    heads = fields.integer("num_attention_heads", 12)
    top = _architecture(fields)
    prefix = "" if top == "BertModel" else "bert."
    vocab = fields.integer("vocab_size", 30522, largest=LARGEST_VOCABULARY)
    positions = fields.integer("max_position_embeddings", 512, largest=LARGEST_CONTEXT)
    layer = Layer(
        attention=GroupedQuery(
            num_attention_heads=heads, num_key_value_heads=heads, head_dim=head_dim(fields, hidden, heads), causal=False
        ),
        feed_forward=Dense(intermediate_size=width, gated=False),
        tensors=_block(hidden, width),
    )
    table = f"{prefix}embeddings."
    return ModelSpec(
        name=named.name,
        family="bert",
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=positions,
        embeddings=(
            Tensor(
                name=f"{table}word_embeddings.weight", shape=(vocab, hidden), role=Role.EMBEDDING, cut=Cut.VOCABULARY
            ),
            Tensor(name=f"{table}position_embeddings.weight", shape=(positions, hidden), role=Role.EMBEDDING),
            Tensor(
                name=f"{table}token_type_embeddings.weight",
                shape=(fields.integer("type_vocab_size", 2), hidden),
                role=Role.EMBEDDING,
            ),
            *norm(f"{table}LayerNorm", hidden, bias=True),
        ),
        layers=(layer,) * fields.num_layers,
        head=_top(fields, top, prefix, hidden, vocab),
        tied=top == "BertForMaskedLM",
        layer_prefix=f"{prefix}encoder.layer.{{layer}}.",
        scheme=named.scheme,
        generates=False,
    )


def _architecture(fields: Fields) -> str:
    """Return the class the file was saved from; none named = the bare encoder, which is recorded."""
    named = fields.values.get("architectures")
    if named is None or named == []:
        fields.assumed.append("architectures = ['BertModel'] (the configuration names none)")
        return "BertModel"
    assert isinstance(named, list)
    return str(named[0])


def _block(hidden: int, width: int) -> Tensors:
    names = ("query", "key", "value")
    attention = tuple(t for n in names for t in linear(f"attention.self.{n}", hidden, hidden, Cut.OUTPUTS, bias=True))
    return (
        *attention,
        *linear("attention.output.dense", hidden, hidden, Cut.INPUTS, bias=True),
        *norm("attention.output.LayerNorm", hidden, bias=True),
        *linear("intermediate.dense", width, hidden, Cut.OUTPUTS, bias=True),
        *linear("output.dense", hidden, width, Cut.INPUTS, bias=True),
        *norm("output.LayerNorm", hidden, bias=True),
    )


def _top(fields: Fields, top: str, prefix: str, hidden: int, vocab: int) -> Tensors:
    """Return what stands on the encoder: pooler, masked-language-model head, or classifier."""
    if top == "BertForMaskedLM":
        return (
            Tensor(name="cls.predictions.bias", shape=(vocab,), role=Role.BIAS, cut=Cut.VOCABULARY),
            *linear("cls.predictions.transform.dense", hidden, hidden, Cut.WHOLE, bias=True),
            *norm("cls.predictions.transform.LayerNorm", hidden, bias=True),
        )
    pooler = linear(f"{prefix}pooler.dense", hidden, hidden, Cut.WHOLE, bias=True)
    if top == "BertModel":
        return pooler
    labels = fields.values.get("id2label")
    count = len(labels) if isinstance(labels, dict) and labels else fields.integer("num_labels", 2)
    return (*pooler, *linear("classifier", count, hidden, Cut.WHOLE, bias=True))
