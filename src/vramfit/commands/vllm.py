"""``vllm serve`` and ``python -m vllm.entrypoints.openai.api_server``.

Source of names and meanings: vllm-project/vllm:vllm/engine/arg_utils.py, EngineArgs, 0.6.6 to 0.33.0.
"""

from __future__ import annotations

import json

from vramfit.commands.flag import SHARE, TEXT, Flag, Nested, Switch, chosen
from vramfit.commands.program import Program
from vramfit.errors import InvalidValueError
from vramfit.request import Given

CACHE = chosen({
    "auto": None, "fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp8_inc": "fp8", "bfloat16": "bf16",
    "float16": "fp16", "int8_per_token_head": "int8", "fp8_per_token_head": "fp8", "int4_per_token_head": "int4",
})  # fmt: skip
DTYPE = chosen({
    "auto": None, "half": None, "float16": None, "bfloat16": None, "float32": "fp32", "float": "fp32",
})  # fmt: skip
"""16-bit types take the same bytes, and quantised weights keep their own: nothing to change."""
QUANTIZATION = chosen({
    "fp8": "fp8", "bitsandbytes": "nf4",
    **dict.fromkeys((
        "awq", "awq_marlin", "gptq", "gptq_marlin", "gptq_bitblas", "bitblas", "marlin", "compressed-tensors",
        "modelopt", "modelopt_fp4", "mxfp4", "gguf", "auto-round", "auto_round", "inc", "hqq", "aqlm", "quark",
        "torchao", "moe_wna16", "fbgemm_fp8", "none", "None",
    )),
})  # fmt: skip
"""Methods that name what the checkpoint already is leave its format open; the first two quantise while loading."""
ATTENTION = chosen({
    "FLASH_ATTN": "flash", "FLASHINFER": "flashinfer", "TRITON_ATTN": "triton", "TRITON_ATTN_VLLM_V1": "triton",
    "FLASH_ATTN_VLLM_V1": "flash", "FLASHINFER_VLLM_V1": "flashinfer", "XFORMERS": "efficient", "TORCH_SDPA": "sdpa",
    "FLASHMLA": "flash", "TRITON_MLA": "triton", "CUTLASS_MLA": "flash", "FLASHINFER_MLA": "flashinfer",
    "FLASH_ATTN_MLA": "flash", "auto": None,
})  # fmt: skip


def speculative(name: str, text: str) -> tuple[Given, ...]:
    """Read ``--speculative-config '{"model": ..., "num_speculative_tokens": 3}'``."""
    try:
        found = json.loads(text[:20_000])
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidValueError(name, text, 'JSON such as {"method": "mtp", "num_speculative_tokens": 2}')
    paths = {"model": "workload.draft_model", "num_speculative_tokens": "workload.speculative_tokens"}
    return tuple(
        Given(path=path, value=found[key], said=f"{name}: {key}") for key, path in paths.items() if found.get(key)
    )


FLAGS: tuple[Flag | Switch | Nested, ...] = (
    Flag(names=("--model", "-m"), path="model", kind=TEXT),
    Flag(names=("--max-model-len",), path="workload.context_tokens"),
    Flag(
        names=("--gpu-memory-utilization", "--device-memory-utilization"), path="workload.memory_fraction", kind=SHARE
    ),
    Flag(names=("--max-num-seqs",), path="workload.max_num_seqs"),
    Flag(names=("--max-num-batched-tokens",), path="workload.max_num_batched_tokens"),
    Flag(names=("--tensor-parallel-size", "-tp"), path="plan.tp"),
    Flag(names=("--pipeline-parallel-size", "-pp"), path="plan.pp"),
    Flag(names=("--data-parallel-size", "-dp"), path="plan.dp_replicate"),
    Flag(names=("--block-size",), path="workload.block_tokens"),
    Flag(names=("--kv-cache-dtype",), path="workload.kv_format", kind=CACHE),
    Flag(names=("--dtype",), path="workload.weight_format", kind=DTYPE),
    Flag(names=("--quantization", "-q"), path="workload.weight_format", kind=QUANTIZATION),
    Flag(names=("--attention-backend",), path="workload.attention", kind=ATTENTION),
    Flag(names=("--max-loras",), path="workload.max_loras"),
    Flag(names=("--max-lora-rank",), path="workload.max_lora_rank"),
    Flag(names=("--num-speculative-tokens", "--spec-tokens"), path="workload.speculative_tokens"),
    Flag(names=("--speculative-model", "--spec-model"), path="workload.draft_model", kind=TEXT),
    Nested(names=("--speculative-config", "-sc"), read=speculative),
    Switch(names=("--enforce-eager",), path="workload.eager", value=True),
    Switch(names=("--no-enforce-eager",), path="workload.eager", value=False),
    Switch(names=("--enable-prefix-caching",), path="workload.prefix_caching", value=True),
    Switch(names=("--no-enable-prefix-caching",), path="workload.prefix_caching", value=False),
    Switch(names=("--enable-chunked-prefill",), path="workload.chunked_prefill", value=True),
    Switch(names=("--no-enable-chunked-prefill",), path="workload.chunked_prefill", value=False),
)


PROGRAM = Program(
    engine="vllm",
    starts=(
        ("vllm", "serve"),
        ("-m", "vllm.entrypoints.openai.api_server"),
        ("-m", "vllm.entrypoints.api_server"),
        ("-m", "vllm.entrypoints.cli.main", "serve"),
        ("api_server.py",),
    ),
    images=("vllm/vllm-openai", "vllm-openai"),
    table="vllm",
    positional_model=True,
    flags=FLAGS,
)
