"""Zamba and Zamba2: blocks that many layers use and the file has once."""

from __future__ import annotations

import pytest

from recurrent_configs import ZAMBA2_2_7B
from vramfit.errors import VramfitError
from vramfit.layer_kind import GroupedQuery, StateSpace
from vramfit.memory.weights import weight_bytes
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Plan

BLOCK = 3 * 5120 * 5120 + 2560 * 5120 + 5120 + 2560 + 3 * 2560 * 10240
"""One shared block without adapters: queries, keys and values of 5,120 x 5,120, the way out, two norms, the network."""
ADAPTER = 128 * (2560 + 2 * 10240)
"""The low-rank pair of one use."""


def test_a_block_is_counted_where_it_stands() -> None:
    """Layers 6 and 12 hold blocks A and B with the adapters of 5 and 4 uses; all nine keep tokens and a state."""
    layers = read_config(ZAMBA2_2_7B, "2.7B").layers
    mamba = layers[0].num_parameters
    own = mamba + 2560 * 2560
    assert [own + BLOCK + 5 * ADAPTER, own + BLOCK + 4 * ADAPTER, own] == [
        layers[i].num_parameters for i in (6, 12, 18)
    ]
    users = [layer for layer in layers if len(layer.mixers) == 2]
    assert 9 == len(users)
    assert all(isinstance(u.attention, GroupedQuery) and isinstance(u.beside, StateSpace) for u in users)


def test_pipeline_stages_repeat_shared_blocks_and_nothing_else() -> None:
    """Of two stages of 27 layers the second uses both blocks (layers 30 and 36 first) and holds them once more."""
    spec = read_config(ZAMBA2_2_7B, "2.7B")
    stages = shards(spec, Plan(pp=2))
    tied = 32000 * 2560
    assert 2 * (2 * BLOCK + 9 * ADAPTER + tied) == sum(weight_bytes(s.model) for s in stages) - weight_bytes(spec)
    alone = sum(s.num_ranks * weight_bytes(s.model) for s in shards(spec, Plan(pp=54)))
    more_uses = 4 * (BLOCK + 5 * ADAPTER) + 3 * (BLOCK + 4 * ADAPTER)  # A is used five times, B four
    assert 2 * (more_uses + tied) == alone - weight_bytes(spec)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layers_block_type": None}, "layers_block_type: None: expected a list of 54 words"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings: False: expected true"),
        ({"n_mamba_heads": 7}, r"n_mamba_heads: 7: expected a divisor of the inner width \(5120\)"),
        ({"attention_head_dim": 80}, "attention_head_dim: 80: expected 2 x hidden_size"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """No list of blocks, untied embeddings, heads that do not divide, a width that transformers works out itself."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**ZAMBA2_2_7B, **change}, "2.7B")
