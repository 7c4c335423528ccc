"""What optimizers keep, worked by hand from their own code for one matrix of 4,096 x 1,024 and one vector."""

from __future__ import annotations

import pytest

from vramfit.formats import Role
from vramfit.memory.optimizer_state import OPTIMIZERS, state_of
from vramfit.training import OPTIMIZERS as NAMES

M, N = 4096, 1024


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("adam", 2 * 2 * M * N),
        ("adamw", 2 * 2 * M * N),
        ("adamw-8bit", 2 * M * N + 2 * 4 * M * N // 256),
        ("paged-adamw", 2 * 4 * M * N),
        ("paged-adamw-8bit", 2 * M * N + 2 * 4 * M * N // 256),
        ("sgd", 0),
        ("sgd-momentum", 2 * M * N),
        ("adafactor", 4 * (M + N)),
        ("lion", 2 * M * N),
        ("muon", 2 * M * N),
        ("galore", 2 * (2 * 128 * M + 128 * N)),
        ("apollo", 2 * (2 * 128 * M + 128 * N)),
        ("shampoo", 2 * 2 * M * N + 2 * 4 * 4 * (1024**2 + 1024**2)),
        ("soap", 2 * 2 * M * N + 2 * 4 * (M * M + N * N)),
        ("sophia", 2 * 2 * M * N),
        ("came", 4 * M * N + 2 * 4 * (M + N)),
    ],
)
def test_states_of_a_matrix(name: str, size: int) -> None:
    """Weights in 16 bit; 8-bit states have a scale for 256 elements, factored ones are sums of rows and columns."""
    assert size == sum(each for _, each in state_of(OPTIMIZERS[name], (M, N), Role.LINEAR, 2))


def test_every_name_has_rules() -> None:
    """The request's vocabulary and the rules are the same list."""
    assert set(NAMES) == set(OPTIMIZERS)


def test_small_tensors_of_8_bit_states_stay_wide() -> None:
    """Below 4,096 elements both moments are fp32."""
    assert 2 * 4 * 4095 == sum(each for _, each in state_of(OPTIMIZERS["adamw-8bit"], (4095,), Role.NORM, 2))


@pytest.mark.parametrize("name", ["muon", "galore", "apollo", "shampoo"])
def test_embeddings_go_to_adamw(name: str) -> None:
    """Optimizers for matrices inside blocks leave the embedding to AdamW: two moments."""
    assert 2 * 2 * M * N == sum(each for _, each in state_of(OPTIMIZERS[name], (M, N), Role.EMBEDDING, 2))
