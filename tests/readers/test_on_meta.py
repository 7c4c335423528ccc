"""Architectures read through transformers on the meta device: the answers of our own readers, and clear refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tiny import ALL
from tiny.case import BASE
from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.layer_kind import Attention, CrossAttention, GroupedQuery, Latent, StateSpace
from vramfit.readers import on_meta
from vramfit.readers.families import FAMILIES
from vramfit.readers.hf_config import read_config
from vramfit.readers.on_meta import check_sizes, read_on_meta, spec_of
from vramfit.readers.on_meta_trial import observe
from vramfit.source import read_model
from vramfit.spec import ModelSpec, inventory

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.witness

READ_BOTH_WAYS = frozenset(
    {"apertus", "cohere2", "deepseek_v32", "exaone4", "ernie4_5_moe", "gemma", "glm4", "glm4_moe", "glm_moe_dsa",
     "gpt_oss", "granitemoe", "internvl", "llava", "llama4_text", "mimo_v2_flash", "nemotron", "olmo3", "olmoe",
     "paligemma", "phi", "phimoe", "qwen3_5_moe_text", "qwen3_5_text", "stablelm", "starcoder2"}
)  # fmt: skip
"""Kinds that show every kind of cache: full and sliding, latent, states, experts, towers."""
NO_PLAIN_CACHE = {"deepseek_v32", "glm_moe_dsa"}
"""Kinds whose cache in transformers is of its own class."""


def read_here(config: Mapping[str, Any], name: str = "mine") -> ModelSpec:
    """Read a model as ``read_on_meta`` does, in this process: to import transformers for each takes too long."""
    check_sizes(config)
    seen = json.loads(json.dumps(observe(config)))
    return spec_of(seen, config, name)


def kept(facts: Attention | None) -> object:
    """Return what decides the size of a cache."""
    if isinstance(facts, Latent):
        return facts.kv_lora_rank, facts.qk_rope_head_dim
    if isinstance(facts, GroupedQuery):
        return facts.num_key_value_heads, facts.head_dim, facts.v_head_dim or facts.head_dim, facts.window_tokens
    return facts


@pytest.mark.parametrize("number", [i for i, case in enumerate(ALL) if case.kind in READ_BOTH_WAYS])
def test_what_a_trial_keeps_is_what_we_derive(number: int) -> None:
    """A few tokens run by transformers without memory: the shapes in its cache are those of our facts, per layer."""
    case = ALL[number]
    if case.kind in NO_PLAIN_CACHE:
        with pytest.raises(UnsupportedModelError, match="expected a cache of keys and values or a state; saw transf"):
            read_here(case.config)
        return
    theirs, ours = read_here(case.config), read_config(case.config, case.kind)
    assert [kept(layer.attention) for layer in theirs.layers] == [kept(layer.attention) for layer in ours.layers]
    assert theirs.num_parameters == ours.num_parameters
    assert theirs.num_active_parameters == ours.num_active_parameters


OTHERS: Mapping[str, tuple[dict[str, Any], int, int]] = {
    # kind: fields, layers, elements that one token adds to the cache of a layer (keys and values together)
    "helium": ({**BASE, "head_dim": 8}, 3, 2 * 2 * 8),
    "persimmon": ({**BASE}, 3, 2 * 8 * 8),
    "codegen": ({"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "vocab_size": 101}, 2, 2 * 64),
    "xglm": ({"d_model": 64, "ffn_dim": 96, "num_layers": 2, "attention_heads": 4, "vocab_size": 101}, 2, 2 * 64),
    "nanochat": ({**BASE, "num_key_value_heads": 4}, 3, 2 * 4 * 8),
    "biogpt": ({**BASE}, 3, 2 * 64),
    "gpt_neox_japanese": ({**BASE}, 3, 2 * 64),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_are_counted_as_transformers_builds_them(kind: str) -> None:
    """The count is that of the model transformers builds, the cache that of its heads, and the answer says who read."""
    import transformers

    values, layers, elements = OTHERS[kind]
    spec = read_here({"model_type": kind, **values})
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **values))
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters
    assert set(model.state_dict()) - set(model.all_tied_weights_keys) == {t.name for t in inventory(spec)}
    assert layers == len(spec.layers)
    for layer in spec.layers:
        assert isinstance(layer.attention, GroupedQuery)
        assert elements == 2 * layer.attention.num_key_value_heads * layer.attention.head_dim
    assert "is not among the architectures vramfit reads itself: read through transformers" in spec.assumptions[0]


def test_a_state_is_read_off_too() -> None:
    """A Mamba 2 model: heads, width and size of its state from what the trial keeps."""
    values = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 16, "state_size": 24, "n_groups": 2,
        "vocab_size": 101,
    }  # fmt: skip
    facts = read_here({"model_type": "mamba2", **values}).layers[0].attention
    assert StateSpace(num_heads=8, head_dim=16, state_size=24, conv_kernel=4, num_groups=2) == facts


def test_an_encoder_and_a_decoder() -> None:
    """The decoder's layers are the model's, with what they keep of the encoder; the encoder is a part."""
    values = {
        "d_model": 64, "d_ff": 96, "d_kv": 12, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
        "vocab_size": 101, "decoder_start_token_id": 0, "architectures": ["T5ForConditionalGeneration"],
    }  # fmt: skip
    spec = read_here({"model_type": "t5", **values})
    assert 3 == len(spec.layers)
    assert isinstance(spec.layers[0].attention, GroupedQuery)
    assert CrossAttention(num_attention_heads=4, num_key_value_heads=4, head_dim=12) == spec.layers[0].beside
    assert [2] == [len(part.layers) for part in spec.parts]


def test_an_encoder_keeps_nothing() -> None:
    """No next token, so no cache: attention in both directions; each tensor of a file has its place."""
    values = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96, "vocab_size": 101}
    spec = read_here({"model_type": "distilbert", **values, "architectures": ["DistilBertModel"]})
    assert not spec.generates
    both_ways = GroupedQuery(num_attention_heads=4, num_key_value_heads=4, head_dim=16, causal=False)
    assert [both_ways, both_ways] == [layer.attention for layer in spec.layers]
    assert spec.num_parameters == sum(t.num_parameters for t in inventory(spec))


@pytest.mark.parametrize("kind", ["openai-gpt", "recurrent_gemma", "rwkv", "xlnet", "xlstm", "zaya"])
def test_what_a_trial_cannot_tell_is_refused(kind: str) -> None:
    """Models that return no cache of a class we know: refused, never counted as keeping nothing."""
    with pytest.raises(UnsupportedModelError, match=r"expected|so nothing tells what is cached"):
        read_here({"model_type": kind})


def test_a_layer_that_forgets_is_refused() -> None:
    """Attention that kept nothing in the trial beside layers that did: no number rather than zero."""
    seen = observe({"model_type": "helium", **BASE, "head_dim": 8})
    cached = seen["cached"]
    assert isinstance(cached, list)
    cached[1] = []
    with pytest.raises(UnsupportedModelError, match=r"model\.layers\.1\.self_attn.*kept nothing"):
        spec_of(seen, {"model_type": "helium"}, "mine")


@pytest.mark.slow
def test_a_process_of_its_own_reads_it() -> None:
    """What a user gets: the same model, read apart, with nothing of transformers' in this process's way."""
    kind = next(kind for kind in ("ctrl", "vaultgemma", "flint", "kolibri1", "git") if kind not in FAMILIES)
    assert read_here({"model_type": kind}) == read_model({"model_type": kind}, name="mine")


@pytest.mark.slow
def test_what_nobody_knows_is_refused_by_name() -> None:
    """Neither we nor transformers: both are named, and no code of a repository is run."""
    config = {"model_type": "qwen9", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    with pytest.raises(UnsupportedModelError, match=r"'qwen9' is not understood.*transformers .* cannot build it"):
        read_model(config)


@pytest.mark.slow
def test_what_takes_too_much_is_given_up() -> None:
    """A dictionary of four thousand million labels: the other process runs out of its memory, not this machine."""
    with pytest.raises(UnsupportedModelError, match=r"MemoryError|did not come to an end"):
        read_on_meta({"model_type": "helium", **BASE, "num_labels": 2**32 - 1}, "mine")


def test_a_process_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the other process is bounded."""
    monkeypatch.setattr(on_meta, "MOST_SECONDS", 0.01)
    with pytest.raises(UnsupportedModelError, match=r"did not come to an end with it \(TimeoutExpired"):
        read_on_meta({"model_type": "helium", **BASE}, "mine")


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_hidden_layers", 10**6), ("num_experts", 10**9), ("vocab_size", 10**12), ("layer_types", ["x"] * 200_000)],
)
def test_absurd_sizes_never_reach_transformers(field: str, value: object) -> None:
    """It would build a Python object per module."""
    with pytest.raises(InvalidValueError, match=field):
        read_on_meta({"model_type": "helium", **BASE, field: value}, "mine")


def test_impossible_fields_are_one_error() -> None:
    """Whatever transformers raises is told in one line."""
    with pytest.raises(UnsupportedModelError, match=r"cannot build it \(\w+: ") as caught:
        read_here({"model_type": "helium", **BASE, "hidden_size": "wide"})
    assert "\n" not in str(caught.value)


def test_without_transformers_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain install has neither torch nor transformers."""
    monkeypatch.setattr(on_meta, "find_spec", lambda name: None if name == "torch" else SimpleNamespace())
    with pytest.raises(UnsupportedModelError, match=r"pip install 'vramfit\[hf\]'"):
        read_on_meta({"model_type": "helium", **BASE}, "mine")
