"""Gemma 3n: a second embedding per layer, several streams beside each other, caches that later layers share.

Source: huggingface/transformers:src/transformers/models/gemma3n/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    gated_mlp,
    is_tied,
    kv_heads,
    linear,
    norm,
    windows,
)
from vramfit.readers.families.gemma import NORMS
from vramfit.readers.families.gemma_towers import with_towers
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

SECTIONS = {"gemma3n": ("text_config", "vision_config", "audio_config")}
HIDDEN_SIZE, NUM_LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM = 2048, 35, 16_384, 8, 2, 256
WINDOW_TOKENS, PATTERN, SHARED_LAYERS = 512, 5, 15
VOCABULARY, LAYER_VOCABULARY, LAYER_WIDTH = 262_400, 262_144, 256
STREAMS, RANK = 4, 64
"""Class defaults in transformers; one layer in five is global."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What distinguishes the layers of one model."""

    window: int | None
    shared: bool
    """True: reads the cache of an earlier layer of its kind, and makes no keys and values."""
    width: int


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Gemma 3n configuration; the multimodal one nests text, vision and audio."""
    if fields.text("model_type") == "gemma3n_text":
        return _text(fields, named, tied=is_tied(fields, default=True))
    return with_towers(fields, _text(fields.section("text_config"), named, tied=is_tied(fields, default=True)))


def _text(fields: Fields, named: Named, *, tied: bool) -> ModelSpec:
    fields.refuse("use_bidirectional_attention", "makes an encoder of it")
    hidden = fields.integer("hidden_size", HIDDEN_SIZE)
    places = _places(fields)
    kinds = {place: _layer(fields, hidden, place) for place in dict.fromkeys(places)}
    layers = tuple(kinds[place] for place in places)
    streams = fields.integer("altup_num_inputs", STREAMS, largest=64)
    spec = causal_model(fields, named, layers, hidden_size=hidden, tied=tied, vocab_default=VOCABULARY)
    return replace(
        spec,
        embeddings=(
            *spec.embeddings,
            *layer_tables(fields, hidden, len(layers)),
            *_streams("altup_projections", streams, hidden),
        ),
        head=(*_streams("altup_unembed_projections", streams, hidden), *spec.head),
        parts=unread(fields, layers, hidden),
    )


def _places(fields: Fields) -> tuple[Place, ...]:
    num = fields.integer("num_hidden_layers", NUM_LAYERS, largest=LARGEST_LAYERS)
    window = fields.integer("sliding_window", WINDOW_TOKENS, largest=LARGEST_CONTEXT)
    per_layer = windows(fields, window, tuple((i + 1) % PATTERN != 0 for i in range(num)))
    shared = shares(fields, per_layer, SHARED_LAYERS)
    return tuple(
        Place(window=w, shared=s, width=width)
        for w, s, width in zip(per_layer, shared, _widths(fields, num), strict=True)
    )


def _widths(fields: Fields, num: int) -> tuple[int, ...]:
    """Return the width of each layer's network: one for all, or a list."""
    name = "intermediate_size"
    value = fields.values.get(name)
    if not isinstance(value, list):
        return (fields.integer(name, WIDTH),) * num
    if len(value) != num:
        raise InvalidValueError(fields.at(name), value, f"an integer, or a list of {num}, one per layer")
    return tuple(Fields({f"{name}[{i}]": v}, fields.path).integer(f"{name}[{i}]") for i, v in enumerate(value))


def shares(fields: Fields, per_layer: tuple[int | None, ...], default: int) -> tuple[bool, ...]:
    """Say of each layer whether it reads an earlier cache: the last ``num_kv_shared_layers`` do.

    Each reads that of the last layer of its own kind, sliding or global, which makes one.
    """
    num = len(per_layer)
    count = fields.integer("num_kv_shared_layers", default, smallest=0, largest=LARGEST_LAYERS)
    own = per_layer[: max(num - count, 0)]
    if count and set(own) != set(per_layer):
        raise InvalidValueError(
            fields.at("num_kv_shared_layers"), count, "fewer, so that a layer of every kind makes a cache"
        )
    return tuple(i >= len(own) for i in range(num))


def _layer(fields: Fields, hidden: int, place: Place) -> Layer:
    heads = fields.integer("num_attention_heads", HEADS)
    facts = GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=kv_heads(fields, heads, KV_HEADS),
        head_dim=fields.integer("head_dim", HEAD_DIM),
        window_tokens=place.window,
        shares_cache=place.shared,
    )
    bias = fields.flag("attention_bias", default=False)
    return Layer(
        attention=facts,
        feed_forward=Dense(intermediate_size=place.width),
        tensors=(
            *block_norms(hidden, NORMS),
            *projections(facts, hidden, bias=bias, values=not place.shared),
            *gated_mlp(hidden, place.width),
            *_mixed_streams(fields, hidden),
            *layer_input(fields, hidden),
        ),
    )


