"""Nemotron-NAS: every block has its own heads and width, or lacks a half."""

from __future__ import annotations

from typing import Any

import pytest

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.hf_config import read_config


def block(mult: float | None, group: int | None = None, *, linear: bool = False) -> dict[str, Any]:
    """Return a block; no group = no attention, no width = no network, or a matrix in place of both."""
    return {
        "attention": {"n_heads_in_group": group, "no_op": group is None and not linear, "replace_with_linear": linear},
        "ffn": {"ffn_mult": mult, "no_op": mult is None and not linear, "replace_with_linear": linear},
    }


def config(*blocks: dict[str, Any], hidden: int = 8192, heads: int = 64) -> dict[str, Any]:
    """Return a configuration with these blocks."""
    return {
        "model_type": "nemotron-nas", "architectures": ["DeciLMForCausalLM"], "hidden_size": hidden,
        "num_attention_heads": heads, "num_hidden_layers": len(blocks), "num_key_value_heads": None,
        "intermediate_size": None, "vocab_size": 128256, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "block_configs": list(blocks),
    }  # fmt: skip


SUPER_49B = config(
    *[block(5.25, 8)] * 48, *[block(1.3125)] * 10, *[block(1.0)] * 8, *[block(0.5)] * 6, *[block(2.625)] * 5,
    block(2.625, 8), block(3.28125), block(5.25),
)  # fmt: skip
"""nvidia/Llama-3_3-Nemotron-Super-49B-v1, its 80 blocks in another order."""


def test_the_published_count_of_super_49b() -> None:
    """49,867,145,216 in its safetensors metadata; 49 of 80 blocks attend."""
    spec = read_config(SUPER_49B, "Super")
    assert 49_867_145_216 == spec.num_parameters
    assert 49 == sum(layer.attention is not None for layer in spec.layers)


@pytest.mark.parametrize(
    ("mult", "width"), [(5.25, 28672), (2.625, 14336), (1.3125, 7168), (1.0, 5632), (0.5, 2816), (3.28125, 17920)]
)
def test_widths_are_rounded_up_to_256(mult: float, width: int) -> None:
    """1.0: floor(2 x 8,192 / 3) = 5,461, which is 22 x 256 = 5,632 rounded up."""
    feed_forward = read_config(config(block(mult, 8)), "Super").layers[0].feed_forward
    assert isinstance(feed_forward, Dense)
    assert width == feed_forward.intermediate_size


def test_kv_heads_are_heads_over_those_of_a_group() -> None:
    """64 heads in groups of 16: four KV heads."""
    facts = read_config(config(block(1.0, 16)), "Super").layers[0].attention
    assert isinstance(facts, GroupedQuery)
    assert 4 == facts.num_key_value_heads


def test_a_matrix_may_stand_in_for_a_half() -> None:
    """With the norm before it; a block without halves has no tensors."""
    replaced, empty = read_config(config(block(None, linear=True), block(None)), "Super").layers
    assert {
        "input_layernorm.weight": (8192,), "self_attn.linear_attn.weight": (8192, 8192),
        "post_attention_layernorm.weight": (8192,), "mlp.linear_mlp.weight": (8192, 8192),
    } == {t.name: t.shape for t in replaced.tensors}  # fmt: skip
    assert () == empty.tensors
    assert replaced.attention is None
    assert replaced.feed_forward is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n_heads_in_group", 7, r"block_configs\[0\].attention.n_heads_in_group: 7: expected a divisor"),
        ("window_length", 128, "window_length: 128: attention to a part of the context"),
    ],
)
def test_a_block_that_is_not_understood_is_refused(field: str, value: object, message: str) -> None:
    """With its number."""
    wrong = block(1.0, 8)
    wrong["attention"][field] = value
    with pytest.raises((InvalidValueError, UnsupportedModelError), match=message):
        read_config(config(wrong), "Super")


@pytest.mark.parametrize("mult", [0, -1.0, True, "1", float("nan"), float("inf")])
def test_a_ratio_is_a_positive_number(mult: object) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidValueError, match="ffn_mult"):
        read_config(config(block(mult, 8)), "Super")  # type: ignore[arg-type] # that is what is tested


def test_there_is_one_block_per_layer() -> None:
    """A list of another length is refused."""
    with pytest.raises(InvalidValueError, match="a list of 2 objects"):
        read_config({**config(block(1.0)), "num_hidden_layers": 2}, "Super")
