"""The start-up log as it will read: wording by version, figures from the readings only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vramfit.answer import answer
from vramfit.report.startup_log import startup_log
from vramfit.request import Inference, Request
from vramfit.result import Answer, Quantity, Reading
from vramfit.units import GIB, MIB

SERVED = answer(
    Request(model="llama-3.1-8b", workload=Inference(engine="vllm", context_tokens=8192), device="h100-sxm-80gb")
)


def with_readings(engine: str, version: str, **values: float) -> Answer:
    """Return an answer whose engine prints exactly these figures."""
    readings = tuple(
        Reading(quantity=Quantity(name), value=value, low=value, high=value, formula="test", source="test")
        for name, value in values.items()
    )
    rank = replace(SERVED.estimate.breakdowns[0], readings=readings)
    workload = replace(SERVED.request.workload, engine=engine, engine_version=version)
    return replace(
        SERVED,
        request=replace(SERVED.request, workload=workload),
        estimate=replace(SERVED.estimate, breakdowns=(rank,)),
    )


FIGURES = {
    "weights": 15 * GIB, "kv_cache": 52.5 * GIB, "kv_cache_tokens": 430080, "requests_at_context": 52.5,
    "cuda_graphs": 0.9 * GIB,
}  # fmt: skip


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            "0.33.0",
            (
                "Model loading took 15.00 GiB memory and ... seconds\n"
                "Available KV cache memory: 52.50 GiB\n"
                "GPU KV cache size: 430,080 tokens, Maximum concurrency for 8,192 tokens per request: 52.50x\n"
                "Graph capturing finished in ... secs, took 0.90 GiB"
            ),
        ),
        (
            "0.19.0",
            (
                "Model loading took 15.00 GiB memory and ... seconds\n"
                "Available KV cache memory: 52.50 GiB\n"
                "GPU KV cache size: 430,080 tokens\n"
                "Maximum concurrency for 8,192 tokens per request: 52.50x\n"
                "Graph capturing finished in ... secs, took 0.90 GiB"
            ),
        ),
        (
            "0.11.0",
            (
                "Model loading took 15.0000 GiB and ... seconds\n"
                "Available KV cache memory: 52.50 GiB\n"
                "GPU KV cache size: 430,080 tokens\n"
                "Maximum concurrency for 8,192 tokens per request: 52.50x\n"
                "Graph capturing finished in ... secs, took 0.90 GiB"
            ),
        ),
        (
            "0.8.5",
            (
                "Model loading took 15.0000 GiB and ... seconds\n"
                "GPU KV cache size: 430,080 tokens\n"
                "Maximum concurrency for 8,192 tokens per request: 52.50x\n"
                "Graph capturing finished in ... secs, took 0.90 GiB"
            ),
        ),
    ],
)
def test_vllm_in_the_words_of_each_version(version: str, expected: str) -> None:
    """Decimals, lines and the pool's line change from version to version."""
    assert expected.splitlines() == list(startup_log(with_readings("vllm", version, **FIGURES)))


def test_vllm_0_prints_its_profile_and_blocks() -> None:
    """V0: the budget, its parts, blocks of 16 tokens, concurrency."""
    lines = startup_log(with_readings("vllm", "0.7.3", **FIGURES, non_torch=0.25 * GIB, activation_peak=1.25 * GIB))
    assert "Loading model weights took 15.0000 GB" == lines[0]
    assert "model weights take 15.00GiB; non_torch_memory takes 0.25GiB" in lines[2]
    assert "activation peak memory takes 1.25GiB; the rest of the memory reserved for KV Cache is 52.50GiB." in lines[2]
    assert ("# GPU blocks: 26880, # CPU blocks: ...", "Maximum concurrency for 8192 tokens per request: 52.50x") == (
        lines[3:]
    )


def test_vllm_refuses_in_its_own_words() -> None:
    """One request of 8,192 tokens needs exactly 1 GiB of Llama 3.1 8B's cache: 131,072 B each; half is not enough."""
    small = with_readings("vllm", "0.19.0", weights=15 * GIB, kv_cache=GIB // 2, requests_at_context=0.5,
                          kv_cache_tokens=4096)  # fmt: skip
    last = startup_log(small)[-1]
    assert "the models's max seq len (8192), (1.00 GiB KV cache is needed, which is larger than" in last
    assert "available KV cache memory (0.50 GiB). Based on the available memory" in last
    assert "the estimated maximum model length is 4096." in last
    none = with_readings("vllm", "0.19.0", weights=15 * GIB, kv_cache=-GIB)
    assert "No available memory for the cache blocks" in startup_log(none)[-1]
    newer = with_readings("vllm", "0.33.0", weights=15 * GIB, kv_cache=GIB // 2, requests_at_context=0.5)
    assert "the model's max seq len" in startup_log(newer)[-1]


def test_sglang_prints_keys_and_values_apart() -> None:
    """The pool is halved into keys and values; the scheduler repeats the tokens."""
    lines = startup_log(with_readings("sglang", "0.5.6", weights=15 * GIB, kv_cache=14 * GIB, kv_cache_tokens=91749))
    assert "Load weight end. mem usage=15.00 GB." == lines[0]
    assert "KV Cache is allocated. #tokens: 91749, K size: 7.00 GB, V size: 7.00 GB" == lines[1]
    assert lines[2].startswith("max_total_num_tokens=91749, ")


def test_llama_cpp_prints_each_buffer() -> None:
    """Model, cache and compute buffers of device and host, in MiB."""
    lines = startup_log(
        with_readings(
            "llama.cpp", "7000", model_buffer=4000 * MIB, host_model_buffer=315.3 * MIB, kv_buffer=1224 * MIB,
            compute_buffer=352.77 * MIB, host_compute_buffer=40.02 * MIB, recurrent_state=0,
        )
    )  # fmt: skip
    assert (
        "load_tensors:        CUDA0 model buffer size =  4000.00 MiB",
        "load_tensors:   CPU_Mapped model buffer size =   315.30 MiB",
        "llama_kv_cache:      CUDA0 KV buffer size =  1224.00 MiB",
        "llama_context:      CUDA0 compute buffer size =   352.77 MiB",
        "llama_context:  CUDA_Host compute buffer size =    40.02 MiB",
    ) == lines


def test_an_engine_without_words_lists_its_readings() -> None:
    """Nothing is invented: the quantities by name."""
    assert ("loaded: 5",) == startup_log(with_readings("transformers", "5.0", loaded=5))
