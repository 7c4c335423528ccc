"""What no text server loads is refused before anything is counted."""

from __future__ import annotations

import pytest

from served import model
from vramfit.errors import UnsupportedModelError
from vramfit.estimate import estimate
from vramfit.request import Inference


@pytest.mark.parametrize("engine", ["sglang", "tgi", "lmdeploy", "tensorrt-llm"])
def test_pipelines_have_no_layers_to_batch(engine: str) -> None:
    """Stable Diffusion XL is none of their models; the message names another engine."""
    with pytest.raises(UnsupportedModelError, match=rf"'{engine}': .*expected a model that .* take engine generic"):
        estimate(model("stabilityai/stable-diffusion-xl-base-1.0"), Inference(engine=engine))


@pytest.mark.parametrize("engine", ["tgi", "lmdeploy"])
def test_encoders_generate_nothing(engine: str) -> None:
    """BERT has no next token; servers that only generate refuse it."""
    with pytest.raises(UnsupportedModelError, match="expected a model that generates text; take engine transformers"):
        estimate(model("google-bert/bert-base-uncased"), Inference(engine=engine))
