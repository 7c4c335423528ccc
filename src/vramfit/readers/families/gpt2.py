"""GPT-2: learned positions, one matrix for query, key and value, matrices stored [inputs, outputs].

Source: huggingface/transformers:src/transformers/models/gpt2/. The files of 2019 leave out the
``transformer.`` before every name.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families.decoder import Named, Tensors, is_tied, norm
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, LARGEST_VOCABULARY, LARGEST_WIDTH, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

ALIASES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
}
"""Names of GPT-2's own, and those that transformers takes for the same."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a GPT-2 configuration."""
    fields.refuse("add_cross_attention", "adds a second attention to every block")
    hidden, heads = _integer(fields, "n_embd", 768), _integer(fields, "n_head", 12)
    if hidden % heads:
        raise InvalidValueError("n_head", heads, f"a divisor of n_embd ({hidden})")
    width = fields.optional("n_inner") or 4 * hidden
    vocab = fields.integer("vocab_size", 50257, largest=LARGEST_VOCABULARY)
    positions = _integer(fields, "n_positions", 1024, LARGEST_CONTEXT)
    layer = Layer(
        attention=GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads),
        feed_forward=Dense(intermediate_size=width, gated=False),
        tensors=(
            *norm("ln_1", hidden, bias=True),
            *conv1d("attn.c_attn", hidden, 3 * hidden, Cut.INPUTS),
            *conv1d("attn.c_proj", hidden, hidden, Cut.OUTPUTS),
            *norm("ln_2", hidden, bias=True),
            *conv1d("mlp.c_fc", hidden, width, Cut.INPUTS),
            *conv1d("mlp.c_proj", width, hidden, Cut.OUTPUTS),
        ),
    )
    tied = is_tied(fields, default=True)
    head = Tensor(name="lm_head.weight", shape=(vocab, hidden), role=Role.HEAD, cut=Cut.VOCABULARY)
    return ModelSpec(
        name=named.name,
        family="gpt2",
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=positions,
        embeddings=(
            Tensor(name="transformer.wte.weight", shape=(vocab, hidden), role=Role.EMBEDDING, cut=Cut.VOCABULARY),
            Tensor(name="transformer.wpe.weight", shape=(positions, hidden), role=Role.EMBEDDING),
        ),
        layers=(layer,) * _integer(fields, "n_layer", 12, LARGEST_LAYERS),
        head=(*norm("transformer.ln_f", hidden, bias=True), *(() if tied else (head,))),
        tied=tied,
        layer_prefix="transformer.h.{layer}.",
        scheme=named.scheme,
    )


def _integer(fields: Fields, name: str, default: int, largest: int = LARGEST_WIDTH) -> int:
    """Return a size under GPT-2's name for it or the usual one."""
    return fields.integer(ALIASES[name] if fields.has(ALIASES[name]) else name, default, largest=largest)


def conv1d(name: str, inputs: int, outputs: int, cut: Cut) -> Tensors:
    """Return a matrix stored [inputs, outputs] and its bias: outputs are the LAST axis (``Cut.INPUTS`` divides it)."""
    bias_cut = Cut.OUTPUTS if cut is Cut.INPUTS else Cut.WHOLE
    return (
        Tensor(name=f"{name}.weight", shape=(inputs, outputs), role=Role.LINEAR, cut=cut),
        Tensor(name=f"{name}.bias", shape=(outputs,), role=Role.BIAS, cut=bias_cut),
    )
