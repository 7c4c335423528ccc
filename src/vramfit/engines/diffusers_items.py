"""What a diffusion pipeline holds: components on the device or waiting, one denoising step, the decoding of latents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from vramfit.engine import Component as Counting
from vramfit.engine import EngineProfile
from vramfit.formats import FP32
from vramfit.pipeline import Autoencoder, Component, Denoiser, Encoder
from vramfit.request import Inference
from vramfit.result import ALWAYS, Basis, Counter, Item, Phase, exactly
from vramfit.shard import Shard
from vramfit.spec import ModelSpec, Tensor, layer_groups
from vramfit.units import Size, ceil_div

READING, DENOISING, DECODING = Phase.PREFILL, Phase.DECODE, Phase.SAMPLE
RUNNING = (READING, DENOISING, DECODING)

GUIDED_TOGETHER = frozenset({
    "UNet2DConditionModel", "SD3Transformer2DModel", "PixArtTransformer2DModel", "CogVideoXTransformer3DModel",
    "LTXVideoTransformer3DModel",
})  # fmt: skip
"""Denoisers that pass the guided and the unguided side of a step as one batch; others pass them one after the other,
or take the guidance as a number. Source: huggingface/diffusers@v0.42.1:src/diffusers/pipelines, latent_model_input."""

TOKEN_WIDTHS = {
    "SD3Transformer2DModel": 12.5,
    "CogVideoXTransformer3DModel": 13.0,
    "PixArtTransformer2DModel": 12.4,
    "WanTransformer3DModel": 11.3,
    "QwenImageTransformer2DModel": 15.2,
    "FluxTransformer2DModel": 17.4,
}
"""Hidden states alive per token at the widest moment of a transformer block, traced on diffusers 0.42.1: residual,
norm, modulation, 4 h before and after the activation; FLUX's single blocks hold attention and feed-forward together."""
USUAL_WIDTH = 14.0
TOKEN_BAND = (0.7, 1.3)
"""Attention kernels' own copies are not in the trace."""
TEXT_TOKENS = 512
"""Tokens of a prompt where the encoder has no limit of its own: T5's length in FLUX and SD3 is at most this."""
FRAGMENT_RATIO = 0.4
"""Memory that torch reserves beyond what was allocated at the peak, over the activations. FLUX.1-dev: 36.2 for 33.9
GiB with 31.4 loaded; ConsisID: 44 for 37 GiB (huggingface/diffusers:docs/source/en/api/pipelines/consisid.md)."""


BUFFER_RATIO = 0.01
"""Tables that are in no file (positions, frequencies) and roundings, over the weights: at most. CogVideoX-5b printed
19.7 and 10.3 GiB after loading where its tensors take 19.65 and 10.24."""


@dataclass(frozen=True, slots=True)
class Traced:
    """What decoding holds at its peak, traced on the meta device. [elements per output pixel]"""

    fixed: int
    """Whatever the length: these autoencoders decode a few frames at a time."""
    per_frame: float
    """More for every frame."""

    def elements(self, frames: int) -> int:
        """Elements per output pixel for a video of that length."""
        return self.fixed + int(self.per_frame * frames)


COGVIDEOX_0_30 = Traced(17_609, 0.06)
"""Two latent frames at a time, caches of the convolutions included, as 0.30.3 did it: 11.3 GiB at 480 x 720."""
DECODERS = {
    "AutoencoderKLCogVideoX": Traced(22_890, 0.07),
    "AutoencoderKLWan": Traced(5_061, 3.07),
    "AutoencoderKLQwenImage": Traced(1_727, 3.0),
    "AutoencoderKLHunyuanVideo": Traced(19_592, 4.85),
    "AutoencoderKLLTXVideo": Traced(11, 50.02),
}
"""Of the published shapes; traced on diffusers 0.42.1 by tests/engines/test_diffusers.py."""
DECODER_BAND = (0.9, 1.25)
"""Low and high of a traced peak: workspaces and layout copies of the convolutions are not in the trace."""


