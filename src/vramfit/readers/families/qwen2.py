"""Qwen2 and Qwen2.5: Llama's block with biases on query, key and value.

Source: huggingface/transformers:src/transformers/models/qwen2/.
"""

from __future__ import annotations

from vramfit.layer_kind import Dense
from vramfit.readers.families.decoder import (
    Named,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    is_tied,
    window_tokens,
    windows,
)
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Layer, ModelSpec

KV_HEADS, WINDOW_TOKENS, FIRST_SLIDING = 32, 4096, 28
"""Class defaults of ``num_key_value_heads``, ``sliding_window`` and ``max_window_layers`` in transformers."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Qwen2 configuration."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    kinds: dict[int | None, Layer] = {}
    per_layer = layer_windows(fields)
    for window in per_layer:
        if window not in kinds:
            facts = grouped_query(fields, hidden, window=window, default_kv=KV_HEADS)
            kinds[window] = Layer(
                attention=facts,
                feed_forward=Dense(intermediate_size=width),
                tensors=(
                    *block_norms(hidden),
                    *attention_tensors(facts, hidden, qkv_bias=True),
                    *gated_mlp(hidden, width),
                ),
            )
    return causal_model(fields, named, tuple(kinds[w] for w in per_layer), hidden_size=hidden, tied=is_tied(fields))


def layer_windows(fields: Fields) -> tuple[int | None, ...]:
    """Return each layer's window: those from ``max_window_layers`` on slide, if ``use_sliding_window`` says so."""
    window = used_window(fields)
    first = 0
    if window is not None and not fields.has("layer_types"):
        first = fields.integer("max_window_layers", FIRST_SLIDING, largest=LARGEST_LAYERS, smallest=0)
    pattern = tuple(window is not None and i >= first for i in range(fields.num_layers))
    return windows(fields, window, pattern)


def used_window(fields: Fields) -> int | None:
    """Return the window, which counts only where ``use_sliding_window`` is true."""
    return window_tokens(fields, WINDOW_TOKENS) if fields.flag("use_sliding_window", default=False) else None
