"""The device catalogue: every row consistent and sourced, names that mean one device, totals against witnesses."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from vramfit.catalogue.device import all_devices, find_card, find_device
from vramfit.device import Device, Price
from vramfit.errors import InvalidValueError, UnknownNameError
from vramfit.names import normalise
from vramfit.units import GIB, MIB

DEVICES = all_devices()
EACH = pytest.mark.parametrize("device", DEVICES, ids=[d.name for d in DEVICES])
FORMS = {"card", "laptop", "slice", "module", "host", "accelerator"}
FACTS = (
    "total_bytes",
    "usable_bytes",
    "marketing_gb",
    "bandwidth_bytes_per_second",
    "compute_capability",
    "architecture",
    "multiprocessors",
    "threads_per_multiprocessor",
)
DEFINED = {"marketing_gb", "compute_capability", "architecture", "threads_per_multiprocessor"}
"""Facts that the vendor defines; one document is enough."""


def test_the_catalogue_is_broad() -> None:
    """At least 125 whole devices, slices aside, of every vendor people run models on."""
    whole = [d for d in DEVICES if d.form != "slice"]
    assert len(whole) >= 125
    assert {"nvidia", "amd", "intel", "apple", "google", "huawei", "aws"} == {d.vendor for d in whole}


@EACH
def test_every_row_is_plausible(device: Device) -> None:
    """A driver never reports more than the box says, and never a fifth less."""
    assert device.marketing_gb is not None
    assert 0.8 * device.marketing_gb * GIB < device.total_bytes <= device.marketing_gb * GIB
    assert 0 < device.capacity_bytes <= device.total_bytes
    assert device.form in FORMS
    assert device.unified or device.usable_bytes is None
    assert (device.compute_capability is not None) == (device.vendor == "nvidia")
    assert device.name == device.name.lower()


@EACH
def test_every_fact_has_its_source(device: Device) -> None:
    """Each field that is set names where it comes from; what rests on one source says so."""
    known = {name for name in FACTS if getattr(device, name) is not None}
    assert known == set(device.sources)
    assert all(text.strip() for texts in device.sources.values() for text in texts)
    single = {name for name, texts in device.sources.items() if len(texts) < 2}
    assert single - DEFINED <= set(device.unverified) <= known - DEFINED
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", device.date)


def _candidates(name: str) -> str:
    """Return the device that a name finds, or the message that refuses it."""
    try:
        return find_device(name).name
    except InvalidValueError as error:
        return str(error)


@EACH
def test_names_lead_to_the_device_or_to_a_choice(device: Device) -> None:
    """The name always finds its device; a product or alias finds it, or is refused with it among the candidates."""
    assert device == find_device(device.name)
    for name in (device.product, *device.aliases):
        assert device.name in _candidates(name)


def test_names_are_unique() -> None:
    """No two rows share a name, no row repeats one of its own, and no alias is another row's name."""
    owners = defaultdict(set)
    for device in DEVICES:
        names = [normalise(n) for n in (device.name, *device.aliases)]
        assert len(names) == len(set(names)), device.name
        for name in names:
            owners[name].add(device.name)
    assert len(DEVICES) == len({normalise(d.name) for d in DEVICES})
    assert {d.name for d in DEVICES if owners[normalise(d.name)] != {d.name}} == set()


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("RTX 3060", ("rtx-3060-12gb", "rtx-3060-8gb")),
        ("RTX-4060-Ti", ("rtx-4060-ti-16gb", "rtx-4060-ti-8gb")),
        ("NVIDIA GeForce RTX 5060 Ti", ("rtx-5060-ti-16gb", "rtx-5060-ti-8gb")),
        ("GTX 1060", ("gtx-1060-6gb", "gtx-1060-3gb")),
        ("rtx 3080", ("rtx-3080-10gb", "rtx-3080-12gb")),
        ("RTX 3080 Laptop", ("rtx-3080-laptop-16gb", "rtx-3080-laptop-8gb")),
        ("A100", ("a100-sxm-80gb", "a100-sxm-40gb", "a100-pcie-80gb", "a100-pcie-40gb")),
        ("RTX 6000", ("quadro-rtx-6000-24gb", "rtx-6000-ada-48gb")),
        ("Apple M4 Max", ("m4-max-36gb", "m4-max-128gb")),
        ("nvidia.com/mig-1g.10gb", ("a100-40gb-1g.10gb", "a100-80gb-1g.10gb", "h100-80gb-1g.10gb")),
    ],
)
def test_ambiguous_names_are_refused(name: str, candidates: tuple[str, ...]) -> None:
    """A name that several devices share resolves to none; the message lists them."""
    with pytest.raises(InvalidValueError) as caught:
        find_device(name, "--gpu")
    message = str(caught.value)
    assert message.startswith("--gpu: ")
    assert all(candidate in message for candidate in candidates)


