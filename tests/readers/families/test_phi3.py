"""Phi-3 and Phi-4: fused matrices, a window where the file has one."""

from __future__ import annotations

import pytest

from published_configs import PHI_3_MINI_4K, PHI_4_MINI
from vramfit.errors import UnsupportedModelError
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import Cut


def test_fused_matrices() -> None:
    """Phi-4 mini: 24 + 2 x 8 heads of 128 in one matrix, twice 8,192 in the other."""
    found = {t.name: (t.shape, t.cut) for t in read_config(PHI_4_MINI, "mini").layers[0].tensors}
    assert ((5120, 3072), Cut.QUERY_KEY_VALUE) == found["self_attn.qkv_proj.weight"]
    assert ((16384, 3072), Cut.OUTPUTS) == found["mlp.gate_up_proj.weight"]
    assert ((3072, 8192), Cut.INPUTS) == found["mlp.down_proj.weight"]


@pytest.mark.parametrize(("given", "expected"), [(2047, 2047), (None, None)])
def test_the_window_is_the_files(given: int | None, expected: int | None) -> None:
    """2,047 tokens in Phi-3 mini; null and absent are none."""
    facts = read_config({**PHI_3_MINI_4K, "sliding_window": given}, "mini").layers[0].attention
    assert isinstance(facts, GroupedQuery)
    assert expected == facts.window_tokens


def test_a_bias_is_refused() -> None:
    """The class in transformers has none."""
    with pytest.raises(UnsupportedModelError, match="attention_bias"):
        read_config({**PHI_3_MINI_4K, "attention_bias": True}, "mini")
