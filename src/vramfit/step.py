"""What one training step costs, block by block: the shape in which activations meet weights, gradients and states.

``memory/tape`` makes these from the layers of a shard; ``timeline`` adds them up over time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStep:
    """One block (a layer, the embedding, the head with its loss) for one micro-batch on one rank. [B]

    Peaks are measured from what the blocks before keep: ``kept`` of all of them and a peak of this block make what is
    alive at that moment, weights, states and gradients of other blocks aside. An input that nobody keeps is in them.
    """

    name: str
    kept: tuple[tuple[str, int], ...]
    """What its forward leaves behind for its backward, by module; under recomputation, the little that is.
    Its output is in it where the next block's backward needs it, its input is not: that is its predecessor's output."""
    forward_bytes: int
    """Most that is alive while its forward runs: what it keeps so far and its temporaries."""
    backward_bytes: int
    """Most that is alive while its backward runs: what it keeps or computes again, the gradient that arrives and the
    one that leaves, temporaries, and the gradients of its own weights as they appear."""
    passing_bytes: int | None = None
    """The same where the gradient of each weight leaves as soon as it is made: added to one that is there already
    (accumulation), written into a framework's buffer, or used up by an optimizer in backward.
    None = not known: ``backward_bytes`` stands for it, which is more."""
    gradient_bytes: int
    """Gradients of its own trained weights that its backward leaves behind, in the format of the weights that its
    forward read: what a framework makes of them afterwards (reduces, divides, casts) is counted beside the blocks."""
    output_bytes: int
    """Its output, which the next block takes as input."""
    cached_bytes: int = 0
    """Cast copies of weights that live until the autocast region ends although its backward does not need them."""

    @property
    def kept_bytes(self) -> int:
        """All that it keeps. [B]"""
        return sum(size for _, size in self.kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """The blocks of one rank in order of the forward pass, equal neighbours together with how many there are."""

    embedding: BlockStep | None
    """What comes before the blocks: the embedding or, on later stages, what arrives, with tables that all blocks share;
    None = nothing."""
    blocks: tuple[tuple[BlockStep, int], ...]
    head: BlockStep | None
    """Final norm, output projection and loss; None = this rank has none."""
    held_bytes: int = 0
    """Logits that the caller holds until the backward pass of all blocks is over; the head's own peaks include them."""
