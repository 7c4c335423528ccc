"""What a training process takes beside the model: context, kernels, workspaces, communicators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vramfit.device import Device
from vramfit.formats import weight_format
from vramfit.memory.model_states import Setting
from vramfit.memory.runtime import runtime
from vramfit.result import ALWAYS, WHILE_TRAINING, Basis, Counter, Item, Phase
from vramfit.units import ceil_div, count_of

HIGH_BYTES = 2 * 10**9
"""Of one communicator: a third of what NVIDIA/nccl#864 measured with three. [B]"""


def process_items(setting: Setting, device: Device | None) -> Iterator[Item]:
    """Yield what the process takes beside the model, over the phases of training."""
    kernels = setting.framework.kernel_bytes
    for item in runtime(setting.shard, device):
        phases = WHILE_TRAINING if item.phases == ALWAYS else tuple(p for p in WHILE_TRAINING if p is not Phase.LOAD)
        counted = item
        if item.name == "runtime/collectives":
            counted = _communicators(item, setting.shard.num_groups)
        if item.name == "runtime/loaded_kernels" and kernels is not None:
            counted = _loaded_at_once(item, kernels)
        yield replace(counted, phases=phases)
    yield from awaiting_collectives(setting)


AWAITING = "runtime/awaiting_collectives"
AHEAD_PERCENT = 50
"""How much of a forward pass the device has still before it when the program has issued all of it. Assumed: the middle
of what is possible, as the clock of the device decides. The two runs known, torchtitan 83c879f18 with tensor
parallelism, have 49 and 44 % of it above what the program holds; both are rows of ours, so they confirm nothing."""


def awaiting_collectives(setting: Setting) -> Iterator[Item]:
    """Yield what tensor-parallel collectives of a forward pass read and wrote, and the device has not worked through.

        layers * tokens * hidden * bytes * (2 gathers + 2 scatters) * (1 + 1 / tp), less what is kept for backward
        expected: half of it; at most all of it

    Kept are two gathered inputs without recomputation, and the last product, not yet scattered, under a selective one.
    Source: pytorch/torchtitan commit e62573d4c, which sets TORCH_NCCL_AVOID_RECORD_STREAMS because of it;
    pytorch/pytorch:torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp, recordStream.
    """
    shard, training = setting.shard, setting.training
    if not setting.framework.records_streams or shard.tensor_ranks == 1 or not shard.sequence_parallel:
        return
    tokens = training.micro_batch * ceil_div(training.sequence_tokens or 0, shard.sequence_ranks)
    each = weight_format(setting.recipe.compute_format).block_bytes
    whole = len(shard.model.layers) * tokens * shard.model.hidden_size * each
    kept = {"none": 2, "selective": 1}.get(training.recompute or "none", 0)
    size = max(0, 4 * (whole + ceil_div(whole, shard.tensor_ranks)) - kept * whole)
    yield Item(
        name=AWAITING, bytes=size * AHEAD_PERCENT // 100, low_bytes=0, high_bytes=size,
        phases=(Phase.FORWARD, Phase.LOSS, Phase.BACKWARD), basis=Basis.ASSUMED, counter=Counter.RESERVED,
        formula=f"{AHEAD_PERCENT} % of what collectives of {len(shard.model.layers)} layers read and wrote",
        source="pytorch/torchtitan commit e62573d4c; active memory of two runs of 83c879f18",
    )  # fmt: skip


def _loaded_at_once(one: Item, size: int) -> Item:
    """Return the kernels of a process that loads all of them as it starts. [B]"""
    return replace(
        one, bytes=size, low_bytes=size * 9 // 10, high_bytes=size * 11 // 10,
        formula="1343 MiB with the context on a V100, 1271 MiB on an A100, before kernels were loaded lazily",
        source="huggingface/transformers:docs/source/performance.mdx; bigscience-workshop/bigscience:"
        "train/tr11-176B-ml/chronicles-prequel.md",
    )  # fmt: skip


def _communicators(one: Item, groups: int) -> Item:
    """Return the buffers of one communicator for each process group. [B]

    NVIDIA/nccl#864 has 1.6 GB for one and about 6 GB for three, which is our high figure.
    """
    return replace(
        one, bytes=groups * one.bytes, low_bytes=groups * one.low_bytes, high_bytes=groups * HIGH_BYTES,
        formula=f"NCCL buffers of {count_of(groups, 'communicator')}, each as the first that vLLM opens",
    )  # fmt: skip
