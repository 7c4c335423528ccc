"""Decoders with names of their own: published counts, and what is refused."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from published_remote import FALCON_40B
from tiny import forms
from tiny.case import Tiny
from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.layer_kind import GroupedQuery
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Plan
from vramfit.spec import Cut, inventory

NEOX: dict[str, Any] = {
    "model_type": "gpt_neox", "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
    "intermediate_size": 24576, "vocab_size": 50432, "tie_word_embeddings": False, "torch_dtype": "float16",
}  # fmt: skip
NEO: dict[str, Any] = {
    "model_type": "gpt_neo", "hidden_size": 768, "num_layers": 12, "num_heads": 12, "vocab_size": 50257,
    "max_position_embeddings": 2048, "attention_types": [[["global", "local"], 6]], "window_size": 256,
    "torch_dtype": "float32",
}  # fmt: skip
MPT: dict[str, Any] = {
    "model_type": "mpt", "d_model": 4096, "n_heads": 32, "n_layers": 32, "vocab_size": 50432, "max_seq_len": 2048,
    "attn_config": {"alibi": True}, "torch_dtype": "bfloat16",
}  # fmt: skip
FALCON: dict[str, Any] = {
    "model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
    "vocab_size": 65024, "multi_query": True, "torch_dtype": "bfloat16",
}  # fmt: skip
OPT: dict[str, Any] = {
    "model_type": "opt", "hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 512, "do_layer_norm_before": False,
    "torch_dtype": "float16",
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (NEOX, 20_554_567_680),  # GPT-NeoX-20B, arXiv:2204.06745, table 1
        (NEO, 125_198_592),  # EleutherAI/gpt-neo-125m without its masks, as transformers counts
        (MPT, 6_649_286_656),  # mosaicml/mpt-7b, safetensors metadata
        (FALCON, 6_921_720_704),  # tiiuae/falcon-7b, as transformers counts
        (OPT, 331_196_416),  # facebook/opt-350m, as transformers counts
    ],
)
def test_published_counts(config: dict[str, Any], count: int) -> None:
    """To the unit."""
    assert count == read_config(config, "model").num_parameters


def test_one_kv_head_for_71() -> None:
    """Falcon-7B: 71 query heads, one key and one value head of 64 in one matrix."""
    layer = read_config(FALCON, "falcon").layers[0]
    found = {t.name: (t.shape, t.cut) for t in layer.tensors}
    assert ((73 * 64, 4544), Cut.QUERY_KEY_VALUE) == found["self_attention.query_key_value.weight"]
    assert isinstance(layer.attention, GroupedQuery)
    assert 1 == layer.attention.num_key_value_heads


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (FALCON_40B, {"new_decoder_architecture": True, "num_kv_heads": 8, "num_attention_heads": 128}),
        ({**FALCON, "model_type": "RefinedWebModel", "n_head": 71, "n_layer": 32}, {}),
    ],
)
def test_falcon_as_first_published_is_falcon(first: dict[str, Any], later: dict[str, Any]) -> None:
    """Same tensors under the name it had before transformers took it in."""
    renamed = {**first, **later, "model_type": "falcon"}
    was, now = read_config(first, "falcon"), read_config(renamed, "falcon")
    assert list(inventory(now)) == list(inventory(was))
    assert now.num_parameters == was.num_parameters


def test_opt_350m_looks_tokens_up_at_half_its_width() -> None:
    """Two projections and no final norm; positions start at two."""
    shapes = {t.name: t.shape for t in inventory(read_config(OPT, "opt"))}
    assert (50272, 512) == shapes["model.decoder.embed_tokens.weight"]
    assert (1024, 512) == shapes["model.decoder.project_in.weight"]
    assert (512, 1024) == shapes["model.decoder.project_out.weight"]
    assert (2050, 1024) == shapes["model.decoder.embed_positions.weight"]
    assert "model.decoder.final_layer_norm.weight" not in shapes


def test_every_other_layer_of_gpt_neo_slides() -> None:
    """Global and local in turn."""
    facts = [layer.attention for layer in read_config(NEO, "neo").layers]
    assert [None, 256] * 6 == [f.window_tokens for f in facts if isinstance(f, GroupedQuery)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**NEO, "attention_types": [[["global"], 6]]}, "attention_types: .*: expected 12 words"),
        ({**NEO, "attention_types": [[["global"], 99999]]}, "attention_types: 99999: expected an integer"),
        ({**NEO, "attention_types": [["global"] * 2000, 4000]}, "attention_types"),
        ({**NEO, "attention_types": [[["global"] * 2000, 4000]]}, "expected at most 4096 layers"),
        ({**NEO, "attention_types": "global"}, r"a list of \[kinds, how often\]"),
        ({**NEO, "attention_types": [[["global", "sideways"], 6]]}, "12 words global or local"),
        ({**NEO, "num_heads": 7}, r"num_heads: 7: expected a divisor of hidden_size \(768\)"),
        ({**MPT, "no_bias": False}, "no_bias: False: expected true"),
        ({**MPT, "expansion_ratio": 3}, "expansion_ratio: 3: expected 4"),
        ({**MPT, "attn_config": {"alibi": False}}, "attn_config.alibi: False"),
        ({**MPT, "attn_config": {"attn_type": "multiquery_attention"}}, "attn_config.attn_type"),
        ({**MPT, "attn_config": {"qk_ln": True}}, "attn_config.qk_ln: True"),
        ({**OPT, "enable_bias": False}, "enable_bias: False: expected true"),
        ({**FALCON, "new_decoder_architecture": True, "num_kv_heads": 8}, "num_kv_heads: 8: expected a divisor"),
        ({k: v for k, v in MPT.items() if k != "d_model"}, "d_model: missing"),
        ({k: v for k, v in NEOX.items() if k != "intermediate_size"}, "intermediate_size: missing"),
        ({"model_type": "gpt_bigcode", "add_cross_attention": True}, "adds a second attention"),
    ],
)
def test_what_is_not_understood_is_refused(config: dict[str, Any], message: str) -> None:
    """With the path of the field."""
    with pytest.raises((InvalidValueError, UnsupportedModelError), match=message):
        read_config(config, "model")


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{i}-{c.kind}") for i, c in enumerate(forms.CASES)])
def test_two_ranks_hold_half_of_every_matrix(case: Tiny) -> None:
    """Fused projections too; a single KV head is on both ranks, with its key and value of one head's width."""
    spec = read_config(case.config, case.kind)
    (shard,) = shards(spec, Plan(tp=2))
    facts = spec.layers[0].attention
    assert isinstance(facts, GroupedQuery)
    repeated = 2 * facts.head_dim if facts.num_key_value_heads == 1 else 0
    for whole, half in zip(spec.layers[0].tensors, shard.model.layers[0].tensors, strict=True):
        if whole.cut is Cut.QUERY_KEY_VALUE:
            assert whole.shape[0] + repeated == 2 * half.shape[0], whole.name
        elif whole.cut is not Cut.WHOLE:
            assert prod(whole.shape) == 2 * prod(half.shape), whole.name
        if len(whole.shape) > 1:
            assert whole.cut is not Cut.WHOLE, whole.name