@pytest.mark.parametrize("name", ["RTX 3061", "B300X", "A100-80", "3060 laptop 5GB"])
def test_unknown_names_are_refused_with_the_nearest(name: str) -> None:
    """No substring matches; the nearest are listed."""
    with pytest.raises(UnknownNameError, match="is not known"):
        find_device(name)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("NVIDIA-A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "a100-40gb-1g.5gb"),
        ("nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", "a100-80gb-3g.40gb"),
        ("NVIDIA-A100-80GB-PCIe-MIG-1g.10gb", "a100-80gb-1g.10gb"),
        ("NVIDIA-A30-MIG-2g.12gb", "a30-2g.12gb"),
        ("NVIDIA-H100-80GB-HBM3", "h100-sxm-80gb"),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.20gb", "h100-80gb-1g.20gb"),
        ("NVIDIA-H200-MIG-1g.18gb", "h200-141gb-1g.18gb"),
        ("NVIDIA-B200", "b200-sxm-192gb"),
        ("NVIDIA-GB200", "gb200-192gb"),
        ("Tesla-T4", "t4-16gb"),
        ("NVIDIA-L40S", "l40s-48gb"),
        ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition-MIG-1g.24gb", "rtx-pro-6000-server-96gb-1g.24gb"),
    ],
)
def test_kubernetes_labels_are_names(label: str, name: str) -> None:
    """What GPU feature discovery prints as nvidia.com/gpu.product finds the device; it writes spaces as dashes."""
    assert name == find_device(label).name


@pytest.mark.parametrize(
    "name",
    [
        *("A10-24GB", "A100-40GB", "A100-80GB", "A100-SXM-40GB", "A100-SXM-80GB", "A10G-24GB", "Arc-A770-16GB"),
        *("Ascend-910B3-64GB", "B200-192GB", "GB200", "GH200-96GB", "H100-80GB", "H100-96GB", "H100-SXM-80GB"),
        *("H20-96GB", "H200-141GB", "Jetson-Orin-Nano-8GB", "L4-24GB", "L40S-48GB", "RTX-3090-24GB"),
        *("RTX-3090-Ti-24GB", "RTX-4070-12GB", "RTX-4070-Laptop-8GB", "RTX-4090-24GB", "RTX-5090-32GB", "T4-16GB"),
        *("V100-PCIE-16GB", "V100-SXM-16GB", "Apple-M5-24GB"),
    ],
)
def test_devices_of_measured_runs_are_found(name: str) -> None:
    """Names that published measurements use lead to a device of the size they give."""
    size = re.search(r"(\d+)GB$", name)
    assert size is None or int(size[1]) == find_device(name).marketing_gb


@pytest.mark.parametrize(
    ("name", "nvml_mib"),
    [
        ("h100-sxm-80gb", 81559),
        ("a100-sxm-80gb", 81920),
        ("a100-sxm-40gb", 40960),
        ("a10-24gb", 23028),
        ("l40s-48gb", 46068),
        ("l4-24gb", 23034),
        ("t4-16gb", 15360),
        ("h200-sxm-141gb", 143771),
        ("h100-nvl-94gb", 95830),
        ("b200-sxm-192gb", 183359),
        ("rtx-5090-32gb", 32607),
        ("rtx-4090-24gb", 24564),
        ("rtx-3090-24gb", 24576),
        ("rtx-a6000-48gb", 49140),
        ("rtx-pro-6000-96gb", 97887),
        ("rtx-pro-5000-48gb", 48935),
        ("a40-48gb", 46068),
    ],
)
def test_totals_agree_with_nvidia_smi(name: str, nvml_mib: int) -> None:
    """What CUDA sees is nvidia-smi's total less what the driver keeps: something, and at most one part in 25.

    Totals of nvidia-smi: modal-labs/modal-client#2797; skypilot-org/skypilot-catalog, vast/vms.csv;
    thamada/nvidia-smi; public logs.
    """
    assert 0.96 * nvml_mib * MIB <= find_device(name).total_bytes < nvml_mib * MIB


@pytest.mark.parametrize(
    ("name", "total_bytes"),
    [
        ("mi300x-192gb", 206_141_652_992),  # amd-smi
        ("mi355x-288gb", 309_220_868_096),  # rocm-smi
        ("radeon-pro-w7900-48gb", 51_522_830_336),  # rocm-smi
        ("mi50-32gb", 34_342_961_152),  # rocm-smi
        ("arc-a770-16gb", 16_225_243_136),  # sycl-ls of llama.cpp
        ("max-1100-48gb", 51_539_607_552),  # torch.xpu
    ],
)
def test_totals_to_the_byte(name: str, total_bytes: int) -> None:
    """Drivers that print bytes are matched to the byte."""
    assert total_bytes == find_device(name).total_bytes


