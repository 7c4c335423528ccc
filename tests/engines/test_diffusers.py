"""Pipelines of diffusers: what each component takes and when, by hand and by tracing diffusers' own classes."""

from __future__ import annotations

from typing import Any

import pytest

from alive import alive_at_peak
from vramfit import Inference, estimate
from vramfit.engines.diffusers_items import COGVIDEOX_0_30, DECODERS, TOKEN_WIDTHS, component_bytes
from vramfit.errors import VramfitError
from vramfit.result import Breakdown, Counter, Phase
from vramfit.source import read_model

SDXL, SD3, COGVIDEOX = "stabilityai/stable-diffusion-xl-base-1.0", "sd-3-medium", "THUDM/CogVideoX-5b"


def rank(model: str, **workload: Any) -> Breakdown:
    """Estimate a pipeline."""
    return estimate(read_model(model), Inference(engine="diffusers", **workload)).breakdowns[0]


def size(found: Breakdown, name: str) -> int:
    """Bytes of the item of that name."""
    return next(int(item.bytes) for item in found.items if item.name == name)


def test_stable_diffusion_xl_by_hand() -> None:
    """Weights, the autoencoder again in fp32, 1,024^2 x (3 x 256 + 2 x 128) x 4 B, a workspace; 10.47 GiB printed.

    Source: huggingface/diffusers:docs/source/en/using-diffusers/loading.md.
    """
    found = rank(SDXL, weight_format="fp16")
    by_hand = 2 * 3_468_837_867 + 2 * 83_653_863 + 1024**2 * 1024 * 4 + 32 * 2**20
    assert by_hand == found.peak(Counter.ALLOCATED).expected_bytes
    assert by_hand == pytest.approx(10.47 * 2**30, rel=0.02)


def test_stable_diffusion_3_by_hand() -> None:
    """Decodes in the weights' own 16 bit: 2 GiB over 14.3 of weights; 16.403 GiB printed.

    Source: huggingface/blog:quanto-diffusers.md.
    """
    found = rank(SD3, weight_format="fp16")
    assert 1024**2 * 1024 * 2 == size(found, "activations/decoding")
    assert found.peak(Counter.ALLOCATED).expected_bytes == pytest.approx(16.403 * 2**30, rel=0.01)


def test_cogvideox_by_version() -> None:
    """19.7 GiB printed after loading, 12.0 more at the peak, as 0.30's decoder takes; later ones take 14.7.

    Source: sayakpaul/diffusers-torchao:README.md.
    """
    old, new = (rank(COGVIDEOX, engine_version=v) for v in ("0.30.3", "0.31.0"))
    assert old.total(Phase.LOAD, Counter.ALLOCATED).expected_bytes == pytest.approx(19.7 * 2**30, rel=0.005)
    assert old.peak(Counter.ALLOCATED).expected_bytes == pytest.approx(31.7 * 2**30, rel=0.025)
    assert 480 * 720 * 2 * (DECODERS["AutoencoderKLCogVideoX"].elements(49) - COGVIDEOX_0_30.elements(49)) == (
        size(new, "activations/decoding") - size(old, "activations/decoding")
    )


def test_offload_by_component_and_by_leaf() -> None:
    """The largest component of each phase, wherever it stands; then the largest matrix, T5's 32,128 x 4,096 embedding.

    In Stable Diffusion 1.5 the safety checker comes before the smaller text encoder.
    """
    sizes = component_bytes(read_model(SD3))
    model = rank(SD3, offload="model")
    alive = {item.name: item.phases for item in model.items if item.name.startswith("weights/")}
    assert {
        "weights/text_encoder_3": (Phase.PREFILL,),
        "weights/transformer": (Phase.DECODE,),
        "weights/vae": (Phase.SAMPLE,),
    } == alive
    first = rank("sd-1.5", offload="model")
    assert 2 * 303_981_588 * 2 == size(first, "weights/safety_checker")
    assert all(item.name != "weights/text_encoder" for item in first.items)
    assert 0 == model.total(Phase.LOAD, Counter.ALLOCATED).expected_bytes
    assert sizes["text_encoder_3"] == size(model, "weights/text_encoder_3")
    assert 32128 * 4096 * 2 == size(rank(SD3, offload="sequential"), "weights/one_leaf")


