"""ModernBERT and EuroBERT: encoders with rotary positions and gated networks; ModernBERT's windows alternate.

Source: Warner et al. 2024, arXiv:2412.13663, sec. 2.1; huggingface/transformers:src/transformers/models/modernbert/ and
models/eurobert/, 5.23.0.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.layer_kind import Dense
from vramfit.readers.families.bert import TOKENS
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    gated_mlp,
    grouped_query,
    linear,
    norm,
    windows,
)
from vramfit.readers.families.encoder import (
    Sizes,
    Top,
    bidirectional,
    chosen_class,
    class_names,
    divided_heads,
    encoder_model,
    num_labels,
    table,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

_CLASSIFIER = Top(labelled=True)
TOPS = {
    "Model": Top(),
    "ForMaskedLM": Top(vocabulary=True),
    "ForSequenceClassification": _CLASSIFIER,
    "ForTokenClassification": _CLASSIFIER,
    "ForQuestionAnswering": _CLASSIFIER,
}
EURO_TOPS = {
    "Model": Top(),
    "ForMaskedLM": Top(),
    "ForSequenceClassification": Top(
        tensors=lambda s: (*linear("dense", s.hidden, s.hidden, Cut.WHOLE, bias=True), *TOKENS.tensors(s)),
        labelled=True,
    ),
    "ForTokenClassification": TOKENS,
}
CLASSES = {"modernbert": class_names("ModernBert", TOPS), "eurobert": class_names("EuroBert", EURO_TOPS)}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a ModernBERT or EuroBERT configuration."""
    return _euro(fields, named) if fields.text("model_type") == "eurobert" else _modern(fields, named)


def _sizes(fields: Fields, top: Top) -> Sizes:
    sizes = Sizes(
        hidden=fields.integer("hidden_size"),
        width=fields.integer("intermediate_size"),
        heads=fields.integer("num_attention_heads"),
        vocab=fields.integer("vocab_size", largest=LARGEST_VOCABULARY),
        labels=num_labels(fields) if top.labelled else 0,
    )
    return divided_heads(fields, sizes)


def _modern(fields: Fields, named: Named) -> ModelSpec:
    end, top = chosen_class(fields, "ModernBert", TOPS)
    sizes, normed = _sizes(fields, top), fields.flag("norm_bias", default=False)
    return encoder_model(
        fields,
        named,
        sizes,
        "" if end == "Model" else "model.",
        positions=fields.integer("max_position_embeddings", 8192, largest=LARGEST_CONTEXT),
        embeddings=(
            table("embeddings.tok_embeddings", sizes.vocab, sizes.hidden, Cut.VOCABULARY),
            *norm("embeddings.norm", sizes.hidden, bias=normed),
        ),
        layers=_modern_layers(fields, sizes, normed=normed),
        layer_prefix="layers.{layer}.",
        behind=norm("final_norm", sizes.hidden, bias=normed),
        top=() if end == "Model" else _modern_top(fields, sizes, normed=normed, masked=top.vocabulary),
        tied=top.vocabulary,
    )


def _modern_layers(fields: Fields, sizes: Sizes, *, normed: bool) -> tuple[Layer, ...]:
    """Return the blocks: every so many sees everything, the first of each; the first of all has one norm less."""
    every = fields.integer("global_attn_every_n_layers", 3, largest=LARGEST_LAYERS)
    window = fields.integer("local_attention", 128, largest=LARGEST_CONTEXT)
    per_layer = windows(fields, window, tuple(i % every != 0 for i in range(fields.num_layers)))
    block = _modern_block(fields, sizes, normed=normed)
    before = norm("attn_norm", sizes.hidden, bias=normed)
    kinds: dict[tuple[int | None, bool], Layer] = {}
    for i, window_tokens in enumerate(per_layer):
        tensors = block if i == 0 else (*before, *block)
        kinds.setdefault((window_tokens, i == 0), bidirectional(sizes, tensors, gated=True, window=window_tokens))
    return tuple(kinds[window_tokens, i == 0] for i, window_tokens in enumerate(per_layer))


def _modern_block(fields: Fields, sizes: Sizes, *, normed: bool) -> Tensors:
    attention, network = fields.flag("attention_bias", default=False), fields.flag("mlp_bias", default=False)
    hidden, width = sizes.hidden, sizes.width
    return (
        *linear("attn.Wqkv", 3 * hidden, hidden, Cut.OUTPUTS, bias=attention),
        *linear("attn.Wo", hidden, hidden, Cut.INPUTS, bias=attention),
        *norm("mlp_norm", hidden, bias=normed),
        *linear("mlp.Wi", 2 * width, hidden, Cut.OUTPUTS, bias=network),
        *linear("mlp.Wo", hidden, width, Cut.INPUTS, bias=network),
    )


def _modern_top(fields: Fields, sizes: Sizes, *, normed: bool, masked: bool) -> Tensors:
    dense = linear(
        "head.dense", sizes.hidden, sizes.hidden, Cut.WHOLE, bias=fields.flag("classifier_bias", default=False)
    )
    shared = (*dense, *norm("head.norm", sizes.hidden, bias=normed))
    if not masked:
        return (*shared, *TOKENS.tensors(sizes))
    if not fields.flag("decoder_bias", default=True):
        return shared
    return (*shared, Tensor(name="decoder.bias", shape=(sizes.vocab,), role=Role.BIAS, cut=Cut.VOCABULARY))


def _euro(fields: Fields, named: Named) -> ModelSpec:
    """EuroBERT: Llama's blocks in which every token sees every other."""
    end, top = chosen_class(fields, "EuroBert", EURO_TOPS)
    sizes = _sizes(fields, top)
    facts = replace(grouped_query(fields, sizes.hidden), causal=False)
    bias = fields.flag("attention_bias", default=False)
    network = fields.flag("mlp_bias", default=False)
    tensors = (
        *block_norms(sizes.hidden),
        *attention_tensors(facts, sizes.hidden, qkv_bias=bias, output_bias=bias),
        *gated_mlp(sizes.hidden, sizes.width, bias=network),
    )
    masked = end == "ForMaskedLM"
    tied = masked and fields.flag("tie_word_embeddings", default=False, recorded=True)
    return encoder_model(
        fields,
        named,
        sizes,
        "" if end == "Model" else "model.",
        positions=fields.integer("max_position_embeddings", 8192, largest=LARGEST_CONTEXT),
        embeddings=(table("embed_tokens", sizes.vocab, sizes.hidden, Cut.VOCABULARY),),
        layers=(Layer(attention=facts, feed_forward=Dense(intermediate_size=sizes.width), tensors=tensors),)
        * fields.num_layers,
        layer_prefix="layers.{layer}.",
        behind=norm("norm", sizes.hidden),
        top=_vocabulary(sizes, tied=tied, bias=network) if masked else top.tensors(sizes),
        tied=tied,
    )


def _vocabulary(sizes: Sizes, *, tied: bool, bias: bool) -> Tensors:
    """Return EuroBERT's head for masked tokens, whose bias follows that of the networks."""
    head = Tensor(name="lm_head.weight", shape=(sizes.vocab, sizes.hidden), role=Role.HEAD, cut=Cut.VOCABULARY)
    added = Tensor(name="lm_head.bias", shape=(sizes.vocab,), role=Role.BIAS, cut=Cut.VOCABULARY)
    return (*(() if tied else (head,)), *((added,) if bias else ()))
