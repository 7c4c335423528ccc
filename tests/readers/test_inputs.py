"""Tables of rotary angles and the largest image, from configurations."""

from __future__ import annotations

import pytest

from published_configs import LLAMA_3_1_8B, SIGLIP
from vramfit.readers.fields import Fields
from vramfit.readers.inputs import largest_image, rotary_tables
from vramfit.spec import ImageInput


@pytest.mark.parametrize(
    ("scaling", "rows"),
    [
        (None, 8192),
        ({"rope_type": "llama3", "factor": 8.0}, 8192),
        ({"rope_type": "yarn", "factor": 4.0}, 8192),
        ({"type": "linear", "factor": 4.0}, 32768),
        ({"rope_type": "dynamic", "factor": 2}, 16384),
    ],
)
def test_only_stretching_scalings_lengthen_the_table(scaling: dict[str, object] | None, rows: int) -> None:
    """Linear and dynamic scaling: max_position_embeddings x factor; the others keep it."""
    fields = Fields({**LLAMA_3_1_8B, "rope_scaling": scaling})
    assert ((rows,), 1.0) == rotary_tables(fields, "llama", 8192)


def test_gemma_3_has_a_long_table_and_a_short_one() -> None:
    """Global layers are scaled by 8 where the configuration does not say, which is recorded; local ones are not."""
    fields = Fields({"model_type": "gemma3", "text_config": {"hidden_size": 2560}})
    assert (1_048_576, 131_072) == rotary_tables(fields, "gemma3", None)[0]
    assert 2 == len(fields.assumed)


def test_sections_for_images_take_four_rows_a_position() -> None:
    """MRotaryEmbedding: cache_max_position_num = 4 x max_position_embeddings."""
    assert ((4 * 32768,), 1.0) == rotary_tables(Fields({}), "qwen2_vl", 32768)


def test_half_rotated_heads_halve_the_table() -> None:
    """partial_rotary_factor, wherever it stands; the class default of Qwen3-Next is a quarter."""
    assert 0.5 == rotary_tables(Fields({"partial_rotary_factor": 0.5}), "glm", 100)[1]
    assert 0.25 == rotary_tables(Fields({}), "qwen3_next", 100)[1]


def test_largest_images() -> None:
    """Gemma 3: 256 tokens of 896 x 896; Mistral Small 3.1: (1540 / 14 / 2)^2 = 3,025; text: none."""
    gemma = Fields({"vision_config": dict(SIGLIP), "mm_tokens_per_image": 256})
    assert ImageInput(tokens=256, patches=4096, elements=3 * 896 * 896) == largest_image(gemma, "gemma3")
    mistral = Fields({"vision_config": {"image_size": 1540, "patch_size": 14}, "spatial_merge_size": 2})
    assert ImageInput(tokens=3025, patches=12100, elements=3 * 1540 * 1540) == largest_image(mistral, "mistral3")
    assert largest_image(Fields({}), "llama") is None
