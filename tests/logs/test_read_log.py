"""Logs of engines, read: whose they are, what was asked, what was printed, how they ended."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from logs.public_logs import PUBLIC_LOGS, PublicLog
from vramfit.errors import UnreadableFileError
from vramfit.log_facts import LogFacts
from vramfit.logs.lines import LIMIT_BYTES
from vramfit.logs.read import read_log
from vramfit.result import Quantity
from vramfit.units import GIB, MIB


def read(text: str) -> LogFacts:
    """Return what a log says."""
    return read_log(text.encode())


@pytest.mark.parametrize("log", PUBLIC_LOGS, ids=lambda log: log.source)
def test_public_logs_are_read(log: PublicLog) -> None:
    """Program, fields and figures of five logs that others published."""
    found = read(log.lines)
    assert log.program == found.program
    assert log.given == {g.path: g.value for g in found.given}
    assert log.figures == pytest.approx({(m.quantity, m.scope): m.value for m in found.measured})


V1 = """\x1b[1;36m(APIServer pid=1)\x1b[0;0m INFO 06-01 09:20:16 [utils.py:278] non-default args: {'model_tag': 'a/b', 'model': 'a/b', 'dtype': 'float16', 'max_model_len': 32768, 'tensor_parallel_size': 2, 'kv_cache_dtype': 'fp8_e5m2', 'enable_prefix_caching': True, 'max_num_batched_tokens': 8192, 'max_num_seqs': 2, 'gpu_memory_utilization': 0.95}
(EngineCore pid=120) INFO 06-01 09:20:52 [core.py:112] Initializing a V1 LLM engine (v0.19.1rc0) with config: model='a/b', speculative_config=None, dtype=torch.float16, max_seq_len=32768, tensor_parallel_size=2, pipeline_parallel_size=1, quantization=None, enforce_eager=True, kv_cache_dtype=fp8_e5m2
(Worker_TP0) INFO [gpu_model_runner.py:4821] Model loading took 13.17 GiB memory and 6.0 seconds
(Worker_TP1) INFO [gpu_model_runner.py:4821] Model loading took 13.19 GiB memory and 6.0 seconds
(Worker_TP0) INFO [gpu_worker.py:437] Available KV cache memory: 25.46 GiB
(Worker_TP1) INFO [gpu_worker.py:437] Available KV cache memory: 25.42 GiB
INFO [kv_cache_utils.py:1319] GPU KV cache size: 620,944 tokens
INFO [kv_cache_utils.py:1324] Maximum concurrency for 32,768 tokens per request: 18.95x
INFO [gpu_model_runner.py:6047] Graph capturing finished in 12 secs, took 0.85 GiB
INFO [gpu_worker.py:640] Free memory on device (78.61/79.19 GiB) on startup. Desired GPU memory utilization is (0.95, 75.23 GiB). Actual usage is 13.17 GiB for weight, 1.9 GiB for peak activation, 0.27 GiB for non-torch memory, and 0.85 GiB for CUDAGraph memory.
"""  # noqa: E501 - as printed


def test_a_whole_vllm_log_is_read() -> None:
    """Both dumps, colours, the worse of two ranks, the card's size, and every figure."""
    found = read(V1)
    assert {
        "workload.engine": "vllm", "workload.engine_version": "0.19.1", "model": "a/b", "plan.tp": 2, "plan.pp": 1,
        "workload.context_tokens": 32768, "workload.kv_format": "fp8", "workload.prefix_caching": True,
        "workload.max_num_batched_tokens": 8192, "workload.max_num_seqs": 2, "workload.memory_fraction": 0.95,
        "workload.eager": True,
    } == {g.path: g.value for g in found.given}  # fmt: skip
    assert int(79.19 * GIB) == found.device_total_bytes
    figures = {m.quantity: m.value for m in found.measured}
    assert {
        Quantity.WEIGHTS: 13.19 * GIB, Quantity.KV_CACHE: 25.42 * GIB, Quantity.KV_CACHE_TOKENS: 620944,
        Quantity.REQUESTS_AT_CONTEXT: 18.95, Quantity.CUDA_GRAPHS: 0.85 * GIB, Quantity.ACTIVATION_PEAK: 1.9 * GIB,
        Quantity.NON_TORCH: 0.27 * GIB,
    } == pytest.approx(figures)  # fmt: skip


def test_the_words_of_older_versions_are_read() -> None:
    """0.6: the dump of arguments as a Namespace, and one line for the whole budget."""
    found = read(
        "INFO api_server.py:913] args: Namespace(subparser='serve', model='a/b', max_model_len=20000, "
        "gpu_memory_utilization=0.9, max_num_seqs=None, tensor_parallel_size=1, served_model_name=['x'])\n"
        "Loading model weights took 14.9888 GB\n"
        "Memory profiling results: total_gpu_memory=23.58GiB initial_memory_usage=15.34GiB peak_torch_memory=17.06GiB "
        "memory_usage_post_profile=15.35GiB non_torch_memory=0.35GiB kv_cache_size=3.81GiB gpu_memory_utilization=0.90"
    )
    assert {
        "workload.engine": "vllm", "model": "a/b", "workload.context_tokens": 20000, "plan.tp": 1,
        "workload.memory_fraction": 0.9,
    } == {g.path: g.value for g in found.given}  # fmt: skip
    assert int(23.58 * GIB) == found.device_total_bytes
    assert {Quantity.WEIGHTS: 14.9888 * GIB, Quantity.NON_TORCH: 0.35 * GIB, Quantity.KV_CACHE: 3.81 * GIB} == (
        pytest.approx({m.quantity: m.value for m in found.measured})
    )


def test_a_refusal_of_vllm_is_a_failure() -> None:
    """What one request needs and what was there, from its own message."""
    found = read(
        "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (0.71 GiB). Based on the available memory, the "
        "estimated maximum model length is 5632."
    )
    assert found.failure is not None
    assert (16 * GIB, int(0.71 * GIB)) == (found.failure.needed_bytes, found.failure.free_bytes)
    assert {"workload.engine": "vllm", "workload.context_tokens": 131072} == {g.path: g.value for g in found.given}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            (
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity "
                "of 11.53 GiB of which 187.75 MiB is free. Including non-PyTorch memory, this process has 11.30 GiB "
                "memory in use. Of the allocated memory 10.90 GiB is allocated by PyTorch, and 290.00 MiB is reserved "
                "by PyTorch but unallocated."
            ),
            (224 * MIB, int(187.75 * MIB), int(11.53 * GIB), int(10.9 * GIB), 290 * MIB),
        ),
        (
            (
                "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB (GPU 0; 10.73 GiB total "
                "capacity; 9.85 GiB already allocated; 46.44 MiB free; 9.86 GiB reserved in total by PyTorch)"
            ),
            (224 * MIB, int(46.44 * MIB), int(10.73 * GIB), int(9.85 * GIB), int(9.86 * GIB) - int(9.85 * GIB)),
        ),
    ],
)
def test_torch_says_what_it_lacked(text: str, expected: tuple[int, ...]) -> None:
    """The message since 2.2 and the one before: asked, free, total, allocated, kept unused."""
    found = read(text)
    assert "torch" == found.program
    assert found.failure is not None
    failure = found.failure
    assert expected == (
        failure.needed_bytes, failure.free_bytes, failure.total_bytes, failure.allocated_bytes,
        failure.fragmented_bytes,
    )  # fmt: skip


