"""What a training process takes beside the model."""

from __future__ import annotations

import pytest

from vramfit.catalogue.device import find_device
from vramfit.readers.hf_config import read_config
from vramfit.request import Plan
from vramfit.result import Quantity
from vramfit.train import estimate_training
from vramfit.training import Training
from vramfit.training_result import TrainingEstimate
from vramfit.units import MIB

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 128, "num_hidden_layers": 1, "vocab_size": 64, "tie_word_embeddings": False,
}  # fmt: skip


def trained(version: str, plan: Plan | None = None) -> TrainingEstimate:
    """A step of the Trainer of that version on a V100."""
    training = Training(framework="transformers", framework_version=version, sequence_tokens=64)
    device = find_device("V100-SXM-16GB")
    return estimate_training(read_config(CONFIG, "small"), training, plan=plan or Plan(), device=device)


def named(found: TrainingEstimate, name: str) -> int:
    """Bytes of one item of the first rank."""
    return sum(item.bytes for item in found.breakdowns[0].items if item.name == name)


@pytest.mark.parametrize(("version", "low", "high"), [("4.17", 1200, 1400), ("4.40", 350, 500)])
def test_torch_1_loads_all_kernels_at_once(version: str, low: int, high: int) -> None:
    """The documentation of transformers 4.17 reads 1343 MiB on a V100 before there is a model."""
    found = trained(version)
    context = named(found, "runtime/cuda_context") + named(found, "runtime/loaded_kernels")
    assert low * MIB < context < high * MIB
    readings = {one.quantity: one.value for one in found.breakdowns[0].readings}
    assert readings[Quantity.PROCESS_PEAK] - readings[Quantity.RESERVED_PEAK] >= context


def test_one_communicator_for_each_group() -> None:
    """Two axes of the mesh are two groups."""
    one, two = (trained("4.40", Plan(dp_shard=2, dp_replicate=n)) for n in (1, 2))
    assert named(one, "runtime/collectives")
    assert named(two, "runtime/collectives") in {n * named(one, "runtime/collectives") for n in (1, 2, 3)}
