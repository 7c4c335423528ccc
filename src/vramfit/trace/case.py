"""What a builder returns: a model, how its inputs are made, and what it is trained for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from vramfit.workload import Workload

Inputs = dict[str, Any]
DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "bf16-mixed": torch.float32,
    "fp16-mixed": torch.float32,
}
"""Precision -> format of weights and inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model, ready to be driven."""

    model: torch.nn.Module
    make_inputs: Callable[[], Inputs]
    """Makes one batch in the memory of the host."""
    loss: Callable[[torch.nn.Module, Inputs], torch.Tensor]
    classes: int | None = None
    """Size of the vocabulary that a generating model draws from; None = it does not generate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a builder is asked for."""

    workload: Workload
    device: torch.device
    dtype: torch.dtype

    @property
    def batch(self) -> int:
        """Samples of one forward pass."""
        return self.workload.batch

    @property
    def tokens(self) -> int:
        """Length of each sample, or what takes its place where none is named."""
        return self.workload.sequence_tokens or 1

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Make new tensors on the device and in the format of the weights."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with self.device:
                yield
        finally:
            torch.set_default_dtype(before)

    def floats(self, *shape: int) -> torch.Tensor:
        """Return random numbers in the memory of the host."""
        return torch.randn(*shape, dtype=self.dtype)


Builder = Callable[[Order, Mapping[str, Any]], Case]


def cross_entropy(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """Return the loss of a classifier: of ``inputs["x"]`` against ``inputs["y"]``."""
    logits = model(inputs["x"])
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), inputs["y"].reshape(-1))


def squared_error(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """Return the mean squared difference of what the model makes of all inputs but ``y``, and ``y``."""
    target = inputs["y"]
    given = {name: value for name, value in inputs.items() if name != "y"}
    return torch.nn.functional.mse_loss(model(**given), target)


def own_loss(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """Return the loss that the model computes itself."""
    loss: torch.Tensor = model(**inputs).loss
    return loss
