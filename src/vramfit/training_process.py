"""What a training process takes beside the model: context, kernels, workspaces, communicators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vramfit.device import Device
from vramfit.memory.model_states import Setting
from vramfit.memory.runtime import runtime
from vramfit.result import ALWAYS, WHILE_TRAINING, Item, Phase
from vramfit.units import count_of

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
