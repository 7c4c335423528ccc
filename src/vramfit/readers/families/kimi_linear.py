"""Kimi Linear and Ling 3: Kimi delta attention with latent attention in every so-manieth layer, and experts.

Source: huggingface/transformers:src/transformers/models/kimi_linear/ and models/bailing_hybrid/, 5.23.0; names as in
the published files (src/transformers/conversion_mapping.py).
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import FP32, Role
from vramfit.layer_kind import Attention, Dense, Experts, FeedForward, Latent, LinearAttention
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    is_tied,
    linear,
    norm,
    routed_experts,
    router,
)
from vramfit.readers.families.state_space import LARGEST_KERNEL, convolution, states
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

KDA = "linear_attn_config"
"""Section of Kimi's configuration: heads, kernel, and the numbers of the layers of both kinds, counted from one."""
FIRST_DENSE = {"kimi_linear": 1, "bailing_hybrid": 2}
GROUP = 6
"""Class defaults in transformers: dense layers at the bottom; Ling's last of so many layers attends fully."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Kimi Linear or Ling 3 configuration."""
    fields.refuse("group_norm_size", "lightning attention, as Ling and Ring 2.5 have it")
    hidden, kimi = fields.integer("hidden_size"), fields.text("model_type") == "kimi_linear"
    keys = tuple(zip(_attends_fully(fields, kimi=kimi), _sparse(fields), strict=True))
    kinds: dict[tuple[bool, bool], Layer] = {}
    for full, sparse in dict.fromkeys(keys):
        mixer, mixing = _latent(fields, hidden, kimi=kimi) if full else _delta(fields, hidden, kimi=kimi)
        feed_forward, network = _experts(fields, hidden, kimi=kimi) if sparse else _dense(fields, hidden)
        tensors = (*block_norms(hidden), *mixing, *network)
        kinds[full, sparse] = Layer(attention=mixer, feed_forward=feed_forward, tensors=tensors)
    return causal_model(
        fields,
        named,
        tuple(kinds[key] for key in keys),
        hidden_size=hidden,
        tied=is_tied(fields),
        embedding="embed_tokens" if kimi else "word_embeddings",
    )


def _attends_fully(fields: Fields, *, kimi: bool) -> tuple[bool, ...]:
    """Say of each layer whether it has latent attention."""
    num = fields.num_layers
    told = fields.layers_with("full_attention", "linear_attention")
    if told is not None:
        return told
    if not kimi:
        group = fields.integer("layer_group_size", GROUP, largest=LARGEST_LAYERS)
        return tuple((i + 1) % group == 0 for i in range(num))
    section = fields.section(KDA)
    full = section.integers("full_attn_layers", num + 1)
    if full | section.integers("kda_layers", num + 1) != frozenset(range(1, num + 1)):
        raise InvalidValueError(
            section.at("kda_layers"), section.values.get("kda_layers"), f"with full_attn_layers all of 1 to {num}"
        )
    return tuple(i + 1 in full for i in range(num))


def _sparse(fields: Fields) -> tuple[bool, ...]:
    """Say of each layer whether it has experts."""
    num = fields.num_layers
    told = fields.layers_with("sparse", "dense", "mlp_layer_types")
    if told is not None:
        return told
    if fields.optional("moe_layer_freq", largest=LARGEST_LAYERS) not in {None, 1}:
        fields.refuse("moe_layer_freq", "experts in every so-manieth layer, which transformers does not read")
    default = FIRST_DENSE[fields.text("model_type") or ""]
    first = fields.integer("first_k_dense_replace", default, largest=LARGEST_LAYERS, smallest=0)
    return tuple(i >= first for i in range(num))


def _facts(fields: Fields, *, kimi: bool) -> LinearAttention:
    """Return the facts of delta attention: as many key as value heads, all equally wide."""
    if kimi:
        section = fields.section(KDA) if fields.has(KDA) else None
        heads = section.integer("num_heads") if section else fields.integer("linear_num_heads", 32)
        width = section.integer("head_dim") if section else fields.integer("linear_head_dim", 128)
        kernel = (
            section.integer("short_conv_kernel_size", largest=LARGEST_KERNEL)
            if section
            else fields.integer("linear_conv_kernel_dim", 4, largest=LARGEST_KERNEL)
        )
    else:
        heads, width = fields.integer("num_attention_heads", 32), fields.integer("head_dim", 128)
        kernel = fields.integer("short_conv_kernel_size", 4, largest=LARGEST_KERNEL)
    return LinearAttention(
        num_key_heads=heads, num_value_heads=heads, key_head_dim=width, value_head_dim=width, conv_kernel=kernel
    )


