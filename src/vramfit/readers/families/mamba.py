"""Mamba, Mamba 2 (Codestral Mamba too) and Falcon Mamba: state spaces in every block, and nothing else.

Source: huggingface/transformers:src/transformers/models/mamba/, mamba2/ and falcon_mamba/, 5.23.0.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.layer_kind import StateSpace
from vramfit.readers.families.decoder import Named, Tensors, causal_model, is_tied, norm
from vramfit.readers.families.state_space import (
    LARGEST_EXPANSION,
    LARGEST_KERNEL,
    check_groups,
    mamba1,
    mamba1_facts,
    mamba2,
    step_rank,
)
from vramfit.readers.fields import Fields
from vramfit.spec import Layer, ModelSpec


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Mamba, Mamba 2 or Falcon Mamba configuration."""
    hidden, second = fields.integer("hidden_size"), fields.text("model_type") == "mamba2"
    facts, tensors = _second(fields, hidden) if second else _first(fields, hidden)
    layer = Layer(attention=facts, feed_forward=None, tensors=(*norm("norm", hidden), *tensors))
    return causal_model(
        fields,
        named,
        (layer,) * fields.num_layers,
        hidden_size=hidden,
        tied=is_tied(fields, default=not second),
        prefix="backbone.",
        embedding="embeddings",
        final_norm="norm_f",
    )


def _inner(fields: Fields, hidden: int) -> int:
    """Return the inner width; transformers overrides ``intermediate_size`` by it, so the two must agree."""
    inner = hidden * fields.integer("expand", 2, largest=LARGEST_EXPANSION)
    if fields.optional("intermediate_size") not in {None, inner}:
        raise InvalidValueError(
            fields.at("intermediate_size"), fields.values["intermediate_size"], f"expand x hidden_size ({inner})"
        )
    return inner


def _first(fields: Fields, hidden: int) -> tuple[StateSpace, Tensors]:
    """Return Mamba 1; Falcon Mamba's norms on step sizes, B and C have no parameters."""
    facts = mamba1_facts(
        _inner(fields, hidden),
        fields.integer("state_size", 16),
        fields.integer("conv_kernel", 4, largest=LARGEST_KERNEL),
    )
    bias, conv_bias = fields.flag("use_bias", default=False), fields.flag("use_conv_bias", default=True)
    rank = step_rank(fields, hidden, "time_step_rank")
    return facts, mamba1("mixer", hidden, facts, rank, bias=bias, conv_bias=conv_bias)


def _second(fields: Fields, hidden: int) -> tuple[StateSpace, Tensors]:
    """Return Mamba 2."""
    facts = StateSpace(
        num_heads=fields.integer("num_heads", 128),
        head_dim=fields.integer("head_dim", 64),
        state_size=fields.integer("state_size", 128),
        conv_kernel=fields.integer("conv_kernel", 4, largest=LARGEST_KERNEL),
        num_groups=fields.integer("n_groups", 8),
    )
    inner = _inner(fields, hidden)
    if facts.num_heads * facts.head_dim != inner:
        raise InvalidValueError(
            fields.at("num_heads"), facts.num_heads, f"num_heads x head_dim to be expand x hidden_size ({inner})"
        )
    bias, conv_bias = fields.flag("use_bias", default=False), fields.flag("use_conv_bias", default=True)
    tensors = mamba2("mixer", hidden, facts, bias=bias, conv_bias=conv_bias)
    return check_groups(fields, "n_groups", facts), tensors
