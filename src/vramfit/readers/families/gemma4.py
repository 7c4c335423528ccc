"""Gemma 4: global layers with heads of another width, keys that are values too, experts beside a network.

A layer whose keys are its values (``attention_k_eq_v``) has one matrix for both and still caches two vectors: the key
is rotated, the value is not.

Source: huggingface/transformers:src/transformers/models/gemma4/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.formats import Role
from vramfit.layer_kind import Dense, Experts, FeedForward, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    is_tied,
    kv_heads,
    norm,
    router,
    windows,
)
from vramfit.readers.families.gemma import NORMS
from vramfit.readers.families.gemma3n import layer_input, layer_tables, projections, shares, unread
from vramfit.readers.families.gemma_towers import with_towers
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

SECTIONS = dict.fromkeys(("gemma4", "gemma4_unified"), ("text_config", "vision_config", "audio_config"))
UNIFIED = {"hidden_size_per_layer_input": 0, "enable_moe_block": False}
"""What the 12B model of one stream for text, images and sound never has, whatever the file says."""
HIDDEN_SIZE, NUM_LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, GLOBAL_HEAD_DIM = 2304, 30, 9216, 8, 4, 256, 512
WINDOW_TOKENS, UNIFIED_WINDOW_TOKENS, PATTERN, VOCABULARY = 512, 1024, 6, 262_144
"""Class defaults in transformers; one layer in six is global, and the last one always."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What distinguishes the layers of one model."""

    window: int | None
    shared: bool
    """True: reads the cache of an earlier layer of its kind, and makes no keys and values."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Gemma 4 configuration; the multimodal one nests text, vision and audio."""
    kind, tied = fields.text("model_type") or "", is_tied(fields, default=True)
    unified = kind.startswith("gemma4_unified")
    text = fields if kind.endswith("_text") else fields.section("text_config")
    if unified:
        text = Fields({**text.values, **UNIFIED}, text.path, text.assumed)
    spec = _text(text, named, tied=tied, window=UNIFIED_WINDOW_TOKENS if unified else WINDOW_TOKENS)
    return spec if kind.endswith("_text") else with_towers(fields, spec)


def _text(fields: Fields, named: Named, *, tied: bool, window: int) -> ModelSpec:
    if fields.text("use_bidirectional_attention") == "all":
        fields.refuse("use_bidirectional_attention", "makes an encoder of it")
    fields.refuse("per_layer_config", "facts of single layers")
    hidden, places = fields.integer("hidden_size", HIDDEN_SIZE), _places(fields, window)
    kinds = {place: _layer(fields, hidden, place) for place in dict.fromkeys(places)}
    layers = tuple(kinds[place] for place in places)
    spec = causal_model(fields, named, layers, hidden_size=hidden, tied=tied, vocab_default=VOCABULARY)
    return replace(
        spec,
        embeddings=(*spec.embeddings, *layer_tables(fields, hidden, len(layers))),
        parts=unread(fields, layers, hidden),
    )


def _places(fields: Fields, default: int) -> tuple[Place, ...]:
    num = fields.integer("num_hidden_layers", NUM_LAYERS, largest=LARGEST_LAYERS)
    window = fields.integer("sliding_window", default, largest=LARGEST_CONTEXT)
    per_layer = (*windows(fields, window, tuple((i + 1) % PATTERN != 0 for i in range(num)))[:-1], None)
    shared = shares(fields, per_layer, 0)
    return tuple(Place(window=w, shared=s) for w, s in zip(per_layer, shared, strict=True))


def _layer(fields: Fields, hidden: int, place: Place) -> Layer:
    facts = _attention(fields, place)
    bias = fields.flag("attention_bias", default=False)
    keys_are_values = place.window is None and fields.flag("attention_k_eq_v", default=False)
    feed_forward, network = _network(fields, hidden, place)
    return Layer(
        attention=facts,
        feed_forward=feed_forward,
        tensors=(
            Tensor(name="layer_scalar", shape=(1,), role=Role.NORM, buffer=True),
            *block_norms(hidden, NORMS),
            *projections(facts, hidden, bias=bias, values=not place.shared and not keys_are_values),
            *network,
            *layer_input(fields, hidden),
        ),
    )


def _attention(fields: Fields, place: Place) -> GroupedQuery:
    """Return the layer's heads: global ones are wider, and fewer where the file says so."""
    heads = fields.integer("num_attention_heads", HEADS)
    count, width = kv_heads(fields, heads, KV_HEADS), fields.integer("head_dim", HEAD_DIM)
    if place.window is None:
        width = fields.integer("global_head_dim", GLOBAL_HEAD_DIM)
        if fields.flag("attention_k_eq_v", default=False):
            named = {"num_key_value_heads": fields.optional("num_global_key_value_heads") or count}
            count = kv_heads(Fields(named, fields.path), heads)
    return GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=count,
        head_dim=width,
        window_tokens=place.window,
        shares_cache=place.shared,
    )


def _network(fields: Fields, hidden: int, place: Place) -> tuple[FeedForward, Tensors]:
    """Return the network of all tokens, twice as wide where it may be in sharing layers, and experts beside it."""
    width = fields.integer("intermediate_size", WIDTH)
    if place.shared and fields.flag("use_double_wide_mlp", default=False):
        width *= 2
    network = gated_mlp(hidden, width)
    if not fields.flag("enable_moe_block", default=False):
        return Dense(intermediate_size=width), network
    count, narrow = fields.integer("num_experts", largest=LARGEST_EXPERTS), fields.integer("moe_intermediate_size")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("top_k_experts", largest=count),
        moe_intermediate_size=narrow,
        shared_intermediate_size=width,
    )
    more = ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2")
    return facts, (
        *network,
        *_experts(hidden, count, narrow),
        *(t for name in more for t in norm(name, hidden)),
    )


def _experts(hidden: int, count: int, width: int) -> Tensors:
    into = (count, 2 * width, hidden)
    return (
        Tensor(name="router.scale", shape=(hidden,), role=Role.NORM),
        Tensor(name="router.per_expert_scale", shape=(count,), role=Role.NORM),
        router("router.proj", count, hidden),
        Tensor(name="experts.gate_up_proj", shape=into, role=Role.EXPERT, cut=Cut.SECOND, experts=count),
        Tensor(name="experts.down_proj", shape=(count, hidden, width), role=Role.EXPERT, cut=Cut.INPUTS, experts=count),
    )