def _delta(fields: Fields, hidden: int, *, kimi: bool) -> tuple[Attention, Tensors]:
    """Return delta attention: a decay per channel and an output gate, through a low rank in Kimi, whole in Ling."""
    facts, at = _facts(fields, kimi=kimi), "self_attn" if kimi else "attention"
    heads, head = facts.num_value_heads, facts.value_head_dim
    width = heads * head
    decay = Tensor(name=f"{at}.A_log", shape=(1, 1, heads, 1), role=Role.STATE)
    return facts, (
        *(t for x in "qkv" for t in linear(f"{at}.{x}_proj", width, hidden, Cut.OUTPUTS)),
        *(t for x in "qkv" for t in convolution(f"{at}.{x}_conv1d", width, facts.conv_kernel, bias=False)),
        *((decay,) if kimi else states(at, ("A_log",), heads)),
        *states(at, ("dt_bias",), width),
        *(t for gate in "fg" for t in _gate(f"{at}.{gate}", hidden, head, width, low_rank=kimi)),
        *linear(f"{at}.b_proj", heads, hidden, Cut.OUTPUTS),
        *norm(f"{at}.o_norm", head),
        *linear(f"{at}.{'o_proj' if kimi else 'dense'}", hidden, width, Cut.INPUTS),
    )


def _gate(at: str, hidden: int, rank: int, width: int, *, low_rank: bool) -> Tensors:
    if not low_rank:
        return linear(f"{at}_proj", width, hidden, Cut.OUTPUTS)
    down = linear(f"{at}_a_proj", rank, hidden, Cut.WHOLE)
    return (*down, *linear(f"{at}_b_proj", width, rank, Cut.OUTPUTS))


def _latent(fields: Fields, hidden: int, *, kimi: bool) -> tuple[Attention, Tensors]:
    """Return latent attention without a compressed query; Ling gates the output of each head."""
    fields.refuse("q_lora_rank", "a compressed query that no published model has")
    facts = Latent(
        num_attention_heads=fields.integer("num_attention_heads"),
        kv_lora_rank=fields.integer("kv_lora_rank", 512),
        qk_rope_head_dim=fields.integer("qk_rope_head_dim", 64),
        qk_nope_head_dim=fields.integer("qk_nope_head_dim", 128),
        v_head_dim=fields.integer("v_head_dim", 128),
    )
    heads, rank, rope = facts.num_attention_heads, facts.kv_lora_rank, facts.qk_rope_head_dim
    at, out, bias = "self_attn" if kimi else "attention", "o_proj" if kimi else "dense", _attention_bias(fields)
    return facts, (
        *linear(f"{at}.q_proj", heads * (facts.qk_nope_head_dim + rope), hidden, Cut.OUTPUTS),
        *linear(f"{at}.kv_a_proj_with_mqa", rank + rope, hidden, Cut.WHOLE, bias=bias),
        *norm(f"{at}.kv_a_layernorm", rank),
        *linear(f"{at}.kv_b_proj", heads * (facts.qk_nope_head_dim + facts.v_head_dim), rank, Cut.OUTPUTS),
        *linear(f"{at}.{out}", hidden, heads * facts.v_head_dim, Cut.INPUTS, bias=bias),
        *(() if kimi else linear(f"{at}.g_proj", heads, hidden, Cut.OUTPUTS)),
    )


def _attention_bias(fields: Fields) -> bool:
    return fields.flag("attention_bias", default=False)


def _dense(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    return Dense(intermediate_size=width), gated_mlp(hidden, width)


def _experts(fields: Fields, hidden: int, *, kimi: bool) -> tuple[FeedForward, Tensors]:
    """Return router, its correction, routed experts and the shared ones."""
    block = "block_sparse_moe" if kimi else "mlp"
    count = fields.integer(_either(fields, "num_experts", "num_local_experts"), largest=LARGEST_EXPERTS)
    chosen = _either(fields, "num_experts_per_token", "num_experts_per_tok")
    width = fields.integer("moe_intermediate_size")
    num_shared = _either(fields, "num_shared_experts", "n_shared_experts")
    shared = width * fields.integer(num_shared, 1, smallest=0, largest=LARGEST_EXPERTS)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer(chosen, 8, largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    correction = "gate.e_score_correction_bias" if kimi else "gate.expert_bias"
    names = ("w1", "w3", "w2") if kimi else ("gate_proj", "up_proj", "down_proj")
    return facts, (
        router(f"{block}.gate", count, hidden),
        Tensor(name=f"{block}.{correction}", shape=(count,), role=Role.BIAS, stored=FP32, buffer=True),
        *routed_experts(count, hidden, width, prefix=block, names=names),
        *(gated_mlp(hidden, shared, prefix=f"{block}.shared_experts") if shared else ()),
    )


def _either(fields: Fields, name: str, newer: str) -> str:
    """Return the one of two names that the file has."""
    return newer if fields.has(newer) and not fields.has(name) else name
