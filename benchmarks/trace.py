"""Tracing beside PyTorch's own tracker: one model, one machine, one run; times, peaks and memory of the tracer itself.

    .venv-test/bin/python benchmarks/trace.py [LAYERS]

``torch.distributed._tools.MemTracker`` runs under fake tensors, as PyTorch's and torchtitan's estimators use it. It has
no device to be on without a GPU, so it follows fake CPU tensors: its peak is of the operators of the CPU, ours of CUDA.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import LlamaConfig, LlamaForCausalLM

from vramfit.trace import VirtualGPU

BATCH, TOKENS, STEPS = 1, 2048, 2
LAYERS = 8
LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "use_cache": False,
}  # fmt: skip
LLAMA_405B: dict[str, Any] = {
    "hidden_size": 16384, "intermediate_size": 53248, "num_attention_heads": 128, "num_key_value_heads": 8,
    "vocab_size": 128256, "use_cache": False, "num_hidden_layers": 126,
}  # fmt: skip
GIB = 2**30


def build(config: dict[str, Any], device: str) -> LlamaForCausalLM:
    """Return a model in bfloat16 on a device."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return LlamaForCausalLM(LlamaConfig(**config))
    finally:
        torch.set_default_dtype(torch.float32)


def step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, device: str, tokens: int = TOKENS) -> None:
    """Train on one batch."""
    ids = torch.zeros((BATCH, tokens), dtype=torch.int64, device=device)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def ours(config: dict[str, Any], tokens: int = TOKENS) -> int:
    """Trace on a virtual GPU; return the allocated peak. [B]"""
    with VirtualGPU("h100-sxm-80gb", capacity_bytes=2**50) as gpu:
        model = build(config, "cuda")
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(STEPS):
            step(model, optimizer, "cuda", tokens)
    return gpu.report().allocated_peak_bytes


def theirs(config: dict[str, Any]) -> int:
    """Follow with MemTracker under fake tensors; return its peak. [B]"""
    with FakeTensorMode():
        model = build(config, "cpu")
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        with tracker:
            for number in range(STEPS):
                if number:
                    tracker.reset_mod_stats()  # it follows one step at a time
                step(model, optimizer, "cpu")
    peaks = tracker.get_tracker_snapshot("peak")
    return max(int(kinds["Total"]) for kinds in peaks.values())


def timed(name: str, run: Callable[[], int]) -> float:
    """Print one row; return the seconds."""
    began = time.perf_counter()
    peak = run()
    took = time.perf_counter() - began
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{name:44} {took:8.2f} s  peak {peak / GIB:9.2f} GiB  resident so far {resident / GIB:5.2f} GiB", flush=True)
    return took


def main() -> None:
    """Print the comparison, then our large models."""
    layers = int(sys.argv[1]) if len(sys.argv) > 1 else LAYERS
    config = {**LLAMA_8B, "num_hidden_layers": layers}
    tiny = {**config, "num_hidden_layers": 1, "hidden_size": 256, "intermediate_size": 512}
    ours(tiny)
    theirs(tiny)  # both have imported what they need by now
    what = f"{STEPS} AdamW steps, {layers} layers of Llama-3-8B"
    mine = timed(f"vramfit: {what}", lambda: ours(config))
    other = timed(f"MemTracker: {what}", lambda: theirs(config))
    print(f"{'':44} {other / mine:8.1f} times faster")
    timed("vramfit: 2 AdamW steps, Llama-3-8B, 1 x 2048", lambda: ours({**LLAMA_8B, "num_hidden_layers": 32}))
    timed("vramfit: 2 AdamW steps, Llama-3.1-405B, 1 x 8192", lambda: ours(LLAMA_405B, 8192))


if __name__ == "__main__":
    main()
