"""Initialisers that draw until every value lies within bounds: without data they would draw for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

ROUNDS = 2
"""Draws that bring nearly all values within two standard deviations: 0.05 to the power of the draws stay outside."""


def draws_until_it_fits(real: Callable[..., Any]) -> bool:
    """Say whether this version of torch draws anew what lies outside, as 2.13 does; older ones need no draws."""
    return "mask" in real.__code__.co_varnames


def trunc_normal(
    tensor: torch.Tensor, mean: float, std: float, a: float, b: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Stand in for ``torch.nn.init._no_grad_trunc_normal_``: the tensors that it makes, for some rounds.

    Source: pytorch/pytorch:torch/nn/init.py, _no_grad_trunc_normal_.
    """
    with torch.no_grad():
        result = tensor.normal_(mean, std, generator=generator)
        for _ in range(ROUNDS):
            mask = (result < a) | (result > b)
            result = torch.where(mask, torch.empty_like(result).normal_(mean, std, generator=generator), result)
        tensor.copy_(result)
    return tensor
