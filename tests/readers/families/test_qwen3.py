"""Qwen3 and its mixtures: norms on queries and keys, experts in the layers that have them."""

from __future__ import annotations

from published_configs import QWEN3_0_6B, QWEN3_30B_A3B, QWEN3_235B_A22B
from vramfit.layer_kind import Dense, Experts, GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import ModelSpec, inventory


def kinds(spec: ModelSpec) -> str:
    """Return one letter per layer: D for dense, E for experts."""
    return "".join("E" if isinstance(layer.feed_forward, Experts) else "D" for layer in spec.layers)


def test_norms_are_as_wide_as_a_head() -> None:
    """128, though the hidden size over the heads is 64."""
    found = {t.name: t.shape for t in read_config(QWEN3_0_6B, "0.6B").layers[0].tensors}
    assert (128,) == found["self_attn.q_norm.weight"] == found["self_attn.k_norm.weight"]
    assert (16 * 128, 1024) == found["self_attn.q_proj.weight"]


def test_head_dim_defaults_differ() -> None:
    """Qwen3's class has 128, the mixtures' divides: 2048 over 32."""
    for base, expected in ((QWEN3_0_6B, 128), (QWEN3_30B_A3B, 64)):
        facts = read_config({k: v for k, v in base.items() if k != "head_dim"}, "mine").layers[0].attention
        assert isinstance(facts, GroupedQuery)
        assert expected == facts.head_dim


def test_names_of_experts_in_the_file() -> None:
    """One matrix per expert, 128 experts in each of 94 layers; the router's are the rows."""
    spec = read_config(QWEN3_235B_A22B, "235B")
    found = {t.name: t.shape for t in inventory(spec)}
    assert (1536, 4096) == found["model.layers.93.mlp.experts.127.up_proj.weight"]
    assert (128, 4096) == found["model.layers.93.mlp.gate.weight"]
    # embedding, norm, head; a layer: 2 norms, 4 projections, 2 head norms, router, 128 x 3 matrices
    assert 3 + 94 * (2 + 4 + 2 + 1 + 384) == len(found)


def test_which_layers_have_experts() -> None:
    """Every second layer, counted from one, save those named."""
    config = {**QWEN3_30B_A3B, "num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    spec = read_config(config, "mine")
    assert "DEDDDE" == kinds(spec)
    assert 2 == len({id(layer) for layer in spec.layers})
    assert isinstance(spec.layers[0].feed_forward, Dense)
    assert 6144 == spec.layers[0].feed_forward.intermediate_size
    assert "EEEEEE" == kinds(read_config({**QWEN3_30B_A3B, "num_hidden_layers": 6}, "mine"))


def test_a_mixture_slides_everywhere_or_nowhere() -> None:
    """Its class has no ``max_window_layers``."""
    for used, expected in ((True, {512}), (False, {None})):
        config = {**QWEN3_30B_A3B, "use_sliding_window": used, "sliding_window": 512, "max_window_layers": 2}
        found = {
            a.window_tokens
            for a in (x.attention for x in read_config(config, "m").layers)
            if isinstance(a, GroupedQuery)
        }
        assert expected == found


def test_both_names_of_the_number_of_experts() -> None:
    """Newer files say ``num_local_experts``."""
    renamed = {k: v for k, v in QWEN3_30B_A3B.items() if k != "num_experts"}
    assert 30_532_122_624 == read_config({**renamed, "num_local_experts": 128}, "30B").num_parameters


def test_absent_kv_heads_are_the_class_default() -> None:
    """Four in a mixture, 32 in Qwen3."""
    for base, expected in ((QWEN3_30B_A3B, 4), ({**QWEN3_0_6B, "num_attention_heads": 64}, 32)):
        facts = read_config({k: v for k, v in base.items() if k != "num_key_value_heads"}, "mine").layers[0].attention
        assert isinstance(facts, GroupedQuery)
        assert expected == facts.num_key_value_heads
