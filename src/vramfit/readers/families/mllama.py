"""Llama 3.2 Vision: Llama's blocks, and among them blocks that attend to the image alone.

Source: huggingface/transformers:src/transformers/models/mllama/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.layer_kind import CrossAttention, Dense, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    gated_mlp,
    grouped_query,
    is_tied,
    linear,
    norm,
)
from vramfit.readers.families.vision import learned, matrices, patch_convolution, patch_count, position_table
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

SECTIONS = {"mllama": ("text_config", "vision_config")}
CLASSES = {"mllama": ("MllamaForConditionalGeneration",)}
IMAGE_WORDS = 8
"""Rows that the embedding has beyond the vocabulary, for the image's place: a literal in the modelling code."""
CROSS_LAYERS = (3, 8, 13, 18, 23, 28, 33, 38)
TILE_SHAPES = 8
"""Ways to lay out up to four tiles; class defaults in transformers."""
_TEXT: dict[str, object] = {
    "vocab_size": 128256, "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336,
}  # fmt: skip
_VISION: dict[str, object] = {
    "hidden_size": 1280, "num_hidden_layers": 32, "num_global_layers": 8, "attention_heads": 16, "num_channels": 3,
    "intermediate_size": 5120, "vision_output_dim": 7680, "image_size": 448, "patch_size": 14, "max_num_tiles": 4,
}  # fmt: skip


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Llama 3.2 Vision configuration."""
    text, vision = fields.section("text_config").filled(**_TEXT), fields.section("vision_config").filled(**_VISION)
    hidden, vocab = text.integer("hidden_size"), text.integer("vocab_size", largest=LARGEST_VOCABULARY)
    tied, at = is_tied(text), "language_model."
    projection = Tensor(name=f"{at}lm_head.weight", shape=(vocab, hidden), role=Role.HEAD, cut=Cut.VOCABULARY)
    tower = _tower(vision)
    return ModelSpec(
        name=named.name,
        family="mllama",
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=text.optional("max_position_embeddings", largest=LARGEST_CONTEXT),
        embeddings=(
            Tensor(
                name=f"{at}model.embed_tokens.weight", shape=(vocab + IMAGE_WORDS, hidden), role=Role.EMBEDDING,
                cut=Cut.VOCABULARY,
            ),
        ),
        layers=_layers(text, hidden, _image_tokens(vision)),
        head=(*norm(f"{at}model.norm", hidden), *(() if tied else (projection,))),
        tied=tied,
        layer_prefix=f"{at}model.layers.{{layer}}.",
        scheme=named.scheme,
        parts=(*tower, _joint(vision, hidden)),
    )  # fmt: skip


def _image_tokens(vision: Fields) -> int:
    """Return the vectors of one image: every tile, and a class token with each; smaller images are padded to it."""
    return vision.integer("max_num_tiles", largest=64) * (patch_count(vision, image=448, patch=14) + 1)


def _layers(text: Fields, hidden: int, image_tokens: int) -> tuple[Layer, ...]:
    count, width = text.integer("num_hidden_layers", largest=LARGEST_LAYERS), text.integer("intermediate_size")
    crossing = text.integers("cross_attention_layers", LARGEST_LAYERS)
    if not text.has("cross_attention_layers"):
        crossing = frozenset(CROSS_LAYERS)
        text.assume("cross_attention_layers", list(CROSS_LAYERS))
    facts = grouped_query(text, hidden)
    cross = CrossAttention(
        num_attention_heads=facts.num_attention_heads,
        num_key_value_heads=facts.num_key_value_heads,
        head_dim=facts.head_dim,
        source_tokens=image_tokens,
    )
    around = (*block_norms(hidden), *gated_mlp(hidden, width))
    network = Dense(intermediate_size=width)
    own = Layer(attention=facts, feed_forward=network, tensors=(*around, *attention_tensors(facts, hidden)))
    crossed = tuple(
        Tensor(name=t.name.replace("self_attn", "cross_attn"), shape=t.shape, role=t.role, cut=t.cut)
        for t in attention_tensors(facts, hidden, qk_norm=True)
    )
    gates = (learned("cross_attn_attn_gate", 1), learned("cross_attn_mlp_gate", 1))
    other = Layer(attention=cross, feed_forward=network, tensors=(*around, *crossed, *gates))
    return tuple(other if i in crossing else own for i in range(count))


def _tower(fields: Fields) -> tuple[Part, Part]:
    """Return the two stacks of the tower: the second one sees all tiles and is gated."""
    hidden, tiles, at = fields.integer("hidden_size"), fields.integer("max_num_tiles", largest=64), "vision_model."
    shapes = fields.values.get("supported_aspect_ratios")
    kinds = 1 + (len(shapes) if isinstance(shapes, list) else TILE_SHAPES)
    places = patch_count(fields, image=448, patch=14) + 1
    around = (
        learned(f"{at}class_embedding", hidden),
        patch_convolution(fields, f"{at}patch_embedding", hidden, 14),
        learned(f"{at}gated_positional_embedding.gate", 1),
        learned(f"{at}gated_positional_embedding.embedding", places, hidden),
        position_table(f"{at}gated_positional_embedding.tile_embedding", kinds, tiles * places * hidden),
        *(
            t
            for when in ("pre", "post")
            for t in _tile_table(f"{at}{when}_tile_positional_embedding", kinds, tiles * hidden)
        ),
        *norm(f"{at}layernorm_pre", hidden, bias=True),
        *norm(f"{at}layernorm_post", hidden, bias=True),
    )
    return (
        _stack(fields, f"{at}transformer", "num_hidden_layers", around, gated=False),
        _stack(fields, f"{at}global_transformer", "num_global_layers", (), gated=True),
    )


def _tile_table(at: str, kinds: int, width: int) -> Tensors:
    return (learned(f"{at}.gate", 1), position_table(f"{at}.embedding", kinds, width))


def _stack(fields: Fields, at: str, counted: str, around: Tensors, *, gated: bool) -> Part:
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    heads = fields.integer("attention_heads")
    tensors = (
        *matrices((f"self_attn.{n}_proj" for n in "qkvo"), hidden, hidden),
        *linear("mlp.fc1", width, hidden, Cut.WHOLE, bias=True),
        *linear("mlp.fc2", hidden, width, Cut.WHOLE, bias=True),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
        *((learned("gate_attn", 1), learned("gate_ffn", 1)) if gated else ()),
    )
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads, causal=False)
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=False), tensors=tensors)
    return Part(
        name="vision tower",
        layers=(layer,) * fields.integer(counted, largest=LARGEST_LAYERS),
        layer_prefix=f"{at}.layers.{{layer}}.",
        tensors=around,
        resident=True,
    )


def _joint(vision: Fields, hidden: int) -> Part:
    """Return the projector, which reads several blocks of the tower side by side: ``vision_output_dim``."""
    inside = vision.integer("vision_output_dim")
    return Part(
        name="projector",
        layers=(),
        layer_prefix="",
        tensors=linear("multi_modal_projector", hidden, inside, Cut.WHOLE, bias=True),
        resident=True,
    )
