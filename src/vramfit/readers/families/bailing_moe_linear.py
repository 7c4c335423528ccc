"""Ring-linear 2.0: lightning attention with grouped-query attention at the end of each group, experts above.

Source: vllm-project/vllm@055e47c:vllm/model_executor/models/bailing_moe_linear.py and layers/mamba/linear/; field and
tensor names as ml-explore/mlx-lm:mlx_lm/models/bailing_moe_linear.py reads them from inclusionAI/Ring-mini-linear-2.0.
"""

from __future__ import annotations

from vramfit.formats import FP32, Role, StorageFormat
from vramfit.layer_kind import Attention, Dense, Experts, FeedForward
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
from vramfit.readers.families.state_space import lightning_facts
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Ring-linear 2.0 configuration."""
    for name in ("use_bias", "use_qkv_bias", "kv_lora_rank"):
        fields.refuse(name, "biases or latent attention that no Ring-linear 2.0 has")
    hidden, num = fields.integer("hidden_size"), fields.num_layers
    group = fields.integer("layer_group_size", largest=LARGEST_LAYERS)
    first = fields.integer("first_k_dense_replace", largest=LARGEST_LAYERS, smallest=0)
    keys = tuple(((i + 1) % group == 0, i >= first) for i in range(num))
    kinds: dict[tuple[bool, bool], Layer] = {}
    for full, sparse in dict.fromkeys(keys):
        mixer, mixing = _softmax(fields, hidden) if full else _lightning(fields, hidden, named.scheme.plain)
        feed_forward, network = _experts(fields, hidden) if sparse else _dense(fields, hidden)
        tensors = (*block_norms(hidden), *mixing, *network)
        kinds[full, sparse] = Layer(attention=mixer, feed_forward=feed_forward, tensors=tensors)
    layers = tuple(kinds[key] for key in keys)
    return causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields), embedding="word_embeddings")


def _softmax(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    facts = grouped_query(fields, hidden)
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    return facts, (
        *linear("attention.query_key_value", q + 2 * kv, hidden, Cut.QUERY_KEY_VALUE),
        *linear("attention.dense", hidden, q, Cut.INPUTS),
        *_norms(fields, facts.head_dim),
    )


def _lightning(fields: Fields, hidden: int, plain: StorageFormat) -> tuple[Attention, Tensors]:
    """Return lightning attention, whose keys and values have as many heads as its queries."""
    same = grouped_query(fields, hidden)
    heads, head = same.num_attention_heads, same.head_dim
    width = heads * head
    return lightning_facts(same, plain), (
        *linear("attention.query_key_value", 3 * width, hidden, Cut.OUTPUTS),
        *linear("attention.dense", hidden, width, Cut.INPUTS),
        *linear("attention.g_proj", width, hidden, Cut.OUTPUTS),
        Tensor(name="attention.g_norm.weight", shape=(width,), role=Role.NORM, cut=Cut.OUTPUTS),
        *_norms(fields, head),
    )


def _norms(fields: Fields, head: int) -> Tensors:
    if not fields.flag("use_qk_norm", default=False, recorded=True):
        return ()
    return (*norm("attention.query_layernorm", head), *norm("attention.key_layernorm", head))


def _dense(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    return Dense(intermediate_size=width), gated_mlp(hidden, width)


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    """Return router, its correction where asked, routed experts and the shared ones."""
    count, width = fields.integer("num_experts", largest=LARGEST_EXPERTS), fields.integer("moe_intermediate_size")
    num_shared = fields.integer("num_shared_experts", smallest=0, largest=LARGEST_EXPERTS)
    shared = num_shared * (fields.optional("moe_shared_expert_intermediate_size") or width)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    bias = Tensor(name="mlp.gate.expert_bias", shape=(count,), role=Role.BIAS, stored=FP32, buffer=True)
    return facts, (
        router("mlp.gate", count, hidden),
        *((bias,) if fields.flag("moe_router_enable_expert_bias", default=False) else ()),
        *routed_experts(count, hidden, width),
        *(gated_mlp(hidden, shared, prefix="mlp.shared_experts") if shared else ()),
    )
