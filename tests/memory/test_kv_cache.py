"""KV cache: bytes per token by layer kind, windows, growth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vramfit.engines.profile import find_profile
from vramfit.estimate import estimate
from vramfit.formats import kv_format
from vramfit.layer_kind import CrossAttention, GroupedQuery, Latent
from vramfit.memory.kv_cache import expanded_bytes_per_token, kv_bytes_per_token, latent_bytes_per_token
from vramfit.request import Inference, Plan
from vramfit.result import Breakdown, Phase
from vramfit.source import read_model
from vramfit.spec import ModelSpec

BF16 = kv_format("bf16")
MLA = Latent(num_attention_heads=128, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128)


def cache_bytes(breakdown: Breakdown, name: str = "kv_cache/") -> int:
    """Sum the cache items of a breakdown that are alive while it decodes."""
    kept = (i for i in breakdown.items if Phase.DECODE in i.phases and i.name != "kv_cache/growth_copy")
    return int(sum(i.bytes for i in kept if i.name.startswith(name)))


def test_llama_8b_keeps_128_kib_per_token() -> None:
    """2 vectors x 8 heads x 128 x 2 B x 32 layers = 131,072 B."""
    need = estimate(read_model("meta-llama/Llama-3.1-8B"), Inference(context_tokens=1, batch=1))
    assert 131_072 == need.kv_bytes_per_token


def test_deepseek_v3_keeps_70272_bytes_per_token() -> None:
    """61 layers x (512 + 64) x 2 B = 70,272 B."""
    need = estimate(read_model("deepseek-ai/DeepSeek-V3"), Inference(context_tokens=8192, batch=1))
    assert 70_272 == need.kv_bytes_per_token
    assert 70_272 * 8192 == cache_bytes(need.breakdowns[0])


def test_old_transformers_caches_every_head_of_latent_attention() -> None:
    """Before 5.18: 128 heads x (192 + 128) x 2 B = 81,920 B per layer, 71 times the latent vector."""
    assert 81_920 == expanded_bytes_per_token(MLA, BF16, BF16)
    assert 1_152 == latent_bytes_per_token(MLA, BF16)
    model = read_model("deepseek-ai/DeepSeek-V3")
    old = estimate(model, Inference(engine="transformers", engine_version="4.57.1", context_tokens=100))
    assert 61 * 81_920 == old.kv_bytes_per_token


def test_keys_and_values_may_differ_in_format() -> None:
    """8 heads x 128 = 1,024 elements: x 34 / 32 = 1,088 B of q8_0 keys and x 18 / 32 = 576 B of q4_0 values."""
    layer = GroupedQuery(num_attention_heads=32, num_key_value_heads=8, head_dim=128)
    assert 1_088 + 576 == kv_bytes_per_token(layer, kv_format("q8_0"), kv_format("q4_0"))


@pytest.mark.parametrize(
    ("name", "window", "windowed", "full", "per_layer"),
    [
        # 2 x 8 heads x 64 x 2 B; every second layer slides over 128 tokens
        ("openai/gpt-oss-20b", 128, 12, 12, 2048),
        # 2 x 16 heads x 128 x 2 B; five of six layers slide over 1,024 tokens
        ("google/gemma-3-27b-it", 1024, 52, 10, 8192),
    ],
)
def test_windows_stop_growing(name: str, window: int, windowed: int, full: int, per_layer: int) -> None:
    """Sliding layers hold min(context, window) tokens, the others all of them."""
    model = read_model(name)
    for context in (64, 4096, 32768):
        need = estimate(model, Inference(context_tokens=context, batch=3))
        expected = 3 * per_layer * (windowed * min(window, context) + full * context)
        assert expected == cache_bytes(need.breakdowns[0])


def test_versions_without_windowed_cache_keep_everything() -> None:
    """Transformers 4.55 keeps all tokens of sliding layers: 24 x 2,048 B per token for gpt-oss-20b."""
    need = estimate(
        read_model("openai/gpt-oss-20b"), Inference(engine="transformers", engine_version="4.55.4", context_tokens=4096)
    )
    assert 24 * 2048 * 4096 == cache_bytes(need.breakdowns[0])


def test_kv_heads_repeat_when_tp_exceeds_them() -> None:
    """Llama 70B has 8 KV heads: tp 8 gives one head a rank, tp 16 still one."""
    model = read_model("meta-llama/Llama-3.1-70B-Instruct")
    per_rank = [
        cache_bytes(estimate(model, Inference(context_tokens=1000), Plan(tp=tp)).breakdowns[0]) for tp in (1, 8, 16)
    ]
    assert [327_680_000, 40_960_000, 40_960_000] == per_rank


def test_latent_cache_is_whole_on_every_tensor_rank() -> None:
    """The latent vector is shared by all heads, so tp divides nothing of it."""
    model = read_model("deepseek-ai/DeepSeek-V3")
    need = estimate(model, Inference(context_tokens=1000), Plan(tp=8))
    assert 70_272_000 == cache_bytes(need.breakdowns[0])


def test_grown_cache_copies_one_layers_keys_in_decode_only() -> None:
    """torch.cat holds old and new keys of one layer: 1,024 elements x 2 B x 1,000 tokens."""
    workload = Inference(engine="transformers", context_tokens=1000)
    items = estimate(read_model("meta-llama/Llama-3.1-8B"), workload).breakdowns[0].items
    (copy,) = [i for i in items if i.name == "kv_cache/growth_copy"]
    assert 2_048_000 == copy.bytes
    assert (Phase.DECODE,) == copy.phases


def test_recurrent_layers_cache_no_tokens() -> None:
    """Qwen3-Next: 12 of 48 layers keep 2 x 2 heads x 256 x 2 B per token; the rest keep a fixed state."""
    model = read_model("Qwen/Qwen3-Next-80B-A3B-Instruct")
    assert 12 * 2048 == estimate(model, Inference(context_tokens=1)).kv_bytes_per_token
    states = [
        sum(i.bytes for i in estimate(model, Inference(context_tokens=c)).breakdowns[0].items if "recurrent" in i.name)
        for c in (1, 100_000)
    ]
    assert states[0] == states[1] > 0


def test_encoders_keep_no_cache() -> None:
    """BERT attends both ways and generates nothing."""
    need = estimate(read_model("google-bert/bert-base-uncased"), Inference(context_tokens=512, batch=8))
    assert 0 == need.kv_bytes_per_token
    assert Phase.DECODE not in {p for i in need.breakdowns[0].items if "activations" in i.name for p in i.phases}


def test_profiles_are_found_by_version() -> None:
    """The newest profile answers when no version is named; an old one answers for what it was read from."""
    assert find_profile("transformers", None)[0].latent_cache
    assert not find_profile("transformers", "5.14.0")[0].latent_cache


def test_a_sparse_index_keeps_a_key_in_fp8_and_its_scale() -> None:
    """DeepSeek V3.2: (512 + 64) x 2 B, and 128 B + 4 B for the index."""
    assert 1_152 + 132 == latent_bytes_per_token(replace(MLA, index_head_dim=128), BF16)


def test_values_may_be_narrower_than_keys() -> None:
    """4 heads x (192 + 128) x 2 B (MiMo-V2-Flash)."""
    layer = GroupedQuery(num_attention_heads=64, num_key_value_heads=4, head_dim=192, v_head_dim=128)
    assert 2560 == kv_bytes_per_token(layer, BF16, BF16)


LLAMA = read_model("meta-llama/Llama-3.2-1B-Instruct")
"""16 layers of 8 KV heads x 64: 2,048 B per token and layer."""


def changed(**facts: Any) -> ModelSpec:
    """Return the model with other facts in the second half of its layers."""
    half = len(LLAMA.layers) // 2
    return replace(LLAMA, layers=(*LLAMA.layers[:half], *(replace(x, **facts) for x in LLAMA.layers[half:])))


def test_layers_that_share_a_cache_keep_none() -> None:
    """Eight of sixteen layers read the others' caches: 8 x 2,048 B per token."""
    facts = LLAMA.layers[0].attention
    assert isinstance(facts, GroupedQuery)
    need = estimate(changed(attention=replace(facts, shares_cache=True)), Inference(context_tokens=100))
    assert 8 * 2048 == need.kv_bytes_per_token
    assert 8 * 2048 * 100 == cache_bytes(need.breakdowns[0])


