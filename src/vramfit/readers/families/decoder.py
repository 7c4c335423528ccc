"""Building blocks that most decoders share: linear layers, norms, grouped-query attention, gated networks."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Scheme, Tensor

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What every family is handed beside the fields."""

    name: str
    scheme: Scheme


def linear(name: str, outputs: int, inputs: int, cut: Cut, *, bias: bool = False) -> Tensors:
    """Return the weight of a linear layer, and its bias if it has one.

    A bias follows the outputs; behind a matrix divided by its inputs every rank adds the whole bias once.
    """
    weight = Tensor(name=f"{name}.weight", shape=(outputs, inputs), role=Role.LINEAR, cut=cut)
    if not bias:
        return (weight,)
    bias_cut = Cut.WHOLE if cut in {Cut.INPUTS, Cut.WHOLE} else cut
    return (weight, Tensor(name=f"{name}.bias", shape=(outputs,), role=Role.BIAS, cut=bias_cut))


def norm(name: str, width: int, *, bias: bool = False) -> Tensors:
    """Return the weight of a norm, and its bias if it has one."""
    weight = Tensor(name=f"{name}.weight", shape=(width,), role=Role.NORM)
    return (weight, Tensor(name=f"{name}.bias", shape=(width,), role=Role.BIAS)) if bias else (weight,)


def head_dim(fields: Fields, hidden_size: int, heads: int, default: int | None = None) -> int:
    """Return the declared width of a head, else the family's default, else hidden size over heads."""
    if fields.has("head_dim") or default is not None:
        return fields.integer("head_dim", default)
    if hidden_size % heads:
        raise InvalidValueError(
            fields.at("num_attention_heads"),
            heads,
            f"a divisor of hidden_size ({hidden_size})",
            "or a head_dim beside it",
        )
    return hidden_size // heads


def grouped_query(
    fields: Fields,
    hidden_size: int,
    *,
    window: int | None = None,
    default_dim: int | None = None,
    default_kv: int | None = None,
) -> GroupedQuery:
    """Return the facts of grouped-query attention; ``default_*`` are the family's class defaults."""
    heads = fields.integer("num_attention_heads")
    return GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=kv_heads(fields, heads, default_kv),
        head_dim=head_dim(fields, hidden_size, heads, default_dim),
        window_tokens=window,
    )


def kv_heads(fields: Fields, heads: int, default: int | None = None) -> int:
    """Return the number of KV heads, which must divide the number of heads.

    Null means as many as heads; absent means the family's class default, and as many as heads where that is null.
    """
    count = fields.optional("num_key_value_heads")
    if count is None and fields.absent("num_key_value_heads"):
        count = default or heads
        fields.assume("num_key_value_heads", count)
    count = count or heads
    if heads % count:
        raise InvalidValueError(fields.at("num_key_value_heads"), count, f"a divisor of num_attention_heads ({heads})")
    return count


def window_tokens(fields: Fields, default: int | None = None) -> int | None:
    """Return ``sliding_window``: null means none, absent means the family's class default."""
    if fields.absent("sliding_window") and default is not None:
        return fields.integer("sliding_window", default, largest=LARGEST_CONTEXT)
    return fields.optional("sliding_window", largest=LARGEST_CONTEXT)


def is_tied(fields: Fields, *, default: bool = False) -> bool:
    """Say whether the output projection is the token embedding; a default decides a whole matrix and is recorded."""
    return fields.flag("tie_word_embeddings", default=default, recorded=True)


def attention_tensors(
    facts: GroupedQuery, hidden_size: int, *, qkv_bias: bool = False, output_bias: bool = False, qk_norm: bool = False
) -> Tensors:
    """Return query, key, value and output projections under their usual names."""
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    norms = (*norm("self_attn.q_norm", facts.head_dim), *norm("self_attn.k_norm", facts.head_dim)) if qk_norm else ()
    return (
        *linear("self_attn.q_proj", q, hidden_size, Cut.OUTPUTS, bias=qkv_bias),
        *linear("self_attn.k_proj", kv, hidden_size, Cut.KEY_VALUE_HEADS, bias=qkv_bias),
        *linear("self_attn.v_proj", kv, hidden_size, Cut.KEY_VALUE_HEADS, bias=qkv_bias),
        *linear("self_attn.o_proj", hidden_size, q, Cut.INPUTS, bias=output_bias),
        *norms,
    )


