"""Whisper and the Omni models: published counts, two caches, what is resident."""

from __future__ import annotations

import pytest

from multimodal_configs import QWEN_2_5_OMNI_7B, WHISPERS
from vramfit.errors import VramfitError
from vramfit.estimate import estimate
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference


@pytest.mark.parametrize("name", WHISPERS)
def test_published_counts(name: str) -> None:
    """The count is the published one, to the unit."""
    config, count = WHISPERS[name]
    assert count == read_config(config, name).num_parameters


def test_a_decoder_keeps_what_was_heard_and_what_it_wrote() -> None:
    """Large v3, 32 layers x 2 x 20 heads x 64 x 2 B: 1,500 vectors of 30 seconds, and up to 448 words."""
    need = estimate(read_config(WHISPERS["whisper-large-v3"][0], "large-v3"), Inference(context_tokens=448, batch=3))
    items = {item.name: item.bytes for item in need.breakdowns[0].items}
    per_token = 32 * 2 * 20 * 64 * 2
    assert items["kv_cache/cross_attention"] == 3 * 1500 * per_token
    assert items["kv_cache/full_attention"] == 3 * 448 * per_token


def test_other_classes_are_refused() -> None:
    """A Whisper that classifies sound has no decoder."""
    config = {**WHISPERS["whisper-tiny"][0], "architectures": ["WhisperForAudioClassification"]}
    with pytest.raises(VramfitError, match="expected one of WhisperForConditionalGeneration"):
        read_config(config, "x")


def test_the_talker_is_resident_where_sound_is_asked_for() -> None:
    """Qwen2.5-Omni 7B: 10,732,225,408 parameters, of which thinker, ears and eyes are 8,931,813,888 (public logs)."""
    whole = read_config(QWEN_2_5_OMNI_7B, "omni")
    assert whole.num_parameters == 10_732_225_408
    quiet = read_config({**QWEN_2_5_OMNI_7B, "enable_audio_output": False}, "omni")
    left = [part for part in quiet.parts if not part.resident]
    assert [part.name for part in left] == ["talker", "token2wav", "vocoder"]
    assert quiet.num_parameters + sum(part.num_parameters for part in left) == whole.num_parameters
