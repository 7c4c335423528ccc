"""One question to a serving engine, and its readings by name."""

from __future__ import annotations

from typing import Any

from vramfit.catalogue.device import find_device
from vramfit.device import Device
from vramfit.estimate import estimate
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference, Plan
from vramfit.result import Breakdown, Quantity, Reading
from vramfit.source import read_model
from vramfit.spec import ModelSpec

H100 = find_device("h100-sxm-80gb")
LLAMA_8B = "meta-llama/Llama-3.1-8B"


def model(source: str | dict[str, Any]) -> ModelSpec:
    """Return a model of the catalogue or of a configuration."""
    return read_model(source) if isinstance(source, str) else read_config(source, "a test")


def rank(
    source: str | dict[str, Any], workload: Inference, plan: Plan | None = None, device: Device | None = H100
) -> Breakdown:
    """Return the first rank of the answer."""
    return estimate(model(source), workload, plan, device).breakdowns[0]


def readings(
    source: str | dict[str, Any], workload: Inference, plan: Plan | None = None, device: Device | None = H100
) -> dict[Quantity, Reading]:
    """Return what the engine would print on the first rank."""
    return {r.quantity: r for r in rank(source, workload, plan, device).readings}
