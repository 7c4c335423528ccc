"""Gemma 2 and 3: four norms, alternating windows, tied embeddings, and the vision tower of Gemma 3."""

from __future__ import annotations

import pytest

from published_configs import GEMMA_2_27B, GEMMA_3_1B, GEMMA_3_4B, SIGLIP
from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import ModelSpec, inventory


def windows(spec: ModelSpec) -> list[int | None]:
    """Return the window of each layer."""
    return [layer.attention.window_tokens for layer in spec.layers if isinstance(layer.attention, GroupedQuery)]


def test_gemma_2_slides_in_every_other_layer_from_the_first() -> None:
    """46 layers: 23 of each kind, two objects."""
    spec = read_config(GEMMA_2_27B, "27B")
    assert [4096, None] * 23 == windows(spec)
    assert 2 == len({id(layer) for layer in spec.layers})


def test_gemma_3_slides_in_five_of_six_layers() -> None:
    """26 layers: the sixth, twelfth ... see everything, the last two slide."""
    assert ([512] * 5 + [None]) * 4 + [512] * 2 == windows(read_config(GEMMA_3_1B, "1B"))
    assert ([512] * 2 + [None]) * 8 + [512] * 2 == windows(
        read_config({**GEMMA_3_1B, "sliding_window_pattern": 3}, "1B")
    )


def test_layer_types_decide() -> None:
    """Files written by newer versions list every layer."""
    types = ["full_attention"] * 25 + ["sliding_attention"]
    assert [None] * 25 + [512] == windows(read_config({**GEMMA_3_1B, "layer_types": types}, "1B"))


def test_only_gemma_3_has_norms_on_queries_and_keys() -> None:
    """Both have four norms a block."""
    for config, expected in ((GEMMA_2_27B, 4), (GEMMA_3_1B, 6)):
        assert expected == sum("norm" in t.name for t in read_config(config, "mine").layers[0].tensors)


def test_gemma_is_tied_unless_it_says_otherwise() -> None:
    """The files leave the field out; transformers ties."""
    bare = {k: v for k, v in GEMMA_3_1B.items() if k != "tie_word_embeddings"}
    spec = read_config(bare, "1B")
    assert spec.tied
    assert 999_885_952 == spec.num_parameters
    assert any(text.startswith("tie_word_embeddings = True") for text in spec.assumptions)
    loose = read_config({**bare, "tie_word_embeddings": False}, "1B")
    assert 262144 * 1152 == loose.num_parameters - spec.num_parameters


def test_the_vision_tower_is_a_resident_part() -> None:
    """SigLIP: 27 blocks of 4 h^2 + 2 h w + 9 h + w; patches, positions, last norm; projector and its norm."""
    spec = read_config(GEMMA_3_4B, "4B")
    h, w = 1152, 4304
    block = 4 * h * h + 4 * h + 2 * h * w + h + w + 4 * h
    outside = h * 3 * 14 * 14 + h + (896 // 14) ** 2 * h + 2 * h
    (part,) = spec.parts
    assert part.resident
    assert 27 * block + outside + h * 2560 + h == part.num_parameters
    names = {t.name for t in inventory(spec)}
    assert "language_model.model.layers.33.self_attn.q_norm.weight" in names
    assert "vision_tower.vision_model.encoder.layers.26.mlp.fc2.bias" in names
    assert "multi_modal_projector.mm_input_projection_weight" in names


def test_a_vision_section_left_out_is_siglip_by_default() -> None:
    """The class in transformers builds the tower all the same, so it is counted, and each default recorded."""
    spec = read_config({k: v for k, v in GEMMA_3_4B.items() if k != "vision_config"}, "4B")
    assert 12 == len(spec.parts[0].layers)
    assert any(text.startswith("vision_config.hidden_size = 768") for text in spec.assumptions)


def test_other_towers_and_patches_larger_than_the_image_are_refused() -> None:
    """Neither has a count we know."""
    with pytest.raises(UnsupportedModelError, match=r"vision_config\.model_type: 'clip_vision_model'"):
        read_config({**GEMMA_3_4B, "vision_config": {**SIGLIP, "model_type": "clip_vision_model"}}, "4B")
    with pytest.raises(InvalidValueError, match=r"vision_config\.image_size: 8: expected an integer from 14"):
        read_config({**GEMMA_3_4B, "vision_config": {**SIGLIP, "image_size": 8}}, "4B")


def test_an_encoder_made_of_gemma_is_refused() -> None:
    """EmbeddingGemma looks both ways: no cache, no next token."""
    with pytest.raises(UnsupportedModelError, match="use_bidirectional_attention: True: makes an encoder"):
        read_config({**GEMMA_3_1B, "use_bidirectional_attention": True}, "mine")


def test_of_two_words_on_tying_the_outer_one_holds() -> None:
    """The class with the vision tower reads its own field, not the text model's."""
    text = {**GEMMA_3_4B["text_config"], "tie_word_embeddings": True}
    assert not read_config({**GEMMA_3_4B, "tie_word_embeddings": False, "text_config": text}, "4B").tied
    text["tie_word_embeddings"] = False
    assert not read_config({**GEMMA_3_4B, "text_config": text}, "4B").tied
