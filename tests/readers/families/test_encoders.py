"""Encoders at their published sizes: counts that were derived by hand and stand in public model lists."""

from __future__ import annotations

from typing import Any

import pytest

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.layer_kind import Experts, GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
XLM = {"vocab_size": 250_002, "max_position_embeddings": 8194, "type_vocab_size": 1, "pad_token_id": 1}
NOMIC = {
    "model_type": "nomic_bert", "architectures": ["NomicBertModel"], "n_embd": 768, "n_layer": 12, "n_head": 12,
    "n_inner": 3072, "n_positions": 8192,
}  # fmt: skip

PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    # 250,002 + 8,194 + 1 rows of 1,024; 24 x 12,596,224; one norm and a pooler of 1,024 x 1,025
    "BAAI/bge-m3": ({"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"], **LARGE, **XLM}, 567_754_752),
    # the same with a classifier of two layers in the pooler's place: 1,025 more for its one label
    "BAAI/bge-reranker-v2-m3": (
        {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"], "num_labels": 1,
         **LARGE, **XLM},
        567_755_777,
    ),
    # 250,048 rows and one of 768; 12 x 9,444,096; one norm, and a label for every token: 769
    "Alibaba-NLP/gte-multilingual-base": (
        {"model_type": "new", "architectures": ["NewForTokenClassification"], "num_labels": 1, **BASE,
         "vocab_size": 250_048, "type_vocab_size": 1, "max_position_embeddings": 8192},
        305_369_089,
    ),
    # 250,048 rows and one of 768; 12 x 9,444,096; one norm
    "Snowflake/snowflake-arctic-embed-m-v2.0": (
        {"model_type": "gte", "architectures": ["GteModel"], **BASE, "vocab_size": 250_048, "type_vocab_size": 1,
         "max_position_embeddings": 8192},
        305_368_320,
    ),
    # and the reranker's pooler, 768 x 769
    "Alibaba-NLP/gte-multilingual-reranker-base": (
        {"model_type": "new", "architectures": ["NewForSequenceClassification"], "num_labels": 1, **BASE,
         "vocab_size": 250_048, "type_vocab_size": 1, "max_position_embeddings": 8192},
        305_959_681,
    ),
    # Llama 3.2 1B without an output projection of its own, every token sees every other: 128,256 x 2,048 and 16 blocks
    "nvidia/llama-nemotron-embed-1b-v2": (
        {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalModel"], "hidden_size": 2048,
         "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
         "intermediate_size": 8192, "vocab_size": 128_256, "tie_word_embeddings": True},
        1_235_814_400,
    ),
    # 30,528 + 2 rows of 768; 12 x (4 x 768 x 768 + 3 x 768 x 3,072 + 4 x 768); one norm
    "nomic-ai/nomic-embed-text-v1.5": (
        {**NOMIC, "vocab_size": 30_528, "type_vocab_size": 2, "activation_function": "swiglu", "qkv_proj_bias": False,
         "mlp_fc1_bias": False, "mlp_fc2_bias": False},
        136_731_648,
    ),
    # six of twelve blocks with eight experts of 2 x 768 x 3,072, a router of 8 x 768 and one bias
    "nomic-ai/nomic-embed-text-v2-moe": (
        {**NOMIC, "vocab_size": 250_048, "type_vocab_size": 1, "activation_function": "gelu", "qkv_proj_bias": True,
         "mlp_fc1_bias": True, "mlp_fc2_bias": True, "num_experts": 8, "moe_top_k": 2, "moe_every_n_layers": 2},
        475_292_928,
    ),
    # 559,364,096 as transformers builds it; adapters of rank 4 for 5 tasks: 20 x the sides of every matrix, 12,946,300
    "jinaai/jina-embeddings-v3": (
        {"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"], **LARGE, **XLM, "lora_rank": 4,
         "position_embedding_type": "rotary", "lora_adaptations": ["a", "b", "c", "d", "e"]},
        572_310_396,
    ),
    # 30,528 + 2 rows of 768; 12 x 9,444,096; one norm and a pooler of 768 x 769
    "jinaai/jina-embeddings-v2-base-en": (
        {"model_type": "bert", "architectures": ["JinaBertModel"], **BASE, "vocab_size": 30_528, "type_vocab_size": 2,
         "max_position_embeddings": 8192, "position_embedding_type": "alibi", "feed_forward_type": "geglu"},
        137_368_320,
    ),
    # (1,024 + 3 x 24) norms and tables aside: 149,014,272 = 50,368 x 768 + 22 blocks
    "answerdotai/ModernBERT-base": (
        {"model_type": "modernbert", "architectures": ["ModernBertModel"], "hidden_size": 768, "num_hidden_layers": 22,
         "num_attention_heads": 12, "intermediate_size": 1152, "vocab_size": 50_368, "max_position_embeddings": 8192,
         "global_attn_every_n_layers": 3, "local_attention": 128},
        149_014_272,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_encoder_has_the_published_count(name: str) -> None:
    """To the unit: what the files' headers add up to."""
    config, count = PUBLISHED[name]
    assert count == read_config(config, name).num_parameters


def test_every_second_block_of_nomic_2_has_experts() -> None:
    """Two of eight are chosen, in the second block and every other after it."""
    layers = read_config(PUBLISHED["nomic-ai/nomic-embed-text-v2-moe"][0], "Nomic").layers
    assert [i % 2 == 1 for i in range(12)] == [isinstance(layer.feed_forward, Experts) for layer in layers]


def test_modernbert_sees_everything_in_every_third_block() -> None:
    """Twenty-two blocks: 0, 3, 6 ... see all tokens, the others 128."""
    layers = read_config(PUBLISHED["answerdotai/ModernBERT-base"][0], "ModernBERT").layers
    windows = [layer.attention.window_tokens for layer in layers if isinstance(layer.attention, GroupedQuery)]
    assert [None if i % 3 == 0 else 128 for i in range(22)] == windows


def test_positions_behind_the_padding_token_are_not_tokens() -> None:
    """Of RoBERTa's 8,194 rows the first two are never used by a token."""
    assert 8192 == read_config(PUBLISHED["BAAI/bge-m3"][0], "bge").max_position_embeddings


def test_albert_holds_its_one_block_once_and_runs_it_twelve_times() -> None:
    """ALBERT base 2.0: 30,000 + 512 + 2 rows of 128, a block of 7,087,872, and a pooler: 11,683,584 in all."""
    config = {
        "model_type": "albert", "architectures": ["AlbertModel"], **BASE, "embedding_size": 128, "vocab_size": 30_000,
        "max_position_embeddings": 512, "type_vocab_size": 2, "num_hidden_groups": 1, "inner_group_num": 1,
    }  # fmt: skip
    spec = read_config(config, "ALBERT")
    assert 11_683_584 == spec.num_parameters
    assert [bool(layer.tensors) for layer in spec.layers] == [True, *[False] * 11]
    assert all(isinstance(layer.attention, GroupedQuery) for layer in spec.layers)


def test_adapters_stand_beside_every_matrix_of_jina_3() -> None:
    """Their names are those of the published file."""
    names = {t.name for t in inventory(read_config(PUBLISHED["jinaai/jina-embeddings-v3"][0], "Jina"))}
    assert {
        "roberta.embeddings.word_embeddings.parametrizations.weight.original",
        "roberta.encoder.layers.23.mixer.Wqkv.parametrizations.weight.0.lora_A",
        "roberta.pooler.dense.parametrizations.weight.0.lora_B",
    } <= names


@pytest.mark.parametrize(
    ("name", "changed", "path"),
    [
        ("BAAI/bge-m3", {"pad_token_id": 8193}, "pad_token_id"),
        ("BAAI/bge-m3", {"num_attention_heads": 7}, "num_attention_heads"),
        ("BAAI/bge-m3", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("jinaai/jina-embeddings-v3", {"lora_adaptations": []}, "lora_adaptations"),
        ("jinaai/jina-embeddings-v2-base-en", {"feed_forward_type": "original"}, "feed_forward_type"),
        ("jinaai/jina-embeddings-v2-base-en", {"auto_map": {"AutoModel": "jinaai/x-post-norm--m"}}, "auto_map"),
        ("Alibaba-NLP/gte-multilingual-base", {"pack_qkv": False}, "pack_qkv"),
        ("answerdotai/ModernBERT-base", {"architectures": ["ModernBertForMaskedLM"], "tie_word_embeddings": False},
         "tie_word_embeddings"),
    ],
)  # fmt: skip
def test_what_would_change_the_count_is_refused(name: str, changed: dict[str, Any], path: str) -> None:
    """The field is named."""
    with pytest.raises((UnsupportedModelError, InvalidValueError), match=path):
        read_config({**PUBLISHED[name][0], **changed}, name)
