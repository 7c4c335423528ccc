"""The profiling pass: sampler, forward, experts, images; every sum worked from vLLM's source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from published_configs import LLAMA_3_1_8B, MIXTRAL_8X7B, QWEN3_0_6B, llama
from serving_configs import GEMMA_3_4B, GPT_OSS, QWEN3_NEXT
from vramfit.catalogue.device import find_device
from vramfit.engines.vllm_facts import PROFILES, facts_of
from vramfit.engines.vllm_peak import Pass, layer_width, profiling_pass
from vramfit.layer_kind import Compressed
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference, Plan
from vramfit.spec import Layer
from vramfit.units import MIB

H100 = find_device("h100-sxm-80gb")


def profiled(config: dict[str, Any], version: str, plan: Plan | None = None, **more: Any) -> Pass:
    """Return the profiling pass of 8,192 tokens and 1,024 sequences on an H100."""
    flags: dict[str, Any] = {"max_num_batched_tokens": 8192, "max_num_seqs": 1024, "context_tokens": 8192, **more}
    workload = Inference(**flags)
    engine = next(p for p in PROFILES if p.version == version)
    rank = shards(read_config(config, "m"), plan or Plan())[-1]
    return profiling_pass(rank, workload, facts_of(engine, workload, H100), H100)


def test_sorting_sampler_holds_38_bytes_a_logit() -> None:
    """0.11, gpt-oss-20b: 7.38 GiB in the log.

    1,024 x 201,088 x 38 B + (8,192 + 2 x 1,024) x 2,880 x 2 B + workspace of 32 MiB.
    """
    found = profiled(GPT_OSS, "0.10")
    expected = 1024 * 201088 * 38 + 10240 * 2880 * 2 + 32 * MIB
    assert expected == found.total.expected_bytes
    assert abs(expected / 2**30 - 7.38) < 0.01


def test_masking_sampler_holds_14_bytes_a_logit_and_a_row_per_multiprocessor() -> None:
    """0.19, Llama 3.1 8B: 1.89 GiB in the log. 132 rows of 128,256 fp32 beside 14 B a logit."""
    found = profiled(LLAMA_3_1_8B, "0.18")
    expected = 1024 * 128256 * 14 + 132 * 128256 * 4 + 10240 * 4096 * 2 + 32 * MIB
    assert expected == found.total.expected_bytes
    assert abs(expected / 2**30 - 1.89) < 0.01


def test_fp32_sampling_holds_two_bytes_more() -> None:
    """The logits of the model are fp32 too, and so are the hidden states."""
    found = profiled(LLAMA_3_1_8B, "0.18", weight_format="fp32")
    assert 1024 * 128256 * 16 + 132 * 128256 * 4 + 10240 * 4096 * 4 == found.sampler


def test_flashinfer_holds_14_bytes_a_logit_and_no_rows() -> None:
    """0.22 and later: logits in 16 bit and fp32, masked logits, probabilities; in 0.33 at least the first two."""
    found = profiled(LLAMA_3_1_8B, "0.33")
    assert 1024 * 128256 * 14 + 10240 * 4096 * 2 == found.sampler
    assert 1024 * 128256 * 6 + 10240 * 4096 * 2 == found.least_sampler


def test_second_model_runner_masks_nothing_when_profiled() -> None:
    """Qwen3 holds 6 B a logit in 0.22 and 2 B in 0.26; Llama gets that runner in 0.26, hybrids not yet."""
    logits, hidden = 1024 * 151936, 10240 * 1024 * 2
    assert logits * 6 + hidden == profiled(QWEN3_0_6B, "0.21").sampler
    assert logits * 2 + hidden == profiled(QWEN3_0_6B, "0.26").sampler
    assert 1024 * 128256 * 14 + 10240 * 4096 * 2 == profiled(LLAMA_3_1_8B, "0.21").sampler
    assert 1024 * 128256 * 2 + 10240 * 4096 * 2 == profiled(LLAMA_3_1_8B, "0.26").sampler
    assert logits * 14 + 10240 * 2048 * 2 == profiled(QWEN3_NEXT, "0.26").sampler


def test_forward_pass_decides_for_small_vocabularies() -> None:
    """CodeLlama 7B in 0.19: 8,192 x 2 B x (3 x 11,008 + 3 x 4,096) + 45 MiB + workspace; the log says 0.77 GiB."""
    found = profiled(llama(4096, 32, 32, 32, 11008, 32016), "0.18")
    expected = 8192 * 2 * (3 * 11008 + 3 * 4096) + 45 * MIB + 32 * MIB
    assert expected == found.total.expected_bytes
    assert abs(expected / 2**30 - 0.77) < 0.01


def test_workspace_of_experts_stays_through_sampling() -> None:
    """Mixtral over two ranks in 0.19: 8,192 x 2 x 2 B x (7,168 + 14,336) beside 14 B a logit; the log says 1.21 GiB."""
    found = profiled(MIXTRAL_8X7B, "0.18", Plan(tp=2))
    workspace = 8192 * 2 * 2 * (7168 + 14336)
    assert workspace + 32 * MIB == found.held
    assert abs(found.total.expected_bytes / 2**30 - 1.21) < 0.01


def test_images_and_their_embeddings_are_held() -> None:
    """Gemma 3 4B in 0.19: 8,192 / 256 = 32 images of 3 x 896 x 896, 256 tokens of 2,560 each; the log says 3.89 GiB."""
    found = profiled(GEMMA_3_4B, "0.18")
    assert 32 * 2 * (3 * 896 * 896 + 256 * 2560) + 32 * MIB == found.held
    assert abs(found.total.expected_bytes / 2**30 - 3.89) < 0.01


def test_fewer_sequences_hold_fewer_images() -> None:
    """No more images than sequences."""
    found = profiled(GEMMA_3_4B, "0.18", max_num_seqs=2)
    assert 2 * 2 * (3 * 896 * 896 + 256 * 2560) + 32 * MIB == found.held


def test_stages_hold_what_they_receive_and_hand_on() -> None:
    """Llama 3.1 8B over two stages in 0.19: the log of the first says 1.10 GiB, of the last 2.01 GiB."""
    model, workload = read_config(LLAMA_3_1_8B, "m"), Inference(
        max_num_batched_tokens=8192, max_num_seqs=1024, context_tokens=8192
    )  # fmt: skip
    facts = facts_of(next(p for p in PROFILES if p.version == "0.18"), workload)
    first, last = (profiling_pass(rank, workload, facts, H100).total for rank in shards(model, Plan(pp=2)))
    assert abs(first.expected_bytes / 2**30 - 1.10) < 0.02
    assert abs(last.expected_bytes / 2**30 - 2.01) < 0.01


def test_query_heads_of_compressed_attention_are_padded_to_64() -> None:
    """32 heads a rank of DeepSeek-V4 count as 64: 4 x 32 x 512 elements more than they would."""
    model = read_config(LLAMA_3_1_8B, "m")
    mixer = Compressed(num_attention_heads=32, head_dim=512, block_tokens=4, overlaps=True)
    layer = Layer(attention=mixer, feed_forward=None, tensors=())
    whole = replace(layer, attention=replace(mixer, num_attention_heads=64))
    assert layer_width(model, whole) == layer_width(model, layer)
    assert 3 * 4096 + 8 * 2 * 512 + 4 * 64 * 512 == layer_width(model, layer)
