"""Moonshine: a small encoder of raw sound, and a decoder that attends to what it wrote and to what was heard.

Source: huggingface/transformers:src/transformers/models/moonshine/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import CrossAttention, Dense, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, head_dim, kv_heads, linear, norm
from vramfit.readers.families.vision import convolution
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

CLASSES = {"moonshine": ("MoonshineForConditionalGeneration",)}
KERNELS = (127, 7, 3)
"""Sides of the three convolutions over sound: literals in the modelling code."""
_DEFAULTS: dict[str, object] = {
    "vocab_size": 32768, "hidden_size": 288, "intermediate_size": 1152, "encoder_num_hidden_layers": 6,
    "decoder_num_hidden_layers": 6, "encoder_num_attention_heads": 8, "decoder_num_attention_heads": 8,
    "max_position_embeddings": 512,
}  # fmt: skip


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Moonshine configuration."""
    f = fields.filled(**_DEFAULTS)
    hidden, vocab = f.integer("hidden_size"), f.integer("vocab_size", largest=LARGEST_VOCABULARY)
    if _heads(f, "encoder") != _heads(f, "decoder"):  # transformers builds both with the encoder's
        raise InvalidValueError(
            f.at("decoder_num_attention_heads"), f.values["decoder_num_attention_heads"], "as many as the encoder's"
        )
    tied, at = f.flag("tie_word_embeddings", default=True), "model.decoder."
    table, head = (
        Tensor(name=name, shape=(vocab, hidden), role=role, cut=Cut.VOCABULARY)
        for name, role in ((f"{at}embed_tokens.weight", Role.EMBEDDING), ("proj_out.weight", Role.HEAD))
    )
    return ModelSpec(
        name=named.name,
        family="moonshine",
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=f.integer("max_position_embeddings"),
        embeddings=(table,),
        layers=(_decoder_block(f, hidden),) * f.integer("decoder_num_hidden_layers", largest=LARGEST_LAYERS),
        head=(*norm(f"{at}norm", hidden), *(() if tied else (head,))),
        tied=tied,
        layer_prefix=f"{at}layers.{{layer}}.",
        scheme=named.scheme,
        parts=(_encoder(f, hidden),),
    )


def _heads(f: Fields, side: str) -> tuple[int, int]:
    heads, kv = f.integer(f"{side}_num_attention_heads"), f.values.get(f"{side}_num_key_value_heads")
    return heads, kv_heads(Fields({"num_key_value_heads": kv}, f.path, f.assumed), heads)


def _decoder_block(f: Fields, hidden: int) -> Layer:
    (heads, kv), width = _heads(f, "decoder"), f.integer("intermediate_size")
    dim, bias = head_dim(f, hidden, heads), f.flag("attention_bias", default=False)
    tensors = (
        *_attention("self_attn", hidden, heads * dim, kv * dim, bias=bias),
        *_attention("encoder_attn", hidden, heads * dim, kv * dim, bias=bias),
        *linear("mlp.fc1", 2 * width, hidden, Cut.OUTPUTS, bias=True),
        *linear("mlp.fc2", hidden, width, Cut.INPUTS, bias=True),
        *(t for n in ("input_layernorm", "post_attention_layernorm", "final_layernorm") for t in norm(n, hidden)),
    )
    return Layer(
        attention=GroupedQuery(num_attention_heads=heads, num_key_value_heads=kv, head_dim=dim),
        beside=CrossAttention(num_attention_heads=heads, num_key_value_heads=kv, head_dim=dim),
        feed_forward=Dense(intermediate_size=width),
        tensors=tensors,
    )


def _encoder(f: Fields, hidden: int) -> Part:
    (heads, kv), width, at = _heads(f, "encoder"), f.integer("intermediate_size"), "model.encoder."
    dim, bias = head_dim(f, hidden, heads), f.flag("attention_bias", default=False)
    tensors = (
        *_attention("self_attn", hidden, heads * dim, kv * dim, bias=bias),
        *linear("mlp.fc1", width, hidden, Cut.OUTPUTS, bias=True),
        *linear("mlp.fc2", hidden, width, Cut.INPUTS, bias=True),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
    )
    first, second, third = KERNELS
    around = (
        *convolution(f"{at}conv1", hidden, 1, first, bias=False),
        *convolution(f"{at}conv2", 2 * hidden, hidden, second),
        *convolution(f"{at}conv3", hidden, 2 * hidden, third),
        *norm(f"{at}groupnorm", hidden, bias=True),
        *norm(f"{at}layer_norm", hidden),
    )
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=kv, head_dim=dim, causal=False)
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=False), tensors=tensors)
    return Part(
        name="audio tower",
        layers=(layer,) * f.integer("encoder_num_hidden_layers", largest=LARGEST_LAYERS),
        layer_prefix=f"{at}layers.{{layer}}.",
        tensors=around,
        resident=True,
    )


def _attention(at: str, hidden: int, q: int, kv: int, *, bias: bool) -> Tensors:
    return (
        *linear(f"{at}.q_proj", q, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{at}.k_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear(f"{at}.v_proj", kv, hidden, Cut.KEY_VALUE_HEADS, bias=bias),
        *linear(f"{at}.o_proj", hidden, q, Cut.INPUTS),
    )
