"""What a step keeps and makes for a while is what the real optimizers do on meta tensors, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vramfit.readers.hf_config import read_config
from vramfit.result import Breakdown
from vramfit.spec import ModelSpec, inventory
from vramfit.train import estimate_training
from vramfit.training import Training

pytestmark = pytest.mark.witness
FEW = 64 * 128
"""Bytes of means and counters, a few numbers for every tensor. [B]"""
CONFIG = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2, "vocab_size": 1024,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": False,
}  # fmt: skip
FORMATS = {"bf16": 2, "fp32": 4}


def answered(model: ModelSpec, **fields: Any) -> Breakdown:
    """Return what we say of a training of that model."""
    return estimate_training(model, Training(sequence_tokens=32, **fields)).breakdowns[0]


def stepped(model: ModelSpec, precision: str, make: Callable[[Any], Any]) -> tuple[int, int]:
    """Return what a real optimizer holds after its first step, and the most beyond it in the second. [B]"""
    import torch

    from liveness import Alive

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    weights = [torch.nn.Parameter(torch.empty(t.shape, dtype=dtype, device="meta")) for t in inventory(model)]
    alive, optimizer = Alive(), make(weights)
    for weight in weights:
        weight.grad = torch.empty_like(weight)
        for known in (weight, weight.grad):
            storage = known.untyped_storage()
            alive.known[storage._cdata] = (storage, 0)
    with alive:
        optimizer.step()
        kept = alive.live
        alive.most = kept
        optimizer.step()
    return kept, alive.most - kept


def adamw(weights: Any, **how: bool) -> Any:
    """Make torch's AdamW."""
    import torch

    return torch.optim.AdamW(weights, **how)


def sgd(weights: Any, **how: float) -> Any:
    """Make torch's SGD."""
    import torch

    return torch.optim.SGD(weights, lr=0.1, **how)


def adafactor(weights: Any) -> Any:
    """Make the Adafactor of transformers as its Trainer does."""
    from transformers.optimization import Adafactor

    return Adafactor(weights, lr=0.1, scale_parameter=False, relative_step=False)


CASES = [
    ("adamw", "foreach", lambda w: adamw(w, foreach=True)),
    ("adamw", "for-loop", lambda w: adamw(w, foreach=False)),
    ("sgd", "foreach", lambda w: sgd(w, foreach=True)),
    ("sgd-momentum", "foreach", lambda w: sgd(w, foreach=True, momentum=0.9)),
    ("sgd-momentum", "for-loop", lambda w: sgd(w, foreach=False, momentum=0.9)),
    ("adafactor", "for-loop", adafactor),
]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(("name", "implementation", "make"), CASES, ids=lambda x: x if isinstance(x, str) else "")
def test_steps_equal_real_ones(name: str, implementation: str, make: Callable[[Any], Any], precision: str) -> None:
    """States after the first step, and what the second one makes beside them."""
    model = read_config(CONFIG, "small")
    rank = answered(model, precision=precision, optimizer=name, optimizer_implementation=implementation)
    ours = {i.name: i.bytes for i in rank.items if i.name.startswith("optimizer/")}
    temporary = ours.pop("optimizer/step_temporaries", 0)
    kept, made = stepped(model, precision, make)
    assert kept == pytest.approx(sum(ours.values()), abs=FEW)
    assert made == pytest.approx(temporary, abs=FEW)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_muon_keeps_one_moment_of_matrices(precision: str) -> None:
    """Torch's Muon takes matrices inside blocks; what its step makes stays below what we say."""
    import torch

    model = read_config(CONFIG, "small")
    inside = [t for layer in model.layers for t in layer.tensors if len(t.shape) > 1]
    from liveness import Alive

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    weights = [torch.nn.Parameter(torch.empty(t.shape, dtype=dtype, device="meta")) for t in inside]
    alive, optimizer = Alive(), torch.optim.Muon(weights)
    for weight in weights:
        weight.grad = torch.empty_like(weight)
        for known in (weight, weight.grad):
            alive.known[known.untyped_storage()._cdata] = (known.untyped_storage(), 0)
    with alive:
        optimizer.step()
        kept, alive.most = alive.live, alive.live
        optimizer.step()
    rank = answered(model, precision=precision, optimizer="muon")
    ours = {i.name: i.bytes for i in rank.items if i.name.startswith("optimizer/")}
    outside = sum(FORMATS[precision] * 2 * t.num_parameters for t in inventory(model)) - 2 * kept
    assert kept + outside == sum(v for k, v in ours.items() if k != "optimizer/step_temporaries")
    assert alive.most - kept <= ours["optimizer/step_temporaries"]
