"""BART and its kin: encoder and decoder of the same blocks, positions learned or computed, one table of tokens.

BART, mBART, PLBART, Pegasus, Marian, M2M-100 (NLLB) and Blenderbot. The decoder's blocks are the layers, the encoder is
a part that is loaded with them. Source: Lewis et al. 2020, arXiv:1910.13461, sec. 2.1;
huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.formats import Role
from vramfit.layer_kind import CrossAttention, Dense, Experts, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, linear, router
from vramfit.readers.families.encoder import (
    Sizes,
    Top,
    Tops,
    chosen_class,
    class_names,
    divided_heads,
    linears,
    norms,
    num_labels,
    prefixed,
    table,
    two_layers,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

SPAN = 2
"""Scores of an answer in the text: where it begins, where it ends."""
GENERATES = "ForConditionalGeneration"
_PLAIN: Tops = {GENERATES: Top(), "Model": Top()}
_ALL: Tops = {
    **_PLAIN,
    "ForSequenceClassification": Top(tensors=two_layers("classification_head"), labelled=True),
    "ForQuestionAnswering": Top(tensors=lambda s: linear("qa_outputs", SPAN, s.hidden, Cut.WHOLE, bias=True)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Where a ``model_type`` differs from BART."""

    stem: str
    tops: Tops
    positions: int | None = 0
    """Rows of the table of positions beyond ``max_position_embeddings``; None = positions are computed."""
    first_norm: bool = False
    """True: a norm behind the embeddings."""
    last_norm: bool = False
    """True: a norm behind the last block."""
    biased: bool = True
    """True: files hold a constant per entry that is added to the logits."""
    labels: int = 2
    sparse: bool = False
    """True: every so many blocks have experts, and some names are others."""


KINDS = {
    "bart": Kind(stem="Bart", tops=_ALL, positions=2, first_norm=True, labels=3),
    "blenderbot": Kind(stem="Blenderbot", tops=_PLAIN, last_norm=True),
    "blenderbot-small": Kind(stem="BlenderbotSmall", tops=_PLAIN, first_norm=True),
    "m2m_100": Kind(stem="M2M100", tops=_PLAIN, positions=None, last_norm=True, biased=False),
    "marian": Kind(stem="Marian", tops={"MTModel": Top(), "Model": Top()}),
    "mbart": Kind(stem="MBart", tops=_ALL, positions=2, first_norm=True, last_norm=True),
    "nllb-moe": Kind(stem="NllbMoe", tops=_PLAIN, positions=None, last_norm=True, biased=False, sparse=True),
    "pegasus": Kind(stem="Pegasus", tops=_PLAIN, last_norm=True),
    "plbart": Kind(stem="PLBart", tops=_PLAIN, positions=2, first_norm=True),
}
CLASSES = {kind: class_names(facts.stem, facts.tops) for kind, facts in KINDS.items()}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the kinds in ``KINDS``."""
    family = fields.text("model_type") or ""
    kind = KINDS[family]
    end, top = _class(fields, kind)
    generates = end in {GENERATES, "MTModel"}
    read, vocab = _vocabularies(fields)
    shared = fields.flag("share_encoder_decoder_embeddings", default=True)
    labels = num_labels(fields, kind.labels) if top.labelled else 0
    encoder = _sizes(fields, "encoder", vocab, labels)
    decoder = _sizes(fields, "decoder", vocab, labels)
    prefix = "" if end == "Model" else "model."
    tied = generates and fields.flag("tie_word_embeddings", default=True)
    matrix = Tensor(name="lm_head.weight", shape=(vocab, decoder.hidden), role=Role.HEAD, cut=Cut.VOCABULARY)
    positions = fields.integer("max_position_embeddings", 1024, largest=LARGEST_CONTEXT)
    part = Part(
        name="encoder",
        layers=_layers(fields, kind, encoder, "encoder"),
        layer_prefix=f"{prefix}encoder.layers.{{layer}}.",
        tensors=prefixed(
            f"{prefix}encoder.",
            (
                *(() if shared else (table("embed_tokens", read, encoder.hidden),)),
                *_before(kind, encoder, positions),
                *_behind(kind, encoder),
            ),
        ),
        resident=True,
        encodes=True,
    )
    return ModelSpec(
        name=named.name,
        family=family,
        hidden_size=decoder.hidden,
        vocab_size=vocab,
        max_position_embeddings=positions,
        embeddings=(
            table(f"{prefix}{'shared' if shared else 'decoder.embed_tokens'}", vocab, decoder.hidden, Cut.VOCABULARY),
            *prefixed(f"{prefix}decoder.", _before(kind, decoder, positions)),
        ),
        layers=_layers(fields, kind, decoder, "decoder"),
        head=(
            *prefixed(f"{prefix}decoder.", _behind(kind, decoder)),
            *((matrix,) if generates and not tied else ()),
            *(_logits_bias(vocab) if generates and kind.biased else ()),
            *top.tensors(decoder),
        ),
        tied=tied,
        layer_prefix=f"{prefix}decoder.layers.{{layer}}.",
        scheme=named.scheme,
        parts=(part,),
        generates=generates,
    )


def _class(fields: Fields, kind: Kind) -> tuple[str, Top]:
    """Return the class; none named = the one that generates, which is recorded."""
    if not fields.values.get("architectures"):
        end = next(iter(kind.tops))
        fields.assumed.append(f"architectures = ['{kind.stem}{end}'] (the configuration names none)")
        return end, kind.tops[end]
    return chosen_class(fields, kind.stem, kind.tops)


def _vocabularies(fields: Fields) -> tuple[int, int]:
    """Return how many entries the encoder's and the decoder's vocabulary have; they differ in some of Marian's."""
    read = fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    if fields.flag("share_encoder_decoder_embeddings", default=True):
        return read, read
    return read, fields.optional("decoder_vocab_size", largest=LARGEST_VOCABULARY) or read


