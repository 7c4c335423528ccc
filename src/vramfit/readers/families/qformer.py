"""The querying transformer between a tower and a language model: BLIP-2, InstructBLIP, Granite Speech.

Source: huggingface/transformers:src/transformers/models/blip_2/ and models/instructblip/, 5.23.0, class defaults there.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.layer_kind import CrossAttention, Dense, GroupedQuery
from vramfit.readers.families.decoder import Tensors, linear, norm
from vramfit.readers.families.vision import learned, position_table
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, Part

_DEFAULTS: dict[str, object] = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512, "cross_attention_frequency": 2,
    "encoder_hidden_size": 1408,
}  # fmt: skip


def filled(fields: Fields) -> Fields:
    """Return the section with class defaults."""
    return fields.filled(**_DEFAULTS)


def blip2(fields: Fields, prefix: str) -> Part:
    """Read the one that queries a tower alone."""
    f = filled(fields)
    return _stack(f, prefix, norm(f"{prefix}layernorm", f.integer("hidden_size"), bias=True), reads=False)


def instructblip(fields: Fields, prefix: str) -> Part:
    """Read the one that reads the instruction too, through embeddings and networks of its own."""
    f = filled(fields)
    hidden, at = f.integer("hidden_size"), f"{prefix}embeddings."
    around = (
        position_table(f"{at}word_embeddings", f.integer("vocab_size", largest=LARGEST_VOCABULARY), hidden),
        position_table(f"{at}position_embeddings", f.integer("max_position_embeddings"), hidden),
        *norm(f"{at}layernorm", hidden, bias=True),
    )
    return _stack(f, prefix, around, reads=True)


def _stack(f: Fields, prefix: str, around: Tensors, *, reads: bool) -> Part:
    fields_with_text = f.flag("use_qformer_text_input", default=reads)
    hidden, heads, width = f.integer("hidden_size"), f.integer("num_attention_heads"), f.integer("intermediate_size")
    every, inside = f.integer("cross_attention_frequency", largest=LARGEST_LAYERS), f.integer("encoder_hidden_size")
    own = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads, causal=False)
    names = (("intermediate", "output"),) if fields_with_text else ()
    plain = Layer(
        attention=own,
        feed_forward=Dense(intermediate_size=width, gated=False),
        tensors=(
            *_attention("attention", hidden, hidden),
            *(t for a, b in (*names, ("intermediate_query", "output_query")) for t in _network(a, b, hidden, width)),
        ),
    )
    crossing = replace(
        plain,
        beside=CrossAttention(num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads),
        tensors=(*plain.tensors, *_attention("crossattention", hidden, inside)),
    )
    count = f.integer("num_hidden_layers", largest=LARGEST_LAYERS)
    return Part(
        name="querying transformer",
        layers=tuple(plain if i % every else crossing for i in range(count)),
        layer_prefix=f"{prefix}encoder.layer.{{layer}}.",
        tensors=around,
        resident=True,
    )


def _attention(at: str, hidden: int, inside: int) -> Tensors:
    """Return one attention; its keys and values may be of another width."""
    return (
        *linear(f"{at}.attention.query", hidden, hidden, Cut.WHOLE, bias=True),
        *linear(f"{at}.attention.key", hidden, inside, Cut.WHOLE, bias=True),
        *linear(f"{at}.attention.value", hidden, inside, Cut.WHOLE, bias=True),
        *linear(f"{at}.output.dense", hidden, hidden, Cut.WHOLE, bias=True),
        *norm(f"{at}.output.LayerNorm", hidden, bias=True),
    )


def _network(into: str, out: str, hidden: int, width: int) -> Tensors:
    return (
        *linear(f"{into}.dense", width, hidden, Cut.WHOLE, bias=True),
        *linear(f"{out}.dense", hidden, width, Cut.WHOLE, bias=True),
        *norm(f"{out}.LayerNorm", hidden, bias=True),
    )


def queries(whole: Fields, _tower: Fields, _inside: int, text: int) -> Tensors:
    """Return the learned queries of BLIP-2, and the layer to the language model's width."""
    hidden = filled(whole.section("qformer_config")).integer("hidden_size")
    return (
        learned("query_tokens", 1, whole.integer("num_query_tokens", 32), hidden),
        *linear("language_projection", text, hidden, Cut.WHOLE, bias=True),
    )


def windowed_queries(whole: Fields, _tower: Fields, _inside: int, text: int) -> Tensors:
    """Return Granite Speech's: as many queries as a window has vectors after downsampling."""
    hidden = filled(whole.section("projector_config")).integer("hidden_size")
    window, rate = whole.integer("window_size", 15), whole.integer("downsample_rate", 5)
    return (
        learned("projector.query", 1, window // rate, hidden),
        *linear("projector.linear", text, hidden, Cut.WHOLE, bias=True),
    )
