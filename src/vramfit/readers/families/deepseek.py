"""DeepSeek V2 to V3.2, Kimi K2, GLM-4.7-Flash, GLM-5, A.X-K1, Mistral 4, MiniCPM 3 and Youtu: latent attention.

Most have many small experts, some a sparse index.
Source: huggingface/transformers:src/transformers/models/ deepseek_v2/, deepseek_v3/, deepseek_v32/, glm4_moe_lite/,
glm_moe_dsa/, axk1/, mistral4/, minicpm3/ and youtu/. Where transformers' class defaults and those of the code
published with the models differ (``first_k_dense_replace``, ``n_shared_experts``), an absent field is refused.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import FP32, Role
from vramfit.layer_kind import Dense, Experts, FeedForward, Latent
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
from vramfit.readers.families.prediction import prediction
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

Q_LORA_RANK = 1536
"""Class default in transformers and in the published code, V2 and V3 alike."""
INDEXED = {"axk2": 128, "deepseek_v32": 128, "glm_moe_dsa": 128, "hy_v4": 128}
"""Families with a sparse-attention index -> class default of ``index_head_dim``."""
INDEX_HEADS = {"axk2": 16, "deepseek_v32": 64, "glm_moe_dsa": 32, "hy_v4": 16}
"""Class default of ``index_n_heads``."""
FIRST_DENSE = {
    "axk1": 1, "axk2": 1, "deepseek_v2": 0, "deepseek_v32": 3, "glm4_moe_lite": 1, "glm_moe_dsa": 3, "hy_v4": 1,
    "mistral4": 0,
}  # fmt: skip
"""Class default of ``first_k_dense_replace``, where transformers' and the published code agree."""
ALL_DENSE = ("minicpm3", "youtu")
"""Families without experts; tied, like the class default."""
FUSED = ("hy_v4", "mistral4")
"""Families with all experts of a layer in two tensors."""
NO_CORRECTION = ("deepseek_v2", "mistral4")
"""Families whose router has no correction bias where ``topk_method`` says nothing."""
RANKS = {"axk2": 384, "minicpm3": 768, "mistral4": 1024}
"""Class default of ``q_lora_rank`` where it is not the usual one."""
CHOICES = {"greedy": False, "group_limited_greedy": False, "noaux_tc": True}
"""``topk_method`` -> whether the router has a correction bias."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of these families."""
    kind = fields.text("model_type") or ""
    if kind not in INDEXED:
        for name in ("index_topk", "index_n_heads", "index_head_dim"):
            fields.refuse(name, "adds a sparse-attention index (deepseek_v32)")
    fields.refuse("mlp_bias", "adds biases that the published code does not have")
    hidden = fields.integer("hidden_size")
    per_layer = tuple(zip(_sparse(fields), _has_index(fields, kind), strict=True))
    last = (True, kind in INDEXED)  # a prediction layer has experts, and an index of its own
    kinds: dict[tuple[bool, bool], Layer] = {}
    for sparse, index in dict.fromkeys((*per_layer, last) if any(x for x, _ in per_layer) else per_layer):
        facts = latent(fields, INDEXED[kind] if index else 0)
        feed_forward, network = _experts(fields, hidden) if sparse else _dense(fields, hidden)
        attention = (*latent_tensors(fields, facts, hidden), *(_index(fields, facts, hidden) if index else ()))
        more = block_norms(hidden, ("post_mlp_layernorm",)) if kind == "axk1" and sparse else ()
        tensors = (*block_norms(hidden), *more, *attention, *network)
        kinds[sparse, index] = Layer(attention=facts, feed_forward=feed_forward, tensors=tensors)
    layers = tuple(kinds[key] for key in per_layer)
    parts = prediction(fields, hidden, kinds.get(last))
    return causal_model(
        fields, named, layers, hidden_size=hidden, tied=is_tied(fields, default=kind in ALL_DENSE), parts=parts
    )


def latent(fields: Fields, index_head_dim: int) -> Latent:
    """Return the facts of latent attention; ``index_head_dim``: class default, 0 = the layer has no index."""
    absent, kind = fields.absent("q_lora_rank"), fields.text("model_type") or ""
    heads = fields.integer("num_attention_heads")
    values = fields.integer("hidden_size") // heads if kind == "minicpm3" else None
    return Latent(
        num_attention_heads=heads,
        kv_lora_rank=fields.integer("kv_lora_rank"),
        qk_rope_head_dim=fields.integer("qk_rope_head_dim"),
        qk_nope_head_dim=fields.integer("qk_nope_head_dim"),
        v_head_dim=fields.integer("v_head_dim", values),
        q_lora_rank=fields.integer("q_lora_rank", RANKS.get(kind, Q_LORA_RANK))
        if absent
        else fields.optional("q_lora_rank"),
        index_head_dim=fields.integer("index_head_dim", index_head_dim) if index_head_dim else 0,
    )


def _value_width(fields: Fields, heads: int) -> int:
    """Return the width of a value vector; MiniCPM3's file leaves it to hidden size over heads."""
    if fields.text("model_type") == "minicpm3" and not fields.has("v_head_dim"):
        return fields.integer("hidden_size") // heads
    return fields.integer("v_head_dim")


def _has_index(fields: Fields, kind: str) -> tuple[bool, ...]:
    """Say of each layer whether it runs an index; ``shared`` layers of GLM-5.2 take over an earlier choice."""
    num = fields.num_layers
    if kind not in INDEXED:
        return (False,) * num
    for name in ("index_topk_pattern", "index_topk_freq"):
        if not fields.has("indexer_types") and fields.values.get(name) != 1:
            fields.refuse(name, "says which layers share an index, and indexer_types does not")
    words = fields.words("indexer_types", ("full", "shared"), num) or ("full",) * num
    return tuple(word == "full" for word in words)


