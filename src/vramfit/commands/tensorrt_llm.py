"""``trtllm-serve``.

Source of names and meanings: NVIDIA/TensorRT-LLM:tensorrt_llm/commands/serve.py, serve.
"""

from __future__ import annotations

from vramfit.commands.flag import SHARE, Flag, Nested, Switch, chosen
from vramfit.commands.program import Program

FLAGS: tuple[Flag | Switch | Nested, ...] = (
    Flag(names=("--max_seq_len",), path="workload.context_tokens"),
    Flag(
        names=("--free_gpu_memory_fraction", "--kv_cache_free_gpu_memory_fraction"),
        path="workload.memory_fraction",
        kind=SHARE,
    ),
    Flag(names=("--max_batch_size",), path="workload.max_num_seqs"),
    Flag(names=("--max_num_tokens",), path="workload.max_num_batched_tokens"),
    Flag(names=("--tp_size", "--tensor_parallel_size"), path="plan.tp"),
    Flag(names=("--pp_size", "--pipeline_parallel_size"), path="plan.pp"),
    Flag(names=("--kv_cache_dtype",), path="workload.kv_format", kind=chosen({"auto": None, "fp8": "fp8"})),
    Switch(names=("--enable_chunked_prefill",), path="workload.chunked_prefill", value=True),
)

PROGRAM = Program(
    engine="tensorrt-llm",
    starts=(("trtllm-serve", "serve"), ("trtllm-serve",)),
    images=(),
    table="tensorrt_llm",
    positional_model=True,
    flags=FLAGS,
)
