"""From a model's configuration to a workload that builds it: which head, which inputs, what is trained.

Imports no torch: what it returns is data, and ``workloads`` runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.workload import Workload

DEFAULT_TOKENS = 2048
"""Sequence when none is asked for; shorter where the model was made for less."""
DEFAULT_NEW_TOKENS = 32
TEXT_TOKENS = 77
"""Tokens of CLIP's text encoders, which diffusion models of images are conditioned on (arXiv:2103.00020, sec. 2.4)."""
TIME_WIDTH = 256
"""Width of each of the sizes and crops that SDXL is told (arXiv:2307.01952, sec. 2.2)."""
STEPS = 2
"""A first step and a later one: states appear in the first."""
HEADS = (
    ("ForCausalLM", "causal-lm"),
    ("LMHeadModel", "causal-lm"),
    ("ForMaskedLM", "masked-lm"),
    ("ForPreTraining", "masked-lm"),
    ("ForSequenceClassification", "classification"),
    ("ForImageClassification", "image-classification"),
)
"""How the name of a class of transformers ends -> what the model ends in."""
FOUR_BIT = {"nf4": "nf4", "nf4-dq": "nf4", "fp4": "nf4", "int4": "int4"}
"""Storage of a frozen base -> how it is unpacked."""
LIBRARIES = ("timm", "torchvision")
UNETS = ("UNet2DConditionModel", "UNet2DModel")
"""Classes of diffusers whose inputs we know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a model is to do."""

    task: str = "train"
    batch: int = 1
    sequence_tokens: int | None = None
    new_tokens: int | None = None
    precision: str = "bf16"
    optimizer: str = "adamw"
    optimizer_implementation: str | None = None
    recompute: str = "none"
    lora_rank: int | None = None
    lora_targets: tuple[str, ...] = ()
    base_format: str | None = None
    attention: str = "sdpa"
    image: int | None = None
    gradient_accumulation_steps: int = 1
    clip_norm: float | None = None
    alloc_conf: str = ""
    steps: int = STEPS


def library_model(name: str) -> tuple[str, str] | None:
    """Return library and name of ``timm/resnet50`` or ``torchvision/resnet50``; None = it is another name.

    >>> library_model("timm/resnet50.a1_in1k")
    ('timm', 'resnet50.a1_in1k')
    """
    library, _, rest = name.partition("/")
    return (library, rest) if library in LIBRARIES and rest and "/" not in rest else None


def workload_of_library(library: str, name: str, asked: Asked) -> Workload:
    """Return the workload of an image model of timm or torchvision, trained to tell 1000 classes."""
    if asked.task == "generate" or asked.lora_rank is not None or asked.base_format is not None:
        raise InvalidValueError("--generate, --lora-rank, --base-format", name, "a language model", "leave them out")
    given: dict[str, Any] = {"library": library, "name": name}
    if asked.image is not None:
        given["image"] = asked.image
    return _workload("image-model", given, asked)


def workload_of(config: Mapping[str, Any], name: str, asked: Asked) -> Workload:
    """Return the workload of a model of transformers or diffusers, from the content of its ``config.json``.

    Raises:
        UnsupportedModelError: a class whose inputs are not known here, or a storage format without a rule.
        InvalidValueError: something asked that this model cannot do.
    """
    if "_class_name" in config:
        return _diffusion(config, name, asked)
    quantised = config.get("quantization_config")
    if quantised is not None and asked.base_format is None:
        method = quantised.get("quant_method") if isinstance(quantised, Mapping) else quantised
        raise UnsupportedModelError(
            f"{name}: quantization_config {method!r}: such layers are kernels of their own: expected a model in plain "
            "formats; name the unquantised one, or --base-format nf4 for 4-bit layers of the same shapes"
        )
    given: dict[str, Any] = {
        "config": {k: v for k, v in config.items() if k != "quantization_config"},
        "head": head_of(config, name),
        "attention": asked.attention,
    }
    if asked.base_format is not None:
        if asked.base_format not in FOUR_BIT:
            raise InvalidValueError("--base-format", asked.base_format, f"one of {', '.join(FOUR_BIT)}")
        given["base_format"] = FOUR_BIT[asked.base_format]
    if asked.lora_targets:
        given["targets"] = list(asked.lora_targets)
    if given["head"] == "image-classification":
        given["image"] = asked.image or config.get("image_size", 224)
        return _workload("language-model", given, asked)
    tokens = asked.sequence_tokens or min(DEFAULT_TOKENS, positions(config) or DEFAULT_TOKENS)
    return _workload("language-model", given, asked, tokens)


