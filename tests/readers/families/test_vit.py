"""Vision transformers and models in stages at published sizes."""

from __future__ import annotations

from typing import Any

import pytest

from vramfit.errors import InvalidValueError
from vramfit.estimate import estimate
from vramfit.readers.families.staged import UNCOUNTED
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
CLASSES = {"id2label": {str(i): f"class {i}" for i in range(1000)}}
VIT = {"model_type": "vit", "architectures": ["ViTForImageClassification"], **BASE, "image_size": 224,
       "patch_size": 16, **CLASSES}  # fmt: skip
RESNET = {"model_type": "resnet", "architectures": ["ResNetForImageClassification"], "embedding_size": 64,
          "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3], "layer_type": "bottleneck",
          **CLASSES}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (VIT, 86_567_656),  # 12 x 7,087,872; patches 768 x 769; 198 rows of 768; a norm; 1,000 x 769
        (RESNET, 25_557_032),  # torchvision's count of ResNet-50
    ],
)
def test_a_published_model_has_the_published_count(config: dict[str, Any], count: int) -> None:
    """Running statistics of batch norms are buffers and not counted."""
    assert count == read_config(config, "mine").num_parameters


def test_a_batch_of_images_is_a_batch_of_sequences() -> None:
    """Eight images of 14 x 14 patches and a class token: 8 x 197 x 4 x (768 + 3,072) elements of 4 B."""
    need = estimate(read_config(VIT, "ViT"), Inference(batch=8))
    (activations,) = (i.bytes for i in need.breakdowns[0].items if i.name == "activations/prefill")
    assert 8 * 197 * 4 * (768 + 3072) * 4 == activations


def test_feature_maps_are_named_as_not_counted() -> None:
    """Nothing stands in their place, and the answer says so."""
    need = estimate(read_config(RESNET, "ResNet"), Inference(batch=8))
    assert UNCOUNTED in need.not_counted
    assert not [i for i in need.breakdowns[0].items if i.name.startswith("activations")]


@pytest.mark.parametrize(
    ("config", "changed", "path"),
    [
        (VIT, {"image_size": 8}, "image_size"),
        (VIT, {"patch_size": [16, 16, 16]}, "patch_size"),
        (RESNET, {"depths": [3, 4]}, "hidden_sizes"),
        (RESNET, {"layer_type": "wide"}, "layer_type"),
        (RESNET, {"depths": [4096, 4, 6, 3]}, "depths"),
    ],
)
def test_what_makes_no_model_is_refused(config: dict[str, Any], changed: dict[str, Any], path: str) -> None:
    """The field is named."""
    with pytest.raises(InvalidValueError, match=path):
        read_config({**config, **changed}, "mine")
