"""Qwen2 and Qwen2.5: biases on query, key and value; a window only where it is used."""

from __future__ import annotations

import pytest

from published_configs import QWEN2_5_0_5B, QWEN2_5_7B
from vramfit.errors import InvalidValueError
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import ModelSpec

SLIDING = {**QWEN2_5_7B, "use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 21}


def windows(spec: ModelSpec) -> list[int | None]:
    """Return the window of each layer."""
    return [layer.attention.window_tokens for layer in spec.layers if isinstance(layer.attention, GroupedQuery)]


def test_query_key_and_value_have_biases_and_the_output_has_none() -> None:
    """3584 + 2 x 512 numbers a layer."""
    biases = [t.shape for t in read_config(QWEN2_5_7B, "7B").layers[0].tensors if t.name.endswith("bias")]
    assert [(3584,), (512,), (512,)] == biases


def test_a_window_that_is_not_used_is_none() -> None:
    """The file of 0.5B names 32,768 tokens and switches them off."""
    assert [None] * 24 == windows(read_config(QWEN2_5_0_5B, "0.5B"))


def test_layers_from_the_named_one_on_slide() -> None:
    """The first 21 of 28 see everything."""
    spec = read_config(SLIDING, "mine")
    assert [None] * 21 + [4096] * 7 == windows(spec)
    assert 2 == len({id(layer) for layer in spec.layers})


def test_layer_types_decide() -> None:
    """A list of newer files stands above ``max_window_layers``."""
    types = ["sliding_attention"] * 2 + ["full_attention"] * 26
    assert [4096] * 2 + [None] * 26 == windows(read_config({**SLIDING, "layer_types": types}, "mine"))
    with pytest.raises(InvalidValueError, match="sliding_window"):
        read_config({**SLIDING, "use_sliding_window": False, "layer_types": types}, "mine")


def test_a_used_window_of_null_is_none_and_an_absent_one_the_class_default() -> None:
    """transformers: 4,096 tokens from layer 28 on, which a model of 28 layers does not have."""
    assert [None] * 28 == windows(read_config({**SLIDING, "sliding_window": None}, "mine"))
    bare = {k: v for k, v in SLIDING.items() if k not in {"sliding_window", "max_window_layers"}}
    spec = read_config({**bare, "num_hidden_layers": 30}, "mine")
    assert [None] * 28 + [4096] * 2 == windows(spec)
    assert ["sliding_window = 4096", "max_window_layers = 28"] == [text.split(" (")[0] for text in spec.assumptions]
