"""Small configurations with unusual values, one or more for every family: what transformers is asked about.

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

    @property
    def label(self) -> str:
        """Name of the case in a test's output."""
        return "-".join((self.kind, *map(str, list(self.more)[:3])))


UNIFORM = (
    *(Tiny(kind, {}) for kind in (
        "apertus", "arcee", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "glm", "glm4", "granite", "ministral3",
        "nemotron", "olmo", "olmo2", "olmo3", "phi", "seed_oss", "smollm3", "stablelm", "starcoder2",
    )),
    *(Tiny(kind, BIASED) for kind in ("arcee", "granite", "smollm3", "nemotron", "seed_oss")),
    Tiny("ministral", {"head_dim": 16}),
    Tiny("cohere", {"use_qk_norm": True}),
    Tiny("ernie4_5", {"use_bias": True}),
    Tiny("stablelm", {"use_qkv_bias": True}),
    Tiny("starcoder2", {"use_bias": False, "tie_word_embeddings": False, "sliding_window": 16}),
    Tiny("phi", {"tie_word_embeddings": True}),
    Tiny("gemma", {"tie_word_embeddings": False, "attention_bias": True}),
    Tiny("glm", {"attention_bias": False, "head_dim": 12}),
    Tiny("seed_oss", {"attention_out_bias": True}),
    Tiny("cohere2", {"num_hidden_layers": 6, "sliding_window": 16}),
    Tiny("olmo3", {"num_hidden_layers": 5, "layer_types": ["full_attention", *["sliding_attention"] * 4]}),
    Tiny("exaone4", {"num_hidden_layers": 5, "sliding_window": 16, "sliding_window_pattern": 2}),
    Tiny("ministral", {"sliding_window": 8, "head_dim": 16}),
)  # fmt: skip

ALL: tuple[Tiny, ...] = (*UNIFORM,)