def test_buffers_of_llama_cpp_are_summed_per_device() -> None:
    """Windows and full layers print their caches apart; two devices make two stages; host buffers count apart."""
    found = read(
        "load_tensors: offloaded 49/49 layers to GPU\n"
        "load_tensors:   CPU_Mapped model buffer size =   315.30 MiB\n"
        "load_tensors:        CUDA0 model buffer size =  9000.00 MiB\n"
        "load_tensors:        CUDA1 model buffer size =  8000.00 MiB\n"
        "llama_kv_cache:      CUDA0 KV buffer size =   100.00 MiB\n"
        "llama_kv_cache:      CUDA0 KV buffer size =    20.50 MiB\n"
        "llama_memory_recurrent:      CUDA0 RS buffer size =   62.81 MiB\n"
        "llama_context:      CUDA0 compute buffer size =   352.77 MiB\n"
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 560.00 MiB on device 0: cudaMalloc failed: out of "
        "memory\n"
    )
    assert {
        (Quantity.HOST_MODEL_BUFFER, "device"): 315.3 * MIB, (Quantity.MODEL_BUFFER, "device:0"): 9000 * MIB,
        (Quantity.MODEL_BUFFER, "device:1"): 8000 * MIB, (Quantity.KV_BUFFER, "device:0"): 120.5 * MIB,
        (Quantity.RECURRENT_STATE, "device:0"): 62.81 * MIB, (Quantity.COMPUTE_BUFFER, "device:0"): 352.77 * MIB,
    } == pytest.approx({(m.quantity, m.scope): m.value for m in found.measured})  # fmt: skip
    assert 2 == {g.path: g.value for g in found.given}["plan.pp"]
    assert found.failure is not None
    assert 560 * MIB == found.failure.needed_bytes


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "expected the start-up log"),
        (b"nginx: [emerg] bind() to 0.0.0.0:80 failed\n", "nginx"),
        (b"\x00\x01\x02" * 100, "zero bytes"),
        (b"x" * (LIMIT_BYTES + 1), "16 MiB"),
    ],
)
def test_what_is_no_log_is_one_clear_error(data: bytes, part: str) -> None:
    """Empty, of another program, binary, too long."""
    with pytest.raises(UnreadableFileError, match=part):
        read_log(data, "log")


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [b"a" * 100, b"server_args=ServerArgs(" + b"a=b, " * 20, b"load_tensors: " + b" " * 80, b"\x1b[" + b"1;" * 40,
     b"Load weight end." + b"m" * 80, b"non-default args: {" + b"{" * 80, b"CUDA out of memory. Tried to allocate 1 "],
    ids=lambda unit: unit[:12].decode(errors="replace").strip("\x1b"),
)  # fmt: skip
def test_hostile_text_takes_no_long_time(unit: bytes, tmp_path: Path) -> None:
    """Two megabytes of what almost matches, as one line and as many, are refused or read in seconds."""
    del tmp_path
    for end in (b"", b"\n"):
        start = time.process_time()
        with contextlib.suppress(UnreadableFileError):
            read_log((unit + end) * (2 * MIB // (len(unit) + 1)))
        assert time.process_time() - start < 20
