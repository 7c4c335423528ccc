"""DeepSeek V2 and V3 (and Kimi K2, same shapes): latent attention, many small experts, multi-token prediction.

Source: huggingface/transformers:src/transformers/models/deepseek_v2/ and models/deepseek_v3/; the prediction
head's names: deepseek-ai/DeepSeek-V3:README_WEIGHTS.md. Where transformers' class defaults and those of the code
published with the models differ (``first_k_dense_replace``, ``n_shared_experts``), an absent field is refused.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import FP32, Role
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
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Dense, Experts, FeedForward, Latent, Layer, ModelSpec, Part, Tensor

Q_LORA_RANK = 1536
"""Class default in transformers and in the published code, V2 and V3 alike."""
CHOICES = {"greedy": False, "group_limited_greedy": False, "noaux_tc": True}
"""``topk_method`` -> whether the router has a correction bias."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a DeepSeek V2, V3 or Kimi K2 configuration."""
    for name in ("index_topk", "index_n_heads", "index_head_dim"):
        fields.refuse(name, "adds a sparse-attention index (DeepSeek V3.2)")
    fields.refuse("mlp_bias", "adds biases that the published code does not have")
    hidden = fields.integer("hidden_size")
    facts = _latent(fields)
    attention = (*block_norms(hidden), *_attention_tensors(fields, facts, hidden))
    sparse = tuple(_is_sparse(fields, i) for i in range(fields.num_layers))
    kinds = {}
    for kind in dict.fromkeys(sparse):
        feed_forward, tensors = _experts(fields, hidden) if kind else _dense(fields, hidden)
        kinds[kind] = Layer(attention=facts, feed_forward=feed_forward, tensors=(*attention, *tensors))
    layers = tuple(kinds[kind] for kind in sparse)
    parts = _prediction(fields, hidden, kinds.get(True))
    return causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields), parts=parts)


def _latent(fields: Fields) -> Latent:
    absent = fields.absent("q_lora_rank")
    return Latent(
        num_attention_heads=fields.integer("num_attention_heads"),
        kv_lora_rank=fields.integer("kv_lora_rank"),
        qk_rope_head_dim=fields.integer("qk_rope_head_dim"),
        qk_nope_head_dim=fields.integer("qk_nope_head_dim"),
        v_head_dim=fields.integer("v_head_dim"),
        q_lora_rank=fields.integer("q_lora_rank", Q_LORA_RANK) if absent else fields.optional("q_lora_rank"),
    )


def _attention_tensors(fields: Fields, facts: Latent, hidden: int) -> Tensors:
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


def _is_sparse(fields: Fields, layer: int) -> bool:
    """Say whether a layer has experts: from ``first_k_dense_replace`` on, every ``moe_layer_freq``-th.

    transformers ignores ``moe_layer_freq``, which is 1 in all published models; their own code and vLLM read it.
    """
    default = 0 if fields.text("model_type") == "deepseek_v2" else None
    first = fields.integer("first_k_dense_replace", default, largest=LARGEST_LAYERS, smallest=0)
    every = fields.optional("moe_layer_freq", largest=LARGEST_LAYERS) or 1
    return layer >= first and layer % every == 0


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
        *routed_experts(count, hidden, width),
        *(gated_mlp(hidden, shared, prefix="mlp.shared_experts") if shared else ()),
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
        return fields.text("model_type") != "deepseek_v2"
    if method not in CHOICES:
        raise InvalidValueError(fields.at("topk_method"), method, f"one of {', '.join(CHOICES)}")
    return CHOICES[method]


def _prediction(fields: Fields, hidden: int, layer: Layer | None) -> tuple[Part, ...]:
    """Return the multi-token-prediction layers, which a plain load leaves on disk."""
    name = "num_nextn_predict_layers" if fields.has("num_nextn_predict_layers") else "num_mtp_layers"
    count = fields.optional(name, smallest=0, largest=LARGEST_LAYERS) or 0
    if not count or layer is None:
        return ()
    first, vocab = fields.num_layers, fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    tensors = tuple(t for i in range(count) for t in _prediction_tensors(f"model.layers.{first + i}.", hidden, vocab))
    return (
        Part(
            name="mtp",
            layers=(layer,) * count,
            layer_prefix="model.layers.{layer}.",
            first_layer=first,
            tensors=tensors,
            resident=False,
        ),
    )


def _prediction_tensors(prefix: str, hidden: int, vocab: int) -> Tensors:
    """Return what a prediction layer has beside its block; published files keep all of it in 16 bit."""
    return (
        Tensor(name=f"{prefix}embed_tokens.weight", shape=(vocab, hidden), role=Role.EMBEDDING, cut=Cut.VOCABULARY),
        *norm(f"{prefix}enorm", hidden),
        *norm(f"{prefix}hnorm", hidden),
        Tensor(name=f"{prefix}eh_proj.weight", shape=(hidden, 2 * hidden), role=Role.HEAD),
        *norm(f"{prefix}shared_head.norm", hidden),
        Tensor(name=f"{prefix}shared_head.head.weight", shape=(vocab, hidden), role=Role.HEAD, cut=Cut.VOCABULARY),
    )
