"""What flows through the blocks of one rank: how many tokens, and in which formats."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.layer_kind import Experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One micro-batch on one rank, after every parallel cut."""

    sequences: int
    sequence_tokens: int
    """Tokens of one sequence that this rank holds (context parallelism divides them)."""
    key_tokens: int
    """Tokens whose keys and values one query of this rank meets."""
    share: int = 1
    """Ranks among which the tokens outside matrices are divided (sequence parallelism)."""
    each: int = 2
    """Bytes of one element of the activations. [B]"""
    weight_each: int = 2
    """Bytes of one element of the trained weights as autograd sees them, hence of their gradients. [B]"""
    residual_each: int = 2
    """Bytes of one element of the hidden state between blocks. [B]"""
    packed_each: int = 2
    """Bytes of one element in matrices that are stored packed: what they are unpacked to. [B]"""
    attention: str = "sdpa"
    recompute: str = "none"
    modules: tuple[str, ...] = ()
    """What selective recomputation names."""
    compiled: bool = False
    adapter_dropout: bool = False
    """The adapter drops a share of its input."""
    dropout: bool = False
    """Outputs of attention and network are dropped in part (``hidden_dropout``)."""
    score_dropout: bool = False
    """Attention probabilities are dropped in part."""
    source_tokens: int = 0
    """Tokens of one sequence of the stream that cross attention reads."""
    expert_ranks: int = 1
    """Ranks that share out the experts: a rank works on tokens of all of them."""

    expert_tensor_ranks: int = 1
    """Ranks that divide the matrices of an expert: they share their tokens."""
    worst_routing: bool = False
    """True: all tokens go to experts of this rank, as many as it has of those chosen; False: routers are even."""

    def again(self, module: str) -> bool:
        """Say whether selective recomputation names this module."""
        return self.recompute == "selective" and module in self.modules

    def routed_tokens(self, facts: Experts) -> int:
        """Return the rows that the experts of one rank work on."""
        rows = self.outer_tokens * self.expert_tensor_ranks
        if not self.worst_routing:
            return rows * facts.num_experts_per_tok
        local = max(1, facts.num_experts // self.expert_ranks)
        return rows * self.expert_ranks * min(facts.num_experts_per_tok, local)

    @property
    def tokens(self) -> int:
        """Tokens in the matrices."""
        return self.sequences * self.sequence_tokens

    @property
    def outer_tokens(self) -> int:
        """Tokens outside them."""
        return self.tokens // self.share
