"""DeepSeek V2 and V3 (and Kimi K2, same shapes): latent attention, many small experts, multi-token prediction.

Source: huggingface/transformers:src/transformers/models/deepseek_v2/ and models/deepseek_v3/; the prediction
head's names: deepseek-ai/DeepSeek-V3:README_WEIGHTS.md.
"""

from __future__ import annotations

from vramfit.formats import FP32, Role
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    linear,
    norm,
    routed_experts,
    router,
)
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Dense, Experts, FeedForward, Latent, Layer, ModelSpec, Part, Tensor


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a DeepSeek V2, V3 or Kimi K2 configuration."""
    fields.refuse("index_topk", "adds a sparse-attention index (DeepSeek V3.2)")
    hidden = fields.integer("hidden_size")
    facts = _latent(fields)
    attention = (*block_norms(hidden), *_attention_tensors(fields, facts, hidden))
    kinds = {
        sparse: Layer(attention=facts, feed_forward=feed_forward, tensors=(*attention, *tensors))
        for sparse, (feed_forward, tensors) in ((s, _feed_forward(fields, hidden, sparse=s)) for s in _kinds(fields))
    }
    layers = tuple(kinds[_is_sparse(fields, i)] for i in range(fields.num_layers))
    tied = fields.flag("tie_word_embeddings", default=False)
    parts = _prediction(fields, hidden, kinds)
    return causal_model(fields, named, layers, hidden_size=hidden, tied=tied, parts=parts)


def _latent(fields: Fields) -> Latent:
    return Latent(
        num_attention_heads=fields.integer("num_attention_heads"),
        kv_lora_rank=fields.integer("kv_lora_rank"),
        qk_rope_head_dim=fields.integer("qk_rope_head_dim"),
        qk_nope_head_dim=fields.integer("qk_nope_head_dim"),
        v_head_dim=fields.integer("v_head_dim"),
        q_lora_rank=fields.optional("q_lora_rank"),
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
    """Say whether a layer has experts: from ``first_k_dense_replace`` on, every ``moe_layer_freq``-th."""
    if not fields.has("n_routed_experts"):
        return False
    first = fields.optional("first_k_dense_replace", largest=LARGEST_LAYERS, smallest=0) or 0
    every = fields.optional("moe_layer_freq", largest=LARGEST_LAYERS) or 1
    return layer >= first and layer % every == 0


def _kinds(fields: Fields) -> set[bool]:
    return {_is_sparse(fields, i) for i in range(fields.num_layers)}


def _feed_forward(fields: Fields, hidden: int, *, sparse: bool) -> tuple[FeedForward, Tensors]:
    if not sparse:
        width = fields.integer("intermediate_size")
        return Dense(intermediate_size=width), gated_mlp(hidden, width, bias=fields.flag("mlp_bias", default=False))
    count = fields.integer("n_routed_experts", largest=LARGEST_EXPERTS)
    width = fields.integer("moe_intermediate_size")
    shared = width * (fields.optional("n_shared_experts", smallest=0, largest=LARGEST_EXPERTS) or 0)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    correction = Tensor(
        name="mlp.gate.e_score_correction_bias", shape=(count,), role=Role.BIAS, stored=FP32, buffer=True
    )
    return facts, (
        router("mlp.gate", count, hidden),
        *((correction,) if _has_correction(fields) else ()),
        *routed_experts(count, hidden, width),
        *(gated_mlp(hidden, shared, prefix="mlp.shared_experts") if shared else ()),
    )


def _has_correction(fields: Fields) -> bool:
    """Say whether the router has a correction bias: V3 and its kin, unless ``topk_method`` says otherwise."""
    method = fields.text("topk_method")
    return method == "noaux_tc" if method is not None else fields.text("model_type") != "deepseek_v2"


def _prediction(fields: Fields, hidden: int, kinds: dict[bool, Layer]) -> tuple[Part, ...]:
    """Return the multi-token-prediction layers, which a plain load leaves on disk."""
    count = fields.optional("num_nextn_predict_layers", smallest=0, largest=LARGEST_LAYERS) or 0
    if not count or True not in kinds:
        return ()
    first, vocab = fields.num_layers, fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    tensors = tuple(t for i in range(count) for t in _prediction_tensors(f"model.layers.{first + i}.", hidden, vocab))
    return (
        Part(
            name="multi-token prediction",
            layers=(kinds[True],) * count,
            layer_prefix="model.layers.{layer}.",
            first_layer=first,
            tensors=tensors,
            resident=False,
        ),
    )


def _prediction_tensors(prefix: str, hidden: int, vocab: int) -> Tensors:
    return (
        Tensor(name=f"{prefix}embed_tokens.weight", shape=(vocab, hidden), role=Role.EMBEDDING),
        *norm(f"{prefix}enorm", hidden),
        *norm(f"{prefix}hnorm", hidden),
        Tensor(name=f"{prefix}eh_proj.weight", shape=(hidden, 2 * hidden), role=Role.HEAD),
        *norm(f"{prefix}shared_head.norm", hidden),
        Tensor(name=f"{prefix}shared_head.head.weight", shape=(vocab, hidden), role=Role.HEAD),
    )
