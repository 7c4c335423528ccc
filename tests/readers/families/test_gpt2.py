"""GPT-2: matrices stored the other way round, learned positions, two names for every size."""

from __future__ import annotations

import pytest

from published_configs import GPT2
from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.readers.hf_config import read_config
from vramfit.spec import Cut, inventory


def test_matrices_lie_inputs_first_and_are_divided_accordingly() -> None:
    """What other models divide by the first axis is the last here."""
    found = {t.name: (t.shape, t.cut) for t in read_config(GPT2, "gpt2").layers[0].tensors}
    assert ((768, 2304), Cut.INPUTS) == found["attn.c_attn.weight"]
    assert ((2304,), Cut.OUTPUTS) == found["attn.c_attn.bias"]
    assert ((768, 768), Cut.OUTPUTS) == found["attn.c_proj.weight"]
    assert ((768, 3072), Cut.INPUTS) == found["mlp.c_fc.weight"]
    assert ((3072, 768), Cut.OUTPUTS) == found["mlp.c_proj.weight"]
    assert ((768,), Cut.WHOLE) == found["mlp.c_proj.bias"]


def test_positions_are_learned_and_the_output_is_tied() -> None:
    """Two tables, twelve tensors in each of twelve layers, one norm with a bias."""
    spec = read_config(GPT2, "gpt2")
    assert 2 + 12 * 12 + 2 == len(list(inventory(spec)))
    assert (1024, 768) == spec.embeddings[1].shape
    assert 1024 == spec.max_position_embeddings
    assert spec.tied


def test_usual_names_are_understood() -> None:
    """The class maps ``hidden_size`` to ``n_embd`` and so on; a default would be wrong by far."""
    usual = {
        "model_type": "gpt2", "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24,
        "max_position_embeddings": 1024, "vocab_size": 50257, "torch_dtype": "float32", "tie_word_embeddings": True,
    }  # fmt: skip
    spec = read_config(usual, "medium")
    assert 354_823_168 == spec.num_parameters
    assert () == spec.assumptions


def test_heads_divide_the_width() -> None:
    """768 over 11 is no whole number."""
    with pytest.raises(InvalidValueError, match=r"n_head: 11: expected a divisor of n_embd \(768\)"):
        read_config({**GPT2, "n_head": 11}, "gpt2")


def test_cross_attention_is_refused() -> None:
    """It adds tensors to every block."""
    with pytest.raises(UnsupportedModelError, match="add_cross_attention"):
        read_config({**GPT2, "add_cross_attention": True}, "gpt2")


def test_the_inner_width_may_be_named() -> None:
    """Four times the hidden size unless ``n_inner`` says another."""
    found = {t.name: t.shape for t in read_config({**GPT2, "n_inner": 1000}, "gpt2").layers[0].tensors}
    assert (768, 1000) == found["mlp.c_fc.weight"]