@pytest.mark.parametrize(
    ("name", "megabytes"),
    [
        ("m3-pro-18gb", 14302.25),
        ("m5-24gb", 19069.67),
        ("m4-32gb", 26800.60),
        ("m4-pro-48gb", 40200.90),
        ("m3-max-64gb", 55662.79),
        ("m4-max-128gb", 115448.73),
        ("m3-ultra-512gb", 498216.21),
    ],
)
def test_apple_shares_are_what_metal_recommends(name: str, megabytes: float) -> None:
    """The GPU's share is recommendedMaxWorkingSetSize as llama.cpp prints it, in millions of bytes, to the MiB."""
    assert find_device(name).capacity_bytes == pytest.approx(megabytes * 1e6, abs=MIB)


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("a100-80gb-1g.10gb", 9.62),
        ("h100-80gb-1g.10gb", 9.75),
        ("h100-80gb-3g.40gb", 39.50),
        ("h200-141gb-3g.71gb", 69.50),
        ("b200-180gb-2g.45gb", 44.25),
        ("gb200-192gb-2g.47gb", 45.50),
    ],
)
def test_slices_are_what_the_driver_lists(name: str, gib: float) -> None:
    """A MIG slice has the memory that nvidia-smi mig -lgip lists, in GiB to two decimals."""
    assert find_device(name).total_bytes / GIB == pytest.approx(gib, abs=0.006)


@pytest.mark.parametrize(
    ("part", "count", "whole"),
    [
        ("a100-40gb-1g.5gb", 7, "a100-sxm-40gb"),
        ("a100-80gb-3g.40gb", 2, "a100-sxm-80gb"),
        ("a30-1g.6gb", 4, "a30-24gb"),
        ("h100-80gb-1g.10gb", 7, "h100-sxm-80gb"),
        ("h100-nvl-94gb-3g.47gb", 2, "h100-nvl-94gb"),
        ("h200-141gb-3g.71gb", 2, "h200-sxm-141gb"),
        ("b200-180gb-2g.45gb", 3, "b200-sxm-192gb"),
        ("rtx-pro-6000-server-96gb-2g.48gb", 2, "rtx-pro-6000-server-96gb"),
    ],
)
def test_slices_fit_their_card(part: str, count: int, whole: str) -> None:
    """As many slices as the driver makes never have more memory or multiprocessors than the card."""
    slice_, card = find_device(part), find_device(whole)
    assert count * slice_.total_bytes <= card.total_bytes
    assert count * (slice_.multiprocessors or 0) <= (card.multiprocessors or 0)
    assert count * (slice_.bandwidth_bytes_per_second or 0) <= (card.bandwidth_bytes_per_second or 0)


def test_a_card_of_this_machine_is_told_by_its_memory() -> None:
    """Of devices with one product name the driver's total decides; an unknown product is nothing."""
    twelve, eight = find_card("NVIDIA GeForce RTX 3060", 12288 * MIB), find_card("NVIDIA GeForce RTX 3060", 8192 * MIB)
    assert twelve is not None
    assert eight is not None
    assert ("rtx-3060-12gb", "rtx-3060-8gb") == (twelve.name, eight.name)
    assert find_card("NVIDIA Something New", GIB) is None


def test_prices_are_dated_and_sourced() -> None:
    """A price names its provider, day, terms and source, and is a plausible hour of one device."""
    priced = [d for d in DEVICES if d.price is not None]
    assert len(priced) >= 15
    for device in priced:
        price = device.price
        assert price is not None
        assert re.fullmatch(r"202[5-9]-\d\d-\d\d", price.date), device.name
        assert price.provider, device.name
        assert price.source, device.name
        assert 0.1 < price.usd_per_hour < 12, device.name


def test_a_price_of_several_is_the_sum() -> None:
    """Three at 4.29 USD an hour cost 12.87; the day stays with it."""
    one = Price(usd_per_hour=4.29, provider="Lambda", date="2026-09-20")
    assert (12.87, "2026-09-20") == (one.times(3).usd_per_hour, one.times(3).date)


def test_only_cards_are_offered_unasked() -> None:
    """Laptops, slices, Macs and cards that engines dropped are found by name and not proposed."""
    offered = {d.name for d in DEVICES if d.offered}
    assert {"h100-sxm-80gb", "l4-24gb", "rtx-4090-24gb", "mi300x-192gb", "b300-sxm-288gb"} <= offered
    for name in ("rtx-4070-laptop-8gb", "h100-80gb-1g.10gb", "m4-max-128gb", "jetson-thor-128gb", "tpu-v6e-32gb"):
        assert name not in offered
    assert not {"p40-24gb", "gtx-1080-ti-11gb", "k80-12gb"} & offered
