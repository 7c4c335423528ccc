"""MiniMax Text-01 and M1: seven layers of lightning attention to one of softmax attention, experts in all.

Source: huggingface/transformers:src/transformers/models/minimax/, 5.23.0; the names of ``minimax_text_01`` and
``minimax_m1``: vllm-project/vllm:vllm/model_executor/models/minimax_text_01.py.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role, StorageFormat
from vramfit.layer_kind import Attention, Experts, FeedForward
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    grouped_query,
    is_tied,
    linear,
    routed_experts,
    router,
)
from vramfit.readers.families.state_space import lightning_facts
from vramfit.readers.fields import LARGEST_EXPERTS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

KEY_VALUE_HEADS = 8
BLOCK = 256
"""Class defaults in transformers; BLOCK is the number of tokens that lightning attention takes at once."""
CLASSES = {
    "minimax": ("MiniMaxForCausalLM",),
    "minimax_text_01": ("MiniMaxText01ForCausalLM",),
    "minimax_m1": ("MiniMaxM1ForCausalLM", "MiniMaxText01ForCausalLM"),
}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a MiniMax configuration."""
    fields.refuse("sliding_window", "a window that no published model has")
    if fields.optional("shared_intermediate_size", smallest=0):
        fields.refuse("shared_intermediate_size", "a shared expert that no published model has")
    hidden = fields.integer("hidden_size")
    feed_forward, network = _experts(fields, hidden)
    attends = _attends(fields)
    kinds: dict[bool, Layer] = {}
    for full in dict.fromkeys(attends):
        mixer, mixing = _softmax(fields, hidden) if full else _lightning(fields, hidden, named.scheme.plain)
        tensors = (*block_norms(hidden), *mixing, *network)
        kinds[full] = Layer(attention=mixer, feed_forward=feed_forward, tensors=tensors)
    layers = tuple(kinds[full] for full in attends)
    return causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields))


def _attends(fields: Fields) -> tuple[bool, ...]:
    """Say of each layer whether it has softmax attention: ``layer_types``, or ones in ``attn_type_list``."""
    num = fields.num_layers
    told = fields.layers_with("full_attention", "linear_attention")
    if told is not None:
        return told
    name = "attn_type_list"
    listed = fields.values.get(name)
    if listed is None and fields.text("model_type") == "minimax":
        fields.assume("layer_types", "full_attention, linear_attention in turns")
        return tuple(i % 2 == 0 for i in range(num))
    if not isinstance(listed, list) or len(listed) != num or any(entry not in (0, 1) for entry in listed):
        raise InvalidValueError(
            fields.at(name), listed, f"{num} zeros and ones (1 = softmax attention), or layer_types"
        )
    return tuple(entry == 1 for entry in listed)


def _softmax(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    facts = grouped_query(fields, hidden, default_kv=KEY_VALUE_HEADS)
    return facts, attention_tensors(facts, hidden)


def _lightning(fields: Fields, hidden: int, plain: StorageFormat) -> tuple[Attention, Tensors]:
    """Return lightning attention with its gate and, in transformers' files, its decays."""
    same = grouped_query(fields, hidden, default_kv=KEY_VALUE_HEADS)
    heads, head = same.num_attention_heads, same.head_dim
    width = heads * head
    return lightning_facts(same, plain), (
        *linear("self_attn.qkv_proj", 3 * width, hidden, Cut.OUTPUTS),
        Tensor(name="self_attn.norm.weight", shape=(width,), role=Role.NORM, cut=Cut.OUTPUTS),
        *linear("self_attn.out_proj", hidden, width, Cut.INPUTS),
        *linear("self_attn.output_gate", width, hidden, Cut.OUTPUTS),
        *(_decays(fields, heads) if fields.text("model_type") == "minimax" else ()),
    )


def _decays(fields: Fields, heads: int) -> Tensors:
    """Return the decays that transformers works out beforehand for one block of tokens: buffers, yet in its files."""
    block = fields.integer("block_size", BLOCK)
    shapes = {
        "slope_rate": (heads, 1, 1),
        "query_decay": (heads, block, 1),
        "key_decay": (heads, block, 1),
        "diagonal_decay": (1, heads, block, block),
    }
    return tuple(
        Tensor(name=f"self_attn.{name}", shape=shape, role=Role.STATE, buffer=True) for name, shape in shapes.items()
    )


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    count, width = fields.integer("num_local_experts", 8, largest=LARGEST_EXPERTS), fields.integer("intermediate_size")
    chosen = fields.integer("num_experts_per_tok", 2, largest=count)
    return Experts(num_experts=count, num_experts_per_tok=chosen, moe_intermediate_size=width), (
        router("block_sparse_moe.gate", count, hidden),
        *routed_experts(count, hidden, width, prefix="block_sparse_moe", names=("w1", "w3", "w2")),
    )
