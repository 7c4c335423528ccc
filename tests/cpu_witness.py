"""What a real run on the CPU allocates, from the profiler's memory events: a second witness for the tracer.

Where CPU and CUDA share their code (autograd, composites, structured kernels), they allocate alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch

from vramfit.trace import VirtualGPU

SCALARS = 256
"""Smaller requests are left out: the CPU copies plain numbers into tensors of 4 or 8 bytes, CUDA does not."""


def on_cpu(run: Callable[[str], None]) -> tuple[int, Counter[int]]:
    """Return the peak of a run, and how often each size was asked for. [B]"""
    run("cpu")  # the first run fills caches
    with torch.autograd.profiler.profile(profile_memory=True, use_kineto=True) as profile:
        run("cpu")
    events = sorted(profile.kineto_results.events(), key=lambda event: event.start_ns())
    now = peak = 0
    sizes: Counter[int] = Counter()
    for event in events:
        if event.name() != "[memory]" or abs(event.nbytes()) < SCALARS:
            continue
        now += event.nbytes()
        peak = max(peak, now)
        if event.nbytes() > 0:
            sizes[event.nbytes()] += 1
    return peak, sizes


def traced(run: Callable[[str], None]) -> tuple[int, Counter[int]]:
    """Return the same of a trace. [B]"""
    with VirtualGPU("a100-sxm-80gb", workspaces=frozenset({"loss"})) as gpu:
        run("cuda")
    now = peak = 0
    sizes: Counter[int] = Counter()
    for kind, number, _ in gpu.recording.events():
        size = gpu.recording.num_bytes(number) if kind in (1, 2) else 0
        if size < SCALARS:
            continue
        now += size if kind == 1 else -size
        peak = max(peak, now)
        sizes[size] += kind == 1
    return peak, sizes
