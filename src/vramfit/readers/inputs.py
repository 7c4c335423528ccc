"""What servers prepare for a model's inputs: tables of rotary angles, and the largest image.

Nothing here is a weight of the checkpoint; vLLM and SGLang hold both beside the weights.
"""

from __future__ import annotations

from vramfit.readers.fields import LARGEST_CONTEXT, Fields
from vramfit.spec import ImageInput

ROTARY_SECTIONS = ("rope_parameters", "rope_scaling")
STRETCHED = ("linear", "dynamic")
"""Kinds of scaling whose table has ``factor`` times the rows that ``max_position_embeddings`` says.
Source: vllm-project/vllm@v0.19.0:vllm/model_executor/layers/rotary_embedding/linear_scaling_rope.py and
dynamic_ntk_scaling_rope.py, _compute_cos_sin_cache."""
MULTIMODAL_TIMES = 4
"""Rows per position where angles have sections for time, height and width.
Source: vllm-project/vllm@v0.19.0:vllm/model_executor/layers/rotary_embedding/mrope.py, cache_max_position_num."""
SECTIONED = frozenset({
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen2_5_omni", "qwen3_omni_moe", "qwen3_5", "qwen3_5_moe",
})  # fmt: skip
"""Kinds whose angles have sections (``mrope_section``)."""
GEMMA3_FACTOR = 8
"""Linear scaling of the global layers in every published Gemma 3 that sees images
(google/gemma-3-4b-it:config.json, text_config.rope_scaling)."""

POSITIONS = {"gemma3": 131_072, "gemma3_text": 131_072, "qwen2_5_vl": 128_000}
"""Longest context of every published model of a kind, for configurations that leave it out."""
RATIOS = {"qwen3_next": 0.25, "qwen3_5": 0.25, "qwen3_5_moe": 0.25}
"""Class defaults of ``partial_rotary_factor`` in transformers 5.23."""

ROPE_WIDTHS = frozenset({"deepseek_v4"})
"""Kinds that rotate ``qk_rope_head_dim`` of the ``head_dim`` of their windowed heads."""
LLAMA4_TILES = 16
"""Most tiles of one image (meta-llama/Llama-4-Scout-17B-16E-Instruct:preprocessor_config.json, max_patches)."""
_QWEN_IMAGE = ImageInput(tokens=16384, patches=4 * 16384, elements=4 * 16384 * 3 * 2 * 14 * 14)
_KIMI_IMAGE = ImageInput(tokens=1024, patches=4096, elements=4096 * 3 * 14 * 14)
FIXED_IMAGES = {"kimi_vl": _KIMI_IMAGE, "kimi_k25": _KIMI_IMAGE, **dict.fromkeys(SECTIONED, _QWEN_IMAGE)}
"""Largest images that a processor's own default limits (max_pixels 12,845,056; in_token_limit 4,096)."""


def rotary_tables(fields: Fields, kind: str, longest: int | None) -> tuple[tuple[int, ...], float]:
    """Return the rows of every distinct table of rotary angles, and the share of a head that is rotated.

    rows:  max_position_embeddings, times the factor where the scaling stretches the table, times 4 with sections
    """
    text = fields.section("text_config") if isinstance(fields.values.get("text_config"), dict) else fields
    if longest is None and kind in POSITIONS:
        longest = POSITIONS[kind]
        text.assume("max_position_embeddings", longest, "as published for this kind; decides tables of angles only")
    if longest is None:
        return (), 1.0
    scaling = next((text.values[n] for n in ROTARY_SECTIONS if isinstance(text.values.get(n), dict)), {})
    assert isinstance(scaling, dict)
    nested = [part for part in scaling.values() if isinstance(part, dict)]
    factor = max(_factor(part) for part in (nested or [scaling]))
    if kind == "gemma3" and not scaling:
        text.assume("rope_scaling.factor", GEMMA3_FACTOR, "linear, as in every published Gemma 3 that sees images")
        factor = GEMMA3_FACTOR
    times = MULTIMODAL_TIMES if kind in SECTIONED else 1
    tables: tuple[int, ...] = (min(int(longest * factor * times), LARGEST_CONTEXT),)
    if kind.startswith("gemma3"):
        tables = (*tables, longest)
    if kind in ROPE_WIDTHS:
        return tables, min(1.0, text.integer("qk_rope_head_dim", 64) / text.integer("head_dim", 512))
    return tables, _ratio(text, scaling, RATIOS.get(kind, 1.0))


def _factor(scaling: dict[str, object]) -> float:
    """Return how much a scaling stretches the table."""
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if kind not in STRETCHED or isinstance(factor, bool) or not isinstance(factor, int | float):
        return 1.0
    return min(max(float(factor), 1.0), 2.0**16)


def _ratio(text: Fields, scaling: dict[str, object], default: float) -> float:
    """Return ``partial_rotary_factor``, wherever it stands, else the kind's default."""
    found = scaling.get("partial_rotary_factor", text.values.get("partial_rotary_factor"))
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 1:
        return default
    return float(found)


def largest_image(fields: Fields, kind: str) -> ImageInput | None:
    """Return what the largest image takes; None where images are not taken or their size is not known.

        gemma3:    mm_tokens_per_image tokens from image_size^2 pixels
        mistral3:  image_size^2 pixels in patches, spatial_merge_size^2 patches a token
        llama4:    16 tiles and an overview, each image_size^2 pixels, shuffled to 1/4 of its patches
        kimi:      1,024 tokens, each 2 x 2 patches of 14 x 14 pixels (in_token_limit 4,096)
        qwen vl:   16,384 tokens of 28 x 28 pixels (max_pixels 12,845,056)

    Source: vllm-project/vllm@v0.19.0:vllm/model_executor/models/gemma3_mm.py, mistral3.py, mllama4.py, qwen2_vl.py:
    get_num_image_tokens or get_max_image_tokens of each processor.
    """
    if not isinstance(fields.values.get("vision_config"), dict):
        return None
    if kind in FIXED_IMAGES:
        return FIXED_IMAGES[kind]
    vision = fields.section("vision_config")
    side, patch = vision.values.get("image_size"), vision.values.get("patch_size")
    if kind not in {"gemma3", "mistral3", "llama4"} or not isinstance(side, int) or not isinstance(patch, int):
        return None
    patches, tiles = (side // max(patch, 1)) ** 2, 1
    if kind == "gemma3":
        tokens = fields.optional("mm_tokens_per_image") or 256
    elif kind == "mistral3":
        tokens = patches // (fields.optional("spatial_merge_size") or 2) ** 2
    else:
        tiles = LLAMA4_TILES + 1
        tokens = tiles * patches // 4
    elements = tiles * 3 * side * side
    return ImageInput(tokens=max(1, tokens), patches=tiles * patches, elements=elements)
