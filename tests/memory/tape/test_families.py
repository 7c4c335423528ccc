"""Every family that the catalogue knows can be walked, and the laws of recomputation hold for each."""

from __future__ import annotations

import pytest

from vramfit.block_style import BlockStyle
from vramfit.catalogue.model import all_models
from vramfit.errors import UnsupportedModelError, VramfitError
from vramfit.memory.tape.cost import step_cost
from vramfit.parallel import shards
from vramfit.request import Plan
from vramfit.shard import Shard
from vramfit.source import read_model
from vramfit.training import Training

TOKENS = 256


def one_of_each_family() -> dict[str, Shard]:
    """Return the first catalogued model of every family, on one device."""
    found: dict[str, Shard] = {}
    for row in all_models():
        model = read_model(row.name)
        if model.components or model.family in found:
            continue
        (found[model.family],) = shards(model, Plan())
    return found


FAMILIES = one_of_each_family()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "resnet"])
def test_recomputation_never_keeps_more(family: str) -> None:
    """With full recomputation blocks keep at most what they keep without, and nothing runs backward for less."""
    shard = FAMILIES[family]
    none, full = (
        step_cost(
            shard,
            Training(sequence_tokens=TOKENS, precision="bf16", recompute=recompute, attention="sdpa", loss="fp32"),
            BlockStyle(),
        )
        for recompute in ("none", "full")
    )
    kept = [sum(count * block.kept_bytes for block, count in cost.blocks) for cost in (none, full)]
    hidden = TOKENS * shard.model.hidden_size * 2
    assert kept[1] <= kept[0] + hidden * len(shard.model.layers)
    assert all(block.backward_bytes >= block.output_bytes for block, _ in none.blocks)


def test_a_model_without_tokens_is_refused() -> None:
    """Stages of convolutions are no blocks over tokens: the error names what does run them."""
    with pytest.raises(UnsupportedModelError, match="vramfit trace"):
        step_cost(FAMILIES["resnet"], Training(sequence_tokens=TOKENS), BlockStyle())
    assert issubclass(UnsupportedModelError, VramfitError)
