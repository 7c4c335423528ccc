"""Building blocks of diffusion models: named linear layers, convolutions, attention, and what a reader returns.

Names are diffusers' own. Nothing is cut by tensor parallelism here: diffusers copies components, it does not divide
them. Source of every class below ``readers/diffusion``: huggingface/diffusers@v0.42.1:src/diffusers/models/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import CrossAttention, Dense, Experts, FeedForward, GroupedQuery
from vramfit.pipeline import Facts
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_WIDTH, Fields
from vramfit.spec import Layer, Tensor

Tensors = tuple[Tensor, ...]

MOST_WRITTEN_OUT = 1024
"""Layers of a network whose layers all differ; SDXL's U-Net has 133 as counted here."""
TIME_CHANNELS = 256
"""Sines and cosines of a time step before the first linear layer, in all transformers here unless a field says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Layers under one prefix, which holds ``{layer}``."""

    prefix: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """What a component is made of."""

    tensors: Tensors
    stacks: tuple[Stack, ...] = ()
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """How one class is read: its defaults, what must hold, and the function for the rest."""

    read: Callable[[Fields], Anatomy]
    defaults: Mapping[str, Any]
    """Defaults of the class for the fields that decide a shape; null is a value of its own."""
    fixed: Mapping[str, Any]
    """Fields that would change shapes in a way that is not read: they must be absent or so."""


Classes: TypeAlias = Mapping[str, Known]


def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Tensors:
    """Return the weight of a linear layer, and its bias unless it has none."""
    weight = Tensor(name=f"{name}.weight", shape=(outputs, inputs), role=Role.LINEAR)
    return (weight, Tensor(name=f"{name}.bias", shape=(outputs,), role=Role.BIAS)) if bias else (weight,)


def convolution(name: str, outputs: int, inputs: int, kernel: Iterable[int], *, bias: bool = True) -> Tensors:
    """Return the weight of a convolution, and its bias unless it has none."""
    weight = Tensor(name=f"{name}.weight", shape=(outputs, inputs, *kernel), role=Role.CONVOLUTION)
    return (weight, Tensor(name=f"{name}.bias", shape=(outputs,), role=Role.BIAS)) if bias else (weight,)


def norm(name: str, width: int, *, bias: bool = False) -> Tensors:
    """Return the weight of a norm, and its bias if it has one."""
    weight = Tensor(name=f"{name}.weight", shape=(width,), role=Role.NORM)
    return (weight, Tensor(name=f"{name}.bias", shape=(width,), role=Role.BIAS)) if bias else (weight,)


def table(name: str, *shape: int, buffer: bool = False) -> Tensors:
    """Return a lone tensor that is added or looked up: scales and shifts, positions, register tokens."""
    return (Tensor(name=name, shape=shape, role=Role.EMBEDDING, buffer=buffer),)


