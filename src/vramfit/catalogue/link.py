"""How fast devices exchange and multiply, from data sheets: what a proxy over plans weighs bytes with."""

from __future__ import annotations

from vramfit.device import Device
from vramfit.mesh import Links

G = 10**9
T = 10**12
CARDS = 8
"""Devices of a usual server."""
SLOWEST_BETWEEN = 25 * G
"""Between nodes where no data sheet says it: 200 Gbit/s for each device, an assumption."""
PCIE = {"3": 16 * G, "4": 32 * G, "5": 64 * G}
"""One way over 16 lanes. Source: PCI-SIG, PCI Express Base Specification 3.0, 4.0, 5.0."""

_HOPPER = "NVIDIA H100 and H200 data sheets (989 dense TFLOPS, NVLink 900 GB/s both ways); DGX H100: 400 Gbit/s a GPU"
_AMPERE = "NVIDIA A100 data sheet (312 dense TFLOPS, NVLink 600 GB/s both ways); DGX A100: 200 Gbit/s a GPU"
_BLACKWELL = "NVIDIA DGX B200 data sheet (dense bf16 a GPU, NVLink 1.8 TB/s both ways, 400 Gbit/s a GPU)"
_NVL72 = "NVIDIA GB200 NVL72 data sheet (2.5 dense PFLOPS a GPU, NVLink 1.8 TB/s both ways, 72 GPUs); 400 Gbit/s a GPU"
_EXPORT = "NVIDIA's variants for export: NVLink 400 GB/s both ways, matrices as the original; DGX of that generation"
_CDNA3 = "AMD Instinct data sheets (dense bf16; Infinity Fabric 128 GB/s both ways to each of 7); 400 Gbit/s a GPU"


def _row(inside: int, between: int, matrix: int, source: str, node: int = CARDS) -> Links:
    return Links(
        node_devices=node,
        inside_bytes_per_second=inside * G,
        between_bytes_per_second=between * G,
        matrix_operations_per_second=matrix * T,
        source=source,
    )


LINKS = {
    "h100-sxm": _row(450, 50, 989, _HOPPER),
    "h200-sxm": _row(450, 50, 989, _HOPPER),
    "h20": _row(450, 50, 148, "NVIDIA H20 (148 dense TFLOPS, NVLink 900 GB/s both ways); as in DGX H100 otherwise"),
    "h800-sxm": _row(200, 50, 989, _EXPORT),
    "a100-sxm": _row(300, 25, 312, _AMPERE),
    "a800-sxm": _row(200, 25, 312, _EXPORT),
    "b200-sxm": _row(900, 50, 2250, _BLACKWELL),
    "b300-sxm": _row(900, 100, 2250, f"{_BLACKWELL}; DGX B300: 800 Gbit/s a GPU"),
    "gb200": _row(900, 50, 2500, _NVL72, node=72),
    "gb300": _row(900, 100, 2500, f"{_NVL72}; GB300: 800 Gbit/s a GPU", node=72),
    "v100-sxm": _row(
        150, 6, 125, "NVIDIA V100 data sheet (125 TFLOPS fp16, NVLink 300 GB/s both ways); DGX-1: 50 Gbit/s a GPU"
    ),
    "mi300x": _row(448, 50, 1307, _CDNA3),
    "mi325x": _row(448, 50, 1307, _CDNA3),
    "mi350x": _row(538, 50, 2300, "AMD Instinct MI350X data sheet (dense bf16; 153.6 GB/s both ways to each of 7)"),
    "mi355x": _row(538, 50, 2500, "AMD Instinct MI355X data sheet (dense bf16; 153.6 GB/s both ways to each of 7)"),
    "h100-pcie": _row(64, 25, 756, "NVIDIA H100 PCIe data sheet (756 dense TFLOPS, PCIe 5); 200 Gbit/s assumed"),
    "a100-pcie": _row(32, 25, 312, "NVIDIA A100 data sheet (312 dense TFLOPS, PCIe 4); 200 Gbit/s assumed"),
    "l40s": _row(32, 25, 362, "NVIDIA L40S data sheet (362 dense TFLOPS, PCIe 4); 200 Gbit/s assumed"),
    "l4": _row(32, 12, 121, "NVIDIA L4 data sheet (121 dense TFLOPS, PCIe 4); 100 Gbit/s assumed"),
    "a10g": _row(32, 12, 70, "AWS G5 (70 dense TFLOPS, PCIe 4); 100 Gbit/s assumed"),
    "a10": _row(32, 12, 125, "NVIDIA A10 data sheet (125 dense TFLOPS, PCIe 4); 100 Gbit/s assumed"),
    "rtx-4090": _row(32, 12, 165, "NVIDIA Ada white paper (165 dense TFLOPS in fp32, PCIe 4); 100 Gbit/s assumed"),
    "rtx-3090": _row(32, 12, 71, "NVIDIA GA102 white paper (71 dense TFLOPS in fp32, PCIe 4); 100 Gbit/s assumed"),
    "rtx-5090": _row(
        64, 12, 209, "NVIDIA Blackwell white paper (209 dense TFLOPS in fp32, PCIe 5); 100 Gbit/s assumed"
    ),
}
"""Beginning of a device's name, to its last dash -> what it does."""

UNKNOWN = Links(
    node_devices=CARDS,
    inside_bytes_per_second=PCIE["4"],
    between_bytes_per_second=SLOWEST_BETWEEN,
    matrix_operations_per_second=300 * T,
    source="assumed: no data sheet of this device is known here (8 a node, PCIe 4 inside, 200 Gbit/s between, "
    "300 TFLOPS); say --node, --inside-link, --between-link",
)
"""Where a device has no row: only ratios enter the proxy, and they are said to be assumed."""


def links_of(device: Device) -> Links:
    """Return how a device exchanges and multiplies; where nothing is known, an assumption that says so.

    >>> from vramfit.catalogue.device import find_device
    >>> links_of(find_device("h100-sxm-80gb")).inside_bytes_per_second
    450000000000
    """
    kind = device.name.rpartition("-")[0]
    return LINKS.get(kind, UNKNOWN)
