"""JetMoE: a mixture of attentions, whose experts hold queries and outputs, and a mixture of networks.

Source: huggingface/transformers:src/transformers/models/jetmoe/, 5.23.0.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Experts, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, block_norms, causal_model, is_tied, linear, router
from vramfit.readers.fields import LARGEST_EXPERTS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a JetMoE configuration; a token's heads are the KV heads once for each expert it goes to."""
    hidden, kv = fields.integer("hidden_size"), fields.integer("num_key_value_heads")
    count = fields.integer("num_local_experts", largest=LARGEST_EXPERTS)
    chosen = fields.integer("num_experts_per_tok", largest=count)
    facts = GroupedQuery(
        num_attention_heads=kv * chosen, num_key_value_heads=kv, head_dim=fields.integer("kv_channels", 128)
    )
    if fields.optional("num_attention_heads") not in {None, kv * chosen}:
        found = fields.values["num_attention_heads"]
        raise InvalidValueError(
            fields.at("num_attention_heads"), found, f"KV heads x experts per token ({kv * chosen})"
        )
    width = fields.integer("intermediate_size")
    layer = Layer(
        attention=facts,
        feed_forward=Experts(num_experts=count, num_experts_per_tok=chosen, moe_intermediate_size=width),
        tensors=(
            *block_norms(hidden),
            *_experts("self_attention.experts", count, kv * facts.head_dim, kv * facts.head_dim, hidden),
            *linear("self_attention.kv_proj", 2 * kv * facts.head_dim, hidden, Cut.KEY_VALUE_HEADS),
            *_experts("mlp", count, 2 * width, width, hidden),
        ),
    )
    tied = is_tied(fields, default=True)
    return causal_model(fields, named, (layer,) * fields.num_layers, hidden_size=hidden, tied=tied)


def _experts(name: str, count: int, into: int, back: int, hidden: int) -> Tensors:
    """Return the router and what all experts share: one tensor into them, one out of them, one bias after the sum."""
    return (
        router(f"{name}.router.layer", count, hidden),
        Tensor(
            name=f"{name}.input_linear.weight", shape=(count, into, hidden), role=Role.EXPERT, cut=Cut.SECOND,
            experts=count,
        ),
        Tensor(
            name=f"{name}.output_linear.weight", shape=(count, hidden, back), role=Role.EXPERT, cut=Cut.INPUTS,
            experts=count,
        ),
        Tensor(name=f"{name}.bias", shape=(hidden,), role=Role.BIAS),
    )  # fmt: skip
