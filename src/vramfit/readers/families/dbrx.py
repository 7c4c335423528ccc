"""DBRX: fused and clipped attention, layer norms without biases, all experts of a layer in three tensors.

Source: huggingface/transformers:src/transformers/models/dbrx/, 5.23.0.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.layer_kind import Experts, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, causal_model, linear, norm, router
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

SECTIONS = {"dbrx": ("attn_config", "ffn_config")}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a DBRX configuration."""
    hidden, heads = fields.integer("d_model"), fields.integer("n_heads")
    attention = fields.section("attn_config")
    facts = GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=attention.integer("kv_n_heads", 1, largest=heads),
        head_dim=hidden // heads,
    )
    experts, network = _experts(fields.section("ffn_config"), hidden)
    layer = Layer(attention=facts, feed_forward=experts, tensors=(*_attention(facts, hidden), *network))
    count = fields.integer("n_layers", largest=LARGEST_LAYERS)
    spec = causal_model(
        fields, named, (layer,) * count, hidden_size=hidden,
        tied=fields.flag("tie_word_embeddings", default=False), prefix="transformer.", embedding="wte",
        final_norm="norm_f",
    )  # fmt: skip
    longest = fields.optional("max_seq_len", largest=LARGEST_CONTEXT)
    return replace(spec, layer_prefix="transformer.blocks.{layer}.", max_position_embeddings=longest)


def _attention(facts: GroupedQuery, hidden: int) -> Tensors:
    at, rows = "norm_attn_norm", facts.num_attention_heads + 2 * facts.num_key_value_heads
    return (
        *norm(f"{at}.norm_1", hidden),
        *linear(f"{at}.attn.Wqkv", rows * facts.head_dim, hidden, Cut.QUERY_KEY_VALUE),
        *linear(f"{at}.attn.out_proj", hidden, facts.num_attention_heads * facts.head_dim, Cut.INPUTS),
        *norm(f"{at}.norm_2", hidden),
    )


def _experts(section: Fields, hidden: int) -> tuple[Experts, Tensors]:
    """Return the router and the experts, whose rows lie one expert after the other."""
    count = section.integer("moe_num_experts", largest=LARGEST_EXPERTS)
    width = section.integer("ffn_hidden_size")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=section.integer("moe_top_k", largest=count),
        moe_intermediate_size=width,
    )
    rows = tuple(
        Tensor(
            name=f"ffn.experts.mlp.{name}", shape=(count * width, hidden), role=Role.EXPERT, cut=Cut.OUTPUTS,
            experts=count,
        )
        for name in ("w1", "v1", "w2")
    )  # fmt: skip
    return facts, (router("ffn.router.layer", count, hidden), *rows)
