"""Kimi K3: delta attention, gated latent attention in every fourth layer, experts in a latent space, K2.5's tower.

Source: vllm-project/vllm@006193b:vllm/models/kimi_k3/nvidia/model.py (blocks, experts, residuals of earlier blocks),
@055e47c:vllm/models/kimi_k3/nvidia/kda.py and @01b867e:vllm/models/kimi_k3/nvidia/mla.py (attention). The text fields
are Kimi Linear's; what K3 has of its own is read here and required.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.formats import FP32, Role
from vramfit.layer_kind import Dense, Experts, FeedForward, Latent, LinearAttention
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
from vramfit.readers.families.deepseek import latent, latent_tensors
from vramfit.readers.families.kimi_k25 import with_tower
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor
from vramfit.units import ceil_div

SECTIONS = {"kimi_k3": ("text_config", "vision_config")}
BLOCK = "block_sparse_moe"
DELTA = "linear_attn_config"
NEEDED = ("mla_use_nope", "mla_use_output_gate")
"""Flags without which K3's latent attention would have other matrices than those here."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Kimi K3 configuration."""
    text = fields.section("text_config")
    if text.text("model_type") not in {None, "kimi_linear"}:
        text.refuse("model_type", "a language model that is not read in this place")
    return with_tower(fields, _language_model(text, named))


def _language_model(fields: Fields, named: Named) -> ModelSpec:
    for name in NEEDED:
        if not fields.flag(name, default=False):
            raise InvalidValueError(fields.at(name), fields.values.get(name), "true, as in Kimi K3")
    hidden, num = fields.integer("hidden_size"), fields.num_layers
    first = fields.integer("first_k_dense_replace", largest=LARGEST_LAYERS, smallest=0)
    every = fields.optional("moe_layer_freq", largest=LARGEST_LAYERS) or 1
    block = fields.optional("attn_res_block_size", largest=LARGEST_LAYERS)
    full = _full(fields)
    kinds: dict[tuple[bool, bool], Layer] = {}
    keys = tuple((i + 1 in full, i >= first and i % every == 0) for i in range(num))
    for key in dict.fromkeys(keys):
        kinds[key] = _layer(fields, hidden, *key, residuals=block is not None)
    spec = causal_model(fields, named, tuple(kinds[key] for key in keys), hidden_size=hidden, tied=is_tied(fields))
    if block is None:
        return spec
    head = (*spec.head, *_residual("model.output_attn", hidden))
    return replace(spec, head=head, residual_streams=1 + ceil_div(num, block))


def _full(fields: Fields) -> frozenset[int]:
    """Return the numbers of the layers with latent attention, counted from one; the others have delta attention."""
    section, num = fields.section(DELTA), fields.num_layers
    full, delta = section.integers("full_attn_layers", num + 1), section.integers("kda_layers", num + 1)
    if full & delta or full | delta != frozenset(range(1, num + 1)):
        raise InvalidValueError(
            section.at("kda_layers"), section.values.get("kda_layers"), f"with full_attn_layers each of 1 to {num} once"
        )
    return full


def _layer(fields: Fields, hidden: int, full: bool, sparse: bool, *, residuals: bool) -> Layer:
    attention, mixing = _latent(fields, hidden) if full else _delta(fields, hidden)
    feed_forward, network = _experts(fields, hidden) if sparse else _dense(fields, hidden)
    both = (*_residual("self_attention", hidden), *_residual("mlp", hidden)) if residuals else ()
    return Layer(
        attention=attention, feed_forward=feed_forward, tensors=(*block_norms(hidden), *both, *mixing, *network)
    )


def _residual(name: str, hidden: int) -> Tensors:
    """Return what weighs the residuals of earlier blocks of layers against each other."""
    return (*norm(f"{name}_res_norm", hidden), router(f"{name}_res_proj", 1, hidden))


def _latent(fields: Fields, hidden: int) -> tuple[Latent, Tensors]:
    """Return latent attention without rotation; a gate as wide as the values stands before the output projection."""
    facts = latent(fields, 0)
    wide = facts.num_attention_heads * facts.v_head_dim
    return facts, (*latent_tensors(fields, facts, hidden), *linear("self_attn.g_proj", wide, hidden, Cut.OUTPUTS))


def _delta(fields: Fields, hidden: int) -> tuple[LinearAttention, Tensors]:
    """Return delta attention: a decay for every channel through a low rank, a gate of full rank."""
    section = fields.section(DELTA)
    if not section.flag("use_full_rank_gate", default=False):
        raise InvalidValueError(section.at("use_full_rank_gate"), False, "true, as in Kimi K3")
    heads, head = section.integer("num_heads"), section.integer("head_dim")
    kernel = section.integer("short_conv_kernel_size", largest=64)
    wide, at = heads * head, "self_attn"
    facts = LinearAttention(
        num_key_heads=heads, num_value_heads=heads, key_head_dim=head, value_head_dim=head, conv_kernel=kernel
    )
    return facts, (
        *(t for x in "qkvg" for t in linear(f"{at}.{x}_proj", wide, hidden, Cut.OUTPUTS)),
        *(
            Tensor(name=f"{at}.{x}_conv1d.weight", shape=(wide, 1, kernel), role=Role.CONVOLUTION, cut=Cut.OUTPUTS)
            for x in "qkv"
        ),
        Tensor(name=f"{at}.A_log", shape=(heads,), role=Role.STATE, cut=Cut.OUTPUTS, stored=FP32),
        Tensor(name=f"{at}.dt_bias", shape=(wide,), role=Role.STATE, cut=Cut.OUTPUTS, stored=FP32),
        *linear(f"{at}.f_a_proj", head, hidden, Cut.WHOLE),
        *linear(f"{at}.f_b_proj", wide, head, Cut.OUTPUTS),
        *linear(f"{at}.b_proj", heads, hidden, Cut.OUTPUTS),
        *norm(f"{at}.o_norm", head),
        *linear(f"{at}.o_proj", hidden, wide, Cut.INPUTS),
    )


def _dense(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    return Dense(intermediate_size=width), gated_mlp(hidden, width)


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    """Return router and experts; the routed ones read and write a narrower state, the shared ones the hidden one."""
    count, width = fields.integer("num_experts", largest=LARGEST_EXPERTS), fields.integer("moe_intermediate_size")
    narrow = fields.integer("routed_expert_hidden_size")
    shared = width * fields.integer("num_shared_experts", smallest=0, largest=64)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_token", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
        latent_size=narrow,
    )
    bias = Tensor(
        name=f"{BLOCK}.gate.e_score_correction_bias", shape=(count,), role=Role.BIAS, stored=FP32, buffer=True
    )
    normed = fields.flag("latent_moe_use_norm", default=False)
    return facts, (
        router(f"{BLOCK}.gate", count, hidden),
        bias,
        *linear(f"{BLOCK}.routed_expert_down_proj", narrow, hidden, Cut.WHOLE),
        *(norm(f"{BLOCK}.routed_expert_norm", narrow) if normed else ()),
        *linear(f"{BLOCK}.routed_expert_up_proj", hidden, narrow, Cut.WHOLE),
        *routed_experts(count, narrow, width, prefix=BLOCK, names=("w1", "w3", "w2")),
        *(gated_mlp(hidden, shared, prefix=f"{BLOCK}.shared_experts") if shared else ()),
    )
