"""xLSTM: blocks of matrix memory (mLSTM), each followed by a gated network.

Source: huggingface/transformers:src/transformers/models/xlstm/, 5.23.0; Beck et al. 2025, arXiv:2503.13427.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role, StorageFormat
from vramfit.layer_kind import Attention, Dense, Recurrence
from vramfit.readers.families.decoder import Named, Tensors, causal_model, linear, norm
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

MULTIPLE = 64
"""Class default of ``ffn_round_up_to_multiple_of``."""
LARGEST_FACTOR = 64


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read an xLSTM configuration; ``embedding_dim`` and ``num_blocks`` are the authors' names."""
    if fields.text("weight_mode") not in {None, "single"}:
        fields.refuse("weight_mode", "fused projections that no published model has")
    fields.refuse("tie_word_embeddings", "ties that transformers does not make")
    if not fields.flag("add_out_norm", default=True):
        raise UnsupportedModelError(
            f"{fields.at('add_out_norm')}: False: expected true; no published model is without the last norm, "
            "so no number is given"
        )
    hidden = fields.integer("embedding_dim" if fields.has("embedding_dim") else "hidden_size")
    num = fields.integer("num_blocks" if fields.has("num_blocks") else "num_hidden_layers", largest=LARGEST_LAYERS)
    mixer, mixing = _memory(fields, hidden, named.scheme.plain)
    width = _network_width(fields, hidden)
    bias = fields.flag("use_bias", default=False)
    layer = Layer(
        attention=mixer,
        feed_forward=Dense(intermediate_size=width),
        tensors=(
            *norm("norm_mlstm", hidden, bias=bias),
            *mixing,
            *norm("norm_ffn", hidden, bias=bias),
            *linear("ffn.proj_up_gate", width, hidden, Cut.OUTPUTS, bias=bias),
            *linear("ffn.proj_up", width, hidden, Cut.OUTPUTS, bias=bias),
            *linear("ffn.proj_down", hidden, width, Cut.INPUTS, bias=bias),
        ),
    )
    spec = causal_model(
        fields,
        named,
        (layer,) * num,
        hidden_size=hidden,
        tied=False,
        prefix="backbone.",
        embedding="embeddings",
        final_norm="out_norm",
    )
    return replace(spec, layer_prefix="backbone.blocks.{layer}.")


def _share(fields: Fields, name: str, default: float, hidden: int) -> float:
    """Return a share of the hidden size, not yet whole."""
    factor = fields.values.get(name)
    if factor is None:
        fields.assume(name, default)
        factor = default
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= LARGEST_FACTOR:
        raise InvalidValueError(fields.at(name), factor, f"a number above 0 and at most {LARGEST_FACTOR}")
    return hidden * factor


def _network_width(fields: Fields, hidden: int) -> int:
    """Return the width of the network: rounded up, unless less than one element is missing (as transformers does)."""
    multiple = fields.integer("ffn_round_up_to_multiple_of", MULTIPLE)
    return int((_share(fields, "ffn_proj_factor", 2.667, hidden) + multiple - 1) // multiple) * multiple


def _memory(fields: Fields, hidden: int, plain: StorageFormat) -> tuple[Attention, Tensors]:
    """Return one layer of matrix memory.

    State of each head: a matrix (keys x values), a normaliser as wide as the keys, and one number that keeps
    the gates in range. ``inference_state_dtype`` is that of the kernels; transformers' cache has the model's.
    """
    heads = fields.integer("num_heads", 8)
    keys = int(_share(fields, "qk_dim_factor", 0.5, hidden))
    values = int(_share(fields, "v_dim_factor", 1.0, hidden))
    if not keys or keys % heads or values % heads:
        raise InvalidValueError(fields.at("num_heads"), heads, f"a divisor of {keys} and {values}, the widths of heads")
    state = keys // heads * values + keys + heads
    facts = Recurrence(num_heads=heads, width=values, state_elements=state, state_format=plain)
    at, bias = "mlstm_layer", fields.flag("use_bias", default=False)
    per_head = Tensor(name=f"{at}.multihead_norm.weight", shape=(values,), role=Role.NORM, cut=Cut.OUTPUTS)
    offset = Tensor(name=f"{at}.multihead_norm.bias", shape=(values,), role=Role.BIAS, cut=Cut.OUTPUTS)
    return facts, (
        *linear(f"{at}.q", keys, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{at}.k", keys, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{at}.v", values, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{at}.ogate_preact", values, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{at}.igate_preact", heads, hidden, Cut.OUTPUTS, bias=True),
        *linear(f"{at}.fgate_preact", heads, hidden, Cut.OUTPUTS, bias=True),
        per_head,
        *((offset,) if bias else ()),
        *linear(f"{at}.out_proj", hidden, values, Cut.INPUTS, bias=bias),
    )
