"""T5Gemma: two Gemma 2 stacks, one that reads and one that writes, of the same or of different size.

Source: Zhang et al. 2025, arXiv:2504.06225; huggingface/transformers:src/transformers/models/t5gemma/, 5.23.0.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.layer_kind import CrossAttention, Dense, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    gated_mlp,
    grouped_query,
    linear,
    norm,
    window_tokens,
    windows,
)
from vramfit.readers.families.encoder import table
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

CLASSES = {"t5gemma": ("T5GemmaForConditionalGeneration",)}
VOCABULARY, HEAD_DIM, KV_HEADS, WINDOW_TOKENS = 256_000, 256, 4, 4096
"""Class defaults in transformers."""
NORMS = (
    "pre_self_attn_layernorm",
    "post_self_attn_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
CROSS_NORMS = ("pre_cross_attn_layernorm", "post_cross_attn_layernorm")


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a T5Gemma configuration: a section for each stack."""
    encoder, decoder = fields.section("encoder"), fields.section("decoder")
    read_width, width = encoder.integer("hidden_size"), decoder.integer("hidden_size")
    vocab = fields.integer("vocab_size", VOCABULARY, largest=LARGEST_VOCABULARY)
    tied = fields.flag("tie_word_embeddings", default=True, recorded=True)
    head = Tensor(name="lm_head.out_proj.weight", shape=(vocab, width), role=Role.HEAD, cut=Cut.VOCABULARY)
    part = Part(
        name="encoder",
        layers=_layers(encoder, None),
        layer_prefix="model.encoder.layers.{layer}.",
        tensors=(
            table("model.encoder.embed_tokens", vocab, read_width, Cut.VOCABULARY),
            *norm("model.encoder.norm", read_width),
        ),
        resident=True,
        encodes=True,
        hidden_size=read_width,
    )
    return ModelSpec(
        name=named.name,
        family="t5gemma",
        hidden_size=width,
        vocab_size=vocab,
        max_position_embeddings=encoder.optional("max_position_embeddings", largest=LARGEST_CONTEXT),
        embeddings=(table("model.decoder.embed_tokens", vocab, width, Cut.VOCABULARY),),
        layers=_layers(decoder, read_width),
        head=(*norm("model.decoder.norm", width), *(() if tied else (head,))),
        tied=tied,
        layer_prefix="model.decoder.layers.{layer}.",
        scheme=named.scheme,
        parts=(part,),
    )


def _layers(fields: Fields, source_width: int | None) -> tuple[Layer, ...]:
    """Return the blocks of one stack; those that look at the other one know its width."""
    hidden, count = fields.integer("hidden_size"), fields.num_layers
    per_layer = windows(fields, window_tokens(fields, WINDOW_TOKENS), tuple(i % 2 == 0 for i in range(count)))
    kinds = {window: _layer(fields, hidden, window, source_width) for window in dict.fromkeys(per_layer)}
    return tuple(kinds[window] for window in per_layer)


def _layer(fields: Fields, hidden: int, window: int | None, source_width: int | None) -> Layer:
    base = grouped_query(fields, hidden, window=window, default_dim=HEAD_DIM, default_kv=KV_HEADS)
    bias, width = fields.flag("attention_bias", default=False), fields.integer("intermediate_size")
    heads = (base.num_attention_heads, base.num_key_value_heads, base.head_dim)
    looks = () if source_width is None else _cross(base, hidden, source_width, bias=bias)
    facts = GroupedQuery(
        num_attention_heads=heads[0], num_key_value_heads=heads[1], head_dim=heads[2], window_tokens=window,
        causal=source_width is not None,
    )  # fmt: skip
    cross = CrossAttention(num_attention_heads=heads[0], num_key_value_heads=heads[1], head_dim=heads[2])
    return Layer(
        attention=facts,
        beside=None if source_width is None else cross,
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *block_norms(hidden, NORMS),
            *attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias),
            *looks,
            *gated_mlp(hidden, width),
        ),
    )


def _cross(facts: GroupedQuery, hidden: int, source_width: int, *, bias: bool) -> Tensors:
    """Return the attention to the encoder's output: keys and values are made of its width."""
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    return (
        *linear("cross_attn.q_proj", q, hidden, Cut.OUTPUTS, bias=bias),
        *linear("cross_attn.k_proj", kv, source_width, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear("cross_attn.v_proj", kv, source_width, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear("cross_attn.o_proj", hidden, q, Cut.INPUTS, bias=bias),
        *block_norms(hidden, CROSS_NORMS),
    )
