"""Building blocks that families share: Mamba 1 and 2, lightning attention, the format of the state.

Source: huggingface/transformers:src/transformers/models/mamba/ and models/mamba2/, 5.23.0.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role, StorageFormat
from vramfit.layer_kind import GroupedQuery, LinearAttention, StateSpace
from vramfit.readers.families.decoder import Tensors, linear, norm
from vramfit.readers.fields import Fields
from vramfit.readers.quantization import DTYPES
from vramfit.spec import Cut, Tensor
from vramfit.units import ceil_div

HIDDEN_PER_RANK = 16
"""Rank of the step sizes "auto": hidden size over this, rounded up (Gu and Dao 2023, arXiv:2312.00752, sec. 3.6)."""
LARGEST_KERNEL = 1024
LARGEST_EXPANSION = 64


def step_rank(fields: Fields, hidden: int, name: str = "mamba_dt_rank") -> int:
    """Return the rank of the step sizes; "auto" is the families' default."""
    auto = ceil_div(hidden, HIDDEN_PER_RANK)
    return auto if fields.values.get(name) == "auto" else fields.integer(name, auto)


def state_format(fields: Fields, name: str) -> StorageFormat | None:
    """Return the format in which the configuration wants the state kept; None = it does not say."""
    word = fields.text(name)
    if word is None:
        return None
    if word not in DTYPES:
        raise InvalidValueError(fields.at(name), word, f"one of {', '.join(DTYPES)}")
    return DTYPES[word]


def convolution(name: str, channels: int, kernel: int, *, bias: bool = True) -> Tensors:
    """Return a convolution that looks at each channel alone."""
    weight = Tensor(name=f"{name}.weight", shape=(channels, 1, kernel), role=Role.CONVOLUTION, cut=Cut.OUTPUTS)
    offset = Tensor(name=f"{name}.bias", shape=(channels,), role=Role.BIAS, cut=Cut.OUTPUTS)
    return (weight, offset) if bias else (weight,)


def states(at: str, names: tuple[str, ...], *shape: int) -> Tensors:
    """Return learned numbers of the recurrence, divided by their first axis: heads or channels."""
    return tuple(Tensor(name=f"{at}.{name}", shape=shape, role=Role.STATE, cut=Cut.OUTPUTS) for name in names)


def lightning_facts(same: GroupedQuery, plain: StorageFormat) -> LinearAttention:
    """Return lightning attention with the heads of an attention: a square matrix each, which decays at a fixed rate.

    transformers and vLLM (mamba_utils.py, linear_attention_state_dtype) keep it in the model's format.
    """
    heads, head = same.num_attention_heads, same.head_dim
    return LinearAttention(
        num_key_heads=heads,
        num_value_heads=heads,
        key_head_dim=head,
        value_head_dim=head,
        conv_kernel=0,
        state_format=plain,
    )


def mamba1_facts(inner: int, state: int, kernel: int) -> StateSpace:
    """Return the facts of Mamba 1, in which every channel is a head of its own."""
    return StateSpace(num_heads=inner, head_dim=1, state_size=state, conv_kernel=kernel, num_groups=0)


def mamba1(at: str, hidden: int, facts: StateSpace, rank: int, *, bias: bool, conv_bias: bool) -> Tensors:
    """Return the tensors of Mamba 1: step sizes come through a low rank, B and C beside them."""
    inner, state = facts.num_heads, facts.state_size
    return (
        *states(at, ("A_log",), inner, state),
        *states(at, ("D",), inner),
        *convolution(f"{at}.conv1d", inner, facts.conv_kernel, bias=conv_bias),
        *linear(f"{at}.in_proj", 2 * inner, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{at}.x_proj", rank + 2 * state, inner, Cut.INPUTS),
        *linear(f"{at}.dt_proj", inner, rank, Cut.OUTPUTS, bias=True),
        *linear(f"{at}.out_proj", hidden, inner, Cut.INPUTS, bias=bias),
    )


def mamba2_facts(
    fields: Fields, hidden: int, *, inner: int | None = None, state: int = 256, heads: int = 128
) -> StateSpace:
    """Return the facts of Mamba 2 as Bamba and its kin name them; ``inner``: None = ``mamba_expand`` times hidden.

    Raises:
        InvalidValueError: heads that do not fill the inner width, or groups that do not divide the heads.
    """
    if inner is None:
        inner = hidden * fields.integer("mamba_expand", 2, largest=LARGEST_EXPANSION)
    heads = fields.integer("mamba_n_heads", heads)
    auto = fields.values.get("mamba_d_head", "auto") == "auto"
    width = inner // heads if auto else fields.integer("mamba_d_head")
    if heads * width != inner:
        raise InvalidValueError(fields.at("mamba_n_heads"), heads, f"heads that fill the inner width ({inner})")
    return check_groups(
        fields,
        "mamba_n_groups",
        StateSpace(
            num_heads=heads,
            head_dim=width,
            state_size=fields.integer("mamba_d_state", state),
            conv_kernel=fields.integer("mamba_d_conv", 4, largest=LARGEST_KERNEL),
            num_groups=fields.integer("mamba_n_groups", 1),
        ),
    )


def check_groups(fields: Fields, name: str, facts: StateSpace) -> StateSpace:
    """Return the facts, or refuse groups that do not divide the heads."""
    if facts.num_heads % facts.num_groups:
        raise InvalidValueError(
            fields.at(name), facts.num_groups, f"a divisor of the number of state-space heads ({facts.num_heads})"
        )
    return facts


def mamba2(  # noqa: PLR0913 - every argument a fact of the architecture
    at: str,
    hidden: int,
    facts: StateSpace,
    *,
    bias: bool,
    conv_bias: bool,
    output_bias: bool | None = None,
    normed: bool = True,
) -> Tensors:
    """Return the tensors of Mamba 2: one projection into gate, x, B, C and step sizes, and a gated norm behind."""
    inner = facts.num_heads * facts.head_dim
    mixed = inner + 2 * facts.num_groups * facts.state_size
    gated_norm = Tensor(name=f"{at}.norm.weight", shape=(inner,), role=Role.NORM, cut=Cut.OUTPUTS)
    return (
        *states(at, ("dt_bias", "A_log", "D"), facts.num_heads),
        *convolution(f"{at}.conv1d", mixed, facts.conv_kernel, bias=conv_bias),
        *linear(f"{at}.in_proj", inner + mixed + facts.num_heads, hidden, Cut.OUTPUTS, bias=bias),
        *((gated_norm,) if normed else ()),
        *linear(f"{at}.out_proj", hidden, inner, Cut.INPUTS, bias=bias if output_bias is None else output_bias),
    )


def inner_norms(at: str, rank: int, state: int) -> Tensors:
    """Return the norms that Jamba has on step sizes, B and C."""
    return (
        *norm(f"{at}.dt_layernorm", rank),
        *norm(f"{at}.b_layernorm", state),
        *norm(f"{at}.c_layernorm", state),
    )
