"""Encoders of raw sound with a head that spells (CTC): wav2vec 2.0 with MMS, HuBERT, WavLM, UniSpeech.

Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.families.vision import convolution, learned, position_table
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_WIDTH, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

PREFIXES = {
    "hubert": "hubert.", "unispeech": "unispeech.", "unispeech-sat": "unispeech_sat.", "wav2vec2": "wav2vec2.",
    "wavlm": "wavlm.",
}  # fmt: skip
_NAMES = {"hubert": "Hubert", "unispeech": "UniSpeech", "unispeech-sat": "UniSpeechSat", "wav2vec2": "Wav2Vec2",
          "wavlm": "WavLM"}  # fmt: skip
CLASSES = {kind: (f"{name}ForCTC", f"{name}Model") for kind, name in _NAMES.items()}
_DEFAULTS: dict[str, object] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16, "vocab_size": 32,
}  # fmt: skip
GATED = 8
"""Rows of WavLM's gate on relative positions: a literal in its modelling code."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an encoder, bare or with its head."""
    kind = fields.text("model_type") or ""
    f = fields.filled(**_DEFAULTS)
    for name, why in (("add_adapter", "convolutions behind"), ("conv_pos_batch_norm", "a norm over the batch")):
        f.refuse(name, why)
    bare = _is_bare(f)
    hidden, prefix = f.integer("hidden_size"), "" if bare else PREFIXES[kind]
    vocab = f.integer("vocab_size")
    return ModelSpec(
        name=named.name,
        family=kind,
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=None,
        embeddings=_around(f, prefix, hidden),
        layers=_layers(f, kind, hidden),
        head=() if bare else linear("lm_head", vocab, hidden, Cut.WHOLE, bias=True),
        tied=False,
        layer_prefix=f"{prefix}encoder.layers.{{layer}}.",
        scheme=named.scheme,
        generates=False,
    )


def _is_bare(fields: Fields) -> bool:
    named = fields.values.get("architectures")
    if not isinstance(named, list) or not named:
        fields.assume("architectures", "the class with a CTC head", "the configuration names none")
        return False
    return str(named[0]).endswith("Model")


def _around(f: Fields, at: str, hidden: int) -> Tensors:
    """Return the convolutions over sound, the projection, the convolution that stands for positions."""
    widths = f.row("conv_dim", (512,) * 7, largest=LARGEST_WIDTH)
    sides = f.row("conv_kernel", (10, 3, 3, 3, 3, 2, 2), largest=LARGEST_WIDTH)
    bias, everywhere = f.flag("conv_bias", default=False), (f.text("feat_extract_norm") or "group") == "layer"
    tensors: Tensors = ()
    for i, (wide, side, inside) in enumerate(zip(widths, sides, (1, *widths), strict=False)):
        name = f"{at}feature_extractor.conv_layers.{i}"
        tensors += convolution(f"{name}.conv", wide, inside, side, bias=bias)
        tensors += norm(f"{name}.layer_norm", wide, bias=True) if everywhere or i == 0 else ()
    last, span = widths[-1], f.integer("num_conv_pos_embeddings")
    share, position = hidden // f.integer("num_conv_pos_embedding_groups"), f"{at}encoder.pos_conv_embed.conv."
    normed = f.flag("feat_proj_layer_norm", default=True)
    return (
        *((learned(f"{at}masked_spec_embed", hidden),) if _masks(f) else ()),
        *tensors,
        *(norm(f"{at}feature_projection.layer_norm", last, bias=True) if normed else ()),
        *linear(f"{at}feature_projection.projection", hidden, last, Cut.WHOLE, bias=True),
        Tensor(name=f"{position}bias", shape=(hidden,), role=Role.BIAS),
        Tensor(name=f"{position}parametrizations.weight.original0", shape=(1, 1, span), role=Role.CONVOLUTION),
        Tensor(name=f"{position}parametrizations.weight.original1", shape=(hidden, share, span), role=Role.CONVOLUTION),
        *norm(f"{at}encoder.layer_norm", hidden, bias=True),
    )


def _masks(f: Fields) -> bool:
    """Say whether there is a vector that stands for masked sound: where either probability is above zero."""
    values = (f.values.get("mask_time_prob", 0.05), f.values.get("mask_feature_prob", 0.0))
    return any(isinstance(value, int | float) and value > 0 for value in values)


def _layers(f: Fields, kind: str, hidden: int) -> tuple[Layer, ...]:
    heads, width = f.integer("num_attention_heads"), f.integer("intermediate_size")
    dim = hidden // heads
    tensors = (
        *(t for n in ("k", "v", "q", "out") for t in _projection(n, hidden)),
        *norm("layer_norm", hidden, bias=True),
        *linear("feed_forward.intermediate_dense", width, hidden, Cut.OUTPUTS, bias=True),
        *linear("feed_forward.output_dense", hidden, width, Cut.INPUTS, bias=True),
        *norm("final_layer_norm", hidden, bias=True),
        *_adapter(f, hidden),
    )
    first: Tensors = ()
    if kind == "wavlm":
        tensors = (*tensors, learned("attention.gru_rel_pos_const", 1, heads, 1, 1))
        tensors = (*tensors, *linear("attention.gru_rel_pos_linear", GATED, dim, Cut.WHOLE, bias=True))
        first = (position_table("attention.rel_attn_embed", f.integer("num_buckets", 320), heads),)
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=dim, causal=False)
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=False), tensors=tensors)
    others = f.integer("num_hidden_layers", largest=LARGEST_LAYERS) - 1
    return (replace(layer, tensors=(*tensors, *first)) if first else layer, *(layer,) * others)


def _projection(name: str, hidden: int) -> Tensors:
    cut = Cut.INPUTS if name == "out" else Cut.OUTPUTS
    return linear(f"attention.{name}_proj", hidden, hidden, cut, bias=True)


def _adapter(f: Fields, hidden: int) -> Tensors:
    """Return what MMS exchanges for every language: a narrow network behind each block."""
    narrow = f.optional("adapter_attn_dim")
    if narrow is None:
        return ()
    if not f.flag("do_stable_layer_norm", default=False):  # the other kind of block leaves them out
        return ()
    return (
        *norm("adapter_layer.norm", hidden, bias=True),
        *linear("adapter_layer.linear_1", narrow, hidden, Cut.WHOLE, bias=True),
        *linear("adapter_layer.linear_2", hidden, narrow, Cut.WHOLE, bias=True),
    )
