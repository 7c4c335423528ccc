"""What flows through the blocks of one rank: how many tokens, and in which formats."""

from __future__ import annotations

from dataclasses import dataclass


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
    attention: str = "sdpa"
    recompute: str = "none"
    modules: tuple[str, ...] = ()
    """What selective recomputation names."""
    compiled: bool = False

    @property
    def tokens(self) -> int:
        """Tokens in the matrices."""
        return self.sequences * self.sequence_tokens

    @property
    def outer_tokens(self) -> int:
        """Tokens outside them."""
        return self.tokens // self.share
