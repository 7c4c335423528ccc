"""Zamba and Zamba2: Mamba in every block, and one or two transformer blocks whose parameters are used again and again.

The file has a shared block once, under the first layer that uses it, with the adapters of all its uses (Zamba2).
Source: huggingface/transformers:src/transformers/models/zamba/ and models/zamba2/, 5.23.0.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery, StateSpace
from vramfit.readers.families.decoder import Named, Tensors, causal_model, gated_mlp, is_tied, kv_heads, linear, norm
from vramfit.readers.families.state_space import (
    LARGEST_EXPANSION,
    LARGEST_KERNEL,
    check_groups,
    convolution,
    mamba2,
    states,
    step_rank,
)
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

WORDS = {"mamba": False, "linear_attention": False, "hybrid": True}
"""What ``layers_block_type`` may say -> whether the layer uses a shared block."""
FIRST = (False, False, True)
"""Zamba's first layers, before the period begins."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Zamba or Zamba2 configuration."""
    second = fields.text("model_type") == "zamba2"
    hidden = fields.integer("hidden_size")
    uses = _uses(fields, second=second)
    mamba, mixing = _second_mamba(fields, hidden) if second else _first_mamba(fields, hidden)
    plain = Layer(attention=mamba, feed_forward=None, tensors=_block("", hidden, mixing))
    blocks = fields.integer("num_mem_blocks", 1, largest=64) if second else 1
    users = [i for i, use in enumerate(uses) if use]
    attention = _attention(fields, hidden, second=second)
    own = (*linear("linear", hidden, hidden, Cut.WHOLE), *_block("mamba_decoder.", hidden, mixing))
    width = _width(fields, hidden, second=second)
    kinds: dict[int, Layer] = {}
    for use, layer in enumerate(users):
        owner = users[use % blocks]
        block = _transformer(fields, attention, hidden, width, range(use % blocks, len(users), blocks))
        first = use < blocks
        kinds[layer] = Layer(
            attention=attention,
            beside=mamba,
            feed_forward=Dense(intermediate_size=width),
            tensors=(*own, *block) if first else own,
            shared=() if first else block,
            shared_with=None if first else owner,
        )
    return causal_model(
        fields,
        named,
        tuple(kinds.get(i, plain) for i in range(len(uses))),
        hidden_size=hidden,
        tied=_is_tied(fields),
        final_norm="final_layernorm",
    )


def _is_tied(fields: Fields) -> bool:
    """Return True, or refuse: without tied embeddings transformers does not share the blocks either."""
    if not is_tied(fields, default=True):
        raise UnsupportedModelError(
            f"{fields.at('tie_word_embeddings')}: False: expected true, as in all published models; transformers then "
            "gives every layer a block of its own, which no file has, so no number is given"
        )
    return True


def _uses(fields: Fields, *, second: bool) -> tuple[bool, ...]:
    """Say of each layer whether it uses a shared block.

    Raises:
        InvalidValueError: Zamba2 without ``layers_block_type`` or ``hybrid_layer_ids``: the default is one model's.
    """
    num = fields.num_layers
    words = fields.words("layers_block_type", tuple(WORDS), num)
    if words is not None:
        return tuple(WORDS[word] for word in words)
    if second:
        raise InvalidValueError(
            fields.at("layers_block_type"), None, f"a list of {num} words, one per layer: {', '.join(WORDS)}"
        )
    period = fields.integer("attn_layer_period", 6, largest=LARGEST_LAYERS)
    offset = fields.integer("attn_layer_offset", 4, largest=LARGEST_LAYERS, smallest=0)
    return (*FIRST, *(i % period == offset for i in range(num - len(FIRST))))[:num]


def _block(at: str, hidden: int, mixing: Tensors) -> Tensors:
    """Return the tensors of one Mamba block below a prefix."""
    moved = tuple(_at(t, at) for t in mixing)
    return (*moved, *norm(f"{at}input_layernorm", hidden))


def _at(tensor: Tensor, at: str) -> Tensor:
    return Tensor(name=at + tensor.name, shape=tensor.shape, role=tensor.role, cut=tensor.cut)


def _first_mamba(fields: Fields, hidden: int) -> tuple[StateSpace, Tensors]:
    """Return Zamba's Mamba 1 with several heads, whose low-rank matrices stand side by side in one tensor."""
    inner = hidden * fields.integer("mamba_expand", 2, largest=LARGEST_EXPANSION)
    heads, state = fields.integer("n_mamba_heads", 2), fields.integer("mamba_d_state", 16)
    kernel = fields.integer("mamba_d_conv", 4, largest=LARGEST_KERNEL)
    rank = step_rank(fields, hidden)
    if inner % heads:
        raise InvalidValueError(fields.at("n_mamba_heads"), heads, f"a divisor of the inner width ({inner})")
    width, bias = inner // heads, fields.flag("mamba_proj_bias", default=False)
    facts = StateSpace(num_heads=heads, head_dim=width, state_size=state, conv_kernel=kernel, num_groups=0)

    def low_rank(name: str, outputs: int, inputs: int) -> Tensor:
        return Tensor(name=f"mamba.{name}", shape=(heads, outputs, inputs), role=Role.LINEAR, cut=Cut.OUTPUTS)

    return facts, (
        low_rank("x_proj_weight", rank + 2 * state, width),
        low_rank("dt_proj_weight", width, rank),
        Tensor(name="mamba.dt_proj_bias", shape=(heads, width), role=Role.BIAS, cut=Cut.OUTPUTS),
        *states("mamba", ("A_log",), heads, width, state),
        *states("mamba", ("D",), heads, width),
        *convolution("mamba.conv1d", inner, kernel, bias=fields.flag("mamba_conv_bias", default=True)),
        *linear("mamba.in_proj", 2 * inner, hidden, Cut.OUTPUTS, bias=bias),
        *linear("mamba.out_proj", hidden, inner, Cut.INPUTS, bias=bias),
    )