def denoiser(model: ModelSpec) -> tuple[Component, Denoiser] | None:
    """Return the component that denoises, and its facts."""
    found = ((c, c.facts) for c in model.components)
    return next(((c, f) for c, f in found if isinstance(f, Denoiser) and c.name != "controlnet"), None)


def autoencoder(model: ModelSpec) -> tuple[Component, Autoencoder] | None:
    """Return the component between latents and pixels, and its facts."""
    return next(((c, c.facts) for c in model.components if isinstance(c.facts, Autoencoder)), None)


def frames_of(workload: Inference) -> int:
    """Frames of one video; an image is one."""
    return workload.frames or 1


def component_bytes(model: ModelSpec) -> dict[str, int]:
    """Bytes of every component's weights as stored. [B]"""
    sizes: dict[str, int] = {}
    for name, tensor, times in _tensors(model):
        size = tensor.copies * model.scheme.format_of(tensor).tensor_size(tensor.shape)
        sizes[name] = sizes.get(name, 0) + times * size
    return sizes


def _tensors(model: ModelSpec) -> Iterator[tuple[str, Tensor, int]]:
    for part in model.parts:
        if part.component and part.resident:
            yield from ((part.component, tensor, 1) for tensor in part.tensors)
            stack = layer_groups(part.layers) if part.layers else ()
            yield from ((part.component, tensor, times) for layer, times in stack for tensor in layer.tensors)


