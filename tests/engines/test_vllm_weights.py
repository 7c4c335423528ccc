"""Weights as vLLM holds them: tables, copies, padding, ends of the allocator's blocks."""

from __future__ import annotations

from dataclasses import replace

from published_configs import LLAMA_3_1_8B, llama
from serving_configs import GEMMA_3_4B, GPT_OSS, V2_LITE
from vramfit.engines.vllm_facts import PROFILES
from vramfit.engines.vllm_weights import (
    block_ends,
    draft_inputs,
    expert_padding,
    latent_bytes,
    loaded,
    rotary_bytes,
    weights,
)
from vramfit.formats import weight_format
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference, Plan
from vramfit.spec import Scheme
from vramfit.units import MIB

QWEN_72B = llama(8192, 80, 64, 8, 29568, 152064, model_type="qwen2", use_sliding_window=False)
QWEN_7B = llama(3584, 28, 28, 4, 18944, 152064, model_type="qwen2", use_sliding_window=False)


def test_rotary_table_of_llama_3_1_is_32_mib() -> None:
    """131,072 rows x 128 x 2 B."""
    assert 32 * MIB == rotary_bytes(read_config({**LLAMA_3_1_8B, "max_position_embeddings": 131_072}, "m"))


def test_latent_attention_keeps_its_projections_twice() -> None:
    """27 layers x 16 heads x (128 + 128) x 512 x 2 B = 108 MiB for DeepSeek-V2-Lite."""
    assert 108 * MIB == latent_bytes(read_config(V2_LITE, "m"), absorbed=False)


def test_absorbed_projections_are_multiplied_out() -> None:
    """0.7: 27 layers x 16 heads x (2048 x (512 + 64) + 512 x 2048) x 2 B when the query is not compressed."""
    assert 27 * 16 * (2048 * 576 + 512 * 2048) * 2 == latent_bytes(read_config(V2_LITE, "m"), absorbed=True)


def test_down_projection_of_qwen_72b_wastes_one_mib_a_layer() -> None:
    """Two ranks: 8,192 x 14,784 x 2 B = 231 MiB in a segment of 232, whose rest of 1 MiB is not split off."""
    rank = shards(read_config(QWEN_72B, "m"), Plan(tp=2))[0]
    assert 80 * MIB == block_ends(rank.model)


def test_two_mib_a_layer_of_qwen_7b() -> None:
    """Fused qkv 31.5 in 32, gate_up 259 in 260, down 129.5 in 130 MiB; o 24.5 in 26 leaves 1.5, which is split off.

    The rests of 1.5 MiB are too small for any other tensor; the two 1,039.5 MiB tables end in 1,040: 57 MiB in all.
    """
    assert 28 * 2 * MIB + 2 * MIB // 2 == block_ends(read_config(QWEN_7B, "m"))


def test_experts_of_gpt_oss_are_padded_to_3072_inputs() -> None:
    """24 layers x 32 experts x 3 x 2,880 x 192 more elements x 17/32 B: 0.63 GiB."""
    assert 24 * 32 * 3 * 2880 * 192 * 17 // 32 == expert_padding(read_config(GPT_OSS, "m"), 0)
    assert 0 == expert_padding(read_config(V2_LITE, "m"), 1000)


def test_fp32_checkpoints_are_loaded_in_16_bit_unless_asked() -> None:
    """The dtype auto: float32 becomes float16."""
    model = read_config({**LLAMA_3_1_8B, "torch_dtype": "float32"}, "m")
    assert "fp16" == loaded(model, Inference()).scheme.plain.name
    assert "fp32" == loaded(model, Inference(weight_format="fp32")).scheme.plain.name


def test_vocabulary_is_padded_to_64() -> None:
    """CodeLlama: 32,016 rows become 32,064 in two tables of 4,096 x 2 B."""
    rank = shards(read_config(llama(4096, 32, 32, 32, 11008, 32016), "m"), Plan())[0]
    found = {item.name: item.bytes for item in weights(rank, Inference(), PROFILES[-1])}
    assert 2 * 48 * 4096 * 2 == found["weights/vocabulary_padding"]


def test_towers_stay_plain_beside_an_asked_format() -> None:
    """Gemma 3 4B in w8a8: the tower's 27 layers x 15,227,856 parameters and its tables stay in bf16."""
    model = read_config({**GEMMA_3_4B, "torch_dtype": "bfloat16"}, "m")
    eight = replace(model, scheme=Scheme(quantised=weight_format("w8a8-int8"), plain=model.scheme.plain))
    sizes = [
        sum(i.bytes for i in weights(shards(m, Plan())[0], Inference(), PROFILES[-1]) if "linear" in i.name)
        for m in (model, eight)
    ]
    matrices = 34 * (2560 * 2048 * 2 + 2560 * 1024 * 2 + 3 * 2560 * 10240)
    rows = 34 * (2048 + 2 * 1024 + 2560 + 2 * 10240 + 2560)
    assert matrices - 4 * rows == sizes[0] - sizes[1]


def test_residual_streams_are_buffered_for_a_draft_head() -> None:
    """DeepSeek-V4-Flash, 8,192 tokens: x 4 streams x 4,096 x 2 B = 256 MiB on the last stage; none for Llama."""
    streams = replace(read_config(LLAMA_3_1_8B, "m"), residual_streams=4)
    first, last = shards(streams, Plan(pp=2))
    flags = Inference(max_num_batched_tokens=8192)
    assert (0, 256 * MIB) == (draft_inputs(first, flags), draft_inputs(last, flags))
    assert 0 == draft_inputs(shards(read_config(LLAMA_3_1_8B, "m"), Plan())[0], flags)
