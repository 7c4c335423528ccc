"""What decoders that differ from Llama in names, norms, biases, windows and experts only are made of.

``uniform.py`` and ``mixtures.py`` hold one row of these facts per family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from vramfit.errors import InvalidValueError
from vramfit.formats import FP32, Role
from vramfit.layer_kind import Dense, Experts, FeedForward, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    causal_model,
    gated_mlp,
    grouped_query,
    is_tied,
    linear,
    norm,
    routed_experts,
    router,
    window_tokens,
    windows,
)
from vramfit.readers.families.prediction import prediction
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

Bias = bool | tuple[str, bool]
"""Whether a matrix has a bias: always the same, or what a field says, with its default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """How a family names and counts its experts; the defaults are Qwen3's."""

    block: str = "mlp"
    router: str = "gate"
    """Below the block, as all names here."""
    experts: str = "num_experts"
    chosen: str = "num_experts_per_tok"
    width: str = "moe_intermediate_size"
    """Fields that count experts, those of a token, and the width of one."""
    names: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    fused: tuple[str, str] | None = None
    """All experts in two tensors of these names: gate and up together, and down; None = each expert has its own."""
    turned: bool = False
    """True: the two hold inputs before outputs."""
    stacked: bool = False
    """True: one tensor of each kind for all experts, right below the block."""
    correction: str = ""
    """The router's correction bias; empty = there is none."""
    learned: bool = False
    """True: the correction is a parameter, False: a buffer."""
    correction_at: str | None = None
    """Where it stands if not in the block."""
    correction_rows: int = 0
    """1: the correction has a leading axis of one."""
    shared: tuple[str, int | None] | int = 0
    """Field that counts the shared experts and its class default; an integer = always so many."""
    shared_width: tuple[str, int] | None = None
    """Field that holds the width of all shared experts together, and its class default."""
    shared_name: str = "shared_experts"
    shared_beside: bool = False
    """True: shared experts stand beside the block, not in it."""
    shared_gate: str = ""
    first_dense: tuple[str, int] | None = None
    """Field that counts the dense layers at the bottom, and its class default."""
    dense_width: str = "intermediate_size"
    """Field with the width of the layers without experts; where it is absent, ``intermediate_size``."""
    sparse: Callable[[Fields, int], bool] | None = None
    """Says whether a layer has experts, where neither a count nor ``mlp_layer_types`` does."""
    predicts: bool = False
    """True: ``num_nextn_predict_layers`` more layers follow in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What a family's blocks are called and made of; the defaults are Llama's."""

    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    norm_weights: bool = True
    """False: norms without parameters."""
    norm_biases: bool = False
    fewer_norms: tuple[str, bool, int] | None = None
    """A field, its value that leaves norms out (the other one is its class default), and how many stay."""
    final_norm: str = "norm"
    attention: str = "self_attn"
    output: str = "o_proj"
    qkv_bias: Bias = False
    output_bias: Bias = False
    qk_norm: Literal["head", "each head", "heads apart", "all heads"] | None = None
    """Norms on queries and keys: one for any head, one for each (in one tensor or apart), or one over all together."""
    qk_norm_asked: bool = False
    """True: only where ``qk_norm_field`` says so."""
    qk_norm_field: str = "use_qk_norm"
    qk_norm_biases: bool = False
    attention_vectors: tuple[tuple[str, Literal["heads", "head", "hidden"]], ...] = ()
    """Vectors of the attention's own, and what they are as long as."""
    network_norm: str = ""
    """Norm as wide as the network, before the matrix that leads out of it."""
    gated: bool = True
    fused_gate: bool = False
    """True: gate and up are one matrix, ``gate_up_proj``."""
    into: str = "up_proj"
    """Name of the matrix that leads into a network without a gate."""
    down: str = "down_proj"
    mlp_bias: Bias = False
    mlp_scalars: tuple[str, ...] = ()
    """Learned scalars of the activation function."""
    mlp_constants: tuple[str, ...] = ()
    """Numbers that files hold beside them."""
    head_bias: Bias = False
    tied: bool = False
    """Class default of ``tie_word_embeddings``."""
    head_dim: int | None = None
    kv_heads: int | None = None
    """Class defaults; None = hidden size over heads, as many as heads."""
    slides: bool = False
    """True: the family has ``sliding_window``."""
    window: int | None = None
    """Class default of ``sliding_window``."""
    period_field: str = "sliding_window_pattern"
    period: int | None = None
    """One layer in so many is full, the last of each; None = all slide."""
    slides_at: Callable[[Fields, int], bool] | None = None
    """Says whether a layer slides, where neither ``layer_types`` nor a period does."""
    heads: Callable[[Fields], tuple[int, ...]] | None = None
    """Counts the heads of every layer, where they differ; None = all have ``num_attention_heads``."""
    full_first: bool = False
    """True: the first of each is."""
    qk_names: tuple[str, str] = ("q_norm", "k_norm")
    gate: str = ""
    """Matrix that gates the attention's output, as wide as the queries; empty = there is none."""
    head_gate: str = ""
    """Matrix that gates every head by one number, or all of the output where ``gating`` says so."""
    sinks: str = ""
    """One learned score per head that no token has; empty = there is none."""
    mixture: Mixture | None = None
    """None: every layer has one network for all tokens."""
    refused: tuple[tuple[str, str], ...] = ()
    """Fields that change shapes in a way that no published model has."""