def _second_mamba(fields: Fields, hidden: int) -> tuple[StateSpace, Tensors]:
    """Return Zamba2's Mamba 2; its convolution has a bias whatever ``use_conv_bias`` says."""
    inner = hidden * fields.integer("mamba_expand", 2, largest=LARGEST_EXPANSION)
    heads = fields.integer("n_mamba_heads", 8)
    if inner % heads:
        raise InvalidValueError(fields.at("n_mamba_heads"), heads, f"a divisor of the inner width ({inner})")
    facts = StateSpace(
        num_heads=heads,
        head_dim=inner // heads,
        state_size=fields.integer("mamba_d_state", 64),
        conv_kernel=fields.integer("mamba_d_conv", 4, largest=LARGEST_KERNEL),
        num_groups=fields.integer("mamba_ngroups", 1),
    )
    bias = fields.flag("add_bias_linear", default=False)
    return check_groups(fields, "mamba_ngroups", facts), mamba2("mamba", hidden, facts, bias=bias, conv_bias=True)


def _attention(fields: Fields, hidden: int, *, second: bool) -> GroupedQuery:
    """Return the attention, which reads the block's input beside the embeddings: twice the hidden size."""
    heads = fields.integer("num_attention_heads", 32 if second else 16)
    name = "attention_head_dim"
    implied = 2 * hidden // heads
    head_dim = fields.optional(name) or implied
    if second and head_dim != implied:
        raise InvalidValueError(fields.at(name), head_dim, f"2 x hidden_size / num_attention_heads ({implied})")
    if fields.optional("attention_hidden_size") not in {None, 2 * hidden}:
        fields.refuse("attention_hidden_size", "an attention that does not read twice the hidden size")
    return GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=kv_heads(fields, heads, None if second else 16),
        head_dim=head_dim,
    )


def _width(fields: Fields, hidden: int, *, second: bool) -> int:
    return fields.integer("intermediate_size", 4 * hidden) if second else fields.integer("intermediate_size")


def _transformer(fields: Fields, facts: GroupedQuery, hidden: int, width: int, uses: range) -> Tensors:
    """Return a shared block with the adapters of ``uses``, counted over all layers that use any block."""
    second = fields.text("model_type") == "zamba2"
    at = "shared_transformer" if second else "shared_transf"
    q, kv, wide = facts.num_attention_heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim, 2 * hidden
    attention = (
        *linear(f"{at}.self_attn.q_proj", q, wide, Cut.OUTPUTS),
        *linear(f"{at}.self_attn.k_proj", kv, wide, Cut.KEY_VALUE_HEADS),
        *linear(f"{at}.self_attn.v_proj", kv, wide, Cut.KEY_VALUE_HEADS),
        *linear(f"{at}.self_attn.o_proj", hidden, q, Cut.INPUTS),
    )
    bias = fields.flag("add_bias_linear", default=False)
    network = gated_mlp(hidden, width, prefix=f"{at}.feed_forward") if not second else (
        *linear(f"{at}.feed_forward.gate_up_proj", 2 * width, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{at}.feed_forward.down_proj", hidden, width, Cut.INPUTS, bias=bias),
        *_adapters(fields, at, hidden, width, uses),
    )  # fmt: skip
    return (*attention, *network, *norm(f"{at}.input_layernorm", wide), *norm(f"{at}.pre_ff_layernorm", hidden))


def _adapters(fields: Fields, at: str, hidden: int, width: int, uses: range) -> Tensors:
    """Return low-rank pairs, one per use: on the network always, on queries, keys and values where asked."""
    rank, wide = fields.integer("adapter_rank", 128), 2 * hidden
    sizes = [("feed_forward.gate_up_proj_adapter_list", hidden, 2 * width)]
    if fields.flag("use_shared_attention_adapter", default=False, recorded=True):
        sizes += [(f"self_attn.linear_{x}_adapter_list", wide, wide) for x in "qkv"]
    return tuple(
        t
        for name, inputs, outputs in sizes
        for use in uses
        for t in (
            *linear(f"{at}.{name}.{use}.0", rank, inputs, Cut.WHOLE),
            *linear(f"{at}.{name}.{use}.1", outputs, rank, Cut.OUTPUTS),
        )
    )