def projections(facts: GroupedQuery, hidden: int, *, bias: bool, values: bool) -> Tensors:
    """Return queries and output; keys where the layer makes a cache, and values where they are not the keys."""
    q, kv = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    keys = linear("self_attn.k_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias)
    return (
        *linear("self_attn.q_proj", q, hidden, Cut.OUTPUTS, bias=bias),
        *norm("self_attn.q_norm", facts.head_dim),
        *(() if facts.shares_cache else (*keys, *norm("self_attn.k_norm", facts.head_dim))),
        *(linear("self_attn.v_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias) if values else ()),
        *linear("self_attn.o_proj", hidden, q, Cut.INPUTS, bias=bias),
    )


def unread(fields: Fields, layers: tuple[Layer, ...], hidden: int) -> tuple[Part, ...]:
    """Return keys and values of the layers that share a cache, which published files hold and nobody loads.

    They make up the difference between transformers' count of Gemma 3n and the Hub's: 15 x 2,097,408 of 7,849,978,192.
    """
    bias = fields.flag("attention_bias", default=False)
    left: dict[int, Layer] = {}
    for layer in layers:
        facts = layer.attention
        if id(layer) in left or not isinstance(facts, GroupedQuery) or not facts.shares_cache:
            continue
        own = projections(replace(facts, shares_cache=False), hidden, bias=bias, values=True)
        used = {t.name for t in layer.tensors}
        tensors = tuple(t for t in own if t.name not in used)
        left[id(layer)] = Layer(attention=replace(facts, shares_cache=False), feed_forward=None, tensors=tensors)
    shared = tuple(left[id(layer)] for layer in layers if id(layer) in left)
    if not shared:
        return ()
    first = len(layers) - len(shared)
    prefix = "model.layers.{layer}."
    return (Part(name="unread keys", layers=shared, layer_prefix=prefix, first_layer=first, resident=False),)


def _mixed_streams(fields: Fields, hidden: int) -> Tensors:
    """Return what predicts and corrects the streams (AltUp), and the low-rank residual beside attention (LAuReL)."""
    streams, rank = fields.integer("altup_num_inputs", STREAMS, largest=64), fields.integer("laurel_rank", RANK)
    return (
        Tensor(name="altup.correct_output_scale", shape=(hidden,), role=Role.NORM),
        *linear("altup.correction_coefs", streams, streams, Cut.WHOLE),
        *linear("altup.prediction_coefs", streams**2, streams, Cut.WHOLE),
        Tensor(name="altup.modality_router.weight", shape=(streams, hidden), role=Role.ROUTER),
        *norm("altup.router_norm", hidden),
        *linear("laurel.linear_left", rank, hidden, Cut.WHOLE),
        *linear("laurel.linear_right", hidden, rank, Cut.WHOLE),
        *norm("laurel.post_laurel_norm", hidden),
    )


def _streams(name: str, streams: int, hidden: int) -> Tensors:
    """Return the matrices that lead into the other streams, or out of them."""
    return tuple(t for i in range(streams - 1) for t in linear(f"model.{name}.{i}", hidden, hidden, Cut.WHOLE))


def layer_input(fields: Fields, hidden: int) -> Tensors:
    """Return what brings a token's second embedding into one layer."""
    inner = fields.integer("hidden_size_per_layer_input", LAYER_WIDTH, smallest=0)
    if not inner:
        return ()
    return (
        *linear("per_layer_input_gate", inner, hidden, Cut.WHOLE),
        *linear("per_layer_projection", hidden, inner, Cut.WHOLE),
        *norm("post_per_layer_input_norm", hidden),
    )


def layer_tables(fields: Fields, hidden: int, layers: int) -> Tensors:
    """Return the table of second embeddings, one per token and layer side by side, and its counterpart computed.

    The table is looked up, and may stay in host memory; transformers and vLLM keep it on the device.
    """
    inner = fields.integer("hidden_size_per_layer_input", LAYER_WIDTH, smallest=0)
    if not inner:
        return ()
    rows = fields.integer("vocab_size_per_layer_input", LAYER_VOCABULARY, largest=LARGEST_VOCABULARY)
    table = Tensor(
        name="model.embed_tokens_per_layer.weight",
        shape=(rows, layers * inner),
        role=Role.EMBEDDING,
        cut=Cut.VOCABULARY,
    )
    return (
        table,
        *linear("model.per_layer_model_projection", layers * inner, hidden, Cut.WHOLE),
        *norm("model.per_layer_projection_norm", inner),
    )
