"""Small configurations with unusual values, one or more for every family: what transformers is asked about."""

from __future__ import annotations

from tiny import (
    dense,
    embedders,
    encoder_decoders,
    encoders,
    forms,
    gemma,
    hybrids,
    mixtures,
    multimodal,
    seeing,
    speech,
)
from tiny.case import Tiny

ALL: tuple[Tiny, ...] = (
    *dense.CASES,
    *forms.CASES,
    *gemma.CASES,
    *mixtures.CASES,
    *hybrids.CASES,
    *multimodal.CASES,
    *encoders.CASES,
    *encoder_decoders.CASES,
    *embedders.CASES,
    *seeing.CASES,
    *speech.CASES,
)