def read_style(fields: Fields, named: Named, style: Style) -> ModelSpec:
    """Read a configuration of a family with these facts."""
    for name, why in style.refused:
        fields.refuse(name, why)
    hidden, mixture = fields.integer("hidden_size"), style.mixture
    heads = (None,) * fields.num_layers if style.heads is None else style.heads(fields)
    per_layer = tuple(zip(_windows(fields, style), _sparse(fields, mixture), heads, strict=True))
    kinds: dict[tuple[int | None, bool, int | None], Layer] = {}
    for window, sparse, own in dict.fromkeys(per_layer):
        facts = grouped_query(fields, hidden, window=window, default_dim=style.head_dim, default_kv=style.kv_heads)
        facts = facts if own is None else replace(facts, num_attention_heads=own)
        if sparse and mixture is not None:
            feed_forward, network = _experts(fields, mixture, hidden, bias=bias_of(fields, style.mlp_bias))
        else:
            feed_forward, network = _network(fields, style, hidden)
        kinds[window, sparse, own] = Layer(
            attention=facts,
            feed_forward=feed_forward,
            tensors=(*_norms(fields, style, hidden), *_attention(fields, style, facts, hidden), *network),
        )
    spec = causal_model(
        fields,
        named,
        tuple(kinds[key] for key in per_layer),
        hidden_size=hidden,
        tied=is_tied(fields, default=style.tied),
        final_norm=style.final_norm,
        parts=prediction(fields, hidden, kinds.get((None, True, None))) if mixture and mixture.predicts else (),
    )
    return replace(spec, head=_head(fields, style, spec))


def _sparse(fields: Fields, mixture: Mixture | None) -> tuple[bool, ...]:
    """Say of each layer whether it has experts."""
    num = fields.num_layers
    if mixture is None:
        return (False,) * num
    told = fields.layers_with("sparse", "dense", "mlp_layer_types")
    if told is not None:
        return told
    if mixture.sparse is not None:
        return tuple(mixture.sparse(fields, i) for i in range(num))
    if mixture.first_dense is None:
        return (True,) * num
    first = fields.integer(*mixture.first_dense, largest=LARGEST_LAYERS, smallest=0)
    return tuple(i >= first for i in range(num))


def _windows(fields: Fields, style: Style) -> tuple[int | None, ...]:
    """Return each layer's window, from ``layer_types`` or the family's period."""
    window = window_tokens(fields, style.window) if style.slides else None
    period = style.period
    name = style.period_field
    if period is not None and fields.has(name) and isinstance(fields.values[name], int):
        period = fields.integer(name, largest=LARGEST_LAYERS)
    elif period is not None and fields.has(name):  # EXAONE 4 writes LLLG
        period = len(fields.text(name) or "") or period
    first = 0 if style.full_first else 1
    slides = style.slides_at or (lambda _, i: not period or (i + first) % period != 0)
    return windows(fields, window, tuple(slides(fields, i) for i in range(fields.num_layers)))


def bias_of(fields: Fields, bias: Bias) -> bool:
    """Say whether a matrix has a bias."""
    return bias if isinstance(bias, bool) else fields.flag(bias[0], default=bias[1], recorded=bias[1])