def gated_mlp(hidden_size: int, intermediate_size: int, *, prefix: str = "mlp", bias: bool = False) -> Tensors:
    """Return gate, up and down projections under their usual names."""
    return (
        *linear(f"{prefix}.gate_proj", intermediate_size, hidden_size, Cut.OUTPUTS, bias=bias),
        *linear(f"{prefix}.up_proj", intermediate_size, hidden_size, Cut.OUTPUTS, bias=bias),
        *linear(f"{prefix}.down_proj", hidden_size, intermediate_size, Cut.INPUTS, bias=bias),
    )


def routed_experts(
    num_experts: int,
    hidden_size: int,
    width: int,
    *,
    prefix: str = "mlp",
    names: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj"),
) -> Tensors:
    """Return the matrices of all routed experts, one entry per kind; the last leads back to the hidden size."""

    def matrix(kind: str, shape: tuple[int, int], cut: Cut) -> Tensor:
        name = f"{prefix}.experts.{{expert}}.{kind}.weight"
        return Tensor(name=name, shape=shape, role=Role.EXPERT, cut=cut, copies=num_experts, experts=num_experts)

    into = tuple(matrix(kind, (width, hidden_size), Cut.OUTPUTS) for kind in names[:-1])
    return (*into, matrix(names[-1], (hidden_size, width), Cut.INPUTS))


def router(name: str, num_experts: int, hidden_size: int) -> Tensor:
    """Return the matrix that scores experts."""
    return Tensor(name=f"{name}.weight", shape=(num_experts, hidden_size), role=Role.ROUTER)


def block_norms(hidden_size: int, names: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")) -> Tensors:
    """Return the norms of one block."""
    return tuple(t for name in names for t in norm(name, hidden_size))


def causal_model(  # noqa: PLR0913 - one call per family, every argument a fact of the architecture
    fields: Fields,
    named: Named,
    layers: tuple[Layer, ...],
    *,
    hidden_size: int,
    tied: bool,
    prefix: str = "model.",
    head_name: str = "lm_head",
    embedding: str = "embed_tokens",
    final_norm: str = "norm",
    vocab_default: int | None = None,
    parts: tuple[Part, ...] = (),
) -> ModelSpec:
    """Put a decoder together: embedding, layers, final norm, output projection unless tied."""
    vocab = fields.integer("vocab_size", vocab_default, largest=LARGEST_VOCABULARY)
    head = Tensor(name=f"{head_name}.weight", shape=(vocab, hidden_size), role=Role.HEAD, cut=Cut.VOCABULARY)
    table = Tensor(
        name=f"{prefix}{embedding}.weight", shape=(vocab, hidden_size), role=Role.EMBEDDING, cut=Cut.VOCABULARY
    )
    return ModelSpec(
        name=named.name,
        family=fields.text("model_type") or "",
        hidden_size=hidden_size,
        vocab_size=vocab,
        max_position_embeddings=fields.optional("max_position_embeddings", largest=LARGEST_CONTEXT),
        embeddings=(table,),
        layers=layers,
        head=(*norm(f"{prefix}{final_norm}", hidden_size), *(() if tied else (head,))),
        tied=tied,
        layer_prefix=f"{prefix}layers.{{layer}}.",
        scheme=named.scheme,
        parts=parts,
    )


def windows(fields: Fields, window: int | None, pattern: tuple[bool, ...]) -> tuple[int | None, ...]:
    """Return the window of each layer: ``layer_types`` decides where it is there, else the family's pattern."""
    known = ("full_attention", "sliding_attention")
    types = fields.words("layer_types", known, len(pattern))
    slides = pattern if types is None else tuple(t == "sliding_attention" for t in types)
    if window is None and types is not None and any(slides):
        raise InvalidValueError(
            fields.at("sliding_window"), None, "the number of tokens, since layer_types names sliding_attention"
        )
    return tuple(window if s else None for s in slides)
