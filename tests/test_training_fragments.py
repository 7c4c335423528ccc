"""What the allocator cannot use: of which part of a step it is a share."""

from __future__ import annotations

from dataclasses import replace

from vramfit.framework import Band
from vramfit.result import Counter, Phase, Total
from vramfit.source import read_model
from vramfit.train import estimate_training, fragmented
from vramfit.training import Training

LENGTHS = Band(low_ratio=0.0, expected_ratio=1.0, high_ratio=2.0, source="a test", of_lengths=True)


def test_what_the_optimizer_step_holds_has_no_part_in_holes_of_lengths() -> None:
    """A step of one token has no activations to speak of: full fine-tuning in 16 bit reserves what it allocates."""
    asked = Training(framework="ms-swift", method="full", sequence_tokens=1, recompute="full")
    found = estimate_training(read_model("meta-llama/Llama-3.1-8B"), asked).worst
    (lost,) = (item for item in found.items if item.name == "runtime/fragmentation")
    at_the_step = found.total(Phase.OPTIMIZER, Counter.ALLOCATED).expected_bytes
    assert at_the_step * 0.9 < found.peak(Counter.ALLOCATED).expected_bytes
    assert lost.bytes == found.peak(Counter.ALLOCATED).expected_bytes - at_the_step
    assert lost.bytes < at_the_step / 50


def test_a_share_of_less_than_nothing_is_nothing() -> None:
    """100 B at the peak of which 30 B are steady, at a share of one, lose 70 B; a low peak below them loses none."""
    peak = Total(low_bytes=20, expected_bytes=100, high_bytes=130)
    assert Total(low_bytes=0, expected_bytes=70, high_bytes=200) == fragmented(peak, 30, LENGTHS)
    assert 0 == fragmented(peak, 30, replace(LENGTHS, low_ratio=0.5)).low_bytes
