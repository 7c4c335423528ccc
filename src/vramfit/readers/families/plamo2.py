"""PLaMo 2: Mamba with a low rank for step sizes, B and C in turns with windowed attention.

Source: vllm-project/vllm@002fb90:vllm/model_executor/models/plamo2.py; names as in pfnet/plamo-2-1b
(model.safetensors.index.json). vLLM keeps all tokens of windowed layers.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import Attention, Dense, GroupedQuery, StateSpace
from vramfit.readers.families.decoder import Named, Tensors, block_norms, causal_model, is_tied, kv_heads, linear
from vramfit.readers.families.state_space import LARGEST_KERNEL, convolution, states
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

SMALLEST_RANK = 64
HIDDEN_PER_RANK = 16
"""Rank of the step sizes: hidden size over 16, at least 64 (as in the published code)."""
NORMS = ("pre_mixer_norm", "post_mixer_norm", "pre_mlp_norm", "post_mlp_norm")


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a PLaMo 2 configuration."""
    if not fields.flag("mamba_enabled", default=True):
        raise UnsupportedModelError(
            f"{fields.at('mamba_enabled')}: False: expected true, as in all published models; no number is given"
        )
    for name in ("n_expert", "image_feature_size"):
        fields.refuse(name, "a part that no published PLaMo 2 has")
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    keys = _keys(fields)
    network = (
        *linear("mlp.gate_up_proj", 2 * width, hidden, Cut.OUTPUTS),
        *linear("mlp.down_proj", hidden, width, Cut.INPUTS),
    )
    kinds: dict[str, Layer] = {}
    for kind in dict.fromkeys(keys):
        mixer, mixing = _mamba(fields, hidden) if kind == "mamba" else _attention(fields, hidden, full=kind == "full")
        tensors = (*block_norms(hidden, NORMS), *mixing, *network)
        kinds[kind] = Layer(attention=mixer, feed_forward=Dense(intermediate_size=width), tensors=tensors)
    layers = tuple(kinds[kind] for kind in keys)
    spec = causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields, default=True))
    return replace(spec, layer_prefix="model.layers.layers.{layer}.")


def _keys(fields: Fields) -> tuple[str, ...]:
    """Return the kind of each layer: attention in the middle of every ``mamba_step`` layers, the rest Mamba."""
    num, step = fields.num_layers, fields.integer("mamba_step", 2, largest=LARGEST_LAYERS, smallest=2)
    full = fields.integers("full_attention_idx", LARGEST_LAYERS)
    attends = tuple(i == num - 1 if num <= step // 2 else i % step == step // 2 for i in range(num))
    return tuple(("full" if i in full else "window") if attend else "mamba" for i, attend in enumerate(attends))


def _attention(fields: Fields, hidden: int, *, full: bool) -> tuple[Attention, Tensors]:
    """Return attention with one norm for each head of queries and keys."""
    heads, width = fields.integer("num_attention_heads"), fields.integer("hidden_size_per_head", 128)
    window = fields.integer("attention_window_size", 2048, largest=LARGEST_CONTEXT)
    facts = GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=kv_heads(fields, heads, 4),
        head_dim=width,
        window_tokens=None if full else window,
    )
    q, kv = heads * width, facts.num_key_value_heads * width
    return facts, (
        *linear("mixer.qkv_proj", q + 2 * kv, hidden, Cut.QUERY_KEY_VALUE),
        *linear("mixer.o_proj", hidden, q, Cut.INPUTS),
        Tensor(name="mixer.q_weight", shape=(heads, width), role=Role.NORM, cut=Cut.OUTPUTS),
        Tensor(
            name="mixer.k_weight", shape=(facts.num_key_value_heads, width), role=Role.NORM, cut=Cut.KEY_VALUE_HEADS
        ),
    )


def _mamba(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return Mamba 2's heads with Mamba 1's low rank: only x passes the convolution, which has no bias."""
    facts = StateSpace(
        num_heads=fields.integer("mamba_num_heads", 64),
        head_dim=fields.integer("hidden_size_per_head", 128),
        state_size=fields.integer("mamba_d_state", 64),
        conv_kernel=fields.integer("mamba_d_conv", 4, largest=LARGEST_KERNEL),
        num_groups=0,
    )
    if hidden < HIDDEN_PER_RANK:
        raise InvalidValueError(fields.at("hidden_size"), hidden, f"at least {HIDDEN_PER_RANK}")
    inner, rank = facts.num_heads * facts.head_dim, max(SMALLEST_RANK, hidden // HIDDEN_PER_RANK)
    widths = {"dt": rank, "B": facts.state_size, "C": facts.state_size}
    return facts, (
        *linear("mixer.in_proj", 2 * inner, hidden, Cut.OUTPUTS),
        *convolution("mixer.conv1d", inner, facts.conv_kernel, bias=False),
        *linear("mixer.bcdt_proj", rank + 2 * facts.state_size, inner, Cut.INPUTS),
        *linear("mixer.dt_proj", facts.num_heads, rank, Cut.OUTPUTS),
        *linear("mixer.out_proj", hidden, inner, Cut.INPUTS),
        *states("mixer", ("dt_bias", "A_log", "D"), facts.num_heads),
        *(Tensor(name=f"mixer.{x}_norm_weight", shape=(width,), role=Role.NORM) for x, width in widths.items()),
    )
