"""MiniMax-M3, the language model: grouped-query attention that picks blocks of keys by an index of its own.

Source: huggingface/transformers:src/transformers/models/minimax_m3_vl/, 5.23.0, names as in published files; the flat
form, whose ``model_type`` is ``minimax_m3``, has the same fields.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.layer_kind import Dense, Experts, FeedForward
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
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
from vramfit.readers.families.deepseek import correction
from vramfit.readers.fields import LARGEST_EXPERTS, Fields
from vramfit.spec import Cut, Layer, ModelSpec

BLOCK = "block_sparse_moe"
FLAGS = (0, 1)


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a MiniMax-M3 text configuration."""
    fields.refuse("attention_output_gate", "a gate on the attention's output, which no published model has")
    hidden = fields.integer("hidden_size")
    per_layer = tuple(zip(_indexed(fields), _sparse(fields), strict=True))
    kinds: dict[tuple[bool, bool], Layer] = {}
    for indexed, sparse in dict.fromkeys(per_layer):
        heads, width = _index_sizes(fields) if indexed else (0, 0)
        facts = replace(grouped_query(fields, hidden, default_dim=128, default_kv=4), index_head_dim=width)
        feed_forward, network = _experts(fields, hidden) if sparse else _dense(fields, hidden)
        kinds[indexed, sparse] = Layer(
            attention=facts,
            feed_forward=feed_forward,
            tensors=(
                *block_norms(hidden),
                *attention_tensors(facts, hidden, qk_norm=True),
                *(_index(hidden, heads, width) if indexed else ()),
                *network,
            ),
        )
    return causal_model(fields, named, tuple(kinds[key] for key in per_layer), hidden_size=hidden, tied=is_tied(fields))


def _indexed(fields: Fields) -> tuple[bool, ...]:
    """Say of each layer whether it picks blocks: ``layer_types``, else ``sparse_attention_freq`` of its section."""
    num = fields.num_layers
    told = fields.layers_with("minimax_m3_sparse", "full_attention")
    if told is not None:
        return told
    if not fields.has("sparse_attention_config"):
        return (False,) * num
    return _ones(fields.section("sparse_attention_config"), "sparse_attention_freq", num) or (False,) * num


def _sparse(fields: Fields) -> tuple[bool, ...]:
    num = fields.num_layers
    told = fields.layers_with("sparse", "dense", "mlp_layer_types")
    if told is not None:
        return told
    return _ones(fields, "moe_layer_freq", num) or (True,) * num


def _ones(fields: Fields, name: str, num: int) -> tuple[bool, ...] | None:
    """Return a list of zeros and ones, one per layer, or None when the field is absent."""
    value = fields.values.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != num or any(flag not in FLAGS for flag in value):
        raise InvalidValueError(fields.at(name), value, f"a list of {num} zeros and ones")
    return tuple(flag == 1 for flag in value)


def _index_sizes(fields: Fields) -> tuple[int, int]:
    """Return heads and width of the index, from its section where there is one."""
    if fields.has("sparse_attention_config"):
        section = fields.section("sparse_attention_config")
        return section.integer("sparse_num_index_heads", 4), section.integer("sparse_index_dim", 128)
    return fields.integer("index_n_heads", 4), fields.integer("index_head_dim", 128)


def _index(hidden: int, heads: int, width: int) -> Tensors:
    """Return the index, whole on every device: some heads of queries and one key, each with a norm."""
    return (
        *linear("self_attn.index_q_proj", heads * width, hidden, Cut.WHOLE),
        *linear("self_attn.index_k_proj", width, hidden, Cut.WHOLE),
        *norm("self_attn.index_q_norm", width),
        *norm("self_attn.index_k_norm", width),
    )


def _dense(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("dense_intermediate_size", 12288)
    return Dense(intermediate_size=width), gated_mlp(hidden, width)


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    count, width = fields.integer("num_local_experts", largest=LARGEST_EXPERTS), fields.integer("intermediate_size")
    shared = fields.integer("shared_intermediate_size", 3072) * fields.integer("n_shared_experts", 1, largest=64)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    return facts, (
        router(f"{BLOCK}.gate", count, hidden),
        correction(BLOCK, count),
        *routed_experts(count, hidden, width, prefix=BLOCK, names=("w1", "w3", "w2")),
        *gated_mlp(hidden, shared, prefix=f"{BLOCK}.shared_experts"),
    )