def weights(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the components' weights: all of them always, each in its own time, or one leaf at a time. [B]

    Source: huggingface/diffusers:src/diffusers/pipelines/pipeline_utils.py, enable_model_cpu_offload and
    enable_sequential_cpu_offload.
    """
    del engine
    sizes = component_bytes(shard.model)
    if workload.offload == "sequential":
        largest = max(
            (shard.model.scheme.format_of(t).tensor_size(t.shape) for _, t, _ in _tensors(shard.model)), default=0
        )
        yield exactly("weights/one_leaf", largest, RUNNING, "largest matrix, leaf by leaf", _SOURCE, Basis.DERIVED)
        return
    if workload.offload == "model":
        for phase, (name, size) in _largest_of_each(shard.model, sizes).items():
            yield exactly(f"weights/{name}", size, (phase,), "largest component of its time", _SOURCE, Basis.DERIVED)
        return
    for name, size in sizes.items():
        yield exactly(f"weights/{name}", size, ALWAYS, "all tensors of the component", "tensor list", Basis.DERIVED)


_SOURCE = "huggingface/diffusers:src/diffusers/pipelines/pipeline_utils.py, enable_model_cpu_offload"


def _largest_of_each(model: ModelSpec, sizes: dict[str, int]) -> dict[Phase, tuple[str, int]]:
    """Return the largest component of each phase: while one works, those before it are sent back to the host."""
    found: dict[Phase, tuple[str, int]] = {}
    for component in model.components:
        phase = _phase_of(component)
        size = sizes.get(component.name, 0)
        if size > found.get(phase, ("", 0))[1]:
            found[phase] = (component.name, size)
    return found


def _phase_of(component: Component) -> Phase:
    """Say when a component works; a safety checker sees pixels, but alone, hence it is counted with the readers."""
    match component.facts:
        case Denoiser():
            return DENOISING
        case Autoencoder():
            return DECODING
        case _:
            return READING


def buffers(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield what modules keep beside their weights: none by our count, at most 1 % of them. [B]"""
    del engine
    held = sum(component_bytes(shard.model).values()) if workload.offload == "none" else 0
    yield Item(
        name="runtime/buffers",
        bytes=0,
        low_bytes=0,
        high_bytes=int(BUFFER_RATIO * held),
        phases=ALWAYS,
        basis=Basis.MEASURED,
        formula=f"at most {BUFFER_RATIO:.0%} of the weights",
        source="see engines/diffusers_items.py, BUFFER_RATIO",
    )


def reading(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the activations of the widest encoder over one prompt and its negative. [B]

    2 * batch * tokens * 14 * hidden_size * bytes per element   (14: a block with four times the width inside)
    """
    del engine
    widths = [(c.facts.max_tokens or TEXT_TOKENS) * c.facts.hidden_size for c in shard.model.components
              if isinstance(c.facts, Encoder)]  # fmt: skip
    size = 2 * workload.batch * max(widths, default=0) * 14 * _element(shard.model)
    yield Item(
        name="activations/reading",
        bytes=size,
        low_bytes=size // 4,
        high_bytes=2 * size,
        phases=(READING,),
        basis=Basis.DERIVED,
        formula=f"2 x {workload.batch} prompts, 14 hidden states of the widest encoder",
        source="huggingface/transformers:src/transformers/models/t5/modeling_t5.py",
    )


def denoising(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the activations of one denoising step. [B]

        transformer: sides * batch * (latent tokens + text tokens) * width * hidden_size * bytes per element
        U-Net:       sides * batch * latent pixels * elements (``_unet_elements``) * bytes per element

    sides: 2 where guided and unguided pass together. Attention is memory-efficient, its scores are never held.
    """
    del engine
    found, pixels = denoiser(shard.model), autoencoder(shard.model)
    if found is None or pixels is None:
        return
    component, facts = found
    sides = 2 if component.class_name in GUIDED_TOGETHER else 1
    area = (workload.image_height or 0) * (workload.image_width or 0) // pixels[1].spatial_ratio ** 2
    latent_frames = (frames_of(workload) - 1) // pixels[1].temporal_ratio + 1
    if facts.block_out_channels:
        each, shown = _unet_elements(facts), "latent pixels"
        low, expected, high = (area * latent_frames * each * part // 10 for part in (7, 10, 14))
    else:
        shown = "tokens"
        tokens = ceil_div(area * latent_frames, prod(facts.patch_size)) + TEXT_TOKENS
        width = TOKEN_WIDTHS.get(component.class_name, USUAL_WIDTH)
        low, expected, high = (
            int(tokens * facts.hidden_size * width * part) for part in (TOKEN_BAND[0], 1, TOKEN_BAND[1])
        )
    rows = sides * workload.batch * _element(shard.model)
    yield Item(
        name="activations/denoising",
        bytes=rows * expected,
        low_bytes=rows * low,
        high_bytes=rows * high,
        phases=(DENOISING,),
        basis=Basis.DERIVED,
        formula=f"{sides} x {workload.batch} x {latent_frames} x {area:,} latent pixels ({shown} of "
        f"{' x '.join(map(str, facts.patch_size))}), width {facts.hidden_size:,}",
        source="huggingface/diffusers@v0.42.1:src/diffusers/models, traced on the meta device",
    )


def _unet_elements(facts: Denoiser) -> int:
    """Elements per latent pixel at the widest moment of a U-Net: one level's, and the first level's skip connections.

        max over levels of (24 if it has transformers else 8) * channels / 4^level + 2 * first channels

    24: a GEGLU block holds 8 c, its halves' product 8 c and the residuals. Traced: Stable Diffusion 1.5 8,336 (here
    8,320), XL 5,050 (here 4,480).
    """
    levels = zip(facts.block_out_channels, facts.transformer_layers, strict=True)
    widest = max(((24 if blocks else 8) * c) >> (2 * level) for level, (c, blocks) in enumerate(levels))
    return widest + 2 * facts.block_out_channels[0]


def decoding(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the peak of turning latents into pixels, without tiling or slicing. [B]

        images: batch * height * width * (3 * c2 + 2 * c1) channels at full resolution * bytes per element
        videos: batch * height * width * traced elements * bytes per element

    c1, c2: channels of the finest and the next level. The first residual block of the finest level holds its input,
    what is activated of it (c2 each) and the result (c1); the convolution copies input and result into another
    layout. Low: the normalised input instead, without copies (3 * c2, as traced). High: copies while the level before
    is enlarged. Stable Diffusion XL's pipeline decodes fp16 in fp32.
    """
    found = autoencoder(shard.model)
    if found is None:
        return
    component, facts = found
    element = 4 if _upcasts(shard.model) else _element(shard.model)
    low, expected, high = _decoder_elements(component, facts, workload, engine)
    pixels: Size = workload.batch * (workload.image_height or 0) * (workload.image_width or 0) * element
    yield Item(
        name="activations/decoding",
        bytes=pixels * expected,
        low_bytes=pixels * low,
        high_bytes=pixels * high,
        phases=(DECODING,),
        basis=Basis.DERIVED if expected else Basis.ASSUMED,
        formula=f"{workload.batch} x {workload.image_height:,} x {workload.image_width:,} pixels x {expected:,} "
        f"elements x {element} B"
        + ("" if expected else f": {component.class_name} was not traced, its peak is left out"),
        source="huggingface/diffusers@v0.42.1:src/diffusers/models/autoencoders/vae.py, Decoder.forward",
    )
    if element == FP32.block_bytes and _element(shard.model) != element:
        yield exactly(
            "activations/decoder_in_fp32",
            component_bytes(shard.model).get(component.name, 0),
            (DECODING,),
            "the autoencoder's weights once more: fp32 for fp16",
            "huggingface/diffusers@v0.42.1:src/diffusers/pipelines/stable_diffusion_xl, upcast_vae",
            Basis.DERIVED,
        )


def _decoder_elements(
    component: Component, facts: Autoencoder, workload: Inference, engine: EngineProfile
) -> tuple[int, int, int]:
    """Elements per output pixel: low, expected, high. [elements]"""
    traced = DECODERS.get(component.class_name)
    if component.class_name == "AutoencoderKLCogVideoX" and engine.version == "0.30":
        traced = COGVIDEOX_0_30
    if traced is not None:
        elements = traced.elements(frames_of(workload))
        low = (
            COGVIDEOX_0_30.fixed
            if component.class_name == "AutoencoderKLCogVideoX"
            else int(elements * DECODER_BAND[0])
        )
        return low, elements, int(elements * DECODER_BAND[1])
    if component.class_name != "AutoencoderKL":
        return 0, 0, 0
    first, second, third, *_ = (*facts.block_out_channels, *facts.block_out_channels[-1:] * 2)
    return 3 * second, 3 * second + 2 * first, 4 * second + (second + third) // 4


def _upcasts(model: ModelSpec) -> bool:
    """Say whether the pipeline decodes in fp32 what is stored in fp16: Stable Diffusion XL's, not its siblings."""
    names = {c.name for c in model.components}
    return {"unet", "text_encoder_2"} <= names and model.scheme.plain.name == "fp16"


def fragments(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield what torch has reserved beyond its peak: blocks of other sizes that are free again. [B]

    0.4 * the largest activations
    """
    found = [i for part in (denoising, decoding) for i in part(shard, workload, engine)]
    size = int(FRAGMENT_RATIO * max((i.bytes for i in found), default=0))
    yield Item(
        name="runtime/fragments",
        bytes=size,
        low_bytes=0,
        high_bytes=5 * size // 2,
        phases=RUNNING,
        basis=Basis.MEASURED,
        formula=f"{FRAGMENT_RATIO} x the largest activations",
        source="see engines/diffusers_items.py, FRAGMENT_RATIO",
        counter=Counter.RESERVED,
    )


def _element(model: ModelSpec) -> int:
    return model.scheme.plain.block_bytes


ITEMS: tuple[Counting, ...] = (weights, buffers, reading, denoising, decoding, fragments)
"""In the order of a report."""
