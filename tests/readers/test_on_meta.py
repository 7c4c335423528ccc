"""Architectures read through transformers on the meta device: the same answers as our own readers, and clear refusals."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

import pytest

from tiny_configs import ALL, BASE, Tiny
from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.readers.hf_config import read_config
from vramfit.readers.on_meta import read_on_meta
from vramfit.source import read_model
from vramfit.spec import Attention, CrossAttention, GroupedQuery, Latent, ModelSpec, StateSpace, inventory

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.witness

NO_PLAIN_CACHE = {"deepseek_v32", "glm_moe_dsa"}
"""Kinds whose cache in transformers is of its own class."""


def kept(facts: Attention | None) -> object:
    """Return what decides the size of a cache."""
    if isinstance(facts, Latent):
        return facts.kv_lora_rank, facts.qk_rope_head_dim
    if isinstance(facts, GroupedQuery):
        return facts.num_key_value_heads, facts.head_dim, facts.v_head_dim or facts.head_dim, facts.window_tokens
    return facts


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{i}-{case.kind}") for i, case in enumerate(ALL)])
def test_what_a_trial_keeps_is_what_we_derive(case: Tiny) -> None:
    """A few tokens run by transformers without memory: the shapes in its cache are those of our facts, layer by layer."""
    if case.kind in NO_PLAIN_CACHE:
        with pytest.raises(UnsupportedModelError, match="expected a cache of keys and values or a state; saw transf"):
            read_on_meta(case.config, case.kind)
        return
    theirs, ours = read_on_meta(case.config, case.kind), read_config(case.config, case.kind)
    assert [kept(layer.attention) for layer in theirs.layers] == [kept(layer.attention) for layer in ours.layers]
    assert theirs.num_parameters == ours.num_parameters
    assert theirs.num_active_parameters == ours.num_active_parameters


WIDE = {"hidden_size": 64, "vocab_size": 101}
OTHERS: Mapping[str, tuple[dict[str, Any], int, int]] = {
    # kind: fields, layers, elements that one token adds to the cache of a layer (keys and values together)
    "helium": ({**BASE, "head_dim": 8}, 3, 2 * 2 * 8),
    "persimmon": ({**BASE}, 3, 2 * 8 * 8),
    "codegen": ({"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "vocab_size": 101}, 2, 2 * 64),
    "xglm": ({"d_model": 64, "ffn_dim": 96, "num_layers": 2, "attention_heads": 4, "vocab_size": 101}, 2, 2 * 64),
    "nanochat": ({**BASE, "num_key_value_heads": 4}, 3, 2 * 4 * 8),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_are_read_and_said_to_be(kind: str) -> None:
    """The count is that of the model transformers builds, and the answer says who read it."""
    import transformers

    values, layers, elements = OTHERS[kind]
    spec = read_model({"model_type": kind, **values}, name="mine")
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **values))
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters
    assert layers == len(spec.layers)
    for layer in spec.layers:
        assert isinstance(layer.attention, GroupedQuery)
        assert elements == 2 * layer.attention.num_key_value_heads * layer.attention.head_dim
    assert "is not among the architectures vramfit reads itself: read through transformers" in spec.assumptions[0]


def test_a_state_is_read_off_too() -> None:
    """A Mamba 2 model: heads, width and size of its state from what the trial keeps."""
    values = {"hidden_size": 64, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 16, "state_size": 24, "n_groups": 2,
              "vocab_size": 101}  # fmt: skip
    spec = read_model({"model_type": "mamba2", **values})
    facts = spec.layers[0].attention
    assert StateSpace(num_heads=8, head_dim=16, state_size=24, conv_kernel=4, num_groups=2) == facts


def test_an_encoder_and_a_decoder() -> None:
    """The decoder's layers are the model's, with what they keep of the encoder; the encoder is a part."""
    values = {"d_model": 64, "d_ff": 96, "d_kv": 12, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
              "vocab_size": 101, "decoder_start_token_id": 0, "architectures": ["T5ForConditionalGeneration"]}  # fmt: skip
    spec = read_model({"model_type": "t5", **values})
    assert 3 == len(spec.layers)
    assert isinstance(spec.layers[0].attention, GroupedQuery)
    assert CrossAttention(num_attention_heads=4, num_key_value_heads=4, head_dim=12) == spec.layers[0].beside
    assert [2] == [len(part.layers) for part in spec.parts]


def test_an_encoder_keeps_nothing() -> None:
    """No next token, no cache; each tensor of a file has its place."""
    spec: ModelSpec = read_model({"model_type": "distilbert", "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96,
                                  "vocab_size": 101, "architectures": ["DistilBertModel"]})  # fmt: skip
    assert not spec.generates
    assert [None, None] == [layer.attention for layer in spec.layers]
    assert spec.num_parameters == sum(t.num_parameters for t in inventory(spec))


def test_what_nobody_knows_is_refused_by_name() -> None:
    """Neither we nor transformers: both are named, and no code of a repository is run."""
    with pytest.raises(UnsupportedModelError, match=r"'qwen9' is not understood.*transformers .* cannot build it"):
        read_model({"model_type": "qwen9"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_hidden_layers", 10**6), ("num_experts", 10**9), ("vocab_size", 10**12), ("layer_types", ["x"] * 200_000)],
)
def test_absurd_sizes_never_reach_transformers(field: str, value: object) -> None:
    """It would build a Python object per module."""
    with pytest.raises(InvalidValueError, match=field):
        read_model({"model_type": "helium", **BASE, field: value})


def test_impossible_fields_are_one_error() -> None:
    """Whatever transformers raises is told in one line."""
    with pytest.raises(UnsupportedModelError, match=r"cannot build it \(\w+: ") as caught:
        read_model({"model_type": "helium", **BASE, "hidden_size": "wide"})
    assert "\n" not in str(caught.value)


def test_without_transformers_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain install has neither torch nor transformers."""
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name in {"torch", "transformers"}:
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnsupportedModelError, match=r"pip install 'vramfit\[hf\]'"):
        read_model({"model_type": "helium", **BASE})
