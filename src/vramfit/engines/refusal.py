"""Models that a text server does not load, refused in words that name another engine."""

from __future__ import annotations

from vramfit.errors import UnsupportedModelError
from vramfit.spec import ModelSpec


def refuse_pipelines(model: ModelSpec, engine: str) -> None:
    """Refuse a diffusion pipeline: it has no layers to batch.

    Raises:
        UnsupportedModelError: the engine, and which others to take.
    """
    if not model.layers:
        raise UnsupportedModelError(
            f"workload.engine: {engine!r}: {model.name:.100}: expected a model that generates or encodes text; take "
            "engine generic for a pipeline"
        )


def refuse_encoders(model: ModelSpec, engine: str) -> None:
    """Refuse a model that generates nothing, where the engine only generates.

    Raises:
        UnsupportedModelError: the engine, and which others to take.
    """
    if not model.generates:
        raise UnsupportedModelError(
            f"workload.engine: {engine!r}: {model.name:.100}: expected a model that generates text; take engine "
            "transformers or vllm for embeddings"
        )
