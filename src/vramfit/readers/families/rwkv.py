"""RWKV 4, 6 and 7: recurrent networks that mix each token with the one before, and keep a state per head.

Source: huggingface/transformers:src/transformers/models/rwkv/, 5.23.0 (RWKV 4); fla-org/flash-linear-attention@bc3b101:
fla/models/rwkv7/ and fla/layers/rwkv7.py (RWKV 7); RWKV 6: Peng et al. 2024, arXiv:2404.05892, sec. 4.2, with the names
of RWKV/v6-Finch-1B6-HF:modeling_rwkv6.py.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, Recurrence
from vramfit.readers.families.decoder import Named, Tensors, causal_model, is_tied, linear, norm
from vramfit.readers.families.state_space import states
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor
from vramfit.units import ceil_div

SUMS = 3
"""RWKV 4 keeps numerator, denominator and the largest exponent of each channel (Peng et al. 2023, arXiv:2305.13048)."""
TOKENS_BEFORE = 2
"""Each block keeps the input of its time mixing and of its channel mixing for the next token."""
MIXED = 5
"""Inputs of RWKV 6 that are mixed with the token before: receptance, decay, key, value, gate."""
NETWORK_MULTIPLE = 32
"""Widths of RWKV 6 and 7's networks are rounded up to it."""
LARGEST_FACTOR = 64
RANKS = (("w", "decay", 64), ("v", "v", 16), ("a", "a", 64), ("g", "gate", 128))
"""Low-rank parts of RWKV 7: name, its field without ``_low_rank_dim``, class default of fla-org's configuration."""
WIDE = 4096
MIX_RANKS, DECAY_RANKS = (32, 64), (64, 128)
"""Ranks of RWKV 6, below and from a hidden size of WIDE on; its configuration has no field for them."""
CLASSES = {
    "rwkv": ("RwkvForCausalLM",),
    "rwkv6": ("Rwkv6ForCausalLM",),
    "rwkv7": ("RWKV7ForCausalLM",),
}
"""Of RWKV 6, the code in RWKV's own repositories; files for fla-org's class have other names."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an RWKV configuration."""
    match fields.text("model_type"):
        case "rwkv":
            return _fourth(fields, named)
        case "rwkv6":
            return _read_sixth(fields, named)
        case _:
            return _read_seventh(fields, named)


def _mixes(at: str, names: tuple[str, ...], hidden: int) -> Tensors:
    """Return how much of the token before each input has, channel by channel."""
    return tuple(Tensor(name=f"{at}.{name}", shape=(1, 1, hidden), role=Role.STATE) for name in names)


def _both_norms(names: tuple[str, ...], hidden: int, *, bias: bool = True) -> Tensors:
    return tuple(t for name in names for t in norm(name, hidden, bias=bias))


def _fourth(fields: Fields, named: Named) -> ModelSpec:
    hidden = fields.integer("hidden_size")
    inner, width = (
        fields.optional("attention_hidden_size") or hidden,
        fields.optional("intermediate_size") or 4 * hidden,
    )
    if inner != hidden:
        fields.refuse("attention_hidden_size", "a state that transformers keeps hidden_size wide")
    facts = Recurrence(
        num_heads=hidden,
        width=hidden,
        state_elements=SUMS * hidden,
        previous_elements=TOKENS_BEFORE * hidden,
    )
    tensors = (
        *_both_norms(("ln1", "ln2"), hidden),
        *states("attention", ("time_decay", "time_first"), hidden),
        *_mixes("attention", ("time_mix_key", "time_mix_value", "time_mix_receptance"), hidden),
        *(t for x in ("key", "value", "receptance") for t in linear(f"attention.{x}", hidden, hidden, Cut.OUTPUTS)),
        *linear("attention.output", hidden, hidden, Cut.INPUTS),
        *_mixes("feed_forward", ("time_mix_key", "time_mix_receptance"), hidden),
        *linear("feed_forward.key", width, hidden, Cut.OUTPUTS),
        *linear("feed_forward.receptance", hidden, hidden, Cut.WHOLE),
        *linear("feed_forward.value", hidden, width, Cut.INPUTS),
    )
    return _under_rwkv(fields, named, facts, width, tensors)