def test_guidance_doubles_a_step_where_both_sides_pass_together() -> None:
    """SD3 passes two sides of 4,096 + 512 tokens, width 1,536; FLUX one, width 3,072."""
    assert int(4608 * 1536 * TOKEN_WIDTHS["SD3Transformer2DModel"]) * 2 * 2 == size(rank(SD3), "activations/denoising")
    flux = rank("black-forest-labs/FLUX.1-dev")
    assert int(4608 * 3072 * TOKEN_WIDTHS["FluxTransformer2DModel"]) * 2 == size(flux, "activations/denoising")


@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
def test_larger_images_never_cost_less(offload: str) -> None:
    """Nor do more of them, however the components wait."""
    sizes = [(512, 1), (768, 1), (1024, 1), (1024, 2), (2048, 4)]
    peaks = [
        rank(SDXL, offload=offload, image_height=side, image_width=side, batch=n).peak().expected_bytes
        for side, n in sizes
    ]
    assert sorted(peaks) == peaks
    assert peaks[-1] > peaks[0]


@pytest.mark.parametrize(
    ("model", "workload", "message"),
    [
        (SDXL, {"image_height": 1001}, "image_height.*multiple of 8"),
        (SDXL, {"frames": 16}, "frames.*makes images"),
        (SDXL, {"context_tokens": 8}, "context_tokens"),
        ("llama-3.1-8b", {}, "expected a pipeline"),
        (SDXL, {"memory_fraction": 0.5}, "memory_fraction"),
    ],
)
def test_what_a_pipeline_refuses(model: str, workload: dict[str, Any], message: str) -> None:
    """Sizes that are no whole latents, frames of an image, lengths, language models, servers' knobs."""
    with pytest.raises(VramfitError, match=message):
        rank(model, **workload)


def traced(cls: str, latents: tuple[int, ...], **config: Any) -> float:
    """Trace one decoding on the meta device. [elements per output pixel]"""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    shapes: list[Any] = []
    with torch.device("meta"):
        model = getattr(diffusers, cls)(**config).to(torch.bfloat16).eval()
        latent = torch.empty(latents, dtype=torch.bfloat16)
    peak = alive_at_peak(model, lambda: shapes.append(model.decode(latent, return_dict=False)[0].shape))
    return float(sum(peak) / 2 / (shapes[0][-1] * shapes[0][-2]))


def test_decoder_of_images_holds_three_times_its_second_level() -> None:
    """3 x 256 channels at full resolution, as ``decoding`` takes for the low end."""
    levels = ("Down", "Up")
    kinds = {f"{way.lower()}_block_types": [f"{way}{side}Block2D"] * 4
             for way, side in zip(levels, ("Encoder", "Decoder"), strict=True)}  # fmt: skip
    found = traced("AutoencoderKL", (1, 16, 32, 32), block_out_channels=[128, 256, 512, 512], latent_channels=16,
                   layers_per_block=2, **kinds)  # fmt: skip
    assert pytest.approx(3 * 256, rel=0.001) == found


@pytest.mark.parametrize(
    ("cls", "latents", "frames"),
    [
        ("AutoencoderKLCogVideoX", (1, 16, 13, 12, 16), 49),
        ("AutoencoderKLWan", (1, 16, 5, 12, 16), 17),
        ("AutoencoderKLLTXVideo", (1, 128, 6, 8, 8), 41),
    ],
)
def test_decoders_of_videos_as_traced(cls: str, latents: tuple[int, ...], frames: int) -> None:
    """The table of traced decoders is what diffusers' own classes hold."""
    assert DECODERS[cls].elements(frames) == pytest.approx(traced(cls, latents), rel=0.02)
