"""Communicators by the way the cards are joined: buffers for NVLink are several times those for PCIe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from vramfit.device import Device
from vramfit.memory.runtime import COLLECTIVE_BYTES, runtime
from vramfit.result import Item
from vramfit.shard import Shard

JOINED = ("p100-sxm", "v100-sxm", "a100", "a800", "h100", "h800", "h20", "h200", "gh200", "b100", "b200", "b300",
          "gb200", "gb300")  # fmt: skip
"""Beginnings of names of cards that NVLink joins; their PCIe versions are bridged in pairs at most."""
PCIE_BYTES = 342 * 10**6
"""Two ranks without NVLink, by aiconfigurator's table. A public log of SGLang agrees: four ranks of 24 GB cards have
23.08 GiB free before weights where a context alone leaves 23.15 to 23.34."""
SGLANG_BYTES = 7 * COLLECTIVE_BYTES // 5
"""Eight ranks of H200 take 1.8 to 2.0 GiB before weights (sgl-project/sglang#11716), 0.5 of it the context: the server
opens a communicator for torch, one of its own, and buffers of a custom all-reduce."""
HIGH_BYTES = 2 * COLLECTIVE_BYTES


def joined(device: Device | None) -> bool:
    """Say whether NVLink joins such cards; an unnamed card counts as joined.

    >>> joined(None)
    True
    """
    return device is None or (device.name.startswith(JOINED) and "pcie" not in device.name)


def runtime_with(nvlink_bytes: int) -> Callable[[Shard, Device | None], Iterable[Item]]:
    """Return what a process takes beside the model, its communicators sized by the cards. [B]"""

    def process(shard: Shard, device: Device | None) -> Iterable[Item]:
        for item in runtime(shard, device):
            if item.name != "runtime/collectives":
                yield item
            elif joined(device):
                yield replace(item, bytes=nvlink_bytes, high_bytes=HIGH_BYTES)
            else:
                yield replace(
                    item, bytes=PCIE_BYTES, low_bytes=PCIE_BYTES // 2, high_bytes=COLLECTIVE_BYTES,
                    formula="NCCL buffers of one communicator without NVLink",
                    source="see engines/communicators.py, PCIE_BYTES",
                )  # fmt: skip

    return process