def _norms(fields: Fields, style: Style, hidden: int) -> Tensors:
    if not style.norm_weights:
        return ()
    kept = len(style.norms)
    if style.fewer_norms is not None:
        name, value, fewer = style.fewer_norms
        kept = fewer if fields.flag(name, default=not value) is value else kept
    return tuple(t for name in style.norms[:kept] for t in norm(name, hidden, bias=style.norm_biases))


def _attention(fields: Fields, style: Style, facts: GroupedQuery, hidden: int) -> Tensors:
    at, bias = style.attention, bias_of(fields, style.qkv_bias)
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    return (
        *linear(f"{at}.q_proj", q, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{at}.k_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear(f"{at}.v_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear(f"{at}.{style.output}", hidden, q, Cut.INPUTS, bias=bias_of(fields, style.output_bias)),
        *_qk_norms(fields, style, facts),
        *(linear(f"{at}.{style.gate}", q, hidden, Cut.OUTPUTS) if style.gate else ()),
        *_by_head(fields, style, facts, hidden),
        *(_vector(f"{at}.{name}", kind, facts, hidden) for name, kind in style.attention_vectors),
    )


def _by_head(fields: Fields, style: Style, facts: GroupedQuery, hidden: int) -> Tensors:
    """Return the gate of every head and the score that no token has."""
    at, heads = style.attention, facts.num_attention_heads
    gating = fields.values.get("gating")
    if style.head_gate and gating not in (None, True, "per-head", "per-element"):
        raise InvalidValueError(fields.at("gating"), gating, 'true, "per-head" or "per-element"')
    rows = heads * facts.head_dim if gating == "per-element" else heads
    sinks = Tensor(name=f"{at}.{style.sinks}", shape=(heads,), role=Role.BIAS, cut=Cut.OUTPUTS)
    gate = linear(f"{at}.{style.head_gate}", rows, hidden, Cut.OUTPUTS) if style.head_gate else ()
    return (*gate, *((sinks,) if style.sinks else ()))


def _vector(name: str, kind: str, facts: GroupedQuery, hidden: int) -> Tensor:
    """Return a vector of the attention's own: one number per head is divided with the heads."""
    if kind == "heads":
        return Tensor(name=name, shape=(facts.num_attention_heads,), role=Role.BIAS, cut=Cut.OUTPUTS)
    return Tensor(name=name, shape=(facts.head_dim if kind == "head" else hidden,), role=Role.NORM)


def _qk_norms(fields: Fields, style: Style, facts: GroupedQuery) -> Tensors:
    """Return the norms on queries and keys."""
    at, width = style.attention, facts.head_dim
    q, k = style.qk_names
    both = ((f"{at}.{q}", facts.num_attention_heads), (f"{at}.{k}", facts.num_key_value_heads))
    if style.qk_norm is None or not fields.flag(style.qk_norm_field, default=not style.qk_norm_asked):
        return ()
    if style.qk_norm == "each head":
        return tuple(Tensor(name=f"{name}.weight", shape=(heads, width), role=Role.NORM) for name, heads in both)
    if style.qk_norm == "heads apart":
        return tuple(t for name, heads in both for i in range(heads) for t in norm(f"{name}.norms.{i}", width))
    bias, any_head = style.qk_norm_biases, style.qk_norm == "head"
    return tuple(t for name, heads in both for t in norm(name, width if any_head else heads * width, bias=bias))


def _network(fields: Fields, style: Style, hidden: int) -> tuple[FeedForward, Tensors]:
    name = style.mixture.dense_width if style.mixture is not None else ""
    width = fields.integer(name if name and fields.has(name) else "intermediate_size")
    bias = bias_of(fields, style.mlp_bias)
    if style.fused_gate:
        into = linear("mlp.gate_up_proj", 2 * width, hidden, Cut.OUTPUTS, bias=bias)
    elif style.gated:
        gate = linear("mlp.gate_proj", width, hidden, Cut.OUTPUTS, bias=bias)
        into = (*gate, *linear("mlp.up_proj", width, hidden, Cut.OUTPUTS, bias=bias))
    else:
        into = linear(f"mlp.{style.into}", width, hidden, Cut.OUTPUTS, bias=bias)
    scalars = (
        *(Tensor(name=f"mlp.{name}", shape=(1,), role=Role.NORM) for name in style.mlp_scalars),
        *(Tensor(name=f"mlp.{name}", shape=(), role=Role.NORM, buffer=True) for name in style.mlp_constants),
    )
    down = linear(f"mlp.{style.down}", hidden, width, Cut.INPUTS, bias=bias)
    inner = norm(f"mlp.{style.network_norm}", width) if style.network_norm else ()
    return Dense(intermediate_size=width, gated=style.gated), (*into, *inner, *down, *scalars)


def _experts(fields: Fields, mixture: Mixture, hidden: int, *, bias: bool) -> tuple[FeedForward, Tensors]:
    """Return router, routed experts and shared ones; only these may have biases."""
    count = fields.integer(mixture.experts, largest=LARGEST_EXPERTS)
    width, block = fields.integer(mixture.width), mixture.block
    shared = _shared_width(fields, mixture, width)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer(mixture.chosen, largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    return facts, (
        router(f"{block}.{mixture.router}", count, hidden),
        *_correction(mixture, count),
        *_routed(mixture, count, hidden, width),
        *_shared(mixture, hidden, shared, bias=bias),
        *((router(f"{block}.{mixture.shared_gate}", 1, hidden),) if mixture.shared_gate else ()),
    )


def _routed(mixture: Mixture, count: int, hidden: int, width: int) -> Tensors:
    def stack(name: str, rows: int, columns: int, cut: Cut) -> Tensor:
        shape, at = (count, rows, columns), f"{mixture.block}.{name}"
        return Tensor(name=at, shape=shape, role=Role.EXPERT, cut=cut, experts=count)

    if mixture.stacked:
        into = tuple(stack(f"{name}.weight", width, hidden, Cut.SECOND) for name in mixture.names[:-1])
        return (*into, stack(f"{mixture.names[-1]}.weight", hidden, width, Cut.INPUTS))
    if mixture.fused is None:
        return routed_experts(count, hidden, width, prefix=mixture.block, names=mixture.names)
    into_name, back_name = mixture.fused
    if mixture.turned:
        return (stack(into_name, hidden, 2 * width, Cut.INPUTS), stack(back_name, width, hidden, Cut.SECOND))
    return (stack(into_name, 2 * width, hidden, Cut.SECOND), stack(back_name, hidden, width, Cut.INPUTS))


def _shared(mixture: Mixture, hidden: int, width: int, *, bias: bool) -> Tensors:
    if not width:
        return ()
    if mixture.shared_beside and mixture.fused is not None:  # fused as well
        return (
            *linear(f"{mixture.shared_name}.input_linear", 2 * width, hidden, Cut.OUTPUTS),
            *linear(f"{mixture.shared_name}.output_linear", hidden, width, Cut.INPUTS),
        )
    prefix = mixture.shared_name if mixture.shared_beside else f"{mixture.block}.{mixture.shared_name}"
    return gated_mlp(hidden, width, prefix=prefix, bias=bias)


def _shared_width(fields: Fields, mixture: Mixture, width: int) -> int:
    """Return the width of all shared experts together; 0 = there are none."""
    if mixture.shared_width is not None:
        return fields.integer(*mixture.shared_width, smallest=0)
    if isinstance(mixture.shared, int):
        return width * mixture.shared
    name, default = mixture.shared
    if fields.absent(name) and default is not None:
        return width * fields.integer(name, default)
    return width * (fields.optional(name, smallest=0, largest=LARGEST_EXPERTS) or 0)


def _correction(mixture: Mixture, count: int) -> Tensors:
    """Return the bias that balances the load between experts, kept in fp32 whatever the recipe."""
    if not mixture.correction:
        return ()
    shape = (1, count) if mixture.correction_rows else (count,)
    name = f"{mixture.block if mixture.correction_at is None else mixture.correction_at}.{mixture.correction}"
    return (Tensor(name=name, shape=shape, role=Role.BIAS, stored=FP32, buffer=not mixture.learned),)


def _head(fields: Fields, style: Style, spec: ModelSpec) -> Tensors:
    """Return the final norm as the family has it, and the output projection."""
    projection = tuple(t for t in spec.head if t.role is Role.HEAD)
    name = f"model.{style.final_norm}"
    final = norm(name, spec.hidden_size, bias=style.norm_biases) if style.norm_weights else ()
    if bias_of(fields, style.head_bias):
        bias = Tensor(name="lm_head.bias", shape=spec.embeddings[0].shape[:1], role=Role.BIAS, cut=Cut.VOCABULARY)
        return (*final, *projection, bias)
    return (*final, *projection)