def _sizes(fields: Fields, side: str, vocab: int, labels: int) -> Sizes:
    sizes = Sizes(
        hidden=fields.integer("d_model"),
        width=fields.integer(f"{side}_ffn_dim"),
        heads=fields.integer(f"{side}_attention_heads"),
        vocab=vocab,
        labels=labels,
    )
    return divided_heads(fields, sizes, f"{side}_attention_heads")


def _before(kind: Kind, sizes: Sizes, positions: int) -> Tensors:
    """Return what stands before the blocks of one side, beside the shared table of tokens."""
    rows = () if kind.positions is None else (table("embed_positions", positions + kind.positions, sizes.hidden),)
    return (*rows, *(norms("layernorm_embedding", sizes.hidden) if kind.first_norm else ()))


def _behind(kind: Kind, sizes: Sizes) -> Tensors:
    return norms("layer_norm", sizes.hidden) if kind.last_norm else ()


def _logits_bias(vocab: int) -> Tensors:
    return (Tensor(name="final_logits_bias", shape=(1, vocab), role=Role.BIAS, buffer=True),)


def _layers(fields: Fields, kind: Kind, sizes: Sizes, side: str) -> tuple[Layer, ...]:
    """Return the blocks of one side; the decoder's look at the encoder's output too."""
    heads, hidden, width, decoder = sizes.heads, sizes.hidden, sizes.width, side == "decoder"
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads, causal=decoder)
    cross = CrossAttention(num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads)
    looks = "cross_attention" if kind.sparse else "encoder_attn"
    around = (
        *_attention("self_attn", hidden),
        *(_attention(looks, hidden) if decoder else ()),
        *norms("ff_layer_norm" if kind.sparse else "final_layer_norm", hidden),
    )
    network = prefixed("ffn." if kind.sparse else "", _network(width, hidden))
    layer = Layer(
        attention=facts,
        beside=cross if decoder else None,
        feed_forward=Dense(intermediate_size=width, gated=False),
        tensors=(*around, *network),
    )
    count = fields.integer(f"{side}_layers", largest=LARGEST_LAYERS)
    step = fields.integer(f"{side}_sparse_step", 4, largest=LARGEST_LAYERS, smallest=0) if kind.sparse else 0
    if not step:
        return (layer,) * count
    experts, tensors = _experts(fields, width, hidden)
    sparse = replace(layer, feed_forward=experts, tensors=(*around, *tensors))
    return tuple(layer if (i + 1) % step else sparse for i in range(count))


def _network(width: int, hidden: int) -> Tensors:
    return (
        *linear("fc1", width, hidden, Cut.OUTPUTS, bias=True),
        *linear("fc2", hidden, width, Cut.INPUTS, bias=True),
    )


def _experts(fields: Fields, width: int, hidden: int) -> tuple[Experts, Tensors]:
    """Return NLLB's experts, two of which every token goes to."""
    count = fields.integer("num_experts", 128, largest=LARGEST_EXPERTS)
    facts = Experts(num_experts=count, num_experts_per_tok=min(2, count), moe_intermediate_size=width, gated=False)
    one = tuple(
        replace(
            t,
            name=f"ffn.experts.expert_{{expert}}.{t.name}",
            role=Role.EXPERT if t.role is Role.LINEAR else t.role,
            copies=count,
            experts=count,
        )
        for t in _network(width, hidden)
    )
    return facts, (router("ffn.router.classifier", count, hidden), *one)


def _attention(name: str, hidden: int) -> Tensors:
    return (
        *linears(f"{name}.k_proj {name}.v_proj {name}.q_proj", hidden, hidden, Cut.OUTPUTS),
        *linear(f"{name}.out_proj", hidden, hidden, Cut.INPUTS, bias=True),
        *norms(f"{name}_layer_norm", hidden),
    )