@pytest.mark.parametrize(("fixed", "kept", "own"), [(None, 60, 41), (1500, 1500, 100)])
def test_cross_attention_keeps_the_other_stream(fixed: int | None, kept: int, own: int) -> None:
    """Cross attention in 8 layers keeps the prompt, or what is fixed; self attention in 16 layers the 100 tokens.

    Where the other stream is the prompt, an encoder reads it: the layers see the 40 new tokens and the one before them.
    """
    cross = CrossAttention(num_attention_heads=32, num_key_value_heads=8, head_dim=64, source_tokens=fixed)
    need = estimate(changed(beside=cross), Inference(context_tokens=100, prompt_tokens=60, batch=3))
    assert 16 * 2048 == need.kv_bytes_per_token
    assert 3 * 8 * 2048 * kept == cache_bytes(need.breakdowns[0], "kv_cache/cross_attention")
    assert 3 * 16 * 2048 * own == cache_bytes(need.breakdowns[0], "kv_cache/full_attention")


def test_tensor_parallelism_divides_both_mixers() -> None:
    """Two ranks: four of eight KV heads of either."""
    cross = CrossAttention(num_attention_heads=32, num_key_value_heads=8, head_dim=64)
    need = estimate(changed(beside=cross), Inference(context_tokens=100), Plan(tp=2))
    assert 8 * 1024 * 100 == cache_bytes(need.breakdowns[0], "kv_cache/cross_attention")


def test_a_window_bounds_what_is_copied_while_a_cache_grows() -> None:
    """Keys of a layer: 1,024 B of 100 tokens where it sees all, of 7 where it slides; the larger is copied."""
    facts = LLAMA.layers[0].attention
    assert isinstance(facts, GroupedQuery)
    work = Inference(engine="transformers", context_tokens=100)
    slides = replace(facts, window_tokens=7)
    every = replace(LLAMA, layers=tuple(replace(x, attention=slides) for x in LLAMA.layers))
    copies = [
        next(i.bytes for i in estimate(model, work).breakdowns[0].items if i.name == "kv_cache/growth_copy")
        for model in (changed(attention=slides), every)
    ]
    assert [1024 * 100, 1024 * 7] == copies


def test_an_index_beside_keys_and_values() -> None:
    """MiniMax-M3: 2 x 4 KV heads x 128, and an index key of 128, in 16 bit."""
    layer = GroupedQuery(num_attention_heads=64, num_key_value_heads=4, head_dim=128, index_head_dim=128)
    assert 2 * (2 * 4 * 128 + 128) == kv_bytes_per_token(layer, BF16, BF16)


def test_one_vector_may_be_key_and_value() -> None:
    """DeepSeek V4's window: 512 elements a token, not twice."""
    layer = GroupedQuery(num_attention_heads=64, num_key_value_heads=1, head_dim=512, v_head_dim=0)
    assert 1024 == kv_bytes_per_token(layer, BF16, BF16)
