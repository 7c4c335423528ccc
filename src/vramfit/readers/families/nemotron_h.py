"""Nemotron-H and Nemotron 3 Nano: every block is one of Mamba 2, attention, a network, or experts.

Source: huggingface/transformers:src/transformers/models/nemotron_h/; names as in the published files (``backbone.``).
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import FP32, Role
from vramfit.readers.families.decoder import Named, Tensors, causal_model, grouped_query, linear, norm, router
from vramfit.readers.fields import LARGEST_EXPERTS, Fields
from vramfit.spec import Attention, Cut, Dense, Experts, FeedForward, Layer, ModelSpec, StateSpace, Tensor

LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
HEAD_DIM = 128
"""Class default in transformers."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Nemotron-H configuration."""
    fields.refuse("moe_latent_size", "routes experts through a narrower space (Nemotron 3 Super and Ultra)")
    hidden = fields.integer("hidden_size")
    blocks = _blocks(fields)
    kinds = {kind: _layer(fields, hidden, kind) for kind in dict.fromkeys(blocks)}
    return causal_model(
        fields,
        named,
        tuple(kinds[b] for b in blocks),
        hidden_size=hidden,
        tied=fields.flag("tie_word_embeddings", default=False),
        prefix="backbone.",
        embedding="embeddings",
        final_norm="norm_f",
    )


def _blocks(fields: Fields) -> tuple[str, ...]:
    """Return the kind of every block, from the letters of ``hybrid_override_pattern`` or from a list of words."""
    pattern = fields.text("hybrid_override_pattern")
    if pattern is None:
        name = "layers_block_type"
        listed = fields.values.get(name)
        count = len(listed) if isinstance(listed, list) else 0
        words = fields.words(name, tuple(LETTERS.values()), count)
        if not words:
            raise InvalidValueError(
                "hybrid_override_pattern", None, f"one letter of {' '.join(LETTERS)} per layer, or {name}"
            )
        return words
    num = fields.num_layers
    if len(pattern) != num:
        raise InvalidValueError("hybrid_override_pattern", pattern, f"{num} letters, one per layer (num_hidden_layers)")
    for i, letter in enumerate(pattern):
        if letter not in LETTERS:
            raise InvalidValueError(f"hybrid_override_pattern[{i}]", letter, f"one of {' '.join(LETTERS)}")
    return tuple(LETTERS[letter] for letter in pattern)


def _layer(fields: Fields, hidden: int, kind: str) -> Layer:
    attention: Attention | None = None
    feed_forward: FeedForward | None = None
    match kind:
        case "mamba":
            attention, tensors = _mamba(fields, hidden)
        case "attention":
            attention, tensors = _attention(fields, hidden)
        case "mlp":
            feed_forward, tensors = _mlp(fields, hidden)
        case _:
            feed_forward, tensors = _experts(fields, hidden)
    return Layer(attention=attention, feed_forward=feed_forward, tensors=(*norm("norm", hidden), *tensors))


def _mamba(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    facts = StateSpace(
        num_heads=fields.integer("mamba_num_heads", 128),
        head_dim=fields.integer("mamba_head_dim", 64),
        state_size=fields.integer("ssm_state_size", 128),
        conv_kernel=fields.integer("conv_kernel", 4, largest=1024),
        num_groups=fields.integer("n_groups", 8),
    )
    inner = facts.num_heads * facts.head_dim
    mixed = inner + 2 * facts.num_groups * facts.state_size
    bias, proj_bias = fields.flag("use_conv_bias", default=True), _projection_bias(fields)
    conv_bias = Tensor(name="mixer.conv1d.bias", shape=(mixed,), role=Role.BIAS, cut=Cut.OUTPUTS)
    return facts, (
        *(
            Tensor(name=f"mixer.{n}", shape=(facts.num_heads,), role=Role.STATE, cut=Cut.OUTPUTS)
            for n in ("dt_bias", "A_log", "D")
        ),
        Tensor(name="mixer.conv1d.weight", shape=(mixed, 1, facts.conv_kernel), role=Role.CONVOLUTION, cut=Cut.OUTPUTS),
        *((conv_bias,) if bias else ()),
        *linear("mixer.in_proj", inner + mixed + facts.num_heads, hidden, Cut.OUTPUTS, bias=proj_bias),
        Tensor(name="mixer.norm.weight", shape=(inner,), role=Role.NORM, cut=Cut.OUTPUTS),
        *linear("mixer.out_proj", hidden, inner, Cut.INPUTS, bias=proj_bias),
    )


def _projection_bias(fields: Fields) -> bool:
    """Say whether in and out projections have biases: ``use_bias``; ``mamba_proj_bias`` has no effect."""
    return fields.flag("use_bias", default=False)


def _attention(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    facts = grouped_query(fields, hidden, default_dim=HEAD_DIM)
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    bias = fields.flag("attention_bias", default=False)
    return facts, (
        *linear("mixer.q_proj", q, hidden, Cut.OUTPUTS, bias=bias),
        *linear("mixer.k_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear("mixer.v_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear("mixer.o_proj", hidden, q, Cut.INPUTS, bias=bias),
    )


def _network(prefix: str, hidden: int, width: int, *, bias: bool) -> Tensors:
    """Return up and down projections; the activation (squared ReLU) has no gate."""
    return (
        *linear(f"{prefix}.up_proj", width, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{prefix}.down_proj", hidden, width, Cut.INPUTS, bias=bias),
    )


def _mlp(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    tensors = _network("mixer", hidden, width, bias=fields.flag("mlp_bias", default=False))
    return Dense(intermediate_size=width, gated=False), tensors


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    count = fields.integer("n_routed_experts", largest=LARGEST_EXPERTS)
    width = fields.integer("moe_intermediate_size")
    bias = fields.flag("mlp_bias", default=False)
    shared = fields.integer("moe_shared_expert_intermediate_size") * fields.integer(
        "n_shared_experts", 1, largest=LARGEST_EXPERTS
    )
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
        gated=False,
    )

    def expert(kind: str, shape: tuple[int, int], cut: Cut) -> Tensor:
        name = f"mixer.experts.{{expert}}.{kind}.weight"
        return Tensor(name=name, shape=shape, role=Role.EXPERT, cut=cut, copies=count, experts=count)

    return facts, (
        router("mixer.gate", count, hidden),
        Tensor(name="mixer.gate.e_score_correction_bias", shape=(count,), role=Role.BIAS, stored=FP32, buffer=True),
        expert("up_proj", (width, hidden), Cut.OUTPUTS),
        expert("down_proj", (hidden, width), Cut.INPUTS),
        *_network("mixer.shared_experts", hidden, shared, bias=bias),
    )
