"""Builders of architectures from libraries, without weights: transformers, timm, torchvision, diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from typing import Any

import torch

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.trace.case import Case, Inputs, Order, cross_entropy, own_loss
from vramfit.trace.low_bit import linear_in_four_bits, unpack_by_kernel, unpack_in_torch
from vramfit.trace.models import TIME_WIDTH

HEADS = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "classification": "AutoModelForSequenceClassification",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "image-text": "AutoModelForImageTextToText",
    "image-classification": "AutoModelForImageClassification",
}
"""What a model ends in -> the class of transformers that makes it."""
TIME_IDS = 6
"""Sizes and crops that SDXL is told (arXiv:2307.01952, sec. 2.2)."""
UNPACKING = {"int4": unpack_in_torch, "nf4": unpack_by_kernel}
"""How 4-bit weights are unpacked: with PyTorch's operators (runs everywhere), or by one kernel (a rule of memory)."""


def need(package: str) -> Any:
    """Import a library.

    Raises:
        UnsupportedModelError: it is not installed; says how to.
    """
    try:
        return import_module(package)
    except ImportError as error:
        if error.name not in {package, package.partition(".")[0]}:
            raise
        raise UnsupportedModelError(
            f"{package} is not installed: expected it for this model: pip install {package}"
        ) from None


def image_model(order: Order, given: Mapping[str, Any]) -> Case:
    """Make a model of timm or torchvision: ``name``, ``library``, ``image``, ``classes``, ``channels_last``."""
    library, name = given.get("library", "timm"), given["name"]
    classes, image = given.get("classes", 1000), given.get("image", 224)
    own = dict(given.get("keywords", {}))
    with order.as_default():
        if library == "timm":
            model = need("timm").create_model(name, pretrained=False, num_classes=classes, **own)
        else:
            model = need("torchvision.models").get_model(name, weights=None, num_classes=classes, **own)
    if order.workload.recompute == "full":
        model.set_grad_checkpointing(enable=True)
    layout = torch.channels_last if given.get("channels_last") else torch.contiguous_format
    model = model.to(memory_format=layout)

    def make() -> Inputs:
        x = order.floats(order.batch, 3, image, image).contiguous(memory_format=layout)
        return {"x": x, "y": torch.randint(0, classes, (order.batch,))}

    return Case(model=model, make_inputs=make, loss=cross_entropy)


def language_model(order: Order, given: Mapping[str, Any]) -> Case:
    """Make a model of transformers from ``config`` (with its ``model_type``): ``head``, ``attention``, ``base_format``.

    ``config`` is data alone: no code of a model repository runs.
    """
    transformers = need("transformers")
    config = configuration(transformers, given["config"])
    head = given.get("head", "causal-lm")
    attention = given.get("attention", "sdpa")
    if head == "seq2seq" and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = getattr(config, "pad_token_id", None) or 0
    base = given.get("base_format")
    words = getattr(config.get_text_config(), "vocab_size", None)
    with order.as_default(), nullcontext() if base is None else linear_in_four_bits(UNPACKING[base], words):
        automatic = getattr(transformers, HEADS[head])
        model = automatic.from_config(config, attn_implementation=attention)
    adapt(order, model)
    if order.workload.lora_rank is not None:
        model = with_lora(model, order.workload.lora_rank, given)
    if order.workload.task == "train" and hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    make = partial(_language_inputs, order, head, words or 0, given.get("labels", 2), given.get("image", 224))
    return Case(model=model, make_inputs=make, loss=own_loss, classes=words if head == "causal-lm" else None)


