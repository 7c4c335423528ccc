"""A few lines of public start-up logs, as they were printed, with where they stand; figures are facts."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.result import Quantity
from vramfit.units import GIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicLog:
    """One excerpt."""

    source: str
    program: str
    model: str
    """What its author says it was."""
    lines: str
    given: dict[str, object]
    """Fields of the request that the lines state."""
    figures: dict[tuple[Quantity, str], float]
    """Figures by quantity and scope."""


QWEN_7B_INT4 = PublicLog(
    source="vllm-project/vllm#13882",
    program="vllm",
    model="Qwen/Qwen2.5-7B-Instruct",
    lines="""INFO 02-26 09:54:02 model_runner.py:1115] Loading model weights took 5.2032 GB
INFO 02-26 09:54:05 worker.py:267] the current vLLM instance can use total_gpu_memory (8.00GiB) x gpu_memory_utilization (0.70) = 5.60GiB
INFO 02-26 09:54:05 worker.py:267] model weights take 5.20GiB; non_torch_memory takes 0.03GiB; PyTorch activation peak memory takes 1.42GiB; the rest of the memory reserved for KV Cache is -1.05GiB.
INFO 02-26 09:54:05 executor_base.py:116] Maximum concurrency for 4096 tokens per request: 0.00x
""",  # noqa: E501 - as printed
    given={"workload.engine": "vllm", "workload.memory_fraction": 0.7, "workload.context_tokens": 4096},
    figures={
        (Quantity.WEIGHTS, "device"): 5.2032 * GIB,
        (Quantity.NON_TORCH, "device"): 0.03 * GIB,
        (Quantity.ACTIVATION_PEAK, "device"): 1.42 * GIB,
        (Quantity.KV_CACHE, "device"): -1.05 * GIB,
        (Quantity.REQUESTS_AT_CONTEXT, "device"): 0.0,
    },
)
DISTILL_14B = PublicLog(
    source="vllm-project/vllm#13061",
    program="vllm",
    model="deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
    lines="""(VllmWorkerProcess pid=1786) INFO 02-11 07:40:45 model_runner.py:1115] Loading model weights took 13.9476 GB
ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in KV cache (81536). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.
""",  # noqa: E501 - as printed
    given={"workload.engine": "vllm", "workload.context_tokens": 131072},
    figures={(Quantity.WEIGHTS, "device"): 13.9476 * GIB, (Quantity.KV_CACHE_TOKENS, "device"): 81536},
)
LLAMA_70B_W8A8 = PublicLog(
    source="vllm-project/vllm#12569",
    program="vllm",
    model="meta-llama/Llama-3.1-70B-Instruct",
    lines="""INFO 01-30 03:18:12 gpu_model_runner.py:848] Loading model weights took 67.7229 GB
INFO 01-30 03:19:14 kv_cache_utils.py:395] # GPU blocks: 1381
INFO 01-30 03:19:14 kv_cache_utils.py:398] Maximum concurrency for 2048 tokens per request: 10.79x
""",
    given={"workload.engine": "vllm", "workload.context_tokens": 2048},
    figures={
        (Quantity.WEIGHTS, "device"): 67.7229 * GIB,
        (Quantity.KV_CACHE_TOKENS, "device"): 1381 * 16,
        (Quantity.REQUESTS_AT_CONTEXT, "device"): 10.79,
    },
)
QWEN3_14B_SGLANG = PublicLog(
    source="xorbitsai/inference#3481",
    program="sglang",
    model="Qwen/Qwen3-14B",
    lines="""[2025-05-19 01:06:14] Load weight end. type=Qwen3ForCausalLM, dtype=torch.bfloat16, avail mem=19.67 GB, mem usage=27.57 GB.
[2025-05-19 01:06:14] KV Cache is allocated. #tokens: 91749, K size: 7.00 GB, V size: 7.00 GB
[2025-05-19 01:06:14] Memory pool end. avail mem=5.27 GB
""",  # noqa: E501 - as printed
    given={"workload.engine": "sglang"},
    figures={
        (Quantity.WEIGHTS, "device"): 27.57 * GIB,
        (Quantity.KV_CACHE_TOKENS, "device"): 91749,
        (Quantity.KV_CACHE, "device"): 14 * GIB,
    },
)
QWEN3_VL_8B_LLAMA = PublicLog(
    source="lmstudio-ai/lmstudio-bug-tracker#1176",
    program="llama.cpp",
    model="Qwen/Qwen3-VL-8B-Instruct",
    lines="""llama_context: n_seq_max     = 1
llama_context: n_ctx         = 16384
llama_context: n_batch       = 512
llama_context: n_ubatch      = 512
llama_context: flash_attn    = enabled
llama_context:  CUDA_Host  output buffer size =     0.58 MiB
llama_kv_cache:      CUDA0 KV buffer size =  1224.00 MiB
llama_kv_cache: size = 1224.00 MiB ( 16384 cells,  36 layers,  1/1 seqs), K (q8_0):  612.00 MiB, V (q8_0):  612.00 MiB
llama_context:      CUDA0 compute buffer size =   352.77 MiB
llama_context:  CUDA_Host compute buffer size =    40.02 MiB
""",
    given={
        "workload.engine": "llama.cpp", "workload.slots": 1, "workload.context_tokens": 16384,
        "workload.batch_tokens": 512, "workload.ubatch_tokens": 512, "workload.flash_attention": True,
        "workload.kv_format_k": "q8_0", "workload.kv_format_v": "q8_0",
    },
    figures={
        (Quantity.KV_BUFFER, "device:0"): 1224 * MIB,
        (Quantity.COMPUTE_BUFFER, "device:0"): 352.77 * MIB,
        (Quantity.HOST_COMPUTE_BUFFER, "device"): 40.02 * MIB,
    },
)  # fmt: skip
QWEN3_4B_AWQ = PublicLog(
    source="vllm-project/vllm#57047",
    program="vllm",
    model="Qwen/Qwen3-4B",  # not said: found by the printed weights and tokens
    lines="""(EngineCore pid=1904) INFO 09-16 12:14:29 [model_runner.py:428] Model loading took 2.5 GiB memory and 3.033493 seconds
(EngineCore pid=23853) INFO 09-16 13:51:44 [kv_cache_utils.py:2324] GPU KV cache size: 268,560 tokens, Maximum concurrency for 2,048 tokens per request: 131.13x
(EngineCore pid=23853) INFO 09-16 13:51:51 [gpu_worker.py:876] Free memory on device (46.99/47.37 GiB) on startup. Desired GPU memory utilization is (0.85, 40.27 GiB). Actual usage is 2.81 GiB for consumed memory (weights + non-torch), 0.57 GiB for peak activation, and 0.22 GiB for CUDAGraph memory. Current kv cache memory in use is 36.88 GiB.
""",  # noqa: E501 - as printed
    given={"workload.engine": "vllm", "workload.context_tokens": 2048, "workload.memory_fraction": 0.85},
    figures={
        (Quantity.WEIGHTS, "device"): 2.5 * GIB,
        (Quantity.ACTIVATION_PEAK, "device"): 0.57 * GIB,
        (Quantity.KV_CACHE, "device"): 36.88 * GIB,
        (Quantity.KV_CACHE_TOKENS, "device"): 268560,
        (Quantity.REQUESTS_AT_CONTEXT, "device"): 131.13,
    },
)
PUBLIC_LOGS = (QWEN3_4B_AWQ, QWEN_7B_INT4, DISTILL_14B, LLAMA_70B_W8A8, QWEN3_14B_SGLANG, QWEN3_VL_8B_LLAMA)
