"""T5 and its kin: an encoder reads, a decoder writes and looks at what was read; one table of tokens for both.

T5 1.0 and 1.1, Flan-T5, ByT5, mT5, UMT5, LongT5 and Switch Transformers. The decoder's blocks are the layers, the
encoder is a part that is loaded with them. Source: Raffel et al. 2020, arXiv:1910.10683, sec. 2.1; Fedus et al. 2022,
arXiv:2101.03961; huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import CrossAttention, Dense, Experts, FeedForward, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, linear, norm, routed_experts, router
from vramfit.readers.families.encoder import (
    Sizes,
    Top,
    Tops,
    chosen_class,
    class_names,
    num_labels,
    one_layer,
    prefixed,
    table,
    two_layers,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

TOPS: Tops = {
    "ForConditionalGeneration": Top(),
    "Model": Top(),
    "EncoderModel": Top(),
    "ForSequenceClassification": Top(tensors=two_layers("classification_head"), labelled=True),
    "ForTokenClassification": Top(tensors=one_layer("classifier"), labelled=True),
}
_FEW = {end: TOPS[end] for end in ("ForConditionalGeneration", "Model", "EncoderModel")}
ALONE = ("EncoderModel", "ForTokenClassification")
"""Classes of the encoder alone."""
WRAPPED = ("ForSequenceClassification", "ForTokenClassification")
"""Classes whose model stands below ``transformer.``"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Where a ``model_type`` differs from T5."""

    stem: str
    tops: Tops
    everywhere: bool = False
    """True: every block has a table of distances, not the first one alone."""
    network: str = "DenseReluDense"
    activation: str = "relu"
    """Class default of ``feed_forward_proj``."""
    local: bool = False
    """True: the encoder's attention is local, by ``encoder_attention_type``."""
    sparse: bool = False
    """True: every so many blocks have experts."""


KINDS = {
    "longt5": Kind(stem="LongT5", tops=_FEW, local=True),
    "mt5": Kind(stem="MT5", tops=TOPS, activation="gated-gelu"),
    "switch_transformers": Kind(stem="SwitchTransformers", tops=_FEW, network="mlp", sparse=True),
    "t5": Kind(stem="T5", tops=TOPS),
    "umt5": Kind(stem="UMT5", tops=TOPS, everywhere=True, activation="gated-gelu"),
}
CLASSES = {kind: class_names(facts.stem, facts.tops) for kind, facts in KINDS.items()}
LOCAL = {"local": "LocalSelfAttention", "transient-global": "TransientGlobalSelfAttention"}
"""``encoder_attention_type`` of LongT5 -> name of the encoder's attention."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the kinds in ``KINDS``."""
    family = fields.text("model_type") or ""
    kind = KINDS[family]
    end, top = _class(fields, kind)
    sizes = Sizes(
        hidden=fields.integer("d_model"),
        width=fields.integer("d_ff"),
        heads=fields.integer("num_heads"),
        vocab=fields.integer("vocab_size", largest=LARGEST_VOCABULARY),
        labels=num_labels(fields) if top.labelled else 0,
    )
    prefix = "transformer." if end in WRAPPED else ""
    shared = table(f"{prefix}shared", sizes.vocab, sizes.hidden, Cut.VOCABULARY)
    encoder = _stack(fields, kind, sizes, decoder=False)
    behind = norm(f"{prefix}encoder.final_layer_norm", sizes.hidden)
    alone = end in ALONE
    generates = end == "ForConditionalGeneration"
    tied = generates and fields.flag("tie_word_embeddings", default=True, recorded=True)
    matrix = Tensor(name="lm_head.weight", shape=(sizes.vocab, sizes.hidden), role=Role.HEAD, cut=Cut.VOCABULARY)
    last = norm(f"{prefix}decoder.final_layer_norm", sizes.hidden)
    part = Part(
        name="encoder",
        layers=encoder,
        layer_prefix=f"{prefix}encoder.block.{{layer}}.",
        tensors=behind,
        resident=True,
        encodes=True,
    )
    return ModelSpec(
        name=named.name,
        family=family,
        hidden_size=sizes.hidden,
        vocab_size=sizes.vocab,
        max_position_embeddings=fields.optional("n_positions", largest=LARGEST_CONTEXT),
        embeddings=(shared,),
        layers=encoder if alone else _stack(fields, kind, sizes, decoder=True),
        head=(*(behind if alone else last), *((matrix,) if generates and not tied else ()), *top.tensors(sizes)),
        tied=tied,
        layer_prefix=part.layer_prefix if alone else f"{prefix}decoder.block.{{layer}}.",
        scheme=named.scheme,
        parts=() if alone else (part,),
        generates=generates,
    )


def _class(fields: Fields, kind: Kind) -> tuple[str, Top]:
    """Return the class; none named = the one that generates, which is recorded."""
    if not fields.values.get("architectures"):
        end = "ForConditionalGeneration"
        fields.assumed.append(f"architectures = ['{kind.stem}{end}'] (the configuration names none)")
        return end, kind.tops[end]
    return chosen_class(fields, kind.stem, kind.tops)


