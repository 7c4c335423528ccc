"""Building blocks that encoders share: several layers or norms at once, tables, blocks, and what stands on top."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

LARGEST_LABELS = 2**20


def linears(names: str, outputs: int, inputs: int, cut: Cut, *, bias: bool = True) -> Tensors:
    """Return several linear layers of one shape; their names are separated by spaces."""
    return tuple(t for name in names.split() for t in linear(name, outputs, inputs, cut, bias=bias))


def norms(names: str, width: int, *, bias: bool = True) -> Tensors:
    """Return several norms of one width; their names are separated by spaces."""
    return tuple(t for name in names.split() for t in norm(name, width, bias=bias))


def table(name: str, rows: int, width: int, cut: Cut = Cut.WHOLE) -> Tensor:
    """Return an embedding table."""
    return Tensor(name=f"{name}.weight", shape=(rows, width), role=Role.EMBEDDING, cut=cut)


def learned(name: str, *shape: int) -> Tensor:
    """Return learned numbers that are looked up or added: a class token, positions without a module."""
    return Tensor(name=name, shape=shape, role=Role.EMBEDDING)


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    """Return the same tensors below a prefix."""
    if not prefix:
        return tensors
    return tuple(
        Tensor(name=prefix + t.name, shape=t.shape, role=t.role, cut=t.cut, copies=t.copies, experts=t.experts,
               stored=t.stored, buffer=t.buffer)
        for t in tensors
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The widths of an encoder."""

    hidden: int
    width: int
    """Of the feed-forward network."""
    heads: int
    vocab: int = 0
    labels: int = 0
    """Outputs of a classifier; 0 = the class has none."""
    embedding: int = 0
    """Width of a token's embedding where it is not the hidden size."""

    @property
    def narrow(self) -> int:
        """Width of a token's embedding."""
        return self.embedding or self.hidden


def bidirectional(
    sizes: Sizes,
    tensors: Tensors,
    *,
    gated: bool = False,
    window: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
) -> Layer:
    """Return a block in which every token sees every other (of its window) and nothing is cached."""
    return Layer(
        attention=GroupedQuery(
            num_attention_heads=sizes.heads,
            num_key_value_heads=kv_heads or sizes.heads,
            head_dim=head_dim or sizes.hidden // sizes.heads,
            window_tokens=window,
            causal=False,
        ),
        feed_forward=Dense(intermediate_size=sizes.width, gated=gated),
        tensors=tensors,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """What one class puts on the encoder."""

    tensors: Callable[[Sizes], Tensors] = lambda _: ()
    pooled: bool = False
    """True: the encoder keeps its pooler."""
    labelled: bool = False
    """True: the number of labels decides a shape."""
    vocabulary: bool = False
    """True: a score per entry of the vocabulary, with the token embedding as the matrix."""


Tops = Mapping[str, Top]
"""End of a class's name, behind the family's -> what it puts on the encoder."""


def one_layer(name: str, *, bias: bool = True) -> Callable[[Sizes], Tensors]:
    """Return the builder of a classifier of one layer."""
    return lambda sizes: linear(name, sizes.labels, sizes.hidden, Cut.WHOLE, bias=bias)


def two_layers(name: str) -> Callable[[Sizes], Tensors]:
    """Return the builder of a classifier of two layers, as RoBERTa's."""
    return lambda s: (
        *linear(f"{name}.dense", s.hidden, s.hidden, Cut.WHOLE, bias=True),
        *linear(f"{name}.out_proj", s.labels, s.hidden, Cut.WHOLE, bias=True),
    )


def masked(bias: str, dense: str, behind: str) -> Callable[[Sizes], Tensors]:
    """Return the builder of a head that guesses masked tokens: a bias per entry, a layer, a norm."""
    return lambda s: (
        Tensor(name=bias, shape=(s.vocab,), role=Role.BIAS, cut=Cut.VOCABULARY),
        *linear(dense, s.narrow, s.hidden, Cut.WHOLE, bias=True),
        *norm(behind, s.narrow, bias=True),
    )


def class_names(stem: str, tops: Tops) -> tuple[str, ...]:
    """Return the full names of the classes."""
    return tuple(f"{stem}{end}" for end in tops)


def chosen_class(fields: Fields, stem: str, tops: Tops) -> tuple[str, Top]:
    """Return the end of the class's name and its top; none named = the bare encoder, which is recorded."""
    named = fields.values.get("architectures")
    if not isinstance(named, list) or not named:
        fields.assumed.append(f"architectures = ['{stem}Model'] (the configuration names none)")
        return "Model", tops["Model"]
    end = str(named[0]).removeprefix(stem)
    top = tops[end]
    if top.vocabulary and not fields.flag("tie_word_embeddings", default=True):
        raise UnsupportedModelError(
            f"{fields.at('tie_word_embeddings')}: false: expected true: {named[0]} with a matrix of its own for the "
            "vocabulary is not understood in this version; leave architectures out to count the bare encoder"
        )
    return end, top


def encoder_model(  # noqa: PLR0913 - one call per family, every argument a fact of the architecture
    fields: Fields,
    named: Named,
    sizes: Sizes,
    prefix: str,
    *,
    positions: int | None,
    embeddings: Tensors,
    layers: tuple[Layer, ...],
    layer_prefix: str,
    behind: Tensors = (),
    top: Tensors = (),
    tied: bool = False,
    not_counted: tuple[str, ...] = (),
) -> ModelSpec:
    """Put an encoder together: embeddings, blocks, what follows them below the prefix, and the class's top."""
    return ModelSpec(
        name=named.name,
        family=fields.text("model_type") or "",
        hidden_size=sizes.hidden,
        vocab_size=sizes.vocab or None,
        max_position_embeddings=positions,
        embeddings=prefixed(prefix, embeddings),
        layers=layers,
        head=(*prefixed(prefix, behind), *top),
        tied=tied,
        layer_prefix=prefix + layer_prefix,
        scheme=named.scheme,
        generates=False,
        not_counted=not_counted,
    )


def divided_heads(fields: Fields, sizes: Sizes, name: str = "num_attention_heads") -> Sizes:
    """Return the sizes, refusing heads that do not divide the hidden size."""
    if sizes.hidden % sizes.heads:
        raise InvalidValueError(fields.at(name), sizes.heads, f"a divisor of the hidden size ({sizes.hidden})")
    return sizes


def num_labels(fields: Fields, default: int = 2) -> int:
    """Return the number of labels of a classifier: those named, else counted, else the class default, recorded."""
    labels = fields.values.get("id2label")
    if isinstance(labels, dict) and labels:
        return len(labels)
    return fields.integer("num_labels", default, largest=LARGEST_LABELS)
