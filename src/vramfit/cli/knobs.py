"""Options that only some engines have: schedulers, pages, llama.cpp's buffers, pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from vramfit.units import parse_bytes

NOT_FITTING = 1
"""Exit code of ``--check`` when the job does not fit."""
OPTIONS = (
    click.option("--max-num-seqs", type=int, help="Servers: most sequences at once; default: the engine's."),
    click.option("--max-batched-tokens", "max_num_batched_tokens", type=int, help="Servers: most tokens of one pass."),
    click.option("--fraction", "memory_fraction", type=float, help="Servers: share of the device to take, e.g. 0.9."),
    click.option("--eager/--no-eager", "eager", default=None, help="Servers: without or with CUDA graphs."),
    click.option("--prefix-caching/--no-prefix-caching", "prefix_caching", default=None, help="Keep prefixes."),
    click.option("--chunked-prefill/--no-chunked-prefill", "chunked_prefill", default=None, help="Cut long prompts."),
    click.option("--block-tokens", type=int, help="Tokens of one page of the cache."),
    click.option("--slots", type=int, help="llama.cpp: sequences served at once (--parallel)."),
    click.option("--ubatch", "ubatch_tokens", type=int, help="llama.cpp: physical batch (--ubatch-size)."),
    click.option("--batch-tokens", type=int, help="llama.cpp: logical batch (--batch-size)."),
    click.option("--gpu-layers", type=int, help="llama.cpp: layers on the devices (-ngl); default: all."),
    click.option("--flash-attention/--no-flash-attention", "flash_attention", default=None, help="llama.cpp: -fa."),
    click.option("--swa-full/--no-swa-full", "swa_full", default=None, help="llama.cpp: cache windows in full."),
    click.option("--draft", "draft_model", help="Model that drafts tokens ahead."),
    click.option("--speculative-tokens", type=int, help="Tokens drafted ahead."),
    click.option("--max-loras", type=int, help="Adapters held at once."),
    click.option("--max-lora-rank", type=int, help="Largest rank of an adapter."),
    click.option("--height", "image_height", type=int, help="Pipelines: pixels."),
    click.option("--width", "image_width", type=int, help="Pipelines: pixels."),
    click.option("--frames", type=int, help="Pipelines: frames of a video."),
    click.option("--offload", help="Pipelines: none, model or sequential."),
)

SERVING = (
    click.option("--lengths", help="Servers: tokens of a request, median and 95th percentile, e.g. 2000,9000."),
    click.option("--shared-prefix", type=int, default=0, help="Servers: tokens that all requests begin with."),
    click.option("--requests", type=int, help="Servers: find the smallest fraction that carries so many at once."),
    click.option("--beside", help="Servers: a second model on the same card; --requests for each."),
)


def engine_knobs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options above to a command, in this order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options above to a command, in this order."""
    for option in reversed(SERVING):
        command = option(command)
    return command


def on_devices(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that say on what it is to run."""
    size = given["gpu_memory"]
    return {
        "device": given["gpu"],
        "device_count": given["device_count"],
        "device_memory_bytes": None if size is None else parse_bytes(size, "--gpu-memory"),
        "headroom_bytes": 0 if given["headroom"] is None else parse_bytes(given["headroom"], "--headroom"),
    }