def _index(fields: Fields, facts: Latent, hidden: int) -> Tensors:
    """Return the sparse-attention index, whole on every device: it scores all earlier tokens by one narrow key each."""
    if facts.q_lora_rank is None:
        raise InvalidValueError(fields.at("q_lora_rank"), None, "an integer: the index reads the compressed query")
    heads = fields.integer("index_n_heads", INDEX_HEADS[fields.text("model_type") or ""])
    width = facts.index_head_dim
    return (
        *linear("self_attn.indexer.wq_b", heads * width, facts.q_lora_rank, Cut.WHOLE),
        *linear("self_attn.indexer.wk", width, hidden, Cut.WHOLE),
        *norm("self_attn.indexer.k_norm", width, bias=True),
        *linear("self_attn.indexer.weights_proj", heads, hidden, Cut.WHOLE),
    )


def latent_tensors(fields: Fields, facts: Latent, hidden: int) -> Tensors:
    """Return the projections: those down to a rank are whole on every device, those up are divided by heads."""
    bias = fields.flag("attention_bias", default=False)
    heads, rank = facts.num_attention_heads, facts.q_lora_rank
    query = heads * (facts.qk_nope_head_dim + facts.qk_rope_head_dim)
    if rank is None:
        into = linear("self_attn.q_proj", query, hidden, Cut.OUTPUTS)
    else:
        into = (
            *linear("self_attn.q_a_proj", rank, hidden, Cut.WHOLE, bias=bias),
            *norm("self_attn.q_a_layernorm", rank),
            *linear("self_attn.q_b_proj", query, rank, Cut.OUTPUTS),
        )
    kv = heads * (facts.qk_nope_head_dim + facts.v_head_dim)
    down = facts.kv_lora_rank + facts.qk_rope_head_dim
    return (
        *into,
        *linear("self_attn.kv_a_proj_with_mqa", down, hidden, Cut.WHOLE, bias=bias),
        *norm("self_attn.kv_a_layernorm", facts.kv_lora_rank),
        *linear("self_attn.kv_b_proj", kv, facts.kv_lora_rank, Cut.OUTPUTS),
        *linear("self_attn.o_proj", hidden, heads * facts.v_head_dim, Cut.INPUTS, bias=bias),
    )


def _sparse(fields: Fields) -> tuple[bool, ...]:
    """Say which layers have experts: ``mlp_layer_types``, else from ``first_k_dense_replace`` on each so-manieth.

    transformers ignores ``moe_layer_freq``, which is 1 in all published models; their own code and vLLM read it.
    """
    num = fields.num_layers
    if fields.text("model_type") in ALL_DENSE:
        return (False,) * num
    told = fields.layers_with("sparse", "dense", "mlp_layer_types")
    if told is not None:
        return told
    default = FIRST_DENSE.get(fields.text("model_type") or "")
    first = fields.integer("first_k_dense_replace", default, largest=LARGEST_LAYERS, smallest=0)
    every = fields.optional("moe_layer_freq", largest=LARGEST_LAYERS) or 1
    return tuple(i >= first and i % every == 0 for i in range(num))


def _dense(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    return Dense(intermediate_size=width), gated_mlp(hidden, width)


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    """Return router, routed experts and the shared ones, which are stored as one network."""
    count = fields.integer("n_routed_experts", largest=LARGEST_EXPERTS)
    width = fields.integer("moe_intermediate_size")
    shared = width * _num_shared(fields)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    return facts, (
        router("mlp.gate", count, hidden),
        *((correction("mlp.gate", count),) if _has_correction(fields) else ()),
        *(_fused(count, hidden, width) if fields.text("model_type") in FUSED else routed_experts(count, hidden, width)),
        *(gated_mlp(hidden, shared, prefix="mlp.shared_experts") if shared else ()),
    )


def _fused(count: int, hidden: int, width: int) -> Tensors:
    """Return experts in two tensors: gate and up projections of all in one tensor, down projections too."""
    into, back = (count, 2 * width, hidden), (count, hidden, width)
    return (
        Tensor(name="mlp.experts.gate_up_proj", shape=into, role=Role.EXPERT, cut=Cut.SECOND, experts=count),
        Tensor(name="mlp.experts.down_proj", shape=back, role=Role.EXPERT, cut=Cut.INPUTS, experts=count),
    )


def _num_shared(fields: Fields) -> int:
    """Return the number of shared experts; null means none, absent is refused."""
    name = "n_shared_experts"
    if fields.absent(name):
        return fields.integer(name)
    return fields.optional(name, smallest=0, largest=LARGEST_EXPERTS) or 0


def correction(name: str, num_experts: int) -> Tensor:
    """Return the bias that balances the load between experts: a buffer, kept in fp32 whatever the recipe."""
    return Tensor(
        name=f"{name}.e_score_correction_bias", shape=(num_experts,), role=Role.BIAS, stored=FP32, buffer=True
    )


def _has_correction(fields: Fields) -> bool:
    """Say whether the router has a correction bias: V3 and its kin, unless ``topk_method`` says otherwise."""
    method = fields.text("topk_method")
    if method is None:
        return fields.text("model_type") not in NO_CORRECTION
    if method not in CHOICES:
        raise InvalidValueError(fields.at("topk_method"), method, f"one of {', '.join(CHOICES)}")
    return CHOICES[method]
