"""ModernBERT as a decoder (Ettin): a norm behind the embedding, none before the first attention, a head with a network.

Source: huggingface/transformers:src/transformers/models/modernbert_decoder/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, head_dim, is_tied, linear, norm, windows
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

LOCAL, EVERY = 128, 3
"""Class defaults of ``local_attention`` [tokens, half of them before the query] and ``global_attn_every_n_layers``."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of a ModernBERT decoder."""
    hidden, vocab = fields.integer("hidden_size"), fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    tied, bias = is_tied(fields, default=True), fields.flag("norm_bias", default=False)
    per_layer = _windows(fields)
    first = _layer(fields, hidden, per_layer[0], first=True)
    kinds = {window: _layer(fields, hidden, window, first=False) for window in dict.fromkeys(per_layer[1:])}
    table = Tensor(
        name="model.embeddings.tok_embeddings.weight", shape=(vocab, hidden), role=Role.EMBEDDING, cut=Cut.VOCABULARY
    )
    return ModelSpec(
        name=named.name,
        family="modernbert-decoder",
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=fields.optional("max_position_embeddings", largest=LARGEST_CONTEXT),
        embeddings=(table, *norm("model.embeddings.norm", hidden, bias=bias)),
        layers=(first, *(kinds[window] for window in per_layer[1:])),
        head=_head(fields, hidden, vocab, tied=tied),
        tied=tied,
        layer_prefix="model.layers.{layer}.",
        scheme=named.scheme,
    )


def _windows(fields: Fields) -> tuple[int | None, ...]:
    """Every third layer is global, from the first one on; the others see half of ``local_attention`` back."""
    every = fields.optional("global_attn_every_n_layers", largest=LARGEST_LAYERS) or EVERY
    half = fields.integer("local_attention", LOCAL, largest=LARGEST_CONTEXT, smallest=2) // 2
    return windows(fields, half, tuple(i % every != 0 for i in range(fields.num_layers)))


def _layer(fields: Fields, hidden: int, window: int | None, *, first: bool) -> Layer:
    heads, width = fields.integer("num_attention_heads"), fields.integer("intermediate_size")
    bias, norm_bias = fields.flag("attention_bias", default=False), fields.flag("norm_bias", default=False)
    mlp_bias = fields.flag("mlp_bias", default=False)
    return Layer(
        attention=GroupedQuery(
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=head_dim(fields, hidden, heads),
            window_tokens=window,
        ),
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *(() if first else norm("attn_norm", hidden, bias=norm_bias)),
            *(t for n in "qkv" for t in linear(f"attn.{n}_proj", hidden, hidden, Cut.OUTPUTS, bias=bias)),
            *linear("attn.Wo", hidden, hidden, Cut.INPUTS, bias=bias),
            *norm("mlp_norm", hidden, bias=norm_bias),
            *linear("mlp.Wi", 2 * width, hidden, Cut.OUTPUTS, bias=mlp_bias),
            *linear("mlp.Wo", hidden, width, Cut.INPUTS, bias=mlp_bias),
        ),
    )


def _head(fields: Fields, hidden: int, vocab: int, *, tied: bool) -> Tensors:
    bias = fields.flag("norm_bias", default=False)
    matrix = Tensor(name="decoder.weight", shape=(vocab, hidden), role=Role.HEAD, cut=Cut.VOCABULARY)
    return (
        *norm("model.final_norm", hidden, bias=bias),
        *linear("lm_head.dense", hidden, hidden, Cut.WHOLE, bias=fields.flag("classifier_bias", default=False)),
        *norm("lm_head.norm", hidden, bias=bias),
        *(() if tied else (matrix,)),
        *(
            (Tensor(name="decoder.bias", shape=(vocab,), role=Role.BIAS, cut=Cut.VOCABULARY),)
            if fields.flag("decoder_bias", default=True)
            else ()
        ),
    )
