"""One small configuration for a witness: how it differs from the usual one.

Widths are odd on purpose: two that are equal by chance hide a swapped axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BASE: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2,
    "intermediate_size": 112, "vocab_size": 101, "max_position_embeddings": 50, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
BIASED = {"mlp_bias": True, "attention_bias": True, "head_dim": 24, "tie_word_embeddings": False}


@dataclass(frozen=True)
class Tiny:
    """One case: what is called and how it differs from the usual one."""

    kind: str
    more: dict[str, Any]
    cls: str | None = None
    """Class of transformers; None = the one for causal language models."""
    own: bool = False
    """True: ``more`` is the whole configuration."""

    @property
    def values(self) -> dict[str, Any]:
        """The configuration, without its type."""
        return dict(self.more) if self.own else {**BASE, **self.more}

    @property
    def config(self) -> dict[str, Any]:
        """What a ``config.json`` would hold."""
        return {"model_type": self.kind, **self.values, **({"architectures": [self.cls]} if self.cls else {})}
