"""transformers by version: what is alive in a prefill and in a decode step, by hand and by tracing its own models."""

from __future__ import annotations

from typing import Any

import pytest

from alive import alive_at_peak
from vramfit import Inference, Plan, estimate
from vramfit.catalogue.device import find_device
from vramfit.engines.profile import find_profile
from vramfit.readers.hf_config import read_config
from vramfit.result import Breakdown, Counter, Phase
from vramfit.source import read_model
from vramfit.spec import ModelSpec

QWEN: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
    "max_position_embeddings": 32768, "torch_dtype": "bfloat16",
}  # fmt: skip


def rank(version: str | None, model: ModelSpec | None = None, plan: Plan | None = None, **workload: Any) -> Breakdown:
    """Estimate Qwen2 0.5B, or another model, on an A100."""
    work = Inference(engine="transformers", engine_version=version, **{"attention": "flash", **workload})
    return estimate(model or read_config(QWEN, "q"), work, plan, find_device("a100-sxm-80gb")).breakdowns[0]


def sizes(found: Breakdown, name: str) -> list[int]:
    """Bytes of the items of that name, none or one."""
    return [int(item.bytes) for item in found.items if item.name == name]


def test_prefill_peak_of_qwen_by_hand() -> None:
    """30,720 x ((4 x 896 + 3 x 4,864) x 2 + 2 x 64 x 2 + 40) + 12,288 x 30,720 + weights + workspaces.

    2.34 GiB printed. Source: QwenLM/Qwen2.5:docs/source/benchmark/speed_benchmark.rst, transformers 4.46.0, A100.
    """
    found = rank("4.46.0", prompt_tokens=30720, new_tokens=2048)
    weights = 2 * 494_032_768
    by_hand = 30720 * (18176 * 2 + 256 + 40) + 12_288 * 30720 + weights + 8_519_680 + 8 * 2**20
    assert by_hand == found.peak(Counter.ALLOCATED).expected_bytes
    assert by_hand == pytest.approx(2.34 * 2**30, rel=0.02)


def test_prompt_logits_and_rotary_tables_before_4_45() -> None:
    """Every prompt token's logits in bf16 and fp32 (6 B), and 24 x 2 tables of 32,768 x 64; 27.61 GiB printed."""
    found = rank("4.38.2", prompt_tokens=30720, new_tokens=2048)
    assert [24 * 2 * 32768 * 64 * 2] == sizes(found, "runtime/rotary_tables")
    assert [30720 * 151_936 * 6] == sizes(found, "logits/sample")
    assert found.peak(Counter.ALLOCATED).expected_bytes == pytest.approx(27.61 * 2**30, rel=0.005)
    assert not sizes(rank("4.46.0", prompt_tokens=30720), "runtime/rotary_tables")


def test_cache_holds_the_prompt_until_decoding() -> None:
    """12,288 B per token: 100 of them after the prompt, 300 in the end."""
    found = rank("4.46.0", prompt_tokens=100, new_tokens=200)
    assert [100 * 12_288] == sizes(found, "kv_cache/full_attention_of_prompt")
    assert [300 * 12_288] == sizes(found, "kv_cache/full_attention")


def test_gptq_keeps_one_unpacked_matrix() -> None:
    """896 x 4,864 in fp16 in every phase, whatever the bits; `int8` of a model named GPTQ is GPTQ's own layout."""
    for fmt in ("gptq-int4", "gptq-int8"):
        assert [2 * 896 * 4864] == sizes(rank("4.46.0", weight_format=fmt), "runtime/unpacking_buffer")
    named = rank("4.46.0", read_config(QWEN, "Qwen/Qwen2.5-0.5B-Instruct-GPTQ-Int8"), weight_format="int8")
    assert sizes(rank("4.46.0", weight_format="gptq-int8"), "weights/linear_layers") == sizes(
        named, "weights/linear_layers"
    )
    assert not sizes(rank("4.46.0", weight_format="int8"), "runtime/unpacking_buffer")


def test_quantised_files_of_tied_models_hold_the_projection() -> None:
    """151,936 x 896 x 2 B: gone after loading at 4.46, kept at 4.51; none where the file has none (GPTQ)."""
    head = 151_936 * 896 * 2
    assert [head] == sizes(rank("4.46.0", weight_format="awq-int4"), "load/untied_head")
    assert [head] == sizes(rank("4.51.3", weight_format="awq-int4"), "weights/untied_head")
    assert not sizes(rank("4.51.3", weight_format="gptq-int4"), "weights/untied_head")


