"""CLIP: two towers, of which the wider one decides, and each of them alone."""

from __future__ import annotations

import pytest

from vramfit.errors import UnsupportedModelError
from vramfit.estimate import estimate
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference

LARGE = {
    "model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": 768, "torch_dtype": "float16",
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
                    "vocab_size": 49_408, "max_position_embeddings": 77},
    "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
                      "num_hidden_layers": 24, "image_size": 224, "patch_size": 14},
}  # fmt: skip


def test_clip_large_has_the_published_count() -> None:
    """427,616,513: a text tower of 123,060,480, one for images of 303,179,776, projections and a scale."""
    assert 123_060_480 + 303_179_776 + 768 * (1024 + 768) + 1 == 427_616_513
    assert 427_616_513 == read_config(LARGE, "CLIP L").num_parameters


def test_the_tower_for_images_alone_reads_patches_and_a_class_token() -> None:
    """16 x 16 patches of 14 pixels and one token: the context is one image, and there is no vocabulary."""
    vision = {**LARGE["vision_config"], "model_type": "clip_vision_model", "architectures": ["CLIPVisionModel"]}  # type: ignore[dict-item]
    spec = read_config(vision, "CLIP L")
    assert (257, None, 303_179_776) == (spec.max_position_embeddings, spec.vocab_size, spec.num_parameters)
    assert any("257 tokens: 16 x 16 patches" in text for text in spec.assumptions)
    assert not any("image" in text for text in estimate(spec, Inference()).not_counted)


@pytest.mark.parametrize(("text", "more"), [(77, 257 * 20_480 - 77 * 15_360), (1, 257 * 20_480 - 15_360)])
def test_the_wider_tower_decides_the_peak(text: int, more: int) -> None:
    """Five images of 257 tokens x 4 x (1,024 + 4,096) elements against texts of 4 x (768 + 3,072) a token, 2 B each."""
    need = estimate(read_config(LARGE, "CLIP L"), Inference(prompt_tokens=text, batch=5))
    found = {i.name: i.bytes for i in need.breakdowns[0].items if i.name.startswith("activations")}
    assert {"activations/prefill": 5 * text * 15_360 * 2, "activations/vision_tower": 5 * more * 2} == found


def test_sections_that_contradict_their_older_copy_are_refused() -> None:
    """Transformers lets the older copy win; which is right is not for us to say."""
    with pytest.raises(UnsupportedModelError, match=r"vision_config_dict\.hidden_size: 768: expected 1024"):
        read_config({**LARGE, "vision_config_dict": {"hidden_size": 768}}, "CLIP L")
