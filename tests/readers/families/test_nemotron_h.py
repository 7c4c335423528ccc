"""Nemotron-H and Nemotron 3: one kind of block per letter, experts in a narrower space."""

from __future__ import annotations

import pytest

from hybrid_configs import NEMOTRON_3_NANO_30B, NEMOTRON_3_SUPER_120B, NEMOTRON_H_56B, NEMOTRON_NANO_9B_V2
from vramfit.errors import VramfitError
from vramfit.layer_kind import Experts, GroupedQuery, StateSpace
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory


def test_published_totals() -> None:
    """As the names say: 56B, 9B, 30B with 3B active, 120B with 12B active."""
    specs = [
        read_config(c, "nemotron")
        for c in (NEMOTRON_H_56B, NEMOTRON_NANO_9B_V2, NEMOTRON_3_NANO_30B, NEMOTRON_3_SUPER_120B)
    ]
    assert [s.num_parameters for s in specs] == [56_324_350_464, 8_888_227_328, 31_577_937_344, 120_668_687_360]
    assert [s.num_active_parameters // 10**9 for s in specs[2:]] == [3, 12]


def test_letters_name_the_blocks() -> None:
    """M is a state space, * attention, - a network alone."""
    layers = read_config({**NEMOTRON_NANO_9B_V2, "hybrid_override_pattern": "M*-", "num_hidden_layers": 3}, "x").layers
    assert isinstance(layers[0].attention, StateSpace)
    assert isinstance(layers[1].attention, GroupedQuery)
    assert layers[2].attention is None


def test_experts_of_super_work_in_a_narrower_space() -> None:
    """fc1 leads into the latent size, the experts stay there, fc2 leads back."""
    spec = read_config(NEMOTRON_3_SUPER_120B, "super")
    facts = next(layer.feed_forward for layer in spec.layers if isinstance(layer.feed_forward, Experts))
    found = {t.name: t.shape for t in inventory(spec)}
    assert facts.latent_size == NEMOTRON_3_SUPER_120B["moe_latent_size"] < spec.hidden_size
    assert found["backbone.layers.1.mixer.fc1_latent_proj.weight"] == (facts.latent_size, spec.hidden_size)
    assert found["backbone.layers.1.mixer.experts.0.up_proj.weight"][1] == facts.latent_size


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hybrid_override_pattern": "MX"}, r"hybrid_override_pattern\[1\]: 'X': expected one of M \* - E"),
        ({"hybrid_override_pattern": None}, "one letter of"),
        ({"num_hidden_layers": 5}, "num_hidden_layers: 5: expected 56"),
        ({"attention_bias": True}, "attention_bias"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """An unknown letter, no pattern, another number of layers, fields that two codes read differently."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**NEMOTRON_NANO_9B_V2, **change}, "9B")


def test_tied_embeddings_are_held_once() -> None:
    """A configuration may tie, as Megatron's hybrid models do: the output projection is the embedding."""
    whole = read_config(NEMOTRON_H_56B, "plain")
    tied = read_config({**NEMOTRON_H_56B, "tie_word_embeddings": True}, "tied")
    assert tied.num_parameters == whole.num_parameters - 131072 * 8192
