"""The allocator is configured by the text its user would write, version by version."""

from __future__ import annotations

import pytest

from vramfit.errors import VramfitError
from vramfit.trace.allocator_config import AllocatorConfig, config_from_environment, parse_config
from vramfit.units import GIB, MIB


def test_nothing_said_is_the_default() -> None:
    """No text means that nothing is limited, rounded, collected or expandable."""
    assert AllocatorConfig() == parse_config("")
    assert not parse_config("").expandable
    assert parse_config("").max_split_bytes > 10**15


def test_every_option_is_read() -> None:
    """Blanks aside, each option lands in its field."""
    text = (
        "max_split_size_mb: 128, garbage_collection_threshold:0.8,expandable_segments:True,"
        "max_non_split_rounding_mb:64,large_segment_size_mb:32,per_process_memory_fraction:0.5,backend:native,"
        "pinned_num_register_threads:4"
    )
    config = parse_config(text)
    assert (128 * MIB, 64 * MIB, 32 * MIB) == (
        config.max_split_bytes,
        config.max_non_split_rounding_bytes,
        config.large_segment_bytes,
    )
    assert (0.8, 0.5, True) == (config.garbage_collection_threshold, config.memory_fraction, config.expandable)


@pytest.mark.parametrize(
    ("text", "size", "divisions"),
    [
        ("4", 1, 4),
        ("4", 100 * GIB, 4),
        ("[256:1,512:2,1024:4,>:8]", MIB, 1),  # the first pair fills what lies below it
        ("[256:1,512:2,1024:4,>:8]", 300 * MIB, 1),
        ("[256:1,512:2,1024:4,>:8]", 512 * MIB, 2),
        ("[256:1,512:2,1024:4,>:8]", GIB, 8),  # > covers the last named slot
        ("[256:1,512:2,1024:4,>:8]", 64 * GIB, 8),
        ("[64:8,256:4]", 128 * MIB, 0),  # between two named keys nothing is rounded
        ("[64:8,256:4]", GIB, 0),
    ],
)
def test_divisions_by_slot(text: str, size: int, divisions: int) -> None:
    """Each slot gets what the list says, as the parser of torch fills it."""
    assert divisions == parse_config(f"roundup_power2_divisions:{text}").divisions_of(size)


@pytest.mark.parametrize(
    ("text", "version", "said"),
    [
        ("max_split_size:128", (2, 9), "max_split_size_mb"),
        ("large_segment_size_mb:32", (2, 9), r"torch 2\.9; this one came with torch 2\.11"),
        ("max_split_size_mb:20", (2, 4), "a whole number of MiB from 21"),
        ("max_split_size_mb:19", (2, 15), "from 20"),
        ("max_split_size_mb:-1", (2, 15), "from 20"),
        ("large_segment_size_mb:10", (2, 15), "from 11"),
        ("garbage_collection_threshold:1.0", (2, 15), "below 1"),
        ("garbage_collection_threshold:.", (2, 15), "below 1"),
        ("per_process_memory_fraction:1.5", (2, 15), "up to 1"),
        ("expandable_segments:true", (2, 15), "True or False"),
        ("roundup_power2_divisions:3", (2, 15), "power of two"),
        ("roundup_power2_divisions:[3:4]", (2, 15), "a size in MiB that is a power of two"),
        ("roundup_power2_divisions:[]", (2, 15), "power of two"),
        ("backend:cudaMallocAsync", (2, 15), "not simulated"),
        ("expandable_segments", (2, 15), "pairs such as"),
        ("a:b:c", (2, 15), "pairs such as"),
    ],
)
def test_bad_options_are_refused_by_name(text: str, version: tuple[int, int], said: str) -> None:
    """One error names what was seen and what was expected."""
    with pytest.raises(VramfitError, match=said):
        parse_config(text, version)


def test_environment_names() -> None:
    """The newer variable is read from torch 2.9; two that differ are refused, and so is no caching."""
    assert config_from_environment({"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, (2, 9)).expandable
    assert not config_from_environment({"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, (2, 8)).expandable
    both = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    with pytest.raises(VramfitError, match="set one of the two"):
        config_from_environment(both)
    with pytest.raises(VramfitError, match="unset it"):
        config_from_environment({"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
