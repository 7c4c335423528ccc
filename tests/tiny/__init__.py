"""Small configurations with unusual values, one or more for every family: what transformers is asked about."""

from __future__ import annotations

from tiny import dense, hybrids, mixtures, multimodal, speech
from tiny.case import Tiny

ALL: tuple[Tiny, ...] = (*dense.CASES, *mixtures.CASES, *hybrids.CASES, *multimodal.CASES, *speech.CASES)
