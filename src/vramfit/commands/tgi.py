"""``text-generation-launcher``.

Source of names and meanings: huggingface/text-generation-inference:launcher/src/main.rs, struct Args.
"""

from __future__ import annotations

from vramfit.commands.flag import SHARE, TEXT, Flag, Nested, Switch, chosen
from vramfit.commands.program import Program

CACHE = chosen({"fp8_e4m3fn": "fp8", "fp8_e5m2": "fp8", "fp8-e4m3fn": "fp8", "fp8-e5m2": "fp8"})
DTYPE = chosen({"float16": None, "bfloat16": None, "float32": "fp32"})
QUANTIZATION = chosen({
    "eetq": "int8", "bitsandbytes": "int8", "bitsandbytes-nf4": "nf4", "bitsandbytes-fp4": "nf4", "fp8": "fp8",
    **dict.fromkeys(("awq", "gptq", "marlin", "exl2", "compressed-tensors")),
})  # fmt: skip

FLAGS: tuple[Flag | Switch | Nested, ...] = (
    Flag(names=("--model-id",), path="model", kind=TEXT),
    Flag(names=("--max-total-tokens",), path="workload.context_tokens"),
    Flag(names=("--max-input-tokens", "--max-input-length"), path="workload.prompt_tokens"),
    Flag(names=("--cuda-memory-fraction",), path="workload.memory_fraction", kind=SHARE),
    Flag(names=("--max-batch-prefill-tokens",), path="workload.max_num_batched_tokens"),
    Flag(names=("--max-batch-size",), path="workload.max_num_seqs"),
    Flag(names=("--num-shard",), path="plan.tp"),
    Flag(names=("--kv-cache-dtype",), path="workload.kv_format", kind=CACHE),
    Flag(names=("--dtype",), path="workload.weight_format", kind=DTYPE),
    Flag(names=("--quantize",), path="workload.weight_format", kind=QUANTIZATION),
)

PROGRAM = Program(
    engine="tgi",
    starts=(("text-generation-launcher",),),
    images=("text-generation-inference",),
    table="tgi",
    positional_model=False,
    flags=FLAGS,
)
