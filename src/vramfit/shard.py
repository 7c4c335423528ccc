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
    tensor_ranks: int = 1
    """Ranks that divide its matrices; what the model says is divided already."""
    sequence_parallel: bool = False
    """True: those ranks divide the tokens too wherever they do not divide matrices (norms, dropout, residuals)."""
    sequence_ranks: int = 1
    """Ranks over which every sequence is divided (context parallelism): tokens = sequence / this."""
    expert_ranks: int = 1
    """Ranks over which experts are divided; the model holds its share, and tokens come from all of them."""
    expert_tensor_ranks: int = 1
    """Ranks that divide the matrices of each expert."""
    state_ranks: int = 1
    """Ranks over which optimizer states (by ``zero_stage`` gradients and weights too) of common weights are divided."""
    expert_state_ranks: int = 1
    """The same for the weights of routed experts."""
    zero_stage: int = 0
    """What ``state_ranks`` divide: 0 nothing, 1 states, 2 gradients too, 3 weights too."""
    in_flight: int = 1
    """Forward passes of one piece whose activations are held at once at worst: 1 without a pipeline."""
    pieces: int = 1
    """Pieces of the model that this rank holds one after the other (virtual stages); its layers are all of them."""
    num_groups: int = 0
    """Process groups it belongs to, each with a communicator of its own: data, tensor, pipeline, context, expert."""
