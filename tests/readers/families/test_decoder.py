"""Building blocks of decoders: which axis is divided, which bias follows, which widths are refused."""

from __future__ import annotations

import pytest

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.families.decoder import (
    attention_tensors,
    gated_mlp,
    head_dim,
    kv_heads,
    linear,
    norm,
    routed_experts,
    window_tokens,
    windows,
)
from vramfit.readers.fields import Fields
from vramfit.spec import Cut


def test_a_bias_follows_the_outputs_and_is_whole_behind_divided_inputs() -> None:
    """Each rank adds its part of the outputs, or the whole bias once after the sum."""
    for cut, bias_cut in (
        (Cut.OUTPUTS, Cut.OUTPUTS),
        (Cut.KEY_VALUE_HEADS, Cut.KEY_VALUE_HEADS),
        (Cut.QUERY_KEY_VALUE, Cut.QUERY_KEY_VALUE),
        (Cut.INPUTS, Cut.WHOLE),
        (Cut.WHOLE, Cut.WHOLE),
    ):
        weight, bias = linear("x", 6, 4, cut, bias=True)
        assert ((6, 4), cut, Role.LINEAR) == (weight.shape, weight.cut, weight.role)
        assert ("x.bias", (6,), bias_cut, Role.BIAS) == (bias.name, bias.shape, bias.cut, bias.role)
    assert 1 == len(linear("x", 6, 4, Cut.OUTPUTS))


def test_attention_is_divided_by_heads() -> None:
    """Query by its outputs, key and value by KV heads, output projection by its inputs; norms are whole."""
    facts = GroupedQuery(num_attention_heads=6, num_key_value_heads=2, head_dim=5)
    found = {
        t.name: (t.shape, t.cut) for t in attention_tensors(facts, 7, qkv_bias=True, output_bias=True, qk_norm=True)
    }
    assert {
        "self_attn.q_proj.weight": ((30, 7), Cut.OUTPUTS),
        "self_attn.q_proj.bias": ((30,), Cut.OUTPUTS),
        "self_attn.k_proj.weight": ((10, 7), Cut.KEY_VALUE_HEADS),
        "self_attn.k_proj.bias": ((10,), Cut.KEY_VALUE_HEADS),
        "self_attn.v_proj.weight": ((10, 7), Cut.KEY_VALUE_HEADS),
        "self_attn.v_proj.bias": ((10,), Cut.KEY_VALUE_HEADS),
        "self_attn.o_proj.weight": ((7, 30), Cut.INPUTS),
        "self_attn.o_proj.bias": ((7,), Cut.WHOLE),
        "self_attn.q_norm.weight": ((5,), Cut.WHOLE),
        "self_attn.k_norm.weight": ((5,), Cut.WHOLE),
    } == found


def test_a_gated_network_is_divided_by_its_width() -> None:
    """Gate and up by outputs, down by inputs, so that no rank needs another's part in between."""
    found = {t.name: (t.shape, t.cut) for t in gated_mlp(4, 9)}
    assert {
        "mlp.gate_proj.weight": ((9, 4), Cut.OUTPUTS),
        "mlp.up_proj.weight": ((9, 4), Cut.OUTPUTS),
        "mlp.down_proj.weight": ((4, 9), Cut.INPUTS),
    } == found


def test_routed_experts_are_one_entry_per_kind() -> None:
    """Five experts of three matrices are three entries of five copies; the last leads back."""
    gate, up, down = routed_experts(5, 4, 9)
    assert [(9, 4), (9, 4), (4, 9)] == [t.shape for t in (gate, up, down)]
    assert [Cut.OUTPUTS, Cut.OUTPUTS, Cut.INPUTS] == [t.cut for t in (gate, up, down)]
    assert {(5, 5, Role.EXPERT)} == {(t.copies, t.experts, t.role) for t in (gate, up, down)}
    assert 5 * 3 * 36 == sum(t.num_parameters for t in (gate, up, down))


def test_norms_are_whole() -> None:
    """One vector, and its bias if it has one."""
    assert [("n.weight", Role.NORM), ("n.bias", Role.BIAS)] == [(t.name, t.role) for t in norm("n", 3, bias=True)]


def test_head_dim_is_declared_or_a_class_default_or_divides() -> None:
    """In that order; what does not divide is refused unless it is declared."""
    assert 7 == head_dim(Fields({"head_dim": 7}), 10, 3, 256)
    assert 256 == head_dim(Fields({}), 10, 3, 256)
    assert 5 == head_dim(Fields({}), 10, 2)
    with pytest.raises(
        InvalidValueError, match=r"text_config.num_attention_heads: 3: expected a divisor of hidden_size \(10\)"
    ):
        head_dim(Fields({}, "text_config"), 10, 3)


def test_kv_heads_null_and_absent() -> None:
    """Null is as many as heads; absent is the class default, or as many as heads, and recorded."""
    null, absent = Fields({"num_key_value_heads": None}), Fields({})
    assert 6 == kv_heads(null, 6, 2)
    assert [] == null.assumed
    assert 2 == kv_heads(absent, 6, 2)
    assert 6 == kv_heads(absent, 6)
    assert 2 == len(absent.assumed)


def test_kv_heads_divide_the_heads() -> None:
    """Four KV heads cannot serve six."""
    with pytest.raises(InvalidValueError) as caught:
        kv_heads(Fields({"num_key_value_heads": 4}, "text_config"), 6)
    assert "text_config.num_key_value_heads" == caught.value.path


def test_a_window_null_and_absent() -> None:
    """Null is none, whatever the class default; absent is the class default."""
    assert window_tokens(Fields({"sliding_window": None}), 4096) is None
    assert 4096 == window_tokens(Fields({}), 4096)
    assert window_tokens(Fields({})) is None
    assert 9 == window_tokens(Fields({"sliding_window": 9}), 4096)


def test_layer_types_decide_over_the_pattern() -> None:
    """A list is taken at its word; without one the family's pattern holds."""
    types = {"layer_types": ["full_attention", "sliding_attention"]}
    assert (None, 8) == windows(Fields(types), 8, (True, False))
    assert (8, None) == windows(Fields({}), 8, (True, False))
    with pytest.raises(InvalidValueError, match="sliding_window: None"):
        windows(Fields(types), None, (False, False))