def head_of(config: Mapping[str, Any], name: str) -> str:
    """Return what a model ends in, by the class that its configuration names.

    >>> head_of({"architectures": ["LlamaForCausalLM"]}, "llama")
    'causal-lm'
    """
    classes = config.get("architectures") or ()
    for each in classes:
        for ending, head in HEADS:
            if str(each).endswith(ending):
                return head
        if str(each).endswith("ForConditionalGeneration"):
            return "image-text" if "vision_config" in config else "seq2seq"
    if classes:
        known = ", ".join(ending for ending, _ in HEADS)
        raise UnsupportedModelError(
            f"{name}: architectures {list(classes)}: expected a class that ends in one of {known}; for others write "
            "a file.py:factory that returns the module and its inputs"
        )
    return "causal-lm"


def positions(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model was made for; None = it does not say."""
    inner = config.get("text_config")
    for values in (config, inner if isinstance(inner, Mapping) else {}):
        for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
            if isinstance(values.get(name), int):
                return int(values[name])
    return None


def _diffusion(config: Mapping[str, Any], name: str, asked: Asked) -> Workload:
    """Return the workload of a U-Net, or of the one in a pipeline: its forward and backward, without its encoders."""
    parts = config.get("components")
    unet = parts.get("unet") if isinstance(parts, Mapping) else None
    values: Mapping[str, Any] = unet if isinstance(unet, Mapping) else config
    kind = values.get("_class_name")
    if kind not in UNETS:
        raise UnsupportedModelError(
            f"{name}: {kind}: expected one of {', '.join(UNETS)}; for other models of diffusers write a "
            "file.py:factory that returns the module and its inputs"
        )
    if asked.task == "generate" or asked.lora_rank is not None or asked.base_format is not None:
        raise InvalidValueError("--generate, --lora-rank, --base-format", name, "a language model", "leave them out")
    known = {"addition_time_embed_dim": TIME_WIDTH} if values.get("addition_embed_type") == "text_time" else {}
    given: dict[str, Any] = {"config": {**known, **values, "_class_name": kind}, "image": _latent(values, asked.image)}
    if values.get("addition_embed_type") == "text_time":
        given["pooled_text"] = values.get("projection_class_embeddings_input_dim", 2816)
    return _workload("diffusion-model", given, asked, asked.sequence_tokens or TEXT_TOKENS)


def _latent(config: Mapping[str, Any], image: int | None) -> int:
    """Return the side of the latent; an image is eight times as wide (arXiv:2112.10752, sec. 3.1)."""
    return image // 8 if image is not None else int(config.get("sample_size") or 64)


def _workload(builder: str, given: dict[str, Any], asked: Asked, tokens: int | None = None) -> Workload:
    generates = asked.task == "generate"
    return Workload(
        builder=builder,
        arguments=given,
        task=asked.task,
        batch=asked.batch,
        sequence_tokens=tokens,
        new_tokens=(asked.new_tokens or DEFAULT_NEW_TOKENS) if generates else None,
        precision=asked.precision,
        optimizer=asked.optimizer,
        optimizer_implementation=asked.optimizer_implementation,
        recompute=asked.recompute,
        clip_norm=asked.clip_norm,
        gradient_accumulation_steps=asked.gradient_accumulation_steps,
        steps=asked.steps if asked.task == "train" else 1,
        alloc_conf=asked.alloc_conf,
        lora_rank=asked.lora_rank,
    )
