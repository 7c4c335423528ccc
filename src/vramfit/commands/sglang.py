"""``python -m sglang.launch_server`` and ``sglang serve``.

Source of names and meanings: sgl-project/sglang:python/sglang/srt/server_args.py, 0.4.6 to 0.5.23.
"""

from __future__ import annotations

from vramfit.commands.flag import SHARE, TEXT, Flag, Nested, Switch, chosen
from vramfit.commands.program import Program

CACHE = chosen({
    "auto": None, "fp8_e5m2": "fp8", "fp8_e4m3": "fp8", "bf16": "bf16", "bfloat16": "bf16", "float16": "fp16",
})  # fmt: skip
DTYPE = chosen({
    "auto": None, "half": None, "float16": None, "bfloat16": None, "float32": "fp32", "float": "fp32",
})  # fmt: skip
QUANTIZATION = chosen({
    "fp8": "fp8", "w8a8_int8": "w8a8-int8", "bitsandbytes": "nf4", "mxfp4": None,
    **dict.fromkeys((
        "awq", "awq_marlin", "gptq", "gptq_marlin", "marlin", "compressed-tensors", "modelopt", "modelopt_fp8",
        "modelopt_fp4", "gguf", "w8a8_fp8", "w4afp8", "moe_wna16", "qoq", "auto-round", "petit_nvfp4",
    )),
})  # fmt: skip
ATTENTION = chosen({
    "fa3": "flash", "fa4": "flash", "flashinfer": "flashinfer", "triton": "triton", "torch_native": "sdpa",
    "flashmla": "flash", "cutlass_mla": "flash", "trtllm_mla": "flashinfer", "trtllm_mha": "flashinfer",
})  # fmt: skip

FLAGS: tuple[Flag | Switch | Nested, ...] = (
    Flag(names=("--model-path", "--model"), path="model", kind=TEXT),
    Flag(names=("--context-length",), path="workload.context_tokens"),
    Flag(names=("--mem-fraction-static",), path="workload.memory_fraction", kind=SHARE),
    Flag(names=("--max-running-requests",), path="workload.max_num_seqs"),
    Flag(names=("--chunked-prefill-size",), path="workload.max_num_batched_tokens"),
    Flag(names=("--tp-size", "--tensor-parallel-size", "--tp"), path="plan.tp"),
    Flag(names=("--pp-size", "--pipeline-parallel-size"), path="plan.pp"),
    Flag(names=("--dp-size", "--data-parallel-size", "--dp"), path="plan.dp_replicate"),
    Flag(names=("--page-size",), path="workload.block_tokens"),
    Flag(names=("--kv-cache-dtype",), path="workload.kv_format", kind=CACHE),
    Flag(names=("--dtype",), path="workload.weight_format", kind=DTYPE),
    Flag(names=("--quantization",), path="workload.weight_format", kind=QUANTIZATION),
    Flag(names=("--attention-backend",), path="workload.attention", kind=ATTENTION),
    Flag(names=("--max-loras-per-batch",), path="workload.max_loras"),
    Flag(names=("--max-lora-rank",), path="workload.max_lora_rank"),
    Flag(names=("--speculative-draft-model-path", "--speculative-draft-model"), path="workload.draft_model", kind=TEXT),
    Flag(names=("--speculative-num-draft-tokens",), path="workload.speculative_tokens"),
    Switch(names=("--disable-cuda-graph",), path="workload.eager", value=True),
    Switch(names=("--disable-radix-cache",), path="workload.prefix_caching", value=False),
)

PROGRAM = Program(
    engine="sglang",
    starts=(("-m", "sglang.launch_server"), ("sglang", "serve"), ("sglang.launch_server",)),
    images=(),
    table="sglang",
    positional_model=False,
    flags=FLAGS,
)
