"""Llama and Mistral: biases where Llama says so, a window where Mistral does."""

from __future__ import annotations

import pytest

from published_configs import LLAMA_3_1_8B, LLAMA_3_2_1B, MISTRAL_7B_V0_1, MISTRAL_NEMO, Config
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import ModelSpec, inventory


def window(spec: ModelSpec) -> int | None:
    """Return the window that all layers share."""
    assert isinstance(spec.layers[0].attention, GroupedQuery)
    return spec.layers[0].attention.window_tokens


def without(config: Config, *names: str) -> Config:
    """Return a configuration that lacks some fields."""
    return {k: v for k, v in config.items() if k not in names}


def test_names_in_the_file() -> None:
    """Embedding first, then nine tensors a layer, then norm and output projection: 291 for 32 layers."""
    names = [t.name for t in inventory(read_config(LLAMA_3_1_8B, "8B"))]
    assert 1 + 32 * 9 + 2 == len(names) == len(set(names))
    assert "model.embed_tokens.weight" == names[0]
    assert "model.layers.31.mlp.down_proj.weight" in names
    assert ["model.norm.weight", "lm_head.weight"] == names[-2:]


def test_a_tied_model_has_no_projection_of_its_own() -> None:
    """Llama 3.2 1B looks its output up in the embedding."""
    spec = read_config(LLAMA_3_2_1B, "1B")
    assert spec.tied
    assert "lm_head.weight" not in {t.name for t in inventory(spec)}


def test_biases_of_attention_and_network() -> None:
    """Of q 4096, k and v 1024, o 4096; gate and up 14336, down 4096: in each of 32 layers."""
    plain = read_config(LLAMA_3_1_8B, "8B").num_parameters
    both = read_config({**LLAMA_3_1_8B, "attention_bias": True, "mlp_bias": True}, "8B").num_parameters
    assert 32 * (4096 + 1024 + 1024 + 4096 + 14336 + 14336 + 4096) == both - plain


def test_mistral_has_no_biases_whatever_the_file_says() -> None:
    """Its class in transformers does not know the field."""
    assert 7_241_732_096 == read_config({**MISTRAL_7B_V0_1, "attention_bias": True}, "v0.1").num_parameters


def test_windows() -> None:
    """Version 0.1 slides over 4,096 tokens, null does not slide, absent is the class default; Llama never slides."""
    assert 4096 == window(read_config(MISTRAL_7B_V0_1, "v0.1"))
    assert window(read_config(MISTRAL_NEMO, "Nemo")) is None
    assert window(read_config({**LLAMA_3_1_8B, "sliding_window": 4096}, "8B")) is None
    absent = read_config(without(MISTRAL_7B_V0_1, "sliding_window"), "v0.1")
    assert 4096 == window(absent)
    assert any(text.startswith("sliding_window = 4096") for text in absent.assumptions)


@pytest.mark.parametrize(("base", "expected"), [(LLAMA_3_1_8B, 32), (MISTRAL_7B_V0_1, 8)])
def test_absent_kv_heads(base: Config, expected: int) -> None:
    """As many as heads for Llama, eight for Mistral, and recorded for both."""
    spec = read_config(without(base, "num_key_value_heads"), "mine")
    assert isinstance(spec.layers[0].attention, GroupedQuery)
    assert expected == spec.layers[0].attention.num_key_value_heads
    assert any(text.startswith(f"num_key_value_heads = {expected}") for text in spec.assumptions)
