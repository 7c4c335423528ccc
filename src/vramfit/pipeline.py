"""What the components of a diffusion pipeline are: the facts that sizes of images, videos and prompts act upon.

The tensors of a component are parts of the ``ModelSpec``; these nouns say what no list of tensors shows: how an image
becomes latents, how latents become tokens, how wide each place is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """The network that runs once per step (and per side of guidance): a transformer or a U-Net over latents."""

    in_channels: int
    """Channels of the latents it reads, before patches are folded."""
    out_channels: int
    hidden_size: int
    """Width of a token; of a U-Net its first level's channels."""
    num_attention_heads: int
    head_dim: int
    patch_size: tuple[int, int, int] = (1, 1, 1)
    """Latent frames, rows and columns that make one token."""
    text_width: int | None = None
    """Width of the text encoder's output; None = it reads no text."""
    block_out_channels: tuple[int, ...] = ()
    """Channels of each level of a U-Net; empty = not a U-Net."""
    layers_per_block: tuple[int, ...] = ()
    """Residual blocks of each level of a U-Net."""
    transformer_layers: tuple[int, ...] = ()
    """Transformer blocks behind each residual block, per level of a U-Net; 0 = the level has no attention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoencoder:
    """The network between pixels and latents."""

    latent_channels: int
    spatial_ratio: int
    """Pixels per latent along a side."""
    temporal_ratio: int = 1
    """Frames per latent frame; 1 = images, or frame by frame."""
    block_out_channels: tuple[int, ...]
    """Channels of each level, the finest first."""
    layers_per_block: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A network that reads the prompt, or an image, once before the first step."""

    hidden_size: int
    max_tokens: int | None
    """Longest input its positions are made for; None = no limit in the architecture."""


Facts: TypeAlias = Denoiser | Autoencoder | Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One folder of a pipeline that holds weights."""

    name: str
    """``transformer``, ``text_encoder_2``: as in ``model_index.json``, and as ``Part.component``."""
    class_name: str
    facts: Facts | None
    """None = read through diffusers or transformers, which knows the tensors only."""
