"""Adapters that are prompts: virtual tokens before the input, or virtual keys and values in every layer.

Source: huggingface/peft:src/peft/tuners/{prompt_tuning,prefix_tuning,p_tuning}/model.py; sizes that the configuration
leaves open as in src/peft/utils/other.py, _prepare_prompt_learning_config.
"""

from __future__ import annotations

from collections.abc import Callable

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.families.decoder import Tensors, linear
from vramfit.readers.fields import LARGEST_CONTEXT, Fields
from vramfit.spec import Cut, ModelSpec, Tensor


def _tokens(config: Fields) -> int:
    return config.integer("num_virtual_tokens", largest=LARGEST_CONTEXT)


def _width(config: Fields, base: ModelSpec) -> int:
    return config.integer("token_dim") if config.has("token_dim") else base.hidden_size


def _stacks(config: Fields) -> int:
    """Return the models that get a prompt of their own: two for an encoder with a decoder."""
    if config.has("num_transformer_submodules"):
        return config.integer("num_transformer_submodules", largest=8)
    return 2 if config.text("task_type") == "SEQ_2_SEQ_LM" else 1


def prompt(config: Fields, base: ModelSpec) -> tuple[Tensors, Tensors]:
    """Prompt tuning: one vector per virtual token."""
    return _embeddings(_tokens(config) * _stacks(config), _width(config, base)), ()


def prefix(config: Fields, base: ModelSpec) -> tuple[Tensors, Tensors]:
    """Prefix tuning: keys and values of virtual tokens in every layer, made by a small network if there is one."""
    layers = config.integer("num_layers", largest=4096) if config.has("num_layers") else len(base.layers)
    width, tokens = _key_value_width(config, base), _tokens(config)
    made = _embeddings(tokens, 2 * layers * width)
    if not config.flag("prefix_projection", default=False):
        return made, ()
    inner = config.integer("encoder_hidden_size") if config.has("encoder_hidden_size") else width
    return made, (
        Tensor(name="prompt_encoder.embedding.weight", shape=(tokens, width), role=Role.EMBEDDING),
        *linear("prompt_encoder.transform.0", inner, width, Cut.WHOLE, bias=True),
        *linear("prompt_encoder.transform.2", 2 * layers * width, inner, Cut.WHOLE, bias=True),
    )


def p_tuning(config: Fields, base: ModelSpec) -> tuple[Tensors, Tensors]:
    """P-tuning: virtual tokens through a network of three layers, whose result the file holds."""
    kind = (config.text("encoder_reparameterization_type") or "MLP").upper()
    if kind != "MLP":
        raise UnsupportedModelError(f"encoder_reparameterization_type: {kind!r:.50}: expected MLP; LSTM is not read")
    width, tokens = _width(config, base), _tokens(config) * _stacks(config)
    inner = config.integer("encoder_hidden_size") if config.has("encoder_hidden_size") else width
    sizes = ((inner, width), (inner, inner), (width, inner))
    network = (
        t for n, (outputs, inputs) in enumerate(sizes)
        for t in linear(f"prompt_encoder.mlp_head.{2 * n}", outputs, inputs, Cut.WHOLE, bias=True)
    )  # fmt: skip
    table = Tensor(name="prompt_encoder.embedding.weight", shape=(tokens, width), role=Role.EMBEDDING)
    return _embeddings(tokens, width), (table, *network)


def _embeddings(tokens: int, width: int) -> Tensors:
    return (Tensor(name="prompt_embeddings", shape=(tokens, width), role=Role.EMBEDDING),)


def _key_value_width(config: Fields, base: ModelSpec) -> int:
    """Return the width of all key heads: the token's, or as many as there are key-value heads."""
    if config.has("token_dim"):
        return config.integer("token_dim")
    attention = base.layers[0].attention
    if not isinstance(attention, GroupedQuery):
        raise InvalidValueError("peft_type", "PREFIX_TUNING", "a base model with keys and values in every layer")
    return base.hidden_size // attention.num_attention_heads * attention.num_key_value_heads


PROMPTS: dict[str, Callable[[Fields, ModelSpec], tuple[Tensors, Tensors]]] = {
    "PROMPT_TUNING": prompt,
    "PREFIX_TUNING": prefix,
    "P_TUNING": p_tuning,
}
"""``peft_type`` -> what the file holds, and what is trained where that is something else."""
