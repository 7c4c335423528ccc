"""Weights in whole segments: against free memory that SGLang printed, and by hand."""

from __future__ import annotations

import pytest

from published_configs import LLAMA_3_1_8B, llama
from served import model
from vramfit.engines.served_weights import allocations, reserved_bytes, rotary_table_bytes
from vramfit.parallel import shards
from vramfit.request import Plan
from vramfit.units import MIB


def test_projections_of_one_input_are_one_allocation() -> None:
    """Llama 3.1 8B has per layer qkv, o, gate and up, down and two norms: 6; and embeddings, norm and head."""
    shard = shards(model(LLAMA_3_1_8B), Plan())[0]
    sizes = allocations(shard)
    assert 32 * 6 + 3 == len(sizes)
    qkv, gate_up = (4096 + 2 * 1024) * 4096 * 2, 2 * 14336 * 4096 * 2
    assert 32 == sizes.count(qkv)
    assert 32 == sizes.count(gate_up)


def test_nothing_is_lost_by_fusing() -> None:
    """The allocations add up to the parameters in 16 bit: 8,030,261,248 x 2 B."""
    assert 2 * 8_030_261_248 == sum(allocations(shards(model(LLAMA_3_1_8B), Plan())[0]))


@pytest.mark.parametrize(
    ("sizes_mib", "segments_mib"),
    [((11,), 12), ((12,), 12), ((9, 9), 20), ((9, 9, 9), 40), ((0.5, 0.5, 0.5, 0.5), 2), ((9, 10), 30)],
)
def test_segments_by_hand(sizes_mib: tuple[float, ...], segments_mib: int) -> None:
    """Own segments are rounded up to 2 MiB, others share 20 MiB, small ones 2 MiB; 10 MiB counts as large."""
    assert segments_mib * MIB == reserved_bytes(int(s * MIB) for s in sizes_mib)


def test_layers_of_a_quarter_of_qwen3_14b() -> None:
    """On one of four ranks each layer loses 4.5 MiB at the ends of its segments.

    qkv 1,792 x 5,120 x 2 B = 17.5 MiB in 18; o 12.5 in 14; gate and up 85 in 86; down 42.5 in 44.
    """
    config = llama(5120, 40, 40, 8, 17408, 151936, model_type="qwen3", head_dim=128)
    sizes = allocations(shards(model(config), Plan(tp=4))[0])
    large = [size for size in sizes if size >= 10 * MIB][1:-1]
    assert 4 * 40 == len(large)
    assert int(40 * 4.5 * MIB) == reserved_bytes(large) - sum(large)


def test_positions_have_one_table_for_a_head_width() -> None:
    """131,072 positions x 128 x 4 B = 64 MiB, however many layers use it."""
    shard = shards(model(LLAMA_3_1_8B), Plan())[0]
    assert 64 * MIB == rotary_table_bytes(shard, 131_072, 4)
