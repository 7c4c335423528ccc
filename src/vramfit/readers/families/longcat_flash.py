"""LongCat-Flash: two latent attentions and two networks in every layer, experts beside them, some of which do nothing.

Source: huggingface/transformers:src/transformers/models/longcat_flash/, 5.23.0; the prediction layer, which the file of
the chat model holds and transformers leaves there: vllm-project/vllm:vllm/model_executor/models/longcat_flash_mtp.py.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import FP32, Role
from vramfit.layer_kind import Dense, Experts, Latent
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    is_tied,
    norm,
    routed_experts,
)
from vramfit.readers.families.deepseek import latent, latent_tensors
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

PAIR = ("0", "1")


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a LongCat-Flash configuration."""
    hidden = fields.integer("hidden_size")
    facts = latent(fields, 0)
    width = fields.integer("ffn_hidden_size")
    experts, network = _experts(fields, hidden, width)
    attention = latent_tensors(fields, facts, hidden)
    norms = tuple(f"{name}.{i}" for name in ("input_layernorm", "post_attention_layernorm") for i in PAIR)
    layer = Layer(
        attention=facts,
        beside=facts,
        feed_forward=experts,
        tensors=(
            *block_norms(hidden, norms),
            *(replace(t, name=t.name.replace("self_attn.", f"self_attn.{i}.", 1)) for i in PAIR for t in attention),
            *(t for i in PAIR for t in gated_mlp(hidden, width, prefix=f"mlps.{i}")),
            *network,
        ),
    )
    count = fields.integer("num_layers", largest=LARGEST_LAYERS)
    parts = _prediction(fields, facts, hidden, width)
    return causal_model(fields, named, (layer,) * count, hidden_size=hidden, tied=is_tied(fields), parts=parts)


def _prediction(fields: Fields, facts: Latent, hidden: int, width: int) -> tuple[Part, ...]:
    """Return the prediction layers: one attention, one network, an embedding of their own."""
    count = fields.optional("num_nextn_predict_layers", smallest=0, largest=LARGEST_LAYERS) or 0
    if not count:
        return ()
    vocab = fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    layer = Layer(
        attention=facts,
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *norm("enorm.m", hidden),
            *norm("hnorm.m", hidden),
            Tensor(name="eh_proj.weight", shape=(hidden, 2 * hidden), role=Role.HEAD),
            *block_norms(hidden),
            *latent_tensors(fields, facts, hidden),
            *gated_mlp(hidden, width, prefix="transformer_layer.mlp"),
        ),
    )
    table = Tensor(name="model.mtp.embed_tokens.weight", shape=(vocab, hidden), role=Role.EMBEDDING, cut=Cut.VOCABULARY)
    return (
        Part(
            name="mtp", layers=(layer,) * count, layer_prefix="model.mtp.layers.{layer}.",
            tensors=(table, *norm("model.mtp.norm", hidden)), resident=False,
        ),
    )  # fmt: skip


def _experts(fields: Fields, hidden: int, width: int) -> tuple[Experts, Tensors]:
    """Return router and experts; a token's choices may fall on experts that hand it through, so fewer pass a matrix.

    ``width``: of the network that every token passes beside the experts, one of the two at a time.
    """
    count = fields.integer("n_routed_experts", largest=LARGEST_EXPERTS)
    idle = fields.integer("zero_expert_num", 256, largest=LARGEST_EXPERTS, smallest=0)
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("moe_topk", largest=count),
        moe_intermediate_size=fields.integer("expert_ffn_hidden_size"),
        shared_intermediate_size=width,
    )
    scores = Tensor(name="mlp.router.classifier.weight", shape=(count + idle, hidden), role=Role.ROUTER)
    bias = Tensor(
        name="mlp.router.e_score_correction_bias", shape=(count + idle,), role=Role.BIAS, stored=FP32, buffer=True
    )
    return facts, (scores, bias, *routed_experts(count, hidden, facts.moe_intermediate_size))
