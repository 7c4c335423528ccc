"""Activations and logits: widths by hand, and published peaks of transformers as witnesses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vramfit.catalogue.device import find_device
from vramfit.estimate import estimate
from vramfit.layer_kind import Compressed, Dense, Experts, GroupedQuery
from vramfit.memory.activations import dense_width, experts_width, mixer_width
from vramfit.request import Inference
from vramfit.result import Counter, Phase
from vramfit.source import read_model
from vramfit.units import GIB


def test_dense_width_by_hand() -> None:
    """4 x 896 + 3 x 4,864 = 18,176 elements per token (Qwen2.5-0.5B)."""
    assert 18_176 == dense_width(896, Dense(intermediate_size=4864)).expected


def test_experts_width_by_hand() -> None:
    """8 copies of a token, each 2,048 + 3 x 768 or 4 x 2,048 wide; 5 x 2,048 beside them (Qwen3-30B-A3B)."""
    facts = Experts(num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768)
    assert 5 * 2048 + 8 * 4 * 2048 == experts_width(2048, facts, at_once=True).expected


def test_experts_in_a_narrower_space_copy_narrower_tokens() -> None:
    """22 copies of 1,024 (not 4,096) elements, each beside 4 x 1,024 or 2 x 2,688; Nemotron 3 Super."""
    facts = Experts(num_experts=512, num_experts_per_tok=22, moe_intermediate_size=2688, gated=False, latent_size=1024)
    assert 5 * 4096 + 22 * (1024 + 2 * 2688) == experts_width(4096, facts, at_once=True).expected


def test_mixer_width_by_hand() -> None:
    """3 x 2,048 + 4 x 32 x 128 + 2 x 4 x 128 (Qwen3-30B-A3B, whose heads are wider than its hidden size)."""
    facts = GroupedQuery(num_attention_heads=32, num_key_value_heads=4, head_dim=128)
    assert 6144 + 16384 + 1024 == mixer_width(2048, facts).expected


def test_compressing_blocks_by_hand() -> None:
    """3 x 4,096, and four fp32 vectors of twice 512 + 128 elements (DeepSeek-V4-Flash)."""
    facts = Compressed(num_attention_heads=64, head_dim=512, block_tokens=4, overlaps=True, index_head_dim=128)
    assert 3 * 4096 + 4 * 2 * 2 * 640 == mixer_width(4096, facts).expected


def test_streams_of_the_hidden_state_are_alive_together() -> None:
    """Four streams of 2,048: three more in the residual and three in the expanded embeddings, per token of 2 B."""
    model, work = (
        read_model("meta-llama/Llama-3.2-1B-Instruct"),
        Inference(context_tokens=1000, prompt_tokens=1000, new_tokens=0),
    )
    peaks = [
        next(i.bytes for i in estimate(m, work).breakdowns[0].items if i.name == "activations/prefill")
        for m in (model, replace(model, residual_streams=4))
    ]
    assert 2 * 3 * 2048 * 2 * 1000 == peaks[1] - peaks[0]


def test_eager_attention_holds_the_score_matrix() -> None:
    """32 heads x 2 prompts x 1,000 x 1,000 x 6 B."""
    model = read_model("meta-llama/Llama-3.1-8B")
    sizes = {}
    for attention in ("eager", "flash"):
        workload = Inference(engine="transformers", context_tokens=1000, batch=2, attention=attention)
        (item,) = [i for i in estimate(model, workload).breakdowns[0].items if i.name == "activations/prefill"]
        sizes[attention] = item.bytes
    assert 32 * 2 * 1000 * 1000 * 6 == sizes["eager"] - sizes["flash"]


def test_old_transformers_computes_logits_for_the_whole_prompt() -> None:
    """4.38: 30,720 tokens x 151,936 entries x 6 B = 26.08 GiB, in the sample phase."""
    workload = Inference(engine="transformers", engine_version="4.38.2", prompt_tokens=30720, new_tokens=0)
    worst = estimate(read_model("Qwen/Qwen2.5-0.5B-Instruct"), workload).worst
    (item,) = [i for i in worst.items if i.name == "logits/sample"]
    assert 30720 * 151936 * 6 == item.bytes
    assert Phase.SAMPLE is worst.peak_phase


@pytest.mark.parametrize(
    ("name", "prompt", "measured_gib"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 30720, 2.34),
        ("Qwen/Qwen2.5-0.5B-Instruct", 1, 0.97),
        ("Qwen/Qwen2.5-1.5B-Instruct", 30720, 5.62),
        ("Qwen/Qwen2.5-3B-Instruct", 30720, 9.30),
        ("Qwen/Qwen2.5-32B-Instruct", 30720, 74.47),
        ("Qwen/Qwen2.5-32B-Instruct", 1, 61.58),
    ],
)
def test_published_peaks_of_transformers(name: str, prompt: int, measured_gib: float) -> None:
    """QwenLM speed benchmark (docs/source/benchmark/speed_benchmark.rst@a912d23), 2,048 new tokens on A100."""
    workload = Inference(
        engine="transformers", engine_version="4.46.0", prompt_tokens=prompt, new_tokens=2048, attention="flash"
    )
    card = find_device("a100-sxm-80gb")
    peak = estimate(read_model(name), workload, device=card).worst.peak(Counter.ALLOCATED)
    assert peak.expected_bytes == pytest.approx(measured_gib * GIB, rel=0.015)
