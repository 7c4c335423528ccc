"""Hymba: attention and Mamba 1 read the same projection in every block; some blocks read an earlier block's cache.

Source: nvidia/Hymba-1.5B-Base:modeling_hymba.py; Dong et al. 2024, arXiv:2411.13676. Learned tokens stand before every
prompt, and stay in every cache.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery, StateSpace
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    is_tied,
    kv_heads,
    linear,
    norm,
)
from vramfit.readers.families.state_space import (
    LARGEST_EXPANSION,
    LARGEST_KERNEL,
    convolution,
    mamba1_facts,
    states,
    step_rank,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

PUBLISHED = {"num_mamba": 1, "num_experts": 1, "attn_hidden_size": -1, "kq_head_dim": -1}
"""Fields of which no other value is published."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Hymba configuration."""
    _check(fields)
    hidden, num = fields.integer("hidden_size"), fields.num_layers
    whole, reused = fields.integers("global_attn_idx", LARGEST_LAYERS), _reused(fields, num)
    keys = tuple((i in whole, i in reused) for i in range(num))
    kinds = {key: _layer(fields, hidden, full=key[0], reads=key[1]) for key in dict.fromkeys(keys)}
    layers = tuple(kinds[key] for key in keys)
    spec = causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields), final_norm="final_layernorm")
    learned = _learned(fields)
    if not learned:
        return spec
    memory = Tensor(name="model.memory_tokens", shape=(learned, hidden), role=Role.EMBEDDING)
    return replace(spec, embeddings=(*spec.embeddings, memory))


def _check(fields: Fields) -> None:
    """Refuse what no published model has and what would change shapes."""
    for name, value in PUBLISHED.items():
        if fields.has(name) and fields.values[name] != value:
            raise UnsupportedModelError(
                f"{fields.at(name)}: {fields.values[name]!r:.100}: expected {value}, as published; no number is given"
            )
    if fields.flag("kv_weight_reuse", default=False) or fields.text("kq_norm") not in {None, "none"}:
        raise UnsupportedModelError(
            f"{fields.at('kv_weight_reuse')} or kq_norm: expected false and none, as published; no number is given"
        )
    if not fields.flag("mamba_inner_layernorms", default=True):
        raise UnsupportedModelError(
            f"{fields.at('mamba_inner_layernorms')}: False: expected true, as published; no number is given"
        )


def _learned(fields: Fields) -> int:
    """Return the number of learned tokens; caches of layers that see all tokens hold them beside the context."""
    learned = fields.integer("num_memory_tokens", 0, largest=LARGEST_CONTEXT, smallest=0)
    if learned:
        fields.assume("num_memory_tokens", learned, "tokens of every sequence: add them to the context you ask for")
    return learned


def _reused(fields: Fields, num: int) -> frozenset[int]:
    """Return the blocks that read another's cache: all but the first of each group."""
    name = "kv_reuse_group"
    groups = fields.values.get(name) or []
    if not isinstance(groups, list) or not all(_is_group(group, num) for group in groups):
        raise InvalidValueError(fields.at(name), groups, f"a list of lists of neighbouring layers from 0 to {num - 1}")
    return frozenset(i for group in groups for i in group[1:])


def _is_group(group: object, num: int) -> bool:
    whole = isinstance(group, list) and bool(group) and all(type(i) is int and 0 <= i < num for i in group)
    return whole and group == list(range(group[0], group[0] + len(group)))  # type: ignore[index, arg-type]


def _layer(fields: Fields, hidden: int, *, full: bool, reads: bool) -> Layer:
    attention, mamba, mixing = _mixers(fields, hidden, full=full, reads=reads)
    width = fields.integer("intermediate_size")
    return Layer(
        attention=attention,
        beside=mamba,
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *block_norms(hidden, ("input_layernorm", "pre_moe_layernorm")),
            *mixing,
            *gated_mlp(hidden, width, prefix="moe.experts.0"),
        ),
    )


def _mixers(fields: Fields, hidden: int, *, full: bool, reads: bool) -> tuple[GroupedQuery, StateSpace, Tensors]:
    """Return both mixers: values are as wide as Mamba's share of a head, keys as the hidden size's."""
    inner = hidden * fields.integer("mamba_expand", 2, largest=LARGEST_EXPANSION)
    heads = fields.integer("num_attention_heads")
    if hidden % heads:
        raise InvalidValueError(fields.at("num_attention_heads"), heads, f"a divisor of hidden_size ({hidden})")
    window = fields.integer("sliding_window", largest=LARGEST_CONTEXT)
    facts = GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=kv_heads(fields, heads, 8),
        head_dim=hidden // heads,
        v_head_dim=inner // heads,
        window_tokens=None if full else window + fields.integer("num_memory_tokens", 0, smallest=0),
        shares_cache=reads,
    )
    mamba = mamba1_facts(
        inner, fields.integer("mamba_d_state", 16), fields.integer("mamba_d_conv", 4, largest=LARGEST_KERNEL)
    )
    keep = 0 if reads else facts.num_key_value_heads * (hidden // heads + inner // heads)
    rank, state, at = step_rank(fields, hidden), mamba.state_size, "mamba"
    bias = fields.flag("mamba_proj_bias", default=False)
    return (
        facts,
        mamba,
        (
            *linear(f"{at}.in_proj", 2 * inner + hidden + keep, hidden, Cut.OUTPUTS, bias=bias),
            *convolution(f"{at}.conv1d", inner, mamba.conv_kernel, bias=fields.flag("mamba_conv_bias", default=True)),
            *linear(f"{at}.x_proj.0", rank + 2 * state, inner, Cut.INPUTS),
            *linear(f"{at}.dt_proj.0", inner, rank, Cut.OUTPUTS, bias=True),
            *states(at, ("A_log.0",), inner, state),
            *states(at, ("D.0",), inner),
            *linear(f"{at}.out_proj", hidden, inner, Cut.INPUTS, bias=bias),
            *norm(f"{at}.pre_avg_layernorm1", inner),
            *norm(f"{at}.pre_avg_layernorm2", inner),
            *norm(f"{at}.dt_layernorm", rank),
            *norm(f"{at}.B_layernorm", state),
            *norm(f"{at}.C_layernorm", state),
        ),
    )