def test_awq_without_a_version_is_run_by_autoawq() -> None:
    """Its cache is as long as the new tokens; 14 heads x 512 x 512 scores take 10 B each; q, k and v are kept twice.

    q, k and v of one layer: (896 + 2 x 128) x 896 weights in 4 bit, with 2.5 B for each 128 of them, rounded to words.
    """
    found = rank(None, weight_format="awq-int4", attention=None, prompt_tokens=512, new_tokens=64)
    assert "AutoAWQ 0.1.6" == find_profile("transformers", None, "awq-int4")[0].checked
    assert "AutoAWQ 0.1.6" != find_profile("transformers", "4.46", "awq-int4")[0].checked
    assert [64 * 12_288] == sizes(found, "kv_cache/full_attention")
    parts = sum(outs * 896 // 2 + 7 * (2 * outs + outs // 2) for outs in (896, 128, 128))
    assert [24 * parts] == sizes(found, "load/fused_projections")
    assert [512 * 18176 * 2 + 14 * 512 * 512 * 10] == sizes(found, "activations/prefill")


def test_qwen_1_holds_the_cache_of_the_step_before() -> None:
    """40 layers x 2 x 5,120 x 2 B x 300 tokens, twice in decoding; 1 token of it after a prompt of one."""
    config = {
        "model_type": "qwen", "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40,
        "intermediate_size": 27392, "vocab_size": 152064, "kv_channels": 128, "no_bias": True,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }  # fmt: skip
    found = rank(None, read_config(config, "Qwen/Qwen-14B-Chat"), prompt_tokens=1, new_tokens=299)
    assert [40 * 2 * 5120 * 2 * 300] == sizes(found, "kv_cache/of_the_step_before")
    assert [40 * 2 * 5120 * 2 * 1] == sizes(found, "kv_cache/full_attention_of_prompt")


@pytest.mark.parametrize("fmt", ["int8", "nf4", "gptq-int4", "awq-int4"])
def test_checkpoints_in_fp32_are_cast_beside_quantised_matrices(fmt: str) -> None:
    """The embedding of 151,936 x 896 takes 2 B an element, the cache 12,288 B a token; unquantised it stays fp32."""
    wide = read_config({**QWEN, "torch_dtype": "float32"}, "q")
    assert [151_936 * 896 * 2] == sizes(rank("4.46.0", wide, weight_format=fmt), "weights/embeddings")
    assert [151_936 * 896 * 4] == sizes(rank("4.46.0", wide), "weights/embeddings")


def test_autoawq_loads_a_projection_for_every_tied_model() -> None:
    """151,936 x 896 x 2 B while loading, whatever the family."""
    llama = read_config({**QWEN, "model_type": "llama"}, "q")
    assert [151_936 * 896 * 2] == sizes(rank(None, llama, weight_format="awq-int4"), "load/untied_head")
    assert not sizes(rank("4.46.0", llama, weight_format="awq-int4"), "load/untied_head")


def test_logits_return_to_the_first_device() -> None:
    """Spread over two devices before 4.45: 6,144 x 151,936 fp32 logits on the first one too."""
    ranks = estimate(
        read_config({**QWEN, "tie_word_embeddings": False}, "q"),
        Inference(engine="transformers", engine_version="4.38", prompt_tokens=6144, new_tokens=8),
        Plan(pp=2),
    ).breakdowns
    assert [[6144 * 151_936 * 4], []] == [sizes(r, "logits/returned") for r in ranks]


def test_prompts_may_be_cut_from_4_50_on() -> None:
    """The low end of the peak is then the longest cache alone; by default whole prompts pass, which is expected."""
    before, after = (rank(v, prompt_tokens=8000, new_tokens=8) for v in ("4.46.0", "4.51.3"))
    assert before.peak(Counter.ALLOCATED).expected_bytes == after.peak(Counter.ALLOCATED).expected_bytes
    assert (
        after.peak(Counter.ALLOCATED).low_bytes
        == after.total(Phase.DECODE, Counter.ALLOCATED).low_bytes
        < before.peak(Counter.ALLOCATED).low_bytes
    )


@pytest.mark.parametrize("version", ["4.38", "4.46", "4.51", "4.57", "5.0", "5.18"])
def test_more_tokens_never_cost_less(version: str) -> None:
    """In every version, prompt by prompt."""
    model = read_model("meta-llama/Llama-3.2-1B-Instruct")
    peaks = [rank(version, model, prompt_tokens=n, new_tokens=16).peak().expected_bytes for n in (1, 7, 500, 5000)]
    assert sorted(peaks) == peaks


def test_variables_alive_in_transformers_own_feed_forward() -> None:
    """At the peak of a traced prefill four hidden states and three intermediate ones are alive: 4 h + 3 f."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokens, hidden, inner = 512, 64, 320
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=100,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config).to(torch.bfloat16).eval()
    ids = torch.zeros(1, tokens, dtype=torch.long)
    live = alive_at_peak(model, lambda: model(ids, use_cache=True, logits_to_keep=1))
    assert (4, 3) == (live.count(tokens * hidden * 2), live.count(tokens * inner * 2))
