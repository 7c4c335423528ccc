"""A widely quoted rule, worked through with numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a rule, with the numbers in it."""

    label: str
    formula: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule as quoted, worked through."""

    name: str
    steps: tuple[Step, ...]
    source: str
    ignores: tuple[str, ...]
    mistake: str | None = None
    """Why this one is wrong, when it is shown only to be explained; None = it is a usable first guess."""

    @property
    def result_bytes(self) -> int:
        """What the rule says. [B]"""
        return self.steps[-1].bytes
