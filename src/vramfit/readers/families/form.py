"""What decoders with names of their own are made of: fused projections, learned positions, networks with a gate or not.

``forms.py`` and ``remote.py`` hold one row of these facts per family; those that keep Llama's names have rows in
``uniform.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, is_tied, linear, norm
from vramfit.readers.families.gpt2 import conv1d
from vramfit.readers.families.style import Bias, bias_of
from vramfit.readers.fields import (
    LARGEST_CONTEXT,
    LARGEST_LAYERS,
    LARGEST_VOCABULARY,
    LARGEST_WIDTH,
    Fields,
)
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

Names = tuple[str, ...]
"""Names of one field: where two are there, transformers takes the first; the last is the family's own."""
CUTS = {"q": Cut.OUTPUTS, "k": Cut.KEY_VALUE_HEADS, "v": Cut.KEY_VALUE_HEADS, "kv": Cut.KEY_VALUE_HEADS,
        "qkv": Cut.QUERY_KEY_VALUE}  # fmt: skip
"""What a projection makes -> how tensor parallelism divides it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The numbers of one configuration."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    """Of the network between its matrices."""
    vocab: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a family's blocks are called and made of; the defaults are those of most rows."""

    hidden: Names = ("hidden_size",)
    heads: Names = ("num_attention_heads",)
    layers: Names = ("num_hidden_layers",)
    width: Names = ("intermediate_size",)
    width_ratio: int | None = 4
    """Width of the network over hidden size where the field is absent or null; None = the field must be there."""
    width_of: Callable[[Fields, int], int] | None = None
    """Reads the width where a field does not hold it plainly."""
    vocab: str = "vocab_size"
    length: Names = ("max_position_embeddings",)
    kv_heads: Callable[[Fields, int], int] = lambda _, heads: heads
    head_dim: str = ""
    """Field with the width of a head; empty = hidden size over heads."""

    prefix: str = "transformer."
    blocks: str = "h"
    table: str = "wte"
    table_norm: str = ""
    positions: str = ""
    """Table of learned positions; empty = there is none."""
    position_offset: int = 0
    norms: Names = ("ln_1", "ln_2")
    norm_biases: bool = True
    projections: tuple[tuple[str, str], ...]
    """(name, what it makes): ``q``, ``k``, ``v``, ``kv`` or ``qkv``, in this order in one matrix."""
    qkv_bias: Bias = True
    output: str
    output_bias: Bias = True
    head_norms: Names = ()
    """Norms with biases on queries and keys, as wide as a head."""
    into: Names
    """Matrices that lead into the network; two = the first is a gate."""
    fused_gate: bool = False
    """True: the one matrix that leads in holds gate and up."""
    down: str
    mlp_bias: Bias = True
    turned: bool = False
    """True: matrices are stored [inputs, outputs]."""
    final_norm: str = "ln_f"
    """Empty = there is none."""
    head: str = "lm_head"
    head_bias: bool = False
    tied: bool = False
    """Class default of ``tie_word_embeddings``."""
    windows: Callable[[Fields, int], tuple[int | None, ...]] = lambda _, layers: (None,) * layers
    refused: tuple[tuple[str, str], ...] = ()
    """Fields that change shapes in a way that is not read."""


def read_form(fields: Fields, named: Named, form: Form) -> ModelSpec:
    """Read a configuration of a family with these facts."""
    for name, why in form.refused:
        fields.refuse(name, why)
    sizes, num_layers = read_sizes(fields, form), first_of(fields, form.layers, largest=LARGEST_LAYERS)
    per_layer = form.windows(fields, num_layers)
    kinds = {window: _layer(fields, form, sizes, window) for window in dict.fromkeys(per_layer)}
    tied = is_tied(fields, default=form.tied)
    length = next((name for name in form.length if fields.has(name)), None)
    return ModelSpec(
        name=named.name,
        family=fields.text("model_type") or "",
        hidden_size=sizes.hidden,
        vocab_size=sizes.vocab,
        max_position_embeddings=None if length is None else fields.integer(length, largest=LARGEST_CONTEXT),
        embeddings=_embeddings(fields, form, sizes),
        layers=tuple(kinds[window] for window in per_layer),
        head=_head(form, sizes, tied=tied),
        tied=tied,
        layer_prefix=f"{form.prefix}{form.blocks}.{{layer}}.",
        scheme=named.scheme,
    )


def first_of(fields: Fields, names: Names, *, largest: int = LARGEST_WIDTH) -> int:
    """Return the first of these fields that is there; the family's own name is asked for where none is."""
    return fields.integer(next((name for name in names if fields.has(name)), names[-1]), largest=largest)


