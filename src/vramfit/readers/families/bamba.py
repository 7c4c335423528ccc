"""Bamba, Granite 4 H and Falcon H1: Mamba 2 and attention, in turns or side by side in one block.

Source: huggingface/transformers:src/transformers/models/bamba/, granitemoehybrid/ and falcon_h1/, 5.23.0.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.layer_kind import Dense, Experts, FeedForward, GroupedQuery, StateSpace
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    causal_model,
    gated_mlp,
    grouped_query,
    is_tied,
    linear,
    router,
)
from vramfit.readers.families.state_space import mamba2, mamba2_facts
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

KEY_VALUE_HEADS = 8
"""Class default of Bamba and Falcon H1 in transformers."""
FALCON_INNER = 1024
"""Class default of ``mamba_d_ssm``."""
WORDS = {"mamba": False, "linear_attention": False, "attention": True, "full_attention": True}
"""What ``layer_types`` of Granite may say -> whether the layer attends."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the three."""
    match fields.text("model_type"):
        case "falcon_h1":
            return _falcon(fields, named)
        case "bamba":
            return _bamba(fields, named)
        case _:
            return _granite(fields, named)


def _bamba(fields: Fields, named: Named) -> ModelSpec:
    hidden, num = fields.integer("hidden_size"), fields.num_layers
    width, bias = fields.integer("intermediate_size"), fields.flag("mlp_bias", default=False)
    chosen = fields.integers("attn_layer_indices", LARGEST_LAYERS)
    norms = block_norms(hidden, ("input_layernorm", "pre_ff_layernorm"))
    network = (*norms, *gated_mlp(hidden, width, prefix="feed_forward", bias=bias))
    kinds: dict[bool, Layer] = {}
    for attends in {i in chosen for i in range(num)}:
        mixer, tensors = _attention(fields, hidden, KEY_VALUE_HEADS) if attends else _mamba(fields, hidden)
        feed_forward = Dense(intermediate_size=width)
        kinds[attends] = Layer(attention=mixer, feed_forward=feed_forward, tensors=(*network, *tensors))
    layers = tuple(kinds[i in chosen] for i in range(num))
    return causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields), final_norm="final_layernorm")


def _falcon(fields: Fields, named: Named) -> ModelSpec:
    """Read Falcon H1, in which every block has both; what multiplies activations has no parameters."""
    hidden, width = fields.integer("hidden_size"), fields.integer("intermediate_size")
    null = not fields.absent("mamba_d_ssm") and not fields.has("mamba_d_ssm")
    inner = None if null else fields.integer("mamba_d_ssm", FALCON_INNER)
    attention, attending = _attention(fields, hidden, KEY_VALUE_HEADS)
    facts = mamba2_facts(fields, hidden, inner=inner)
    mamba = mamba2(
        "mamba",
        hidden,
        facts,
        bias=fields.flag("mamba_proj_bias", default=False),
        conv_bias=fields.flag("mamba_conv_bias", default=True),
        output_bias=fields.flag("projectors_bias", default=False),
        normed=fields.flag("mamba_rms_norm", default=False, recorded=True),
    )
    bias = fields.flag("mlp_bias", default=False)
    layer = Layer(
        attention=attention,
        beside=facts,
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *block_norms(hidden, ("input_layernorm", "pre_ff_layernorm")),
            *mamba,
            *attending,
            *gated_mlp(hidden, width, prefix="feed_forward", bias=bias),
        ),
    )
    layers = (layer,) * fields.num_layers
    return causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields), final_norm="final_layernorm")


def _granite(fields: Fields, named: Named) -> ModelSpec:
    """Read Granite 4: a shared network in every layer, beside routed experts unless there are none."""
    hidden = fields.integer("hidden_size")
    attends = _attends(fields)
    feed_forward, network = _network(fields, hidden)
    kinds: dict[bool, Layer] = {}
    for key in set(attends):
        mixer, tensors = _attention(fields, hidden, None) if key else _mamba(fields, hidden)
        kinds[key] = Layer(
            attention=mixer, feed_forward=feed_forward, tensors=(*block_norms(hidden), *tensors, *network)
        )
    layers = tuple(kinds[key] for key in attends)
    return causal_model(fields, named, layers, hidden_size=hidden, tied=is_tied(fields))


def _attends(fields: Fields) -> tuple[bool, ...]:
    """Say of each layer of Granite whether it attends; transformers takes Mamba everywhere when nothing is said."""
    num = fields.num_layers
    name = "layers_block_type" if fields.has("layers_block_type") and not fields.has("layer_types") else "layer_types"
    words = fields.words(name, tuple(WORDS), num)
    if words is None:
        fields.assume("layer_types", "mamba in every layer")
        return (False,) * num
    return tuple(WORDS[word] for word in words)


def _network(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    """Return the shared network, and the routed experts in two tensors; ``num_local_experts`` 0 = there are none."""
    count = fields.integer("num_local_experts", 8, largest=LARGEST_EXPERTS, smallest=0)
    shared = fields.integer("shared_intermediate_size", 1024)
    network = (
        *linear("shared_mlp.input_linear", 2 * shared, hidden, Cut.OUTPUTS),
        *linear("shared_mlp.output_linear", hidden, shared, Cut.INPUTS),
    )
    if not count:
        return Dense(intermediate_size=shared), network
    width = fields.integer("intermediate_size")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", 2, largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    at = "block_sparse_moe"
    return facts, (
        router(f"{at}.router.layer", count, hidden),
        _fused(f"{at}.input_linear", (count, 2 * width, hidden), Cut.SECOND),
        _fused(f"{at}.output_linear", (count, hidden, width), Cut.INPUTS),
        *network,
    )


def _fused(name: str, shape: tuple[int, int, int], cut: Cut) -> Tensor:
    return Tensor(name=f"{name}.weight", shape=shape, role=Role.EXPERT, cut=cut, experts=shape[0])


def _attention(fields: Fields, hidden: int, default_kv: int | None) -> tuple[GroupedQuery, Tensors]:
    facts = grouped_query(fields, hidden, default_kv=default_kv)
    bias = fields.flag("attention_bias", default=False)
    return facts, attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias)


def _mamba(fields: Fields, hidden: int) -> tuple[StateSpace, Tensors]:
    facts = mamba2_facts(fields, hidden)
    bias, conv_bias = fields.flag("mamba_proj_bias", default=False), fields.flag("mamba_conv_bias", default=True)
    return facts, mamba2("mamba", hidden, facts, bias=bias, conv_bias=conv_bias)