def _under_rwkv(fields: Fields, named: Named, facts: Recurrence, width: int, tensors: Tensors) -> ModelSpec:
    """Return RWKV 4 or 6 with all their names below ``rwkv.``; the first block has a norm before all others."""
    hidden = facts.width
    layer = Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=False), tensors=tensors)
    first = replace(layer, tensors=(*norm("pre_ln", hidden, bias=True), *tensors))
    spec = causal_model(
        fields,
        named,
        (first, *(layer,) * (fields.num_layers - 1)),
        hidden_size=hidden,
        tied=is_tied(fields),
        prefix="rwkv.",
        head_name="head",
        embedding="embeddings",
        final_norm="ln_out",
    )
    return _ended(spec, "rwkv.ln_out", "rwkv.blocks.{layer}.", bias=True)


def _ended(spec: ModelSpec, final: str, prefix: str, *, bias: bool) -> ModelSpec:
    """Return the model with the bias of its last norm, and its layers under their own prefix."""
    projection = tuple(t for t in spec.head if t.role is Role.HEAD)
    return replace(spec, head=(*norm(final, spec.hidden_size, bias=bias), *projection), layer_prefix=prefix)


def _read_seventh(fields: Fields, named: Named) -> ModelSpec:
    """Read RWKV 7; the first layer has a norm before all others, and no value of a layer before it to mix in."""
    fields.refuse("attn", "layers of softmax attention among the recurrent ones")
    hidden, bias = fields.integer("hidden_size"), fields.flag("norm_bias", default=True)
    _check_values(fields, hidden)
    width = _network_width(fields, hidden)
    network = (
        Tensor(name="ffn.x_k", shape=(hidden,), role=Role.STATE),
        *linear("ffn.key", width, hidden, Cut.OUTPUTS),
        *linear("ffn.value", hidden, width, Cut.INPUTS),
    )
    norms = _both_norms(("attn_norm", "ffn_norm"), hidden, bias=bias)
    before = norm("pre_norm", hidden, bias=bias) if fields.flag("norm_first", default=True) else ()

    def layer(*, first: bool) -> Layer:
        facts, mixing = _seventh(fields, hidden, first=first)
        tensors = (*(before if first else ()), *norms, *mixing, *network)
        return Layer(attention=facts, feed_forward=Dense(intermediate_size=width, gated=False), tensors=tensors)

    layers = (layer(first=True), *(layer(first=False),) * (fields.num_layers - 1))
    spec = causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields), embedding="embeddings")
    return _ended(spec, "model.norm", spec.layer_prefix, bias=bias)


def _check_values(fields: Fields, hidden: int) -> None:
    """Refuse values of another width than the hidden size, which no published model has."""
    name = "value_dim"
    listed = fields.values.get(name)
    widths = listed if isinstance(listed, list) else [listed]
    if any(width not in {None, hidden} for width in widths if isinstance(width, int | None)):
        fields.refuse(name, "values of another width than the hidden size")


def _network_width(fields: Fields, hidden: int) -> int:
    """Return the width of the channel mixing: given, else a ratio of the hidden size rounded up to 32."""
    width, ratio = fields.optional("intermediate_size"), fields.values.get("hidden_ratio")
    if width is not None:
        return width
    if ratio is None:
        ratio = 4
        fields.assume("hidden_ratio", ratio, "class default of fla-org's configuration")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= LARGEST_FACTOR:
        raise InvalidValueError(fields.at("hidden_ratio"), ratio, f"a number above 0 and at most {LARGEST_FACTOR}")
    return NETWORK_MULTIPLE * ceil_div(int(hidden * ratio), NETWORK_MULTIPLE)


def _read_sixth(fields: Fields, named: Named) -> ModelSpec:
    """Read RWKV 6 as in RWKV's own repositories: Rwkv6ForCausalLM."""
    hidden = fields.integer("hidden_size")
    inner = fields.optional("attention_hidden_size") or hidden
    if inner != hidden:
        fields.refuse("attention_hidden_size", "a state that the published code keeps hidden_size wide")
    width = fields.optional("intermediate_size") or hidden * 7 // 2 // NETWORK_MULTIPLE * NETWORK_MULTIPLE
    facts, mixing = _sixth(fields, hidden)
    tensors = (
        *_both_norms(("ln1", "ln2"), hidden),
        *mixing,
        *_mixes("feed_forward", ("time_maa_k", "time_maa_r"), hidden),
        *linear("feed_forward.key", width, hidden, Cut.OUTPUTS),
        *linear("feed_forward.receptance", hidden, hidden, Cut.WHOLE),
        *linear("feed_forward.value", hidden, width, Cut.INPUTS),
    )
    return _under_rwkv(fields, named, facts, width, tensors)


