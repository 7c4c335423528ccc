"""What llama.cpp's graphs are made of: inputs, masks, norms and products, by the rules of a build.

Source: ggml-org/llama.cpp:src/llama-graph.cpp (build_norm, build_lora_mm, build_attn_inp_kv, build_inp_out_ids).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vramfit.engines.ggml_graph import Graph, Node, Place
from vramfit.layer_kind import Attention
from vramfit.spec import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What changed in the graph between versions."""

    half_mask: bool
    """True: the mask is an input in 16 bit; False: in 32 bit, and flash attention casts it."""
    indices: bool
    """True: positions in the cache are inputs of their own."""
    two_embeddings: bool
    """True: embeddings given from outside have an input even when only tokens are given."""
    fused_gate: bool
    """True: gate and up projection meet in one operation with a result of its own."""
    copied_projections: bool
    """True: query, key and value of a fused projection are copied apart."""
    flash_copies: bool = False
    """True: flash attention keeps 16-bit copies of a cache in any other format behind its result (CUDA)."""
    rotates: bool = False
    """True: keys, values and queries are rotated before they are stored in a quantised cache."""
    last_norm_apart: bool = False
    """True: the norm before the output projection has memory of its own, as the logs of some builds show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One graph: how many tokens, over how many cells of the cache. Equal jobs have equal graphs."""

    hidden_size: int
    vocab_size: int
    family: str
    tokens: int
    outputs: int
    """Tokens of the batch for which logits are computed."""
    cells: Callable[[Attention], int]
    """Cells that a mixer's mask spans."""
    flash: bool
    layers: tuple[tuple[Layer, bool], ...]
    """Those that are followed, each with True when its weights are on the device."""
    first: bool
    last: bool
    head_bytes: int | None
    """Bytes of an output projection that stayed on the host; None = it is on the device. [B]"""
    weight_bytes: Callable[[Layer, str], int]
    """Largest weight of a layer whose name holds a word. [B]"""
    key_bytes: Callable[[int], int]
    value_bytes: Callable[[int], int]
    """Bytes of so many cached elements. [B]"""
    rules: Rules
    quantised_keys: bool
    quantised_values: bool
    """Whether the cache of keys, and of values, is in blocks."""
    latent: bool
    """True: latent attention reads the compressed cache; False: every head expanded."""


@dataclass(slots=True)
class Nodes:
    """The graph so far, with the inputs and masks that its layers share."""

    job: Job
    graph: Graph = field(default_factory=Graph)
    masks: dict[int, Node] = field(default_factory=dict)
    inputs: dict[str, Node] = field(default_factory=dict)

    def given(self, name: str, shape: tuple[int, ...], element_bytes: int = 4) -> Node:
        """Return the input of that name, on the host."""
        if name not in self.inputs:
            self.inputs[name] = Node(op="leaf", shape=shape, element_bytes=element_bytes, place=Place.HOST, given=True)
        return self.inputs[name]

    def mask(self, cells: int) -> Node:
        """Return the mask over so many cells, in the type that attention reads."""
        job = self.job
        if cells not in self.masks:
            half = job.flash and job.rules.half_mask
            mask = self.given(f"mask {cells}", (cells, job.tokens), 2 if half else 4)
            if job.flash and not half:
                mask = Node(op="cpy", shape=mask.shape, element_bytes=2, sources=[mask])
            self.masks[cells] = mask
        return self.masks[cells]

    def norm(self, x: Node, *, apart: bool = False) -> Node:
        """Normalise and scale, in the place of the operand unless that must stay."""
        plain = Node(op="norm" if apart else "rms_norm", shape=x.shape, sources=[x])
        return Node(op="mul", shape=x.shape, sources=[plain, weight()])

    def times(self, x: Node, width: int, host_bytes: int | None = None) -> Node:
        """Multiply by a matrix, copied to the device first where it stayed on the host."""
        matrix = weight(host_bytes)
        return Node(op="mul_mat", shape=(width, *x.shape[1:]), sources=[matrix, x])


def weight(host_bytes: int | None = None) -> Node:
    """Return a weight: on the device, or of so many bytes on the host."""
    return Node(op="leaf", shape=(), stored=host_bytes or 0, place=Place.DEVICE if host_bytes is None else Place.HOST)


def view(x: Node, shape: tuple[int, ...]) -> Node:
    """Look at a tensor in another shape."""
    return Node(op="view", shape=shape, element_bytes=x.element_bytes, sources=[x], whole=x, place=x.place)


def plus(x: Node, y: Node) -> Node:
    """Add, in the place of the first where nobody else reads it."""
    return Node(op="add", shape=x.shape, sources=[x, y])
