"""Segment Anything's tower, as GOT-OCR 2 and DeepSeek-VL read pages with: windows, and a few blocks that see all.

Source: huggingface/transformers:src/transformers/models/sam/ and models/got_ocr2/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Tensors, linear, norm
from vramfit.readers.families.vision import convolution, learned, matrices, side
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, Part


def sam(fields: Fields, prefix: str) -> Part:
    """Read the tower; the tables of relative positions are as long as what a block sees is wide."""
    f = fields.filled(
        hidden_size=768, output_channels=256, num_hidden_layers=12, num_attention_heads=12, image_size=1024,
        patch_size=16, window_size=14, num_channels=3,
    )  # fmt: skip
    hidden, patch, out = f.integer("hidden_size"), side(f, "patch_size", 16), f.integer("output_channels")
    across = side(f, "image_size", 1024) // patch
    seeing_all = {2, 5, 8, 11} if f.absent("global_attn_indexes") else f.integers("global_attn_indexes", LARGEST_LAYERS)
    kinds = {whole: _block(f, hidden, across if whole else f.integer("window_size")) for whole in (True, False)}
    around = (
        learned(f"{prefix}pos_embed", 1, across, across, hidden),
        *convolution(f"{prefix}patch_embed.projection", hidden, f.integer("num_channels"), patch, patch),
        *neck(f"{prefix}neck.", hidden, out),
    )
    return Part(
        name="vision tower",
        layers=tuple(kinds[i in seeing_all] for i in range(f.integer("num_hidden_layers", largest=LARGEST_LAYERS))),
        layer_prefix=f"{prefix}layers.{{layer}}.",
        tensors=around,
        resident=True,
    )


def neck(at: str, hidden: int, out: int) -> Tensors:
    """Return the two convolutions behind the blocks."""
    return (
        *convolution(f"{at}conv1", out, hidden, 1, 1, bias=False),
        *norm(f"{at}layer_norm1", out, bias=True),
        *convolution(f"{at}conv2", out, out, 3, 3, bias=False),
        *norm(f"{at}layer_norm2", out, bias=True),
    )


def _block(fields: Fields, hidden: int, seen: int) -> Layer:
    heads = fields.integer("num_attention_heads")
    width, dim = fields.integer("mlp_dim", 4 * hidden), hidden // heads
    for name in ("use_abs_pos", "use_rel_pos"):
        fields.insist(name, on=True, why="a tower without positions")
    tensors = (
        learned("attn.rel_pos_h", 2 * seen - 1, dim),
        learned("attn.rel_pos_w", 2 * seen - 1, dim),
        *linear("attn.qkv", 3 * hidden, hidden, Cut.WHOLE, bias=fields.flag("qkv_bias", default=True)),
        *matrices(("attn.proj",), hidden, hidden, bias=True),
        *matrices(("mlp.lin1",), width, hidden, bias=True),
        *matrices(("mlp.lin2",), hidden, width, bias=True),
        *norm("layer_norm1", hidden, bias=True),
        *norm("layer_norm2", hidden, bias=True),
    )
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=dim, causal=False)
    return Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=False), tensors=tensors)
