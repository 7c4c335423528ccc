"""Hugging Face diffusers: a pipeline reads the prompt, denoises latents step by step, and decodes them to pixels.

The three happen one after the other, and so do their peaks: PREFILL is the reading, DECODE a denoising step, SAMPLE the
decoding of the latents. Components wait on the device (the default), on the host as wholes
(``enable_model_cpu_offload``) or leaf by leaf (``enable_sequential_cpu_offload``).
Read from, and traced on, 0.30.3, 0.31.0, 0.33.0 and 0.42.1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vramfit.device import Device
from vramfit.engine import EngineProfile
from vramfit.engines.diffusers_items import ITEMS, autoencoder, denoiser, frames_of
from vramfit.engines.library import library
from vramfit.engines.open_field import fill
from vramfit.errors import ImpossiblePlanError, InvalidValueError
from vramfit.memory.runtime import allocator_rounding
from vramfit.memory.weights import staging
from vramfit.pipeline import Component
from vramfit.request import Inference, Plan
from vramfit.result import Choice
from vramfit.spec import ModelSpec

KNOBS = frozenset({"image_height", "image_width", "frames", "offload"})

_FROM_0_30 = EngineProfile(
    name="diffusers",
    version="0.30",
    checked="0.30.3",
    attention="sdpa",
    prefill_chunk_tokens=None,
    experts_at_once=False,
    not_counted=(
        "adapters, ControlNets and IP-Adapters beside the pipeline",
        "encoding of input images or videos to latents",
        "cached blocks that the allocator gives back when memory runs short: nvidia-smi may show more than is needed",
    ),
)
PROFILES = (_FROM_0_30, replace(_FROM_0_30, version="0.31", checked="0.31.0, 0.33.0 and 0.42.1"))

DEFAULT_SIZES: dict[str, tuple[int, int, int]] = {
    "FluxTransformer2DModel": (1024, 1024, 1),
    "SD3Transformer2DModel": (1024, 1024, 1),
    "PixArtTransformer2DModel": (1024, 1024, 1),
    "QwenImageTransformer2DModel": (1024, 1024, 1),
    "CogVideoXTransformer3DModel": (480, 720, 49),
    "WanTransformer3DModel": (480, 832, 81),
    "LTXVideoTransformer3DModel": (512, 704, 161),
    "HunyuanVideoTransformer3DModel": (720, 1280, 129),
}
"""Height, width and frames that a pipeline makes when none are given, by the class of its denoiser.
Source: huggingface/diffusers@v0.42.1:src/diffusers/pipelines/*/pipeline_*.py, ``__call__``, ``default_sample_size``."""
UNET_SIDE, LARGE_UNET_SIDE = 512, 1024
"""Stable Diffusion 1 and XL: sample_size 64 and 128 of 8 pixels; XL is told by its second text encoder."""
USUAL = (1024, 1024, 1)


def defaults(
    model: ModelSpec, workload: Inference, engine: EngineProfile, device: Device | None
) -> tuple[Inference, tuple[Choice, ...]]:
    """Fill in the size of the image as the pipeline does, and leave all components on the device."""
    del engine, device
    found = denoiser(model)
    if found is None:
        return workload, ()
    height, width, frames = _default_size(model, found[0])
    why = f"default of a pipeline with {found[0].class_name}"
    wanted: dict[str, tuple[Any, str]] = {
        "image_height": (height, why),
        "image_width": (width, why),
        "frames": (frames, why),
        "offload": ("none", "every component stays on the device"),
    }
    return fill(workload, wanted)


def _default_size(model: ModelSpec, found: Component) -> tuple[int, int, int]:
    if found.class_name == "UNet2DConditionModel":
        large = any(c.name == "text_encoder_2" for c in model.components)
        side = LARGE_UNET_SIDE if large else UNET_SIDE
        return side, side, 1
    return DEFAULT_SIZES.get(found.class_name, USUAL)


def check(model: ModelSpec, workload: Inference, plan: Plan) -> None:
    """Refuse what the pipeline refuses: no pipeline, a size that is no whole number of latents, frames of an image.

    Raises:
        ImpossiblePlanError: a model without a denoiser.
        InvalidValueError: a size that does not divide.
    """
    del plan
    found, pixels = denoiser(model), autoencoder(model)
    if found is None:
        raise ImpossiblePlanError(
            f"workload.engine: 'diffusers': expected a pipeline with a denoiser, {model.name} is none; "
            "for language models take transformers or a server"
        )
    if pixels is None:
        return
    ratio = pixels[1].spatial_ratio
    for name in ("image_height", "image_width"):
        if getattr(workload, name) % ratio:
            raise InvalidValueError(f"workload.{name}", getattr(workload, name), f"a multiple of {ratio} pixels")
    if frames_of(workload) > 1 and pixels[1].temporal_ratio == 1 and len(found[1].patch_size) and not _films(found[0]):
        raise InvalidValueError("workload.frames", workload.frames, f"1: {found[0].class_name} makes images")


def _films(found: Component) -> bool:
    """Say whether a denoiser makes videos."""
    return DEFAULT_SIZES.get(found.class_name, (0, 0, 2))[2] > 1 and found.class_name != "UNet2DConditionModel"


ENGINE = replace(
    library(PROFILES),
    components=(*ITEMS, staging, allocator_rounding),
    defaults=defaults,
    check=check,
    knobs=KNOBS,
    pipelines=True,
)
