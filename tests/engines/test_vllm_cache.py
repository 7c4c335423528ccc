"""Pages: groups of layers, enlarged blocks of hybrids, tokens, requests, and the refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from published_configs import LLAMA_3_1_8B
from serving_configs import GEMMA_3_4B, GPT_OSS, QWEN3_NEXT, V2_LITE
from vramfit.engines.vllm_cache import Pages, longest_context, pages, refusal, state_bytes
from vramfit.engines.vllm_facts import PROFILES, facts_of
from vramfit.layer_kind import LinearAttention
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference, Plan
from vramfit.units import GIB, MIB


def cut(
    config: dict[str, Any], version: str = "0.18", plan: Plan | None = None, **more: Any
) -> tuple[Pages, Inference]:
    """Return the pages of one rank, and the flags."""
    flags: dict[str, Any] = {
        "max_num_batched_tokens": 8192, "max_num_seqs": 1024, "context_tokens": 8192, "kv_format_k": "bf16",
        "kv_format_v": "bf16", **more,
    }  # fmt: skip
    workload = Inference(**flags)
    engine = next(p for p in PROFILES if p.version == version)
    found = pages(shards(read_config(config, "m"), plan or Plan())[0].model, workload, facts_of(engine, workload))
    assert found is not None
    return found, workload


def test_one_kind_of_layer_is_one_table() -> None:
    """Llama 3.1 8B: 32 layers x 16 tokens x 4,096 B = 2 MiB."""
    found, _ = cut(LLAMA_3_1_8B)
    assert (2 * MIB, 1) == (found.block_bytes, found.num_groups)


def test_sliding_and_full_layers_of_gpt_oss_have_a_table_each() -> None:
    """12 layers each: page 16 x 2 x 8 x 64 x 2 B = 32,768 B x 12; a request of 8,192 tokens takes 512 + 513 blocks.

    58.47 GiB hold 159,661 blocks: 1,277,280 tokens by blocks // 2 x 16 and 155.77 requests; the log says 155.75.
    """
    found, flags = cut(GPT_OSS)
    assert (12 * 32768, 2) == (found.block_bytes, found.num_groups)
    assert 1025 == found.blocks_of_request(8192, 8192)
    blocks = found.blocks(int(58.47 * GIB))
    assert abs(blocks // 2 * 16 / 1_277_184 - 1) < 0.0002
    assert flags.context_tokens == 8192


def test_gemma_groups_have_as_many_layers_as_the_rarer_kind() -> None:
    """34 layers, every sixth full: 5 full and 29 sliding make groups of 5, one and six of them (one padded)."""
    found, _ = cut(GEMMA_3_4B)
    assert (5, 7) == (found.group_layers, found.num_groups)


def test_before_0_10_sliding_layers_cache_like_full_ones() -> None:
    """unify_hybrid_kv_cache_specs: one table for all 24 layers of gpt-oss."""
    found, _ = cut(GPT_OSS, "0.8")
    assert (24 * 32768, 1, 512) == (found.block_bytes, found.num_groups, found.blocks_of_request(8192, 8192))


def test_blocks_of_hybrids_hold_a_state() -> None:
    """Qwen3-Next over two ranks: 16 x 128 x 128 + 3 x 4,096 elements x 2 B = 548,864 B, 1,024 B a token: 544 tokens.

    44.59 GiB are 7,162 blocks of 12 layers; 262,144 tokens take 482 + 3 of them: 14.77 requests, as the log says.
    """
    found, _ = cut(QWEN3_NEXT, "0.10", Plan(tp=2))
    assert (544, 12 * 544 * 1024, 4) == (found.block_tokens, found.block_bytes, found.num_groups)
    assert 14.77 == round(found.blocks(int(44.59 * GIB)) / found.blocks_of_request(262_144, 8192), 2)


def test_a_state_of_qwen3_next_over_two_ranks_is_548864_bytes() -> None:
    """(16 heads x 128 x 128 + 3 inputs x 4,096 channels) x 2 B."""
    rank = shards(read_config(QWEN3_NEXT, "m"), Plan(tp=2))[0]
    mixers = [m for layer, _ in rank.model.groups for m in layer.mixers if isinstance(m, LinearAttention)]
    assert {548_864} == {state_bytes(m, rank.model) for m in mixers}


def test_cached_prefixes_keep_two_states() -> None:
    """mamba_cache_mode align: 2 blocks a request and group of states instead of 1."""
    once, _ = cut(QWEN3_NEXT)
    twice, _ = cut(QWEN3_NEXT, prefix_caching=True)
    assert 3 == twice.blocks_of_request(1000, 8192) - once.blocks_of_request(1000, 8192)


def test_latent_vectors_are_padded_to_640_in_0_7() -> None:
    """576 elements become 640: 27 layers x 16 tokens x 1,280 B; 1,152 B before and since."""
    assert 27 * 16 * 1280 == cut(V2_LITE, "0.7")[0].block_bytes
    assert 27 * 16 * 1152 == cut(V2_LITE)[0].block_bytes


def test_refusal_says_what_is_needed_and_how_long_a_request_may_be() -> None:
    """8,192 tokens need 1 GiB; half a GiB holds 4,096 of them."""
    found, flags = cut(LLAMA_3_1_8B)
    said = refusal(GIB // 2, found, flags)
    assert said is not None
    assert "(1.00 GiB KV cache is needed, which is larger than the available KV cache memory (0.50 GiB)" in said
    assert "the estimated maximum model length is 4096." in said
    assert refusal(GIB, found, flags) is None
    assert "No available memory" in (refusal(0, found, flags) or "")


def test_longest_context_is_the_last_that_fits() -> None:
    """One block less than needed for the next 16 tokens."""
    found, flags = cut(LLAMA_3_1_8B)
    assert 160 == longest_context(10 * 2 * MIB, found, flags)
    assert 8192 == longest_context(10 * GIB, found, replace(flags))
