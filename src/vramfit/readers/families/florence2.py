"""Florence-2: BART, whose encoder reads a picture's vectors before the words, and a tower of four resolutions (DaViT).

Source: huggingface/transformers:src/transformers/models/florence2/ and models/bart/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.families import audio, whisper
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.families.vision import convolution, matrices, position_table
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_VOCABULARY, LARGEST_WIDTH, Fields
from vramfit.spec import Cut, ModelSpec, Part, Tensor

SECTIONS = {"florence2": ("text_config", "vision_config")}
CLASSES = {"florence2": ("Florence2ForConditionalGeneration",)}
OFFSET = 2
"""Rows that BART's tables of positions have beyond the positions: a literal in its modelling code."""
STAGES, LARGEST_DEPTH = 4, 256
_TEXT: dict[str, object] = {
    "vocab_size": 50265, "max_position_embeddings": 1024, "d_model": 1024, "encoder_layers": 12,
    "encoder_ffn_dim": 4096, "encoder_attention_heads": 16, "decoder_layers": 12, "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
}  # fmt: skip


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Florence-2 configuration."""
    f = fields.section("text_config").filled(**_TEXT)
    if f.text("model_type") not in {None, "bart"}:
        f.refuse("model_type", "another language model than BART")
    hidden, vocab, at = (
        f.integer("d_model"),
        f.integer("vocab_size", largest=LARGEST_VOCABULARY),
        "model.language_model.",
    )
    fields.insist("tie_word_embeddings", on=True, why="an output projection of its own")
    places = f.integer("max_position_embeddings")
    return ModelSpec(
        name=named.name,
        family="florence2",
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=places,
        embeddings=(
            Tensor(name=f"{at}shared.weight", shape=(vocab, hidden), role=Role.EMBEDDING, cut=Cut.VOCABULARY),
            position_table(f"{at}decoder.embed_positions", places + OFFSET, hidden),
            *norm(f"{at}decoder.layernorm_embedding", hidden, bias=True),
        ),
        layers=(whisper.block(f, hidden, spoken=False),) * f.integer("decoder_layers", largest=LARGEST_LAYERS),
        head=(),
        tied=True,
        layer_prefix=f"{at}decoder.layers.{{layer}}.",
        scheme=named.scheme,
        parts=(_reader(f, f"{at}encoder.", hidden, places), _tower(fields, hidden)),
    )


def _reader(f: Fields, at: str, hidden: int, places: int) -> Part:
    around = (
        position_table(f"{at}embed_positions", places + OFFSET, hidden),
        *norm(f"{at}layernorm_embedding", hidden, bias=True),
    )
    return audio.encoder(f, at, around, key_bias=True, name="encoder")


def _tower(fields: Fields, text: int) -> Part:
    f = fields.section("vision_config").filled(
        in_channels=3, projection_dim=1024, max_temporal_embeddings=100, max_position_embeddings=50, mlp_ratio=4
    )
    widths = f.row("embed_dim", (128, 256, 512, 1024), largest=LARGEST_WIDTH, most=STAGES)
    depths = f.row("depths", (1, 1, 9, 1), largest=LARGEST_DEPTH, most=STAGES)
    sides = f.row("patch_size", (7, 3, 3, 3), largest=LARGEST_WIDTH, most=STAGES)
    before = f.values.get("patch_prenorm", [False, True, True, True])
    ratio = f.values["mlp_ratio"]
    if not isinstance(ratio, int | float) or not 0 < ratio <= LARGEST_LAYERS:
        raise InvalidValueError(f.at("mlp_ratio"), ratio, "a number above 0")
    if before not in ([False, True, True, True], (False, True, True, True)) or {
        len(widths),
        len(depths),
        len(sides),
    } != {STAGES}:
        raise InvalidValueError(f.at("depths"), list(depths), f"{STAGES} stages, all but the first normed before")
    at, inside = "model.vision_tower.", f.integer("in_channels")
    tensors: Tensors = ()
    for i, (wide, depth, side) in enumerate(zip(widths, depths, sides, strict=True)):
        tensors += (
            *convolution(f"{at}convs.{i}.conv", wide, inside, side, side),
            *norm(f"{at}convs.{i}.norm", inside if i else wide, bias=True),
        )
        for j in range(depth):
            for kind, attention in (("spatial", "window"), ("channel", "channel")):
                block = f"{at}blocks.{i}.{j}.{kind}_block."
                tensors += _block(block, f"{attention}_attn", wide, int(wide * ratio), f)
        inside = wide
    out, joint, rows = f.integer("projection_dim"), "model.multi_modal_projector.", f.integer("max_position_embeddings")
    if out != text:
        raise InvalidValueError(f.at("projection_dim"), out, f"the language model's width ({text})")
    buffer = Tensor(
        name=f"{joint}visual_temporal_embed.pos_idx_to_embed",
        shape=(f.integer("max_temporal_embeddings"), inside),
        role=Role.EMBEDDING,
        buffer=True,
    )
    around = (
        *linear(f"{joint}image_projection", out, inside, Cut.WHOLE),
        *norm(f"{joint}image_proj_norm", out, bias=True),
        position_table(f"{joint}image_position_embed.row_embeddings", rows, inside // 2),
        position_table(f"{joint}image_position_embed.column_embeddings", rows, inside - inside // 2),
        buffer,
    )
    return Part(name="vision tower", layers=(), layer_prefix="", tensors=(*tensors, *around), resident=True)


def _block(at: str, attention: str, wide: int, width: int, f: Fields) -> Tensors:
    """Return half a block: attention over a window's places, or over channels, then a network."""
    return (
        *(t for n in ("conv1", "conv2") for t in convolution(f"{at}{n}", wide, 1, 3, 3)),
        *norm(f"{at}norm1", wide, bias=True),
        *linear(f"{at}{attention}.qkv", 3 * wide, wide, Cut.WHOLE, bias=f.flag("qkv_bias", default=True)),
        *linear(f"{at}{attention}.proj", wide, wide, Cut.WHOLE, bias=True),
        *norm(f"{at}norm2", wide, bias=True),
        *matrices((f"{at}ffn.fc1",), width, wide, bias=True),
        *matrices((f"{at}ffn.fc2",), wide, width, bias=True),
    )