def under(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors with a prefix before their names."""
    return tuple(Tensor(name=f"{prefix}.{t.name}", shape=t.shape, role=t.role, buffer=t.buffer) for t in tensors)


def two_linears(name: str, width: int, inputs: int, *, inner: int = 0, bias: bool = True) -> Tensors:
    """Return ``linear_1`` and ``linear_2`` of an embedder of time steps, texts or sizes."""
    inner = inner or width
    return (
        *linear(f"{name}.linear_1", inner, inputs, bias=bias),
        *linear(f"{name}.linear_2", width, inner, bias=bias),
    )


def feed_forward(name: str, hidden: int, width: int, *, gated: bool = False, bias: bool = True) -> Tensors:
    """Return diffusers' FeedForward, whose gate and up projection are one matrix."""
    return (
        *linear(f"{name}.net.0.proj", width * 2 if gated else width, hidden, bias=bias),
        *linear(f"{name}.net.2", hidden, width, bias=bias),
    )


def swiglu(name: str, hidden: int, width: int, names: tuple[str, str, str]) -> Tensors:
    """Return three matrices without bias; ``names``: gate, down, up."""
    gate, down, up = names
    return (
        *linear(f"{name}.{gate}", width, hidden, bias=False),
        *linear(f"{name}.{down}", hidden, width, bias=False),
        *linear(f"{name}.{up}", width, hidden, bias=False),
    )


def attention(  # noqa: PLR0913 - facts of one attention, most at their usual value
    name: str,
    hidden: int,
    inner: int,
    *,
    context: int = 0,
    bias: bool = True,
    out_bias: bool = True,
    qk_norm: int = 0,
    kv_inner: int = 0,
    output: bool = True,
) -> Tensors:
    """Return query, key, value and output projections.

    ``context``: width of what keys and values are made of (0 = the tokens themselves); ``qk_norm``: width of the
    norms on queries and keys (0 = none); ``kv_inner``: width of keys and values where heads are grouped.
    """
    source, kv = context or hidden, kv_inner or inner
    return (
        *linear(f"{name}.to_q", inner, hidden, bias=bias),
        *linear(f"{name}.to_k", kv, source, bias=bias),
        *linear(f"{name}.to_v", kv, source, bias=bias),
        *(linear(f"{name}.to_out.0", hidden, inner, bias=out_bias) if output else ()),
        *((*norm(f"{name}.norm_q", qk_norm), *norm(f"{name}.norm_k", qk_norm)) if qk_norm else ()),
    )


def added_attention(  # noqa: PLR0913 - so
    name: str,
    text: int,
    inner: int,
    *,
    bias: bool = True,
    out_bias: bool = True,
    qk_norm: int = 0,
    output: bool = True,
) -> Tensors:
    """Return the projections of the text stream that attends together with the image stream."""
    return (
        *(t for letter in "qkv" for t in linear(f"{name}.add_{letter}_proj", inner, text, bias=bias)),
        *(linear(f"{name}.to_add_out", text, inner, bias=out_bias) if output else ()),
        *((*norm(f"{name}.norm_added_q", qk_norm), *norm(f"{name}.norm_added_k", qk_norm)) if qk_norm else ()),
    )


def block(  # noqa: PLR0913 - so
    heads: int,
    head_dim: int,
    width: int,
    tensors: Tensors,
    *,
    gated: bool = False,
    crosses: bool = False,
    kv_heads: int = 0,
    network: FeedForward | None = None,
) -> Layer:
    """Return one block whose tokens all see one another; ``crosses``: it also attends to the text."""
    kv = kv_heads or heads
    mixer = GroupedQuery(num_attention_heads=heads, num_key_value_heads=kv, head_dim=head_dim, causal=False)
    beside = CrossAttention(num_attention_heads=heads, num_key_value_heads=kv, head_dim=head_dim)
    return Layer(
        attention=mixer,
        feed_forward=network or Dense(intermediate_size=width, gated=gated),
        tensors=tensors,
        beside=beside if crosses else None,
    )


def experts(count: int, chosen: int, width: int, shared: int) -> Experts:
    """Return the facts of a mixture of experts with shared ones beside."""
    return Experts(
        num_experts=count, num_experts_per_tok=chosen, moe_intermediate_size=width, shared_intermediate_size=shared
    )


def resnet(
    name: str,
    inputs: int,
    outputs: int,
    *,
    time: int = 0,
    kernel: tuple[int, ...] = (3, 3),
    conv: str = "",
) -> Tensors:
    """Return a residual block: two norms, two convolutions, a shortcut where the width changes.

    ``time``: width of the time embedding it listens to (0 = none); ``conv``: what the layer inside a causal
    convolution is called.
    """
    point = (1,) * len(kernel)
    return (
        *norm(f"{name}.norm1", inputs, bias=True),
        *convolution(f"{name}.conv1{conv}", outputs, inputs, kernel),
        *(linear(f"{name}.time_emb_proj", outputs, time) if time else ()),
        *norm(f"{name}.norm2", outputs, bias=True),
        *convolution(f"{name}.conv2{conv}", outputs, outputs, kernel),
        *(convolution(f"{name}.conv_shortcut{conv}", outputs, inputs, point) if inputs != outputs else ()),
    )


def integers(
    fields: Fields, name: str, *, largest: int = LARGEST_WIDTH, smallest: int = 1, empty: bool = False
) -> tuple[int, ...]:
    """Return a list of bounded integers, in order; ``empty``: it may have no entry."""
    value = fields.values.get(name)
    if not isinstance(value, list | tuple) or len(value) > LARGEST_LAYERS or not (value or empty):
        raise InvalidValueError(fields.at(name), value, f"a list of integers from {smallest} to {largest:,}")
    return tuple(Fields({name: v}, fields.path).integer(name, largest=largest, smallest=smallest) for v in value)


def per_level(fields: Fields, name: str, levels: int, *, smallest: int = 1) -> tuple[int, ...]:
    """Return one integer per level, from a list or from one for all."""
    if not isinstance(fields.values.get(name), list | tuple):
        return (fields.integer(name, largest=LARGEST_LAYERS, smallest=smallest),) * levels
    found = integers(fields, name, largest=LARGEST_LAYERS, smallest=smallest)
    if len(found) != levels:
        raise InvalidValueError(fields.at(name), list(found), f"a list of {levels} integers, one per level")
    return found


def bounded(fields: Fields, name: str, total: int) -> None:
    """Refuse a network whose layers are written out one by one and would never come to an end.

    Raises:
        InvalidValueError: more layers in all levels together than any network has.
    """
    if total > MOST_WRITTEN_OUT:
        raise InvalidValueError(fields.at(name), total, f"at most {MOST_WRITTEN_OUT:,} layers, all levels together")


def whole_heads(fields: Fields, name: str, width: int) -> int:
    """Return a number of heads that divides a width."""
    heads = fields.integer(name, largest=width)
    if width % heads:
        raise InvalidValueError(fields.at(name), heads, f"a divisor of the width ({width:,})")
    return heads


def count(fields: Fields, name: str, *, smallest: int = 0) -> int:
    """Return a number of layers."""
    return fields.integer(name, largest=LARGEST_LAYERS, smallest=smallest)


def yes(fields: Fields, name: str) -> bool:
    """Return a boolean; null means no."""
    return fields.flag(name, default=False)


def one_of(fields: Fields, name: str, known: tuple[object, ...]) -> Any:  # noqa: ANN401 - a word, a number or nothing
    """Return a value that must be one of those that are read.

    Raises:
        UnsupportedModelError: another one.
    """
    value = fields.values.get(name)
    if not any(value == k and type(value) is type(k) for k in known):
        raise UnsupportedModelError(
            f"{fields.at(name)}: {value!r:.100}: expected one of {', '.join(map(str, known))}; others are not read "
            "natively: install diffusers to have them read on its meta device"
        )
    return value
