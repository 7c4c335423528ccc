"""Picture tokenizers that turn images into words of a codebook: Chameleon's and Janus's.

Source: huggingface/transformers:src/transformers/models/chameleon/ and models/janus/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from vramfit.readers.families.decoder import Tensors, norm
from vramfit.readers.families.vision import convolution, position_table
from vramfit.readers.fields import Fields
from vramfit.spec import Part

LARGEST_STEPS, LARGEST_SIDE = 64, 65536


_CHAMELEON: dict[str, object] = {
    "embed_dim": 256,
    "num_embeddings": 8192,
    "latent_channels": 256,
    "resolution": 512,
    "in_channels": 3,
    "base_channels": 128,
    "num_res_blocks": 2,
}
_JANUS: dict[str, object] = {
    "embed_dim": 8, "num_embeddings": 16384, "latent_channels": 256, "in_channels": 3, "out_channels": 3,
    "base_channels": 128, "num_res_blocks": 2,
}  # fmt: skip


def chameleon(fields: Fields, prefix: str) -> Part:
    """Read Chameleon's tokenizer, which attends at the resolutions that ``attn_resolutions`` names."""
    f = fields.filled(**_CHAMELEON)
    if f.has("attn_type") and f.text("attn_type") != "vanilla":
        f.refuse("attn_type", "another attention")
    sides = f.integers("attn_resolutions", LARGEST_SIDE)
    attends = tuple(f.integer("resolution") >> i in sides for i in range(len(channels(f))))
    return _tokenizer(encoder(f, prefix, attends=attends))


def janus(fields: Fields, prefix: str) -> Part:
    """Read Janus's tokenizer, which attends at the coarsest resolution and draws pictures too."""
    f = fields.filled(**_JANUS)
    count = len(channels(f))
    attends = tuple(i == count - 1 for i in range(count))
    return _tokenizer((*encoder(f, prefix, attends=attends), *decoder(f, f"{prefix}decoder.")))


def _tokenizer(tensors: Tensors) -> Part:
    return Part(name="picture tokenizer", layers=(), layer_prefix="", tensors=tensors, resident=True)


def channels(fields: Fields) -> tuple[int, ...]:
    """Return the channels at each resolution, from the finest on."""
    steps = fields.row("channel_multiplier", (1, 1, 2, 2, 4), largest=LARGEST_STEPS)
    return tuple(fields.integer("base_channels") * step for step in steps)


def encoder(fields: Fields, at: str, *, attends: tuple[bool, ...]) -> Tensors:
    """Return encoder, codebook and the layers around it; ``attends``: which resolutions have attention."""
    widths, blocks = channels(fields), fields.integer("num_res_blocks", largest=LARGEST_STEPS)
    latent, inside = fields.integer("latent_channels"), fields.integer("embed_dim")
    fields.refuse("double_latent", "twice the channels")
    width = fields.integer("base_channels")
    tensors = [*convolution(f"{at}encoder.conv_in", width, fields.integer("in_channels"), 3, 3)]
    for i, wide in enumerate(widths):
        for j in range(blocks):
            tensors += residual(f"{at}encoder.down.{i}.block.{j}.", width, wide)
            tensors += attention(f"{at}encoder.down.{i}.attn.{j}.", wide) if attends[i] else ()
            width = wide
        if i < len(widths) - 1:
            tensors += convolution(f"{at}encoder.down.{i}.downsample.conv", wide, wide, 3, 3)
    return (
        *tensors,
        *middle(f"{at}encoder.mid.", width),
        *norm(f"{at}encoder.norm_out", width, bias=True),
        *convolution(f"{at}encoder.conv_out", latent, width, 3, 3),
        position_table(f"{at}quantize.embedding", fields.integer("num_embeddings"), inside),
        *convolution(f"{at}quant_conv", inside, latent, 1, 1),
        *convolution(f"{at}post_quant_conv", latent, inside, 1, 1),
    )


def decoder(fields: Fields, at: str) -> Tensors:
    """Return the decoder back to a picture: one block more at each resolution, attention at the coarsest."""
    widths, blocks = channels(fields), fields.integer("num_res_blocks", largest=LARGEST_STEPS)
    width = widths[-1]
    tensors = [*convolution(f"{at}conv_in", width, fields.integer("latent_channels"), 3, 3)]
    tensors += middle(f"{at}mid.", width)
    for i, wide in enumerate(reversed(widths)):
        for j in range(blocks + 1):
            tensors += residual(f"{at}up.{i}.block.{j}.", width, wide)
            tensors += attention(f"{at}up.{i}.attn.{j}.", wide) if i == 0 else ()
            width = wide
        if i < len(widths) - 1:
            tensors += convolution(f"{at}up.{i}.upsample.conv", wide, wide, 3, 3)
    out = fields.integer("out_channels")
    return (*tensors, *norm(f"{at}norm_out", width, bias=True), *convolution(f"{at}conv_out", out, width, 3, 3))


def middle(at: str, width: int) -> Tensors:
    """Return two residual blocks with attention between."""
    return (
        *residual(f"{at}block_1.", width, width),
        *attention(f"{at}attn_1.", width),
        *residual(f"{at}block_2.", width, width),
    )


def residual(at: str, width: int, wide: int) -> Tensors:
    """Return a residual block; another number of channels needs a shortcut of its own."""
    return (
        *norm(f"{at}norm1", width, bias=True),
        *convolution(f"{at}conv1", wide, width, 3, 3),
        *norm(f"{at}norm2", wide, bias=True),
        *convolution(f"{at}conv2", wide, wide, 3, 3),
        *(convolution(f"{at}nin_shortcut", wide, width, 1, 1) if wide != width else ()),
    )


def attention(at: str, width: int) -> Tensors:
    """Return attention over all places of a picture."""
    names = ("q", "k", "v", "proj_out")
    return (
        *norm(f"{at}norm", width, bias=True),
        *(t for n in names for t in convolution(f"{at}{n}", width, width, 1, 1)),
    )