def _stack(fields: Fields, kind: Kind, sizes: Sizes, *, decoder: bool) -> tuple[Layer, ...]:
    """Return the blocks of the encoder or of the decoder."""
    count = fields.integer("num_layers", largest=LARGEST_LAYERS)
    if decoder:
        count = fields.integer("num_decoder_layers", count, largest=LARGEST_LAYERS)
    every = _step(fields, count, decoder=decoder) if kind.sparse else 0
    kinds: dict[tuple[bool, bool], Layer] = {}
    places = [(kind.everywhere or i == 0, _is_sparse(i, every)) for i in range(count)]
    for distances, sparse in dict.fromkeys(places):
        kinds[distances, sparse] = _block(fields, kind, sizes, decoder=decoder, distances=distances, sparse=sparse)
    return tuple(kinds[place] for place in places)


def _step(fields: Fields, count: int, *, decoder: bool) -> int:
    """Return how far apart the blocks with experts are; 0 = there are none."""
    name = "num_sparse_decoder_layers" if decoder else "num_sparse_encoder_layers"
    sparse = fields.integer(name, 3, largest=LARGEST_LAYERS, smallest=0)
    if sparse > count:
        raise InvalidValueError(fields.at(name), sparse, f"at most as many as there are layers ({count})")
    return count // sparse if sparse else 0


def _is_sparse(layer: int, every: int) -> bool:
    return bool(every) and (layer % every == 1 or every == 1)


def _block(fields: Fields, kind: Kind, sizes: Sizes, *, decoder: bool, distances: bool, sparse: bool) -> Layer:
    head_dim = fields.integer("d_kv")
    facts = GroupedQuery(
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.heads, head_dim=head_dim, causal=decoder
    )
    cross = CrossAttention(num_attention_heads=sizes.heads, num_key_value_heads=sizes.heads, head_dim=head_dim)
    name, beside = _attention_name(fields, kind, decoder=decoder)
    rows = fields.integer("relative_attention_num_buckets", 32)
    inner = sizes.heads * head_dim
    feed_forward, network = _network(fields, kind, sizes, sparse=sparse)
    looks = (
        ()
        if not decoder
        else (*_attention("layer.1.EncDecAttention", inner, sizes.hidden), *norm("layer.1.layer_norm", sizes.hidden))
    )
    last = f"layer.{2 if decoder else 1}."
    tables = ("relative_attention_bias", *(("global_relative_attention_bias",) if beside else ()))
    return Layer(
        attention=facts,
        beside=cross if decoder else None,
        feed_forward=feed_forward,
        tensors=(
            *_attention(f"layer.0.{name}", inner, sizes.hidden),
            *(t for n in tables if distances for t in (_distances(f"layer.0.{name}.{n}", rows, sizes.heads),)),
            *(norm(f"layer.0.{name}.global_input_layer_norm", sizes.hidden) if beside else ()),
            *norm("layer.0.layer_norm", sizes.hidden),
            *looks,
            *prefixed(last, (*network, *norm("layer_norm", sizes.hidden))),
        ),
    )


def _attention_name(fields: Fields, kind: Kind, *, decoder: bool) -> tuple[str, bool]:
    """Return the name of a block's attention, and whether it sees summaries of distant blocks too."""
    if decoder or not kind.local:
        return "SelfAttention", False
    asked = fields.text("encoder_attention_type") or "local"
    if asked not in LOCAL:
        raise InvalidValueError(fields.at("encoder_attention_type"), asked, f"one of {', '.join(LOCAL)}")
    return LOCAL[asked], asked != "local"


def _attention(name: str, inner: int, hidden: int) -> Tensors:
    into = tuple(t for n in "qkv" for t in linear(f"{name}.{n}", inner, hidden, Cut.OUTPUTS))
    return (*into, *linear(f"{name}.o", hidden, inner, Cut.INPUTS))


def _distances(name: str, rows: int, heads: int) -> Tensor:
    return Tensor(name=f"{name}.weight", shape=(rows, heads), role=Role.EMBEDDING, cut=Cut.SECOND)


def _network(fields: Fields, kind: Kind, sizes: Sizes, *, sparse: bool) -> tuple[FeedForward, Tensors]:
    """Return the network of a block: one or two matrices in, one back; or many of them."""
    asked = fields.text("feed_forward_proj") or kind.activation
    gated = asked.startswith("gated-") and not kind.sparse
    hidden, width = sizes.hidden, sizes.width
    if sparse:
        count = fields.integer("num_experts", 8, largest=LARGEST_EXPERTS)
        experts = routed_experts(count, hidden, width, prefix="mlp", names=("wi", "wo"))
        named = tuple(replace(t, name=t.name.replace("{expert}", "expert_{expert}")) for t in experts)
        facts = Experts(num_experts=count, num_experts_per_tok=1, moe_intermediate_size=width, gated=False)
        return facts, (router("mlp.router.classifier", count, hidden), *named)
    into = ("wi_0", "wi_1") if gated else ("wi",)
    tensors = (
        *(t for n in into for t in linear(f"{kind.network}.{n}", width, hidden, Cut.OUTPUTS)),
        *linear(f"{kind.network}.wo", hidden, width, Cut.INPUTS),
    )
    return Dense(intermediate_size=width, gated=gated), tensors