def read_sizes(fields: Fields, form: Form) -> Sizes:
    """Return the numbers that shapes are made of."""
    hidden, heads = first_of(fields, form.hidden), first_of(fields, form.heads)
    if form.head_dim:
        width = fields.integer(form.head_dim)
    elif hidden % heads:
        raise InvalidValueError(fields.at(form.heads[-1]), heads, f"a divisor of {form.hidden[-1]} ({hidden})")
    else:
        width = hidden // heads
    return Sizes(
        hidden=hidden,
        heads=heads,
        kv_heads=form.kv_heads(fields, heads),
        head_dim=width,
        width=form.width_of(fields, hidden) if form.width_of else _width(fields, form, hidden),
        vocab=fields.integer(form.vocab, largest=LARGEST_VOCABULARY),
    )


def _width(fields: Fields, form: Form, hidden: int) -> int:
    if form.width_ratio is None or any(fields.has(name) for name in form.width):
        return first_of(fields, form.width)
    return form.width_ratio * hidden


def shared_heads(name: str) -> Callable[[Fields, int], int]:
    """Return a reader of a field that counts KV heads; absent or null = as many as heads."""

    def count(fields: Fields, heads: int) -> int:
        kv = fields.optional(name) or heads
        if heads % kv:
            raise InvalidValueError(fields.at(name), kv, f"a divisor of the number of heads ({heads})")
        return kv

    return count


def _layer(fields: Fields, form: Form, sizes: Sizes, window: int | None) -> Layer:
    return Layer(
        attention=GroupedQuery(
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.kv_heads,
            head_dim=sizes.head_dim,
            window_tokens=window,
        ),
        feed_forward=Dense(intermediate_size=sizes.width, gated=form.fused_gate or len(form.into) > 1),
        tensors=(
            *(t for name in form.norms for t in norm(name, sizes.hidden, bias=form.norm_biases)),
            *_attention(fields, form, sizes),
            *_network(fields, form, sizes),
        ),
    )


def _matrix(form: Form, name: str, shape: tuple[int, int], cut: Cut, *, bias: bool) -> Tensors:
    """Return a matrix of [outputs, inputs] and its bias, turned where the family stores it so."""
    outputs, inputs = shape
    if not form.turned:
        return linear(name, outputs, inputs, cut, bias=bias)
    if not bias:
        raise UnsupportedModelError(f"{name}: expected a bias beside a matrix stored [inputs, outputs]; add its row")
    return conv1d(name, inputs, outputs, Cut.OUTPUTS if cut is Cut.INPUTS else Cut.INPUTS)


def _attention(fields: Fields, form: Form, sizes: Sizes) -> Tensors:
    q, kv = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    bias = bias_of(fields, form.qkv_bias)
    made = {"q": q, "k": kv, "v": kv, "kv": 2 * kv, "qkv": q + 2 * kv}
    return (
        *(
            t
            for name, kind in form.projections
            for t in _matrix(form, name, (made[kind], sizes.hidden), CUTS[kind], bias=bias)
        ),
        *_matrix(form, form.output, (sizes.hidden, q), Cut.INPUTS, bias=bias_of(fields, form.output_bias)),
        *(t for name in form.head_norms for t in norm(name, sizes.head_dim, bias=True)),
    )


def _network(fields: Fields, form: Form, sizes: Sizes) -> Tensors:
    bias, wide = bias_of(fields, form.mlp_bias), sizes.width * (2 if form.fused_gate else 1)
    return (
        *(t for name in form.into for t in _matrix(form, name, (wide, sizes.hidden), Cut.OUTPUTS, bias=bias)),
        *_matrix(form, form.down, (sizes.hidden, sizes.width), Cut.INPUTS, bias=bias),
    )


def _embeddings(fields: Fields, form: Form, sizes: Sizes) -> Tensors:
    at = form.prefix
    table = Tensor(
        name=f"{at}{form.table}.weight", shape=(sizes.vocab, sizes.hidden), role=Role.EMBEDDING, cut=Cut.VOCABULARY
    )
    learned: Tensors = ()
    if form.positions:
        rows = first_of(fields, form.length, largest=LARGEST_CONTEXT) + form.position_offset
        learned = (Tensor(name=f"{at}{form.positions}.weight", shape=(rows, sizes.hidden), role=Role.EMBEDDING),)
    return (table, *learned, *(norm(f"{at}{form.table_norm}", sizes.hidden, bias=True) if form.table_norm else ()))


def _head(form: Form, sizes: Sizes, *, tied: bool) -> Tensors:
    final = norm(f"{form.prefix}{form.final_norm}", sizes.hidden, bias=form.norm_biases) if form.final_norm else ()
    matrix = Tensor(name=f"{form.head}.weight", shape=(sizes.vocab, sizes.hidden), role=Role.HEAD, cut=Cut.VOCABULARY)
    bias = Tensor(name=f"{form.head}.bias", shape=(sizes.vocab,), role=Role.BIAS, cut=Cut.VOCABULARY)
    return (*final, *(() if tied else (matrix,)), *((bias,) if form.head_bias else ()))
