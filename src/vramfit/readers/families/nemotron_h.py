"""Nemotron-H and Nemotron 3: every block is one of Mamba 2, attention, a network, or experts.

Source: huggingface/transformers:src/transformers/models/nemotron_h/; names as in the published files (``backbone.``).
Where transformers and the code published with the models read a field differently, the field is refused; but for
``tie_word_embeddings``, which the published code and Megatron follow (no published model sets it).
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import Attention, Dense, Experts, FeedForward, GroupedQuery, StateSpace
from vramfit.readers.families.decoder import Named, Tensors, causal_model, is_tied, kv_heads, linear, norm, router
from vramfit.readers.families.deepseek import correction
from vramfit.readers.families.state_space import LARGEST_KERNEL, check_groups, mamba2, state_format
from vramfit.readers.fields import LARGEST_EXPERTS, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
WORDS = {word: word for word in LETTERS.values()} | {"linear_attention": "mamba", "full_attention": "attention"}
"""What a list of blocks may say; the longer words are those of newer configurations."""
HEAD_DIM = 128
KEY_VALUE_HEADS = 8
"""Class defaults in transformers."""
PREDICTION = ("attention", "moe")
"""Blocks of a prediction layer when the configuration names none."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Nemotron-H or Nemotron 3 configuration."""
    fields.refuse("attention_bias", "biases that the published code has and transformers has not")
    hidden = fields.integer("hidden_size")
    blocks = _blocks(fields)
    kinds = {kind: _layer(fields, hidden, kind) for kind in dict.fromkeys(blocks)}
    return causal_model(
        fields,
        named,
        tuple(kinds[block] for block in blocks),
        hidden_size=hidden,
        tied=is_tied(fields),
        prefix="backbone.",
        embedding="embeddings",
        final_norm="norm_f",
        parts=_prediction(fields, hidden),
    )


def _blocks(fields: Fields) -> tuple[str, ...]:
    """Return the kind of every block, from the letters of ``hybrid_override_pattern`` or from a list of words."""
    pattern, name = "hybrid_override_pattern", "layers_block_type"
    letters, words = _from_letters(fields, pattern), _from_words(fields, name)
    blocks = letters or words
    if blocks is None:
        raise InvalidValueError(fields.at(pattern), None, f"one letter of {' '.join(LETTERS)} per layer, or {name}")
    if letters and words and letters != words:
        raise InvalidValueError(fields.at(name), fields.values[name], f"the same blocks as {pattern}")
    num = fields.optional("num_hidden_layers", largest=LARGEST_LAYERS)
    if num not in {None, len(blocks)}:
        raise InvalidValueError(fields.at("num_hidden_layers"), num, f"{len(blocks)}, the number of blocks named")
    return blocks


def _from_letters(fields: Fields, name: str) -> tuple[str, ...] | None:
    pattern = fields.text(name)
    if not pattern:
        return None
    if len(pattern) > LARGEST_LAYERS:
        raise InvalidValueError(fields.at(name), pattern, f"at most {LARGEST_LAYERS} letters")
    for i, letter in enumerate(pattern):
        if letter not in LETTERS:
            raise InvalidValueError(f"{fields.at(name)}[{i}]", letter, f"one of {' '.join(LETTERS)}")
    return tuple(LETTERS[letter] for letter in pattern)


def _from_words(fields: Fields, name: str) -> tuple[str, ...] | None:
    listed = fields.values.get(name)
    words = fields.words(name, tuple(WORDS), min(len(listed), LARGEST_LAYERS) if isinstance(listed, list) else 1)
    return None if words is None else tuple(WORDS[word] for word in words)


def _same(fields: Fields, name: str, older: str) -> str:
    """Return which of a field's two names the configuration uses; both must say the same."""
    if fields.has(name) and fields.has(older) and fields.values[name] != fields.values[older]:
        raise InvalidValueError(
            fields.at(older), fields.values[older], f"the same as {name} ({fields.values[name]!r:.100})"
        )
    return older if fields.has(older) else name


def _layer(fields: Fields, hidden: int, kind: str, after: str | None = None) -> Layer:
    """Return one block; ``after`` names a norm behind it (the last block of a prediction layer)."""
    attention: Attention | None = None
    feed_forward: FeedForward | None = None
    match kind:
        case "mamba":
            attention, tensors = _mamba(fields, hidden)
        case "attention":
            attention, tensors = _attention(fields, hidden)
        case "mlp":
            feed_forward, tensors = _mlp(fields, hidden)
        case _:
            feed_forward, tensors = _experts(fields, hidden)
    norms = (*norm("norm", hidden), *(norm(after, hidden) if after else ()))
    return Layer(attention=attention, feed_forward=feed_forward, tensors=(*norms, *tensors))


