"""Traced = real: the same program on the CPU asks for the same bytes, at the same peak."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

from cpu_witness import on_cpu, traced

Function = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
CASES: dict[str, Function] = {
    "residual": lambda x, w, b: x + torch.tanh(x),
    "used three times": lambda x, w, b: x + torch.sigmoid(x) * x,
    "four paths meet": lambda x, w, b: x * 1.0 + x.exp() + x.sin() + x.cos(),
    "slices of one gradient meet": lambda x, w, b: torch.cat([x, x], -1)[:, :64] + x.view(-1, 64),
    "norm": lambda x, w, b: F.layer_norm(x, (64,)) + x,
    "one weight used twice": lambda x, w, b: F.linear(x, w, b) + F.linear(x, w, b),
    "softmax": lambda x, w, b: F.softmax(x, -1) * x,
    "broadcast": lambda x, w, b: x + x[:1].expand(512, 64) * 2,
    "chunks": lambda x, w, b: torch.cat([x.chunk(2, -1)[0] * x.chunk(2, -1)[1], x.chunk(2, -1)[1]], -1) + x,
    "transposed": lambda x, w, b: (x.t() * 2).t() + x.exp(),
    "attention by hand": lambda x, w, b: torch.softmax((x @ w) @ x.t() / 8, -1) @ x + x,
}


@pytest.mark.witness
@pytest.mark.parametrize("name", CASES)
def test_gradients_meet_as_in_a_real_run(name: str) -> None:
    """Sums of gradients are made in place or not exactly where the real engine makes them so."""
    function = CASES[name]

    def run(device: str) -> None:
        leaf = torch.randn(512, 64, device=device, requires_grad=True)
        weight = torch.randn(64, 64, device=device, requires_grad=True)
        bias = torch.randn(64, device=device, requires_grad=True)
        for _ in range(2):
            out = function(leaf * 2.0, weight, bias)
            out.backward(torch.ones_like(out))
            del out

    assert on_cpu(run) == traced(run)


class Block(nn.Module):  # type: ignore[misc] # mypy does not read torch
    """A residual block that uses its second layer twice."""

    def __init__(self) -> None:
        """Make three layers."""
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(64), nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return x + self.down(torch.sigmoid(self.up(x))) * x


@pytest.mark.witness
def test_training_with_accumulation_equals_a_real_run() -> None:
    """Two steps of two accumulated micro-batches, momentum, a loss that keeps its storage: equal peak, equal sizes."""

    def run(device: str) -> None:
        model = nn.Sequential(Block(), Block()).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True)
        x = torch.randn(512, 64, device=device)
        for _ in range(2):
            for _ in range(2):
                F.mse_loss(model(x), x).backward()
            optimizer.step()
            optimizer.zero_grad()

    real, seen = on_cpu(run), traced(run)
    assert real[0] + 2 * 64 * 4 * 12 >= seen[0] >= real[0]  # the weights begin on the host in the trace
    assert {size: real[1][size] for size in (131072, 16384)} == {size: seen[1][size] for size in (131072, 16384)}
