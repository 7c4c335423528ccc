"""What one rank holds: a smaller model, and how many ranks look the same."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One distinct rank of a plan. No formula below sees a parallel degree."""

    label: str
    num_ranks: int
    """How many ranks hold the same."""
    model: ModelSpec
    """The model cut down: fewer layers, narrower matrices, fewer heads."""
    first: bool
    """Holds the token embeddings."""
    last: bool
    """Holds the final norm and the output projection, hence computes logits."""
    vocab_size: int = 0
    """Entries of the whole vocabulary, of which this rank may hold a part; 0 = as the model says."""
    num_peers: int
    """Other ranks it exchanges activations with; 0 = it works alone."""
