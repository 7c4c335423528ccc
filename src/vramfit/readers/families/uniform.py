"""Dense decoders that differ from Llama in names, norms, biases and windows only: one row of facts each.

Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from vramfit.formats import Role
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    causal_model,
    grouped_query,
    is_tied,
    linear,
    norm,
    window_tokens,
    windows,
)
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Dense, GroupedQuery, Layer, ModelSpec, Tensor

Bias = bool | tuple[str, bool]
"""Whether a matrix has a bias: always the same, or what a field says, with its default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What a family's blocks are called and made of; the defaults are Llama's."""

    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    norm_weights: bool = True
    """False: norms without parameters."""
    norm_biases: bool = False
    final_norm: str = "norm"
    attention: str = "self_attn"
    output: str = "o_proj"
    qkv_bias: Bias = False
    output_bias: Bias = False
    qk_norm: Literal["head", "all heads"] | None = None
    """Norms on queries and keys: over one head, or over all of them together."""
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
    head_bias: bool = False
    tied: bool = False
    """Class default of ``tie_word_embeddings``."""
    head_dim: int | None = None
    kv_heads: int | None = None
    """Class defaults; None = hidden size over heads, as many as heads."""
    slides: bool = False
    """True: the family has ``sliding_window``."""
    window: int | None = None
    """Class default of ``sliding_window``."""
    period: int | None = None
    """One layer in so many is full, the last of each; None = all slide."""
    refused: tuple[tuple[str, str], ...] = ()
    """Fields that change shapes in a way that no published model has."""


_NEMOTRON = Style(
    norm_biases=True, gated=False, qkv_bias=("attention_bias", False), output_bias=("attention_bias", False),
    mlp_bias=("mlp_bias", False),
)  # fmt: skip
_COHERE = Style(
    norms=("input_layernorm",), qkv_bias=("attention_bias", False), output_bias=("attention_bias", False), tied=True
)
_GRANITE = Style(
    qkv_bias=("attention_bias", False), output_bias=("attention_bias", False), mlp_bias=("mlp_bias", False)
)
_GLM = Style(qkv_bias=("attention_bias", True), fused_gate=True, head_dim=128, kv_heads=2)
_OLMO = Style(qkv_bias=("attention_bias", False), output_bias=("attention_bias", False))
_OLMO2 = replace(_OLMO, norms=("post_attention_layernorm", "post_feedforward_layernorm"), qk_norm="all heads")

STYLES: dict[str, Style] = {
    "apertus": Style(
        norms=("attention_layernorm", "feedforward_layernorm"), qk_norm="head", gated=False,
        qkv_bias=("attention_bias", False), output_bias=("attention_bias", False),
        mlp_scalars=("act_fn.alpha_p", "act_fn.alpha_n"), mlp_constants=("act_fn.beta", "act_fn.eps"),
        refused=(("mlp_bias", "biases that transformers does not build"),),
    ),
    "arcee": replace(_NEMOTRON, norm_biases=False),
    "cohere": _COHERE,
    "cohere2": replace(_COHERE, slides=True, window=4096, period=4),
    "ernie4_5": Style(qkv_bias=("use_bias", False), output_bias=("use_bias", False), mlp_bias=("use_bias", False),
                      tied=True, head_dim=128),
    "exaone4": Style(
        norms=("post_attention_layernorm", "post_feedforward_layernorm"), qk_norm="head", kv_heads=32, slides=True,
        window=4096, period=4,
    ),
    "gemma": Style(qkv_bias=("attention_bias", False), output_bias=("attention_bias", False), tied=True, head_dim=256,
                   kv_heads=16),
    "glm": _GLM,
    "glm4": replace(
        _GLM, norms=("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm")
    ),
    "granite": _GRANITE,
    "ministral": Style(kv_heads=8, slides=True, window=4096),
    "ministral3": Style(kv_heads=8, head_dim=128, slides=True),
    "nemotron": _NEMOTRON,
    "olmo": replace(_OLMO, norm_weights=False),
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, slides=True, window=4096, period=4),
    "phi": Style(
        norms=("input_layernorm",), norm_biases=True, final_norm="final_layernorm", output="dense", qkv_bias=True,
        output_bias=True, gated=False, into="fc1", down="fc2", mlp_bias=True, head_bias=True,
        refused=(("qk_layernorm", "norms on queries and keys that no published Phi has"),),
    ),
    "seed_oss": Style(qkv_bias=("attention_bias", True), output_bias=("attention_out_bias", False),
                      mlp_bias=("mlp_bias", False), head_dim=128, kv_heads=8),
    "smollm3": replace(_GRANITE, tied=True, kv_heads=4),
    "stablelm": Style(
        norm_biases=True, qkv_bias=("use_qkv_bias", False), kv_heads=32,
        refused=(("qk_layernorm", "a norm for every head"), ("use_parallel_residual", "blocks with one norm")),
    ),
    "starcoder2": Style(
        norm_biases=True, qkv_bias=("use_bias", True), output_bias=("use_bias", True), gated=False, into="c_fc",
        down="c_proj", mlp_bias=("use_bias", True), tied=True, kv_heads=2, slides=True,
    ),
}  # fmt: skip
"""``model_type`` -> its style."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the families in ``STYLES``."""
    style = STYLES[fields.text("model_type") or ""]
    for name, why in style.refused:
        fields.refuse(name, why)
    hidden = fields.integer("hidden_size")
    kinds: dict[int | None, Layer] = {}
    per_layer = _windows(fields, style)
    for window in dict.fromkeys(per_layer):
        facts = grouped_query(fields, hidden, window=window, default_dim=style.head_dim, default_kv=style.kv_heads)
        feed_forward, network = _network(fields, style, hidden)
        kinds[window] = Layer(
            attention=facts,
            feed_forward=feed_forward,
            tensors=(*_norms(style, hidden), *_attention(fields, style, facts, hidden), *network),
        )
    spec = causal_model(
        fields,
        named,
        tuple(kinds[window] for window in per_layer),
        hidden_size=hidden,
        tied=is_tied(fields, default=style.tied),
        final_norm=style.final_norm,
    )
    return replace(spec, head=_head(style, spec))


