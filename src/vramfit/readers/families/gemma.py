"""Gemma 2 and 3: four norms a block, sliding and global layers, tied embeddings; Gemma 3 with its vision tower.

Source: huggingface/transformers:src/transformers/models/gemma2/, models/gemma3/, models/siglip/.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    head_dim,
    is_tied,
    kv_heads,
    norm,
    windows,
)
from vramfit.readers.families.vision import siglip
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, Fields
from vramfit.spec import Layer, ModelSpec, Part, Tensor

SECTIONS = {"gemma3": ("text_config", "vision_config")}
NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
WINDOW_TOKENS, HEAD_DIM, KV_HEADS, HIDDEN_SIZE, NUM_LAYERS = 4096, 256, 4, 2304, 26
VOCABULARY_2, VOCABULARY = 256_000, 262_208
PATTERN = 6
"""Class defaults in transformers; Gemma 3 has one global layer in six."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Gemma 2 or 3 configuration; the multimodal ones nest text and vision."""
    kind = fields.text("model_type")
    if kind != "gemma3":
        third = kind == "gemma3_text"
        return _text(fields, named, "model.", third=third, tied=is_tied(fields, default=True), parts=())
    text = fields.section("text_config")
    tied = is_tied(fields if fields.has("tie_word_embeddings") else text, default=True)
    vision = (
        fields.section("vision_config") if fields.has("vision_config") else Fields({}, "vision_config", fields.assumed)
    )
    parts = (_vision(vision, text.integer("hidden_size", HIDDEN_SIZE)),)
    return _text(text, named, "language_model.model.", third=True, tied=tied, parts=parts)


def _text(fields: Fields, named: Named, prefix: str, *, third: bool, tied: bool, parts: tuple[Part, ...]) -> ModelSpec:
    """Read the language model; ``third`` = Gemma 3: norms on queries and keys, five sliding layers to one."""
    if prefix != "model." or not third or not _is_bare(fields):
        fields.refuse("use_bidirectional_attention", "makes an encoder of it (EmbeddingGemma, Gemma3TextModel)")
    causal = not fields.flag("use_bidirectional_attention", default=False)
    hidden, width = fields.integer("hidden_size", HIDDEN_SIZE), fields.integer("intermediate_size", 9216)
    heads = fields.integer("num_attention_heads", 8)
    bias = fields.flag("attention_bias", default=False)
    kv = kv_heads(fields, heads, KV_HEADS)
    per_layer, kinds = _windows(fields, third=third), {}
    for window in dict.fromkeys(per_layer):
        facts = GroupedQuery(
            num_attention_heads=heads,
            num_key_value_heads=kv,
            head_dim=head_dim(fields, hidden, heads, HEAD_DIM),
            window_tokens=window,
            causal=causal,
        )
        tensors = (
            *block_norms(hidden, NORMS),
            *attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias, qk_norm=third),
            *gated_mlp(hidden, width),
        )
        kinds[window] = Layer(attention=facts, feed_forward=Dense(intermediate_size=width), tensors=tensors)
    return causal_model(
        fields,
        named,
        tuple(kinds[w] for w in per_layer),
        hidden_size=hidden,
        tied=tied,
        prefix=prefix,
        head_name="lm_head" if prefix == "model." else "language_model.lm_head",
        vocab_default=VOCABULARY if third else VOCABULARY_2,
        parts=parts,
    )


def _is_bare(fields: Fields) -> bool:
    """Say whether the class is the one without an output projection."""
    named = fields.values.get("architectures")
    return isinstance(named, list) and named[:1] == ["Gemma3TextModel"]


def _windows(fields: Fields, *, third: bool) -> tuple[int | None, ...]:
    """Gemma 2 slides in every other layer, Gemma 3 in all but every sixth."""
    window = fields.integer("sliding_window", WINDOW_TOKENS, largest=LARGEST_CONTEXT)
    every = 2
    if third:
        name = "sliding_window_pattern" if fields.has("sliding_window_pattern") else "_sliding_window_pattern"
        every = fields.integer(name, largest=LARGEST_LAYERS) if fields.has(name) else PATTERN
    num_layers = fields.integer("num_hidden_layers", NUM_LAYERS, largest=LARGEST_LAYERS)
    return windows(fields, window, tuple((i + 1) % every != 0 for i in range(num_layers)))


def _vision(fields: Fields, text_hidden: int) -> Part:
    """Read the SigLIP tower and the projector to the language model's width."""
    if fields.text("model_type") not in {None, "siglip_vision_model"}:
        fields.refuse("model_type", "another vision tower than SigLIP")
    hidden = fields.integer("hidden_size", 768)
    tower = siglip(fields, "vision_tower.vision_model.")
    joint = (
        Tensor(name="multi_modal_projector.mm_input_projection_weight", shape=(hidden, text_hidden), role=Role.LINEAR),
        *norm("multi_modal_projector.mm_soft_emb_norm", hidden),
    )
    return replace(tower, tensors=(*tower.tensors, *joint))