def _sixth(fields: Fields, hidden: int) -> tuple[Recurrence, Tensors]:
    """Return the time mixing of RWKV 6: how much of the token before, and the decay, depend on the input."""
    heads, width = _heads(fields, hidden, "head_size")
    at, wide = "attention", int(hidden >= WIDE)
    mix, decay = MIX_RANKS[wide], DECAY_RANKS[wide]

    def learned(name: str, *shape: int) -> Tensor:
        return Tensor(name=f"{at}.{name}", shape=shape, role=Role.STATE)

    return _facts(hidden, heads, width), (
        *_mixes(at, tuple(f"time_maa_{x}" for x in "xwkvrg"), hidden),
        learned("time_maa_w1", hidden, MIXED * mix),
        learned("time_maa_w2", MIXED, mix, hidden),
        learned("time_decay", 1, 1, hidden),
        learned("time_decay_w1", hidden, decay),
        learned("time_decay_w2", decay, hidden),
        *states(at, ("time_faaaa",), heads, width),
        *(t for x in ("receptance", "key", "value", "gate") for t in linear(f"{at}.{x}", hidden, hidden, Cut.OUTPUTS)),
        *linear(f"{at}.output", hidden, hidden, Cut.INPUTS),
        *_group_norm(f"{at}.ln_x", hidden),
    )


def _heads(fields: Fields, hidden: int, name: str) -> tuple[int, int]:
    """Return number and width of heads; the width decides, as in the published code."""
    width = fields.integer(name, 64)
    if hidden % width:
        raise InvalidValueError(fields.at(name), width, f"a divisor of hidden_size ({hidden})")
    return hidden // width, width


def _facts(hidden: int, heads: int, width: int) -> Recurrence:
    """Return the facts of RWKV 6 and 7: a square matrix of state per head."""
    return Recurrence(
        num_heads=heads,
        width=hidden,
        state_elements=heads * width * width,
        previous_elements=TOKENS_BEFORE * hidden,
    )


def _low_rank(at: str, hidden: int, rank: int, *, bias: bool) -> Tensors:
    """Return two matrices with an activation between them."""
    down = linear(f"{at}.lora.0", rank, hidden, Cut.WHOLE)
    return (*down, *linear(f"{at}.lora.2", hidden, rank, Cut.OUTPUTS, bias=bias))


def _group_norm(name: str, hidden: int) -> Tensors:
    """Return the norm over each head; its weights are divided with the heads."""
    return (
        Tensor(name=f"{name}.weight", shape=(hidden,), role=Role.NORM, cut=Cut.OUTPUTS),
        Tensor(name=f"{name}.bias", shape=(hidden,), role=Role.BIAS, cut=Cut.OUTPUTS),
    )


def _seventh(fields: Fields, hidden: int, *, first: bool) -> tuple[Recurrence, Tensors]:
    """Return the time mixing of RWKV 7: decay, rate of learning, residual of values and gate come through low ranks."""
    heads, width = _heads(fields, hidden, "head_dim")
    ranks = {name: fields.integer(f"{field}_low_rank_dim", rank) for name, field, rank in RANKS}
    return _facts(hidden, heads, width), (
        *_mixes("attn", tuple(f"x_{x}" for x in "rwkvag"), hidden),
        *states("attn", ("k_k", "k_a"), hidden),
        *states("attn", ("r_k",), heads, width),
        *(t for x in "rkv" for t in linear(f"attn.{x}_proj", hidden, hidden, Cut.OUTPUTS)),
        *linear("attn.o_proj", hidden, hidden, Cut.INPUTS),
        *(
            t
            for name, rank in ranks.items()
            if not (first and name == "v")
            for t in _low_rank(f"attn.{name}_lora", hidden, rank, bias=name != "g")
        ),
        *_group_norm("attn.g_norm", hidden),
    )