def _windows(fields: Fields, style: Style) -> tuple[int | None, ...]:
    """Return each layer's window, from ``layer_types`` or the family's period."""
    window = window_tokens(fields, style.window) if style.slides else None
    period = style.period
    name = "sliding_window_pattern"
    if period is not None and fields.has(name) and isinstance(fields.values[name], int):
        period = fields.integer(name, largest=LARGEST_LAYERS)
    elif period is not None and fields.has(name):  # EXAONE 4 writes LLLG
        period = len(fields.text(name) or "") or period
    return windows(fields, window, tuple(not period or (i + 1) % period != 0 for i in range(fields.num_layers)))


def _bias(fields: Fields, bias: Bias) -> bool:
    return bias if isinstance(bias, bool) else fields.flag(bias[0], default=bias[1], recorded=bias[1])


def _norms(style: Style, hidden: int) -> Tensors:
    if not style.norm_weights:
        return ()
    return tuple(t for name in style.norms for t in norm(name, hidden, bias=style.norm_biases))


def _attention(fields: Fields, style: Style, facts: GroupedQuery, hidden: int) -> Tensors:
    at, bias = style.attention, _bias(fields, style.qkv_bias)
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    return (
        *linear(f"{at}.q_proj", q, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{at}.k_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear(f"{at}.v_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear(f"{at}.{style.output}", hidden, q, Cut.INPUTS, bias=_bias(fields, style.output_bias)),
        *_qk_norms(fields, style, facts),
    )


def _qk_norms(fields: Fields, style: Style, facts: GroupedQuery) -> Tensors:
    """Return the norms on queries and keys; Cohere's have a row per head, and only some models have them."""
    at, width = style.attention, facts.head_dim
    both = ((f"{at}.q_norm", facts.num_attention_heads), (f"{at}.k_norm", facts.num_key_value_heads))
    if fields.flag("use_qk_norm", default=False):
        return tuple(Tensor(name=f"{name}.weight", shape=(heads, width), role=Role.NORM) for name, heads in both)
    if style.qk_norm is None:
        return ()
    return tuple(t for name, heads in both for t in norm(name, width if style.qk_norm == "head" else heads * width))


def _network(fields: Fields, style: Style, hidden: int) -> tuple[Dense, Tensors]:
    width, bias = fields.integer("intermediate_size"), _bias(fields, style.mlp_bias)
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
    return Dense(intermediate_size=width, gated=style.gated), (*into, *down, *scalars)


def _head(style: Style, spec: ModelSpec) -> Tensors:
    """Return the final norm as the family has it, and the output projection."""
    projection = tuple(t for t in spec.head if t.role is Role.HEAD)
    name = f"model.{style.final_norm}"
    final = norm(name, spec.hidden_size, bias=style.norm_biases) if style.norm_weights else ()
    if style.head_bias:
        bias = Tensor(name="lm_head.bias", shape=(spec.vocab_size,), role=Role.BIAS, cut=Cut.VOCABULARY)
        return (*final, *projection, bias)
    return (*final, *projection)
