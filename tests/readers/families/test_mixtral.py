"""Mixtral: eight experts under their names in the file."""

from __future__ import annotations

import pytest

from published_configs import MIXTRAL_8X7B
from vramfit.errors import InvalidValueError
from vramfit.layer_kind import Experts
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory


def test_names_of_experts_in_the_file() -> None:
    """w1 and w3 lead in, w2 leads back; the router stands beside them."""
    found = {t.name: t.shape for t in inventory(read_config(MIXTRAL_8X7B, "8x7B"))}
    moe = "model.layers.31.block_sparse_moe"
    assert (14336, 4096) == found[f"{moe}.experts.7.w1.weight"] == found[f"{moe}.experts.7.w3.weight"]
    assert (4096, 14336) == found[f"{moe}.experts.7.w2.weight"]
    assert (8, 4096) == found[f"{moe}.gate.weight"]
    # embedding, norm, head; a layer: 2 norms, 4 projections, router, 8 x 3 matrices
    assert 3 + 32 * (2 + 4 + 1 + 24) == len(found)


def test_active_parameters() -> None:
    """Six of eight experts of 3 x 4096 x 14336 stay idle in each of 32 layers."""
    spec = read_config(MIXTRAL_8X7B, "8x7B")
    assert 46_702_792_704 - 32 * 6 * 3 * 4096 * 14336 == 12_879_925_248 == spec.num_active_parameters


def test_the_number_of_experts_has_two_names() -> None:
    """The class takes ``num_experts`` for ``num_local_experts``; absent is the class default, eight."""
    bare = {k: v for k, v in MIXTRAL_8X7B.items() if k != "num_local_experts"}
    for config, expected in ((bare, 8), ({**bare, "num_experts": 5}, 5)):
        facts = read_config(config, "mine").layers[0].feed_forward
        assert isinstance(facts, Experts)
        assert expected == facts.num_experts


def test_no_more_experts_per_token_than_there_are() -> None:
    """Nine of eight cannot be chosen."""
    with pytest.raises(InvalidValueError, match="num_experts_per_tok: 9: expected an integer from 1 to 8"):
        read_config({**MIXTRAL_8X7B, "num_experts_per_tok": 9}, "mine")
