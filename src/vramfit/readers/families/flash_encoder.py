"""Encoders with query, key and value in one matrix and rotary positions: Nomic's, GTE's, Arctic's, Jina's third.

Nomic 1 and Jina 3 are built by transformers 5.23.0 too (models/nomic_bert/, models/jina_embeddings_v3/). The code that
GTE and Nomic 2 bring along is also in vllm-project/vllm@002b4cf:vllm/model_executor/models/bert_with_rope.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.errors import UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import Experts
from vramfit.readers.families.bert import ANSWERS, DEEP_CLASSES, POOLED_CLASSES, ROBERTA_MASKED, TOKENS
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
    masked,
    norms,
    num_labels,
    table,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

_NOMIC_MASKED = masked(
    "cls.predictions.bias", "cls.predictions.transform.dense", "cls.predictions.transform.layer_norm"
)
_NOMIC_TOPS = {
    "Model": Top(),
    "ForMaskedLM": Top(tensors=_NOMIC_MASKED, vocabulary=True),
    "ForSequenceClassification": POOLED_CLASSES,
    "ForTokenClassification": TOKENS,
}
_JINA_TOPS = {
    "Model": Top(pooled=True),
    "ForMaskedLM": Top(tensors=ROBERTA_MASKED, vocabulary=True),
    "ForSequenceClassification": DEEP_CLASSES,
    "ForTokenClassification": TOKENS,
    "ForQuestionAnswering": ANSWERS,
}
_NEW_TOPS = {
    "Model": Top(),
    "ForSequenceClassification": POOLED_CLASSES,
    "ForTokenClassification": TOKENS,
    "ForQuestionAnswering": ANSWERS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Where a ``model_type`` differs."""

    stem: str
    prefix: str
    tops: Tops


KINDS = {
    "gte": Kind(stem="Gte", prefix="new.", tops={"Model": Top()}),
    "jina_embeddings_v3": Kind(stem="JinaEmbeddingsV3", prefix="roberta.", tops=_JINA_TOPS),
    "new": Kind(stem="New", prefix="new.", tops=_NEW_TOPS),
    "nomic_bert": Kind(stem="NomicBert", prefix="nomic_bert.", tops=_NOMIC_TOPS),
}
CLASSES = {kind: class_names(facts.stem, facts.tops) for kind, facts in KINDS.items()}
GATED = ("swiglu", "geglu", "glu", "silu")
"""Activations that Nomic's files name for a network with a gate."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the kinds in ``KINDS``."""
    family = fields.text("model_type") or ""
    kind = KINDS[family]
    end, top = chosen_class(fields, kind.stem, kind.tops)
    fields = _renamed(fields)
    sizes = replace(_sizes(fields), labels=num_labels(fields) if top.labelled else 0)
    new = family in {"gte", "new"}
    pooler = linear("pooler.dense", sizes.hidden, sizes.hidden, Cut.WHOLE, bias=True) if top.pooled else ()
    return encoder_model(
        fields,
        named,
        sizes,
        "" if end == "Model" else kind.prefix,
        positions=fields.integer("max_position_embeddings", 2048, largest=LARGEST_CONTEXT),
        embeddings=_embeddings(fields, sizes, "embeddings.LayerNorm" if new else "emb_ln"),
        layers=_new_layers(fields, sizes) if new else _flash_layers(fields, sizes, family),
        layer_prefix="encoder.layer.{layer}." if new else "encoder.layers.{layer}.",
        behind=pooler,
        top=top.tensors(sizes),
        tied=top.vocabulary,
    )


def _renamed(fields: Fields) -> Fields:
    """Return the fields under their usual names; Nomic's own files have GPT-2's."""
    names = {
        "n_embd": "hidden_size", "n_inner": "intermediate_size", "n_head": "num_attention_heads",
        "n_layer": "num_hidden_layers", "n_positions": "max_position_embeddings",
        "activation_function": "hidden_act",
    }  # fmt: skip
    usual = {names[name]: value for name, value in fields.values.items() if name in names}
    return Fields({**usual, **fields.values}, fields.path, fields.assumed)


def _sizes(fields: Fields) -> Sizes:
    sizes = Sizes(
        hidden=fields.integer("hidden_size"),
        width=fields.integer("intermediate_size"),
        heads=fields.integer("num_attention_heads"),
        vocab=fields.integer("vocab_size", largest=LARGEST_VOCABULARY),
    )
    return divided_heads(fields, sizes)


