"""Qwen3-Next and Qwen3.5: three layers of gated delta networks to one of gated attention, experts with a shared one.

Source: huggingface/transformers:src/transformers/models/qwen3_next/, models/qwen3_5/
and models/qwen3_5_moe/; the prediction head's names:
vllm-project/vllm:vllm/model_executor/models/qwen3_next_mtp.py.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Attention, Experts, FeedForward, LinearAttention
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    is_tied,
    linear,
    norm,
    routed_experts,
    router,
)
from vramfit.readers.families.qwen3 import dense, is_sparse
from vramfit.readers.families.state_space import LARGEST_KERNEL, convolution, state_format, states
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

HEAD_DIM = 256
KEY_VALUE_HEADS = {"qwen3_5_text": 4}
FULL_EVERY = 4
"""Class defaults in transformers."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Qwen3-Next or Qwen3.5 configuration."""
    hidden = fields.integer("hidden_size")
    kinds: dict[tuple[bool, bool], Layer] = {}
    keys = tuple((full, _is_sparse(fields, i)) for i, full in enumerate(_attends_fully(fields)))
    for key in dict.fromkeys(keys):
        kinds[key] = _layer(fields, hidden, full=key[0], sparse=key[1])
    return causal_model(
        fields,
        named,
        tuple(kinds[key] for key in keys),
        hidden_size=hidden,
        tied=is_tied(fields),
        parts=_prediction(fields, hidden),
    )


def _is_sparse(fields: Fields, layer: int) -> bool:
    """Say whether a layer has experts: Qwen3.5 has them in none or, as a mixture, in all."""
    kind = fields.text("model_type") or ""
    return is_sparse(fields, layer) if kind == "qwen3_next" else "moe" in kind


def _attends_fully(fields: Fields) -> tuple[bool, ...]:
    """Say of every layer whether it has softmax attention: ``layer_types`` decides, else every so-manieth layer."""
    num = fields.num_layers
    told = fields.layers_with("full_attention", "linear_attention")
    if told is not None:
        return told
    every = fields.integer("full_attention_interval", FULL_EVERY, largest=LARGEST_LAYERS)
    return tuple((i + 1) % every == 0 for i in range(num))


def _layer(fields: Fields, hidden: int, *, full: bool, sparse: bool) -> Layer:
    attention, mixing = _full(fields, hidden) if full else _linear(fields, hidden)
    feed_forward, transforming = experts(fields, hidden) if sparse else dense(fields, hidden)
    tensors = (*block_norms(hidden), *mixing, *transforming)
    return Layer(attention=attention, feed_forward=feed_forward, tensors=tensors)


def _full(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return gated attention: the query projection is twice as wide, the second half of each head gates its output."""
    facts = grouped_query(
        fields, hidden, default_dim=HEAD_DIM, default_kv=KEY_VALUE_HEADS.get(fields.text("model_type") or "", 2)
    )
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    bias = fields.flag("attention_bias", default=False)
    return facts, (
        *linear("self_attn.q_proj", 2 * q, hidden, Cut.OUTPUTS, bias=bias),
        *linear("self_attn.k_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear("self_attn.v_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear("self_attn.o_proj", hidden, q, Cut.INPUTS, bias=bias),
        *norm("self_attn.q_norm", facts.head_dim),
        *norm("self_attn.k_norm", facts.head_dim),
    )


def _linear(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return a gated delta network: queries, keys and values pass a convolution, z gates the output."""
    facts = LinearAttention(
        num_key_heads=fields.integer("linear_num_key_heads", 16),
        num_value_heads=fields.integer("linear_num_value_heads", 32),
        key_head_dim=fields.integer("linear_key_head_dim", 128),
        value_head_dim=fields.integer("linear_value_head_dim", 128),
        conv_kernel=fields.integer("linear_conv_kernel_dim", 4, largest=LARGEST_KERNEL),
        state_format=state_format(fields, "mamba_ssm_dtype"),
    )
    heads = facts.num_value_heads
    if heads % facts.num_key_heads:
        raise InvalidValueError(
            fields.at("linear_num_value_heads"), heads, f"a multiple of linear_num_key_heads ({facts.num_key_heads})"
        )
    keys, values = facts.num_key_heads * facts.key_head_dim, heads * facts.value_head_dim
    mixed, kernel = 2 * keys + values, facts.conv_kernel
    return facts, (
        *states("linear_attn", ("dt_bias", "A_log"), heads),
        *convolution("linear_attn.conv1d", mixed, kernel, bias=False),
        *_into(fields, hidden, heads, mixed, values),
        *norm("linear_attn.norm", facts.value_head_dim),
        *linear("linear_attn.out_proj", hidden, values, Cut.INPUTS),
    )


def _into(fields: Fields, hidden: int, heads: int, mixed: int, values: int) -> Tensors:
    """Return the projections into a delta network: fused in Qwen3-Next, four matrices in Qwen3.5."""
    at = "linear_attn.in_proj"
    if fields.text("model_type") == "qwen3_next":
        return (
            *linear(f"{at}_qkvz", mixed + values, hidden, Cut.OUTPUTS),
            *linear(f"{at}_ba", 2 * heads, hidden, Cut.OUTPUTS),
        )
    return (
        *linear(f"{at}_qkv", mixed, hidden, Cut.OUTPUTS),
        *linear(f"{at}_z", values, hidden, Cut.OUTPUTS),
        *linear(f"{at}_b", heads, hidden, Cut.OUTPUTS),
        *linear(f"{at}_a", heads, hidden, Cut.OUTPUTS),
    )


def experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    """Return routed experts and the shared one with its gate."""
    count = fields.integer("num_experts", largest=LARGEST_EXPERTS)
    width, shared = fields.integer("moe_intermediate_size"), fields.integer("shared_expert_intermediate_size")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    return facts, (
        router("mlp.gate", count, hidden),
        *routed_experts(count, hidden, width),
        *gated_mlp(hidden, shared, prefix="mlp.shared_expert"),
        router("mlp.shared_expert_gate", 1, hidden),
    )


def _prediction(fields: Fields, hidden: int) -> tuple[Part, ...]:
    """Return the prediction layer, which a plain load leaves on disk.

    It is in every published Qwen3-Next file although no field names it, and makes up the difference between
    transformers' count and the Hub's: 1,650,471,424 of 81,324,862,720. Qwen3.5 names it: ``mtp_num_hidden_layers``.
    """
    kind = fields.text("model_type") or ""
    count = 1 if kind == "qwen3_next" else fields.optional("mtp_num_hidden_layers", smallest=0, largest=LARGEST_LAYERS)
    if not count:
        return ()
    layer = _layer(fields, hidden, full=True, sparse=kind == "qwen3_next" or "moe" in kind)
    part = Part(
        name="mtp",
        layers=(layer,) * count,
        layer_prefix="mtp.layers.{layer}.",
        tensors=(
            Tensor(name="mtp.fc.weight", shape=(hidden, 2 * hidden), role=Role.HEAD),
            *norm("mtp.norm", hidden),
            *norm("mtp.pre_fc_norm_embedding", hidden),
            *norm("mtp.pre_fc_norm_hidden", hidden),
        ),
        resident=False,
    )
    return (part,)