def configuration(transformers: Any, values: Mapping[str, Any]) -> Any:
    """Return the configuration object of transformers for the content of a ``config.json``.

    Raises:
        InvalidValueError: no ``model_type`` in it, or a value that transformers refuses.
        UnsupportedModelError: a kind of model that this version of transformers does not have.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise InvalidValueError("config.model_type", kind, "the name of an architecture", "a config.json has one")
    own = {k: v for k, v in values.items() if k not in {"model_type", "auto_map", "dtype", "torch_dtype"}}
    try:
        return transformers.AutoConfig.for_model(kind, **own)
    except ValueError as error:
        if "Unrecognized model identifier" in str(error):
            raise UnsupportedModelError(
                f"config.model_type: {kind!r} is not in transformers {transformers.__version__}: expected a version "
                "that has it; code of model repositories is never run"
            ) from None
        raise InvalidValueError("config", kind, f"values that transformers takes ({error})") from None
    except TypeError as error:
        raise InvalidValueError("config", kind, f"values that transformers takes ({error})") from None


def adapt(order: Order, model: Any) -> None:
    """Switch on recomputation where it is asked for."""
    if order.workload.recompute == "full":
        if hasattr(model, "activation_checkpointing_enable"):  # since transformers 5
            model.activation_checkpointing_enable()
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def with_lora(model: Any, rank: int, given: Mapping[str, Any]) -> Any:
    """Return the model with LoRA adapters on the linear layers ``targets`` names; default: all but the head."""
    peft = need("peft")
    targets = given.get("targets", "all-linear")
    if given.get("base_format") is not None and targets == "all-linear":
        return FourBitAdapted.dress(model, rank)
    targets = targets if isinstance(targets, str) else list(targets)
    asked = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=given.get("lora_dropout", 0.0), target_modules=targets
    )
    model.requires_grad_(requires_grad=False)
    return peft.get_peft_model(model, asked)


class FourBitAdapted(torch.nn.Module):
    """A four-bit layer with a LoRA adapter in fp32 beside it, as peft keeps one (peft/tuners/lora/bnb.py)."""

    def __init__(self, frozen: Any, rank: int) -> None:
        """Make both factors on the device of the layer."""
        super().__init__()
        self.frozen = frozen
        like = {"bias": False, "dtype": torch.float32, "device": frozen.packed.device}
        self.down = torch.nn.Linear(frozen.in_features, rank, **like)
        self.up = torch.nn.Linear(rank, frozen.out_features, **like)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the frozen layer gives, and the adapter's share."""
        out = self.frozen(x)
        added: torch.Tensor = self.up(self.down(x.to(self.down.weight.dtype)))
        return out + added.to(out.dtype)

    @classmethod
    def dress(cls, model: Any, rank: int) -> Any:
        """Freeze a model and put an adapter on each of its four-bit layers."""
        from vramfit.trace.low_bit import FourBitLinear  # noqa: PLC0415 - beside its use

        model.requires_grad_(requires_grad=False)
        found = [(parent, name) for parent in model.modules() for name, child in parent.named_children()
                 if isinstance(child, FourBitLinear)]  # fmt: skip
        for parent, name in found:
            setattr(parent, name, cls(getattr(parent, name), rank))
        return model


def _language_inputs(order: Order, head: str, words: int, labels: int, image: int) -> Inputs:
    if head == "image-classification":
        return {
            "pixel_values": order.floats(order.batch, 3, image, image),
            "labels": torch.randint(0, labels, (order.batch,)),
        }
    shape = (order.batch, order.tokens)
    tokens = torch.randint(0, words, shape)
    if head == "classification":
        return {"input_ids": tokens, "labels": torch.randint(0, labels, (order.batch,))}
    return {"input_ids": tokens, "labels": tokens.clone()}


def _is_module(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, torch.nn.Module)


def diffusion_model(order: Order, given: Mapping[str, Any]) -> Case:
    """Make a U-Net of diffusers from ``config`` (with its ``_class_name``), that sees noise in latents of ``image``.

    ``pooled_text``: width of what SDXL adds to its time: pooled text and six numbers of 256 each.
    """
    diffusers = need("diffusers")
    values = dict(given["config"])
    name = values.pop("_class_name", None)
    made: Any = getattr(diffusers, str(name), None)
    if not _is_module(made):
        raise InvalidValueError("config._class_name", name, "a model of diffusers, such as UNet2DConditionModel")
    with order.as_default():
        model: Any = made.from_config(values)
    if order.workload.recompute == "full":
        model.enable_gradient_checkpointing()
    model.train()
    image = given.get("image", 64)
    channels, across = values.get("in_channels", 4), values.get("cross_attention_dim")

    def make() -> Inputs:
        inputs: Inputs = {
            "sample": order.floats(order.batch, channels, image, image),
            "timestep": torch.randint(0, 1000, (order.batch,)),
        }
        if across is not None:
            inputs["encoder_hidden_states"] = order.floats(order.batch, order.tokens, across)
        if "pooled_text" in given:
            inputs["text_embeds"] = order.floats(order.batch, given["pooled_text"] - TIME_IDS * TIME_WIDTH)
            inputs["time_ids"] = order.floats(order.batch, TIME_IDS)
        return inputs

    def loss(module: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
        own = {name: value for name, value in inputs.items() if name not in {"text_embeds", "time_ids"}}
        if "text_embeds" in inputs:
            own["added_cond_kwargs"] = {"text_embeds": inputs["text_embeds"], "time_ids": inputs["time_ids"]}
        out = module(**own).sample
        return torch.nn.functional.mse_loss(out.float(), torch.randn_like(out).float())

    return Case(model=model, make_inputs=make, loss=loss)
