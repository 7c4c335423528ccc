"""gpt-oss: windows by turns, sinks, biases, fused experts in MXFP4."""

from __future__ import annotations

import pytest

from hybrid_configs import GPT_OSS_20B, GPT_OSS_120B
from vramfit.errors import InvalidValueError
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory


def test_published_totals() -> None:
    """20.91 and 116.83 billion; the model card's 3.61 and 5.13 active leave the embedding out (table 1 of the card)."""
    small, large = read_config(GPT_OSS_20B, "20b"), read_config(GPT_OSS_120B, "120b")
    assert small.num_parameters == 20_914_757_184
    assert large.num_parameters == 116_829_156_672
    embedding = 201_088 * 2880
    assert f"{(small.num_active_parameters - embedding) / 1e9:.2f}" == "3.61"
    assert f"{(large.num_active_parameters - embedding) / 1e9:.2f}" == "5.13"


def test_every_other_layer_slides() -> None:
    """The first of two layers has a window of 128, the second none."""
    facts = [layer.attention for layer in read_config(GPT_OSS_20B, "20b").layers]
    assert [a.window_tokens for a in facts if isinstance(a, GroupedQuery)] == [128, None] * 12


def test_experts_are_fused_with_biases() -> None:
    """Gate and up lie in one tensor of all experts, as inputs x outputs."""
    found = {t.name: t.shape for t in inventory(read_config(GPT_OSS_20B, "20b"))}
    assert found["model.layers.0.mlp.experts.gate_up_proj"] == (32, 2880, 5760)
    assert found["model.layers.0.mlp.experts.gate_up_proj_bias"] == (32, 5760)
    assert found["model.layers.0.self_attn.sinks"] == (64,)


def test_both_names_of_experts_per_token_must_agree() -> None:
    """A file that says 4 and 5 is refused."""
    with pytest.raises(InvalidValueError, match="the same as num_experts_per_tok"):
        read_config({**GPT_OSS_20B, "num_experts_per_tok": 4, "experts_per_token": 5}, "20b")