def _embeddings(fields: Fields, sizes: Sizes, behind: str) -> Tensors:
    types = fields.integer("type_vocab_size", smallest=0)
    return (
        table("embeddings.word_embeddings", sizes.vocab, sizes.hidden, Cut.VOCABULARY),
        *((table("embeddings.token_type_embeddings", types, sizes.hidden),) if types else ()),
        *norms(behind, sizes.hidden),
    )


def _new_layers(fields: Fields, sizes: Sizes) -> tuple[Layer, ...]:
    """Return GTE's blocks: gate and up in one matrix without a bias."""
    if not fields.flag("pack_qkv", default=True):
        raise UnsupportedModelError(
            f"{fields.at('pack_qkv')}: false: expected true: query, key and value in matrices of their own are not "
            "understood in this version; take a published model of the family"
        )
    if fields.text("layer_norm_type") not in {None, "layer_norm"}:
        fields.refuse("layer_norm_type", "norms without a bias")
    hidden, width = sizes.hidden, sizes.width
    tensors = (
        *linear("attention.qkv_proj", 3 * hidden, hidden, Cut.OUTPUTS, bias=True),
        *linear("attention.o_proj", hidden, hidden, Cut.INPUTS, bias=True),
        *linear("mlp.up_gate_proj", 2 * width, hidden, Cut.OUTPUTS),
        *linear("mlp.down_proj", hidden, width, Cut.INPUTS, bias=True),
        *norms("attn_ln mlp_ln", hidden),
    )
    return (bidirectional(sizes, tensors, gated=True),) * fields.num_layers


def _flash_layers(fields: Fields, sizes: Sizes, family: str) -> tuple[Layer, ...]:
    """Return Nomic's or Jina's blocks; Nomic 2 has experts in some."""
    every = fields.integer("moe_every_n_layers", smallest=0, largest=LARGEST_LAYERS) if fields.has("num_experts") else 0
    jina = family == "jina_embeddings_v3"
    attention = fields.flag("qkv_proj_bias", default=jina)
    gated = not jina and (fields.text("hidden_act") or "silu") in GATED
    biases = (fields.flag("mlp_fc1_bias", default=jina), fields.flag("mlp_fc2_bias", default=jina))
    mixer = "mixer" if jina else "attn"
    around = (
        *linear(f"{mixer}.Wqkv", 3 * sizes.hidden, sizes.hidden, Cut.OUTPUTS, bias=attention),
        *linear(f"{mixer}.out_proj", sizes.hidden, sizes.hidden, Cut.INPUTS, bias=attention),
        *norms("norm1 norm2", sizes.hidden),
    )
    dense = bidirectional(sizes, (*around, *_network(sizes, biases, gated=gated)), gated=gated)
    if not every:
        return (dense,) * fields.num_layers
    facts, experts = _experts(fields, sizes)
    sparse = replace(dense, feed_forward=facts, tensors=(*around, *experts))
    return tuple(sparse if i % every == 1 else dense for i in range(fields.num_layers))


def _network(sizes: Sizes, biases: tuple[bool, bool], *, gated: bool) -> Tensors:
    into = ("mlp.fc11", "mlp.fc12") if gated else ("mlp.fc1",)
    return (
        *(t for name in into for t in linear(name, sizes.width, sizes.hidden, Cut.OUTPUTS, bias=biases[0])),
        *linear("mlp.fc2", sizes.hidden, sizes.width, Cut.INPUTS, bias=biases[1]),
    )


def _experts(fields: Fields, sizes: Sizes) -> tuple[Experts, Tensors]:
    """Return Nomic 2's experts: all rows of the first matrices one below the other, so of the second, one bias."""
    count = fields.integer("num_experts", largest=LARGEST_EXPERTS)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("moe_top_k", 1, largest=count),
        moe_intermediate_size=sizes.width,
        gated=False,
    )
    shape = (count * sizes.width, sizes.hidden)
    matrices = tuple(
        Tensor(name=f"mlp.experts.mlp.{name}", shape=shape, role=Role.EXPERT, cut=Cut.OUTPUTS, experts=count)
        for name in ("w1", "w2")
    )
    route = Tensor(name="mlp.router.layer.weight", shape=(count, sizes.hidden), role=Role.ROUTER)
    return facts, (route, *matrices, Tensor(name="mlp.experts.bias", shape=(sizes.hidden,), role=Role.BIAS))
