"""DeepSeek V4: counts, caches of windows and blocks, formats of a published file, the same in two forms."""

from __future__ import annotations

import pytest

from mixture_configs import DEEPSEEK_V4_FLASH, DEEPSEEK_V4_PRO
from vramfit.engines.generic import PROFILES
from vramfit.errors import VramfitError
from vramfit.formats import BF16, MXFP4
from vramfit.layer_kind import Compressed, GroupedQuery
from vramfit.memory.kv_cache import kept_tokens, kv_cache, model_bytes_per_token
from vramfit.memory.recurrent_state import recurrent_state
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference, Plan
from vramfit.spec import inventory

CONTEXT = 1_000_003
WORK = Inference(
    context_tokens=CONTEXT, prompt_tokens=CONTEXT, new_tokens=0, batch=2, kv_format_k="bf16", kv_format_v="bf16"
)


def test_counts_without_the_prediction_block() -> None:
    """Pro: what transformers counts of its own model. The block beside it: experts, attention with a window, joints."""
    pro = read_config(DEEPSEEK_V4_PRO, "Pro")
    assert pro.num_parameters == 1_572_997_179_491
    h = 7168
    attention = h * 1536 + 1536 + 1536 * 128 * 512 + h * 512 + 512 + 16 * 1024 * 4096 + 16 * 1024 * h + 128
    experts = 385 * 3 * h * 3072 + 384 * h
    streams = 2 * (24 * 4 * h + 24 + 3) + 4 * 4 * h + 4 + 1
    assert pro.parts[0].num_parameters == attention + experts + streams + 2 * h + 2 * h * h + 3 * h


def test_bytes_a_token_adds() -> None:
    """43 windows of one vector of 512; a vector for 4 tokens and an index of 132 B in 21 layers, one for 128 in 20."""
    flash = read_config(DEEPSEEK_V4_FLASH, "Flash")
    windows, fours, hundreds = 43 * 512 * 2, 21 * (512 * 2 + 132) // 4, 20 * 512 * 2 // 128
    assert model_bytes_per_token(flash, WORK) == windows + fours + hundreds


def test_cache_of_a_long_context() -> None:
    """Windows keep 128 tokens; of 1,000,003 tokens 250,000 blocks of 4 are finished and 7,812 of 128."""
    (shard,) = shards(read_config(DEEPSEEK_V4_FLASH, "Flash"), Plan())
    total = sum(item.bytes for item in kv_cache(shard, WORK, PROFILES[0]))
    assert total == 2 * (43 * 128 * 1024 + 21 * 250_000 * 1156 + 20 * 7_812 * 1024)
    state = sum(item.bytes for item in recurrent_state(shard, WORK, PROFILES[0]))
    assert state == 2 * 4 * (21 * 2 * 8 * 2 * (512 + 128) + 20 * 2 * 128 * 512)


def test_every_rank_keeps_the_whole_cache() -> None:
    """One vector serves all heads: tensor parallelism divides heads and experts, not what is kept."""
    flash = read_config(DEEPSEEK_V4_FLASH, "Flash")
    (one,), (eight,) = shards(flash, Plan()), shards(flash, Plan(tp=8))
    for whole, cut in zip(one.model.layers, eight.model.layers, strict=True):
        assert isinstance(cut.attention, GroupedQuery)
        assert cut.attention.num_attention_heads == 8
        assert (cut.attention.num_key_value_heads, cut.attention.head_dim) == (1, 512)
        if whole.beside is not None:
            assert isinstance(cut.beside, Compressed)
            kept = [kept_tokens(mixer, flash, WORK, PROFILES[0]) for mixer in (cut.beside, whole.beside)]
            assert kept[0] == kept[1]


def test_formats_of_the_published_file() -> None:
    """Experts in blocks of fp4, other matrices in tiles of fp8, compressors and what scores in 16 bit."""
    spec = read_config(DEEPSEEK_V4_FLASH, "Flash")
    formats = {t.name: spec.scheme.format_of(t) for t in inventory(spec)}
    assert formats["layers.2.ffn.experts.0.w1.weight"] is MXFP4
    assert formats["layers.2.attn.wq_b.weight"].name == "fp8-block"
    assert formats["layers.2.ffn.shared_experts.w1.weight"].name == "fp8-block"
    assert formats["layers.2.attn.compressor.wkv.weight"] is BF16
    assert formats["layers.2.attn.indexer.weights_proj.weight"] is BF16
    assert formats["layers.0.ffn.gate.tid2eid"].block_bytes == 8


def test_without_fp4_experts_are_in_tiles_too() -> None:
    """``expert_dtype`` absent: one format for all matrices."""
    plain = {k: v for k, v in DEEPSEEK_V4_FLASH.items() if k != "expert_dtype"}
    plain["model_type"] = "deepseek_ref"  # as in sgl-project/DeepSeek-V4-Flash-FP8
    spec = read_config(plain, "Flash")
    formats = {t.name: spec.scheme.format_of(t).name for t in inventory(spec)}
    assert formats["layers.2.ffn.experts.0.w1.weight"] == "fp8-block"


def test_both_forms_are_the_same_model() -> None:
    """``compress_ratios`` of published files and ``layer_types`` of transformers'."""
    names = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
    newer = {k: v for k, v in DEEPSEEK_V4_FLASH.items() if k not in {"compress_ratios", "num_hash_layers"}}
    newer["layer_types"] = [names[r] for r in DEEPSEEK_V4_FLASH["compress_ratios"][:43]]
    newer["mlp_layer_types"] = ["hash_moe"] * 3 + ["moe"] * 40
    newer["compress_rates"] = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
    assert read_config(newer, "x").layers == read_config(DEEPSEEK_V4_FLASH, "x").layers


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"compress_ratios": [0, 2] * 22}, "compress_ratios"),
        ({"compress_rates": {"heavily_compressed_attention": 64}, "layer_types": ["sliding_attention"] * 43}, "128"),
        ({"expert_dtype": "int3"}, "expert_dtype: 'int3'"),
        ({"o_groups": 7}, "o_groups: 7"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """Other rates, other formats, groups that do not divide."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**DEEPSEEK_V4_FLASH, **change}, "x")
