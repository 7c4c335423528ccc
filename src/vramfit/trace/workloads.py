"""Runs a workload: the same few lines on a real GPU, on one that is not there, and at tiny size on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from vramfit.errors import InvalidValueError
from vramfit.names import nearest
from vramfit.trace.case import DTYPES, Builder, Case, Inputs, Order
from vramfit.trace.library_models import diffusion_model, image_model, language_model
from vramfit.trace.low_bit import EightBitAdamW
from vramfit.trace.plain_models import cnn, encoder, experts, mlp, recurrent, unet
from vramfit.trace.workload_table import merged
from vramfit.workload import Workload

BUILDERS: dict[str, Builder] = {
    "mlp": mlp,
    "cnn": cnn,
    "recurrent": recurrent,
    "encoder": encoder,
    "experts": experts,
    "unet": unet,
    "image-model": image_model,
    "language-model": language_model,
    "diffusion-model": diffusion_model,
}
LEARNING_RATE = 1e-4
Marked = Callable[[str], None]
"""Called with what was just done: ``model``, ``optimizer``, then ``step`` after each."""


def builder_of(workload: Workload) -> Builder:
    """Return the function that makes the model.

    Raises:
        InvalidValueError: there is none of that name.
    """
    found = BUILDERS.get(workload.builder)
    if found is None:
        close = nearest(workload.builder, BUILDERS)
        hint = f"nearest: {', '.join(close)}" if close else ""
        raise InvalidValueError("workload.builder", workload.builder, f"one of {', '.join(BUILDERS)}", hint)
    return found


def run_workload(workload: Workload, device: str = "cuda", marked: Marked = lambda _: None) -> None:
    """Build the model of a workload on a device and run it as often as it says.

    Raises:
        InvalidValueError: no such builder, or an argument that it does not take.
    """
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = workload.cudnn_benchmark
    order = Order(workload=workload, device=torch.device(device), dtype=DTYPES[workload.precision])
    case = builder_of(workload)(order, workload.arguments)
    marked("model")
    drive(case, order, marked)


def drive(case: Case, order: Order, marked: Marked) -> None:
    """Train, run or generate, as the workload says."""
    {"train": train, "infer": infer, "generate": generate}[order.workload.task](case, order, marked)


def train(case: Case, order: Order, marked: Marked) -> None:
    """Take optimizer steps."""
    workload = order.workload
    case.model.train()
    trained = [p for p in case.model.parameters() if p.requires_grad]
    optimizer = optimizer_of(workload, trained)
    scaler = torch.amp.GradScaler(order.device.type, enabled=workload.precision == "fp16-mixed")
    marked("optimizer")
    for _ in range(workload.steps):
        for _ in range(workload.gradient_accumulation_steps):
            scaler.scale(_loss(case, order)).backward()
        if workload.clip_norm is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(trained, workload.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        marked("step")


def _loss(case: Case, order: Order) -> torch.Tensor:
    """Return the loss of one batch; the inputs are gone when it returns, as far as autograd does not keep them."""
    inputs = on_device(case.make_inputs(), order.device)
    with autocast(order):
        return case.loss(case.model, inputs)


def on_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Copy a batch to the device."""
    return {name: value.to(device) for name, value in inputs.items()}


def autocast(order: Order) -> AbstractContextManager[Any]:
    """Return the autocast region of a mixed precision, or one that does nothing."""
    low = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}.get(order.workload.precision)
    return nullcontext() if low is None else torch.autocast(order.device.type, dtype=low)


def infer(case: Case, order: Order, marked: Marked) -> None:
    """Run forward passes without gradients."""
    case.model.eval()
    for _ in range(order.workload.steps):
        with torch.inference_mode():
            _loss(case, order)
        marked("step")


def generate(case: Case, order: Order, marked: Marked) -> None:
    """Append tokens greedily, with a cache of keys and values that grows."""
    if case.classes is None:
        raise InvalidValueError("workload.task", "generate", "a builder of language models", "use task infer")
    case.model.eval()
    for _ in range(order.workload.steps):
        with torch.inference_mode(), autocast(order):
            _generate(case, order, order.workload.new_tokens or 1)
        marked("step")


def _generate(case: Case, order: Order, new_tokens: int) -> None:
    tokens = on_device({"x": case.make_inputs()["input_ids"]}, order.device)["x"]
    cache = None
    for _ in range(new_tokens):
        out = case.model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        tokens = out.logits[:, -1].argmax(-1, keepdim=True)


def optimizer_of(workload: Workload, trained: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of a workload."""
    how = {None: {}, "foreach": {"foreach": True}, "fused": {"fused": True}, "for-loop": {"foreach": False}}
    chosen: dict[str, Any] = how[workload.optimizer_implementation]
    optim = torch.optim
    match workload.optimizer:
        case "adamw":
            return optim.AdamW(trained, LEARNING_RATE, **chosen)
        case "adam":
            return optim.Adam(trained, LEARNING_RATE, **chosen)
        case "sgd":
            return optim.SGD(trained, LEARNING_RATE, **chosen)
        case "sgd-momentum":
            return optim.SGD(trained, LEARNING_RATE, momentum=0.9, **chosen)
        case "adafactor":
            return optim.Adafactor(trained, LEARNING_RATE, **({} if "fused" in chosen else chosen))
        case _:
            return EightBitAdamW(trained, LEARNING_RATE)


TINY_UNET = {
    "sample_size": 16,
    "block_out_channels": [32, 32, 64, 64],
    "cross_attention_dim": 32,
    "layers_per_block": 1,
}
TINY: dict[str, Mapping[str, object]] = {
    "mlp": {"width": 32, "depth": 2},
    "cnn": {"channels": 4, "image": 16},
    "recurrent": {"hidden": 16, "vocabulary": 50},
    "encoder": {"width": 32, "heads": 4, "layers": 2},
    "experts": {"width": 32, "inner": 64, "vocabulary": 50, "layers": 2},
    "unet": {"channels": 8, "image": 16},
    "image-model": {"image": 64},
    "language-model": {},
    "diffusion-model": {"image": 16, "config": TINY_UNET},
}
"""Builder -> arguments that make a model of it small."""
TINY_CONFIG = {
    "hidden_size": 64, "n_embd": 64, "d_model": 64, "intermediate_size": 128, "moe_intermediate_size": 64,
    "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "num_decoder_layers": 2, "num_attention_heads": 4,
    "n_head": 4, "num_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128, "d_ff": 128, "d_kv": 16,
}  # fmt: skip
"""Fields of a ``config.json`` -> small values; only fields that are there are made small."""
TINY_SHAPE = {"batch": 2, "sequence_tokens": 16, "new_tokens": 4, "lora_rank": 4}


def tiny(workload: Workload) -> Workload:
    """Return the same program at a size that a CPU runs in a moment: one step of a small model."""
    arguments = merged(workload.arguments, TINY[workload.builder])
    if str(arguments.get("name")).startswith("vit_"):
        arguments["keywords"] = {"img_size": arguments["image"], "depth": 2}
    config = arguments.get("config")
    if isinstance(config, Mapping) and workload.builder == "language-model":
        arguments["config"] = {**config, **{k: v for k, v in TINY_CONFIG.items() if k in config}}
    small: dict[str, Any] = {k: v for k, v in TINY_SHAPE.items() if getattr(workload, k) is not None}
    return replace(workload, arguments=arguments, steps=1, **small)
