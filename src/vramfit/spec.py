"""What a model is: named tensors and per-layer facts, nothing about how it is run.

A ``ModelSpec`` has one ``Layer`` per layer, because sliding-window, mixture-of-experts,
latent-attention and state-space layers are ordinary now. Families build one ``Layer`` object
per distinct kind and repeat it, so grouping equal layers is cheap.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from vramfit.formats import Role, StorageFormat
from vramfit.layer_kind import Attention, CrossAttention, Experts, FeedForward

if TYPE_CHECKING:
    from vramfit.pipeline import Component  # only pipelines pay for these nouns


class Cut(StrEnum):
    """How tensor parallelism divides a tensor. Shapes are ``[outputs, inputs]`` unless said."""

    WHOLE = "whole"  # every rank holds all of it: norms, routers, latent down-projections
    OUTPUTS = "outputs"  # first axis is divided
    INPUTS = "inputs"  # last axis is divided
    KEY_VALUE_HEADS = "key_value_heads"  # first axis by KV heads: at least one head per rank, so heads repeat
    QUERY_KEY_VALUE = "query_key_value"  # first axis holds query, key and value heads one after the other
    SECOND = "second"  # second axis is divided: fused experts, [experts, inputs, outputs]
    VOCABULARY = "vocabulary"  # first axis is divided with the vocabulary, padded up


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One weight of the checkpoint, or ``copies`` of them that differ in the expert's number only."""

    name: str
    """As in the checkpoint, below the layer's prefix; ``{expert}`` where the expert's number stands."""
    shape: tuple[int, ...]
    role: Role
    cut: Cut = Cut.WHOLE
    copies: int = 1
    """How many such tensors: one per routed expert; 1 for all others."""
    experts: int = 0
    """Routed experts held in this entry (``copies``, or the first axis of a fused tensor); 0 = none."""
    stored: StorageFormat | None = None
    """Format it always has in the file, whatever the recipe; None = the recipe decides."""
    held: StorageFormat | None = None
    """Format that this checkpoint's quantisation gives it, by its full name; None = it is not quantised."""
    buffer: bool = False
    """True: in the file and in memory, but not a parameter (a router's correction bias)."""
    frozen: bool = False
    """True: training leaves it as it is."""

    @property
    def num_parameters(self) -> int:
        """Elements of all copies; a buffer has none."""
        return 0 if self.buffer else self.copies * prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block: how it mixes tokens, how it transforms them, and the tensors of both."""

    attention: Attention | None
    """None = this block does not mix tokens (Nemotron-H feed-forward blocks)."""
    feed_forward: FeedForward | None
    """None = this block has no feed-forward network of its own."""
    tensors: tuple[Tensor, ...]
    beside: Attention | None = None
    """A second mixer of the same block: cross attention, or a state space beside attention; None = there is none."""
    shared: tuple[Tensor, ...] = ()
    """What this block uses although ``shared_with`` has it in the file: the same parameters, once (Zamba, ALBERT)."""
    shared_with: int | None = None
    """Number of that block; a pipeline stage without it holds ``shared`` itself. None = nothing is shared."""

    @property
    def mixers(self) -> tuple[Attention, ...]:
        """All that mixes tokens in this block."""
        return tuple(mixer for mixer in (self.attention, self.beside) if mixer is not None)

    @property
    def num_parameters(self) -> int:
        """Parameters of the block, all experts counted."""
        return sum(t.num_parameters for t in self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stack beside the language model: vision tower, multi-token-prediction head."""

    name: str
    layers: tuple[Layer, ...]
    layer_prefix: str
    """Name of layer i in the checkpoint, with ``{layer}`` for its number."""
    first_layer: int = 0
    """Number of the first layer in the checkpoint."""
    tensors: tuple[Tensor, ...] = ()
    """Everything outside the layers, full names."""
    resident: bool
    """True when a plain load of the model brings it to the device."""
    component: str = ""
    """Component of a diffusion pipeline that this stack belongs to; empty = not a pipeline."""
    encodes: bool = False
    """True: the encoder of an encoder-decoder; it reads the prompt in the layers' place and is divided like them."""
    hidden_size: int | None = None
    """Width at which its layers read and write, where it is not the model's; None = the model's."""
    input_tokens: int | None = None
    """Tokens of one input that it reads beside each text (CLIP's images); None = its activations are not counted."""

    @property
    def predicts(self) -> bool:
        """Whether it is a multi-token-prediction head: it reads what the last layer writes."""
        return self.name == "mtp"

    @property
    def depth(self) -> int:
        """Tokens that a multi-token-prediction head predicts beyond the next one."""
        return sum(t.name.endswith("eh_proj.weight") for t in self.tensors)

    @property
    def num_parameters(self) -> int:
        """Parameters of the part."""
        return sum(t.num_parameters for t in self.tensors) + sum(layer.num_parameters for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """The largest image that a processor lets through: what servers profile themselves with."""

    tokens: int
    """Positions it takes in the language model."""
    patches: int
    """Positions it takes in the vision tower."""
    elements: int
    """Numbers of its pixel tensor, all tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How the weights of a model are stored: a format for matrices and a plain one for the rest."""

    quantised: StorageFormat
    plain: StorageFormat
    roles: frozenset[Role] | None = None
    """Roles that are quantised; None = those the format names."""
    by_tensor: bool = False
    """True for a quantised checkpoint: every tensor says itself how it is held (``Tensor.held``)."""
    kv_format: str | None = None
    """Cache format that the checkpoint was made for; None = it names none."""

    def format_of(self, tensor: Tensor) -> StorageFormat:
        """Return the format in which this tensor is stored."""
        if self.by_tensor:
            return tensor.held or tensor.stored or self.plain
        if tensor.stored is not None and self.quantised.is_plain:
            return tensor.stored
        roles = self.quantised.quantises if self.roles is None else self.roles
        if tensor.role in roles and len(tensor.shape) > 1:
            return self.quantised
        return tensor.stored or self.plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A small set of weights trained on a base model: LoRA and its relatives, prompts, copies of whole modules."""

    name: str
    kind: str
    """``peft_type`` in small letters, such as ``"lora"``."""
    rank: int | None
    """Rank where no pattern says otherwise; None = this kind has none."""
    tensors: tuple[Tensor, ...]
    """As the adapter's file holds them; ``buffer`` = in the file, but not trained."""
    plain: StorageFormat
    """Format of tensors that name none."""
    trained: tuple[Tensor, ...] = ()
    """What is trained where the file holds only what it made (P-tuning); empty = what the file holds."""
    assumptions: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        """Trainable parameters; equals what peft itself prints."""
        return sum(t.num_parameters for t in self.trained or self.tensors)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors. [B]"""
        return sum(t.copies * (t.stored or self.plain).tensor_size(t.shape) for t in self.tensors)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model as understood from its configuration. No slots: what is derived from the layers is kept."""

    name: str
    family: str
    """Hugging Face ``model_type``."""
    hidden_size: int
    vocab_size: int | None
    """None = it has no vocabulary: it reads images."""
    max_position_embeddings: int | None
    """Longest context the model was made for; None = the configuration does not say."""
    embeddings: tuple[Tensor, ...]
    """Token (and position) embeddings, first stage."""
    layers: tuple[Layer, ...]
    head: tuple[Tensor, ...]
    """Final norm and output projection, last stage; no projection when tied."""
    tied: bool
    """True when the output projection is the token embedding itself."""
    layer_prefix: str
    scheme: Scheme
    parts: tuple[Part, ...] = ()
    residual_streams: int = 1
    """Copies of the hidden state that run beside each other through the layers (hyper-connections)."""
    components: tuple[Component, ...] = ()
    """Facts of a diffusion pipeline, one entry per folder with weights; empty = a language model or an encoder."""
    generates: bool = True
    """False for encoders: no next token, no cache, no logits over the vocabulary at every step."""
    not_counted: tuple[str, ...] = ()
    """What this kind of model holds in memory and no formula here counts."""
    assumptions: tuple[str, ...] = ()
    """What the configuration did not say and was taken from the family's published defaults."""
    adapters: tuple[Adapter, ...] = ()
    """What is loaded beside the weights without being merged into them."""
    rotary_positions: tuple[int, ...] = ()
    """Rows of every distinct table of rotary angles that a server computes ahead; empty = none is known."""
    rotary_ratio: float = 1.0
    """Share of a head's width that is rotated."""
    image: ImageInput | None = None
    """None = takes no images, or the size of the largest is not known."""
    evidence: str = "config"
    """``"config"``, or the header that every tensor was compared with, name for name and shape for shape."""

    @cached_property
    def groups(self) -> tuple[tuple[Layer, int], ...]:
        """The layers, equal ones together with how many there are."""
        return layer_groups(self.layers)

    @cached_property
    def encodes_prompt(self) -> bool:
        """True: an encoder reads the prompt; the layers write the answer and look at what it made of it."""
        mixers = (mixer for layer, _ in self.groups for mixer in layer.mixers)
        return any(isinstance(mixer, CrossAttention) and mixer.source_tokens is None for mixer in mixers)

    @cached_property
    def num_parameters(self) -> int:
        """Parameters that a plain load brings to the device; equals transformers' own count."""
        outside = sum(t.num_parameters for t in (*self.embeddings, *self.head))
        layers = sum(layer.num_parameters * count for layer, count in self.groups)
        return outside + layers + sum(p.num_parameters for p in self.parts if p.resident)

    @cached_property
    def num_active_parameters(self) -> int:
        """Parameters that one token passes through: routed experts count as those chosen.

        Everything else counts, the token embedding and the output projection too, and towers that a plain load
        brings along. Publishers differ: most do as we do (DeepSeek, Qwen, GLM), some leave the embedding out
        (gpt-oss-120b: 5.13 of our 5.71 billion), and some count a chosen expert that does nothing as none (LongCat).
        """
        idle = 0
        for layer, count in self.groups:
            if isinstance(layer.feed_forward, Experts):
                ff = layer.feed_forward
                routed = sum(t.num_parameters for t in layer.tensors if t.experts)
                idle += count * (routed - routed * ff.num_experts_per_tok // ff.num_experts)
        return self.num_parameters - idle


def layer_groups(layers: tuple[Layer, ...]) -> tuple[tuple[Layer, int], ...]:
    """Group equal layers, in order of first appearance: ``((layer, how many), ...)``."""
    if len(set(map(id, layers))) == 1:
        return ((layers[0], len(layers)),)
    objects = dict(zip(map(id, layers), layers, strict=True))
    merged: dict[Layer, int] = {}
    for key, count in Tally(map(id, layers)).items():
        merged[objects[key]] = merged.get(objects[key], 0) + count
    return tuple(merged.items())


def inventory(spec: ModelSpec) -> Iterator[Tensor]:
    """Yield every tensor of the checkpoint by its full name, one entry per expert, parts last.

    Components of a pipeline are files of their own and share names: there the component stands before the name.
    """
    yield from spec.embeddings
    yield from _stack(spec.layers, spec.layer_prefix, 0)
    yield from spec.head
    for part in spec.parts:
        folder = f"{part.component}/" if len(spec.components) > 1 else ""
        yield from (replace(t, name=folder + t.name) if folder else t for t in part.tensors)
        yield from _stack(part.layers, folder + part.layer_prefix, part.first_layer)


def _stack(layers: tuple[Layer, ...], prefix: str, first: int) -> Iterator[Tensor]:
    for number, layer in enumerate(layers, start=first):
        before = prefix.replace("{layer}", str(number))
        for t in layer.tensors:
            for expert in range(t.copies):
                name = before + t.name.replace("{expert}", str(expert))
                yield Tensor(
                    name=name,
                    shape=t.shape,
                    role=t.role,
                    cut=t.cut,
                    experts=t.experts,
                    stored=t.stored,
                    held=t.held,
                    buffer=t.buffer,
                )
