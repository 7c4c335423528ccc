"""Qwen2 and Qwen2.5: Llama's block with biases on query, key and value.

Source: huggingface/transformers:src/transformers/models/qwen2/.
"""

from __future__ import annotations

from vramfit.readers.families.decoder import (
    Named,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    windows,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, Fields
from vramfit.spec import Dense, Layer, ModelSpec


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Qwen2 configuration."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    kinds: dict[int | None, Layer] = {}
    per_layer = layer_windows(fields)
    for window in per_layer:
        if window not in kinds:
            facts = grouped_query(fields, hidden, window=window)
            kinds[window] = Layer(
                attention=facts,
                feed_forward=Dense(intermediate_size=width),
                tensors=(
                    *block_norms(hidden),
                    *attention_tensors(facts, hidden, qkv_bias=True),
                    *gated_mlp(hidden, width),
                ),
            )
    tied = fields.flag("tie_word_embeddings", default=False)
    return causal_model(fields, named, tuple(kinds[w] for w in per_layer), hidden_size=hidden, tied=tied)


def layer_windows(fields: Fields) -> tuple[int | None, ...]:
    """Return each layer's window: those from ``max_window_layers`` on slide, if ``use_sliding_window`` says so."""
    window = None
    if fields.flag("use_sliding_window", default=False):
        window = fields.integer("sliding_window", 4096, largest=LARGEST_CONTEXT)
    first = fields.integer("max_window_layers", 28, largest=LARGEST_LAYERS, smallest=0) if window is not None else 0
    pattern = tuple(window is not None and i >= first for i in range(fields.num_layers))
    return windows(fields, window, pattern)