def _mamba(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    groups = _same(fields, "n_groups", "mamba_n_groups")
    facts = StateSpace(
        num_heads=fields.integer("mamba_num_heads", 128),
        head_dim=fields.integer("mamba_head_dim", 64),
        state_size=fields.integer("ssm_state_size", 128),
        conv_kernel=fields.integer(_same(fields, "conv_kernel", "mamba_d_conv"), 4, largest=LARGEST_KERNEL),
        num_groups=fields.integer(groups, 8),
        state_format=state_format(fields, "mamba_ssm_cache_dtype"),
    )
    bias = fields.flag("use_bias", default=False)
    conv_bias = fields.flag(_same(fields, "use_conv_bias", "mamba_conv_bias"), default=True)
    return check_groups(fields, groups, facts), mamba2("mixer", hidden, facts, bias=bias, conv_bias=conv_bias)


def _attention(fields: Fields, hidden: int) -> tuple[Attention, Tensors]:
    """Return attention without positions; Nemotron-H 56B names its ``head_dim`` ``attention_head_dim``."""
    heads = fields.integer("num_attention_heads")
    facts = GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=kv_heads(fields, heads, KEY_VALUE_HEADS),
        head_dim=fields.integer(_same(fields, "head_dim", "attention_head_dim"), HEAD_DIM),
    )
    q, kv = heads * facts.head_dim, facts.num_key_value_heads * facts.head_dim
    return facts, (
        *linear("mixer.q_proj", q, hidden, Cut.OUTPUTS),
        *linear("mixer.k_proj", kv, hidden, Cut.KEY_VALUE_HEADS),
        *linear("mixer.v_proj", kv, hidden, Cut.KEY_VALUE_HEADS),
        *linear("mixer.o_proj", hidden, q, Cut.INPUTS),
    )


def _network(prefix: str, hidden: int, width: int, *, bias: bool) -> Tensors:
    """Return up and down projections; the activation (squared ReLU) has no gate."""
    return (
        *linear(f"{prefix}.up_proj", width, hidden, Cut.OUTPUTS, bias=bias),
        *linear(f"{prefix}.down_proj", hidden, width, Cut.INPUTS, bias=bias),
    )


def _mlp(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    width = fields.integer("intermediate_size")
    tensors = _network("mixer", hidden, width, bias=fields.flag("mlp_bias", default=False))
    return Dense(intermediate_size=width, gated=False), tensors


def _experts(fields: Fields, hidden: int) -> tuple[FeedForward, Tensors]:
    """Return router, routed experts and the shared one; Nemotron 3 Super and Ultra route through a narrower space."""
    fields.refuse("mlp_bias", "biases of experts that the published code has and transformers has not")
    if fields.integer("n_shared_experts", 1, smallest=0, largest=LARGEST_EXPERTS) != 1:
        raise UnsupportedModelError(
            f"{fields.at('n_shared_experts')}: {fields.values['n_shared_experts']}: expected 1, as in all published "
            "models; transformers ignores the field and vLLM multiplies the width by it, so no number is given"
        )
    count, width = fields.integer("n_routed_experts", largest=LARGEST_EXPERTS), fields.integer("moe_intermediate_size")
    shared = fields.integer("moe_shared_expert_intermediate_size")
    latent = fields.optional("moe_latent_size")
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=fields.integer("num_experts_per_tok", largest=count),
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
        gated=False,
        latent_size=latent,
    )
    around = () if latent is None else (
        *linear("mixer.fc1_latent_proj", latent, hidden, Cut.WHOLE),
        *linear("mixer.fc2_latent_proj", hidden, latent, Cut.WHOLE),
    )  # fmt: skip
    return facts, (
        router("mixer.gate", count, hidden),
        correction("mixer.gate", count),
        *_routed(count, latent or hidden, width),
        *_network("mixer.shared_experts", hidden, shared, bias=False),
        *around,
    )


def _routed(count: int, hidden: int, width: int) -> Tensors:
    def expert(kind: str, shape: tuple[int, int], cut: Cut) -> Tensor:
        name = f"mixer.experts.{{expert}}.{kind}.weight"
        return Tensor(name=name, shape=shape, role=Role.EXPERT, cut=cut, copies=count, experts=count)

    return expert("up_proj", (width, hidden), Cut.OUTPUTS), expert("down_proj", (hidden, width), Cut.INPUTS)


def _prediction(fields: Fields, hidden: int) -> tuple[Part, ...]:
    """Return the multi-token-prediction layer, which a plain load leaves on disk.

    Names as in NVIDIA-Nemotron-3-Super-120B-A12B. What a file with more than one such layer
    calls them is not known: they are left out then, and no load brings them either.
    """
    if fields.optional("num_nextn_predict_layers", smallest=0, largest=LARGEST_LAYERS) != 1:
        return ()
    letters, words = _from_letters(fields, "mtp_hybrid_override_pattern"), _from_words(fields, "mtp_layers_block_type")
    blocks = letters or words or PREDICTION
    return (
        Part(
            name="mtp",
            layers=(
                *(_layer(fields, hidden, kind) for kind in blocks[:-1]),
                _layer(fields, hidden, blocks[-1], after="final_layernorm"),
            ),
            layer_prefix="mtp.layers.{layer}.",
            tensors=(
                *norm("mtp.layers.0.enorm", hidden),
                *norm("mtp.layers.0.hnorm", hidden),
                Tensor(name="mtp.layers.0.eh_proj.weight", shape=(hidden, 2 * hidden), role=Role.HEAD),
            ),
            resident=False,
        ),
    )
