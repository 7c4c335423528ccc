"""Memory that kernels take and no dispatcher sees: one table of rules, each with its source, each can be left out.

A rule is asked after its operator ran, when the results are there already, as a kernel takes its scratch after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from vramfit.errors import UnknownNameError
from vramfit.names import nearest
from vramfit.trace.cublas import Cublas
from vramfit.trace.loss_kernels import unreduced_bytes
from vramfit.trace.machine import Machine
from vramfit.trace.recorder import Recorder, Scratch
from vramfit.trace.workspace_sizes import (
    cudnn_layout_bytes,
    efficient_backward_bytes,
    efficient_forward_bytes,
    embedding_backward_bytes,
    flash_backward_bytes,
    flash_forward_bytes,
    foreach_norm_bytes,
    index_backward_bytes,
    layer_norm_backward_bytes,
    recurrent_bytes,
    sort_bytes,
)

Sizes = Callable[[Machine, tuple[Any, ...], Any], Iterable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Scratch of some operators during their call."""

    name: str
    operators: tuple[str, ...]
    """Of ``torch.ops.aten``; those a version lacks are passed over."""
    sizes: Sizes
    source: str
    assumed: bool = False
    """True where the size is reasoned, not read in a source."""


_FLASH = "pytorch/pytorch:aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp"
_EFFICIENT = "pytorch/pytorch:aten/src/ATen/native/transformers/cuda/attention_backward.cu, mem_eff_attention/"

RULES = (
    Rule(
        name="flash_forward",
        operators=("_scaled_dot_product_flash_attention", "_flash_attention_forward"),
        sizes=lambda machine, args, out: flash_forward_bytes(machine, args[0], args[1]),
        source=f"{_FLASH}, set_params_splitkv: partial results where keys are split over blocks",
    ),
    Rule(
        name="flash_backward",
        operators=("_scaled_dot_product_flash_attention_backward",),
        sizes=lambda machine, args, out: flash_backward_bytes(args[1], args[2]),
        source=f"{_FLASH}, mha_bwd: softmax_d, dq_accum, dk_expanded, dv_expanded",
    ),
    Rule(
        name="cudnn_attention_backward",
        operators=("_scaled_dot_product_cudnn_attention_backward",),
        sizes=lambda machine, args, out: flash_backward_bytes(args[1], args[2]),
        source="cuDNN plans it and does not say how much; taken to need what flash needs",
        assumed=True,
    ),
    Rule(
        name="efficient_forward",
        operators=("_scaled_dot_product_efficient_attention",),
        sizes=lambda machine, args, out: efficient_forward_bytes(args[0], args[2]),
        source=f"{_EFFICIENT}kernel_forward.h, kNeedsOutputAccumulatorBuffer",
    ),
    Rule(
        name="efficient_backward",
        operators=("_scaled_dot_product_efficient_attention_backward",),
        sizes=lambda machine, args, out: efficient_backward_bytes(args[1]),
        source=f"{_EFFICIENT}kernel_backward.h, workspace_elements_gq; delta",
    ),
    Rule(
        name="cudnn_convolution",
        operators=("convolution", "convolution_backward"),
        sizes=cudnn_layout_bytes,
        source="tensor cores want channels last: cuDNN's kernels nchwToNhwc and nhwcToNchw, seen in profiles of "
        "contiguous tensors, write into the workspace; with channels last nothing is taken",
        assumed=True,
    ),
    Rule(
        name="cudnn_rnn",
        operators=("_cudnn_rnn", "_cudnn_rnn_backward"),
        sizes=lambda machine, args, out: recurrent_bytes(args),
        source="cuDNN computes the input's share of all gates at once; reasoned from that, cuDNN does not document it",
        assumed=True,
    ),
    Rule(
        name="embedding_backward",
        operators=("embedding_dense_backward",),
        sizes=lambda machine, args, out: embedding_backward_bytes(args[0], args[1], args[3]),
        source="pytorch/pytorch:aten/src/ATen/native/cuda/Embedding.cu and EmbeddingBackwardKernel.cu: sorted and "
        "original places, cub's copies of both, one row per distinct token in float32; all tokens taken as distinct",
    ),
    Rule(
        name="index_backward",
        operators=("_index_put_impl_", "index_put_", "index_put"),
        sizes=lambda machine, args, out: index_backward_bytes(args),
        source="pytorch/pytorch:aten/src/ATen/native/cuda/Indexing.cu, index_put_with_sort_kernel",
    ),
    Rule(
        name="sort",
        operators=("sort", "topk", "argsort", "kthvalue", "median", "mode"),
        sizes=lambda machine, args, out: sort_bytes(args[0]),
        source="pytorch/pytorch:aten/src/ATen/native/cuda/Sort.cpp: cub's second buffers of keys and places; small "
        "slices are sorted in place",
    ),
    Rule(
        name="layer_norm_backward",
        operators=("native_layer_norm_backward", "_fused_rms_norm_backward"),
        sizes=lambda machine, args, out: layer_norm_backward_bytes(machine, args[1], args[2]),
        source="pytorch/pytorch:aten/src/ATen/native/cuda/layer_norm_kernel.cu: partial sums of the weight's gradient "
        "where there are many rows",
    ),
    Rule(
        name="foreach_norm",
        operators=("_foreach_norm",),
        sizes=lambda machine, args, out: foreach_norm_bytes(args[0]),
        source="pytorch/pytorch:aten/src/ATen/native/cuda/ForeachReduceOp.cu: one number per chunk of 65,536 elements, "
        "for the largest tensor's chunks times all tensors",
    ),
    Rule(
        name="loss",
        operators=("mse_loss", "smooth_l1_loss", "huber_loss"),
        sizes=unreduced_bytes,
        source="pytorch/pytorch:aten/src/ATen/native/Loss.cpp: the loss of every element, before it is reduced",
    ),
    Rule(
        name="multinomial",
        operators=("multinomial",),
        sizes=lambda machine, args, out: (args[0].numel() * args[0].element_size(),),
        source="pytorch/pytorch:aten/src/ATen/native/Distributions.cpp, multinomial_out: the exponential draws",
    ),
)
CUBLAS = "cublas"
"""Name of the rule for cuBLAS: kept until the process ends, so it stands in ``cublas.py``."""
NAMES = frozenset({CUBLAS, *(rule.name for rule in RULES)})


def chosen(wanted: frozenset[str] | bool) -> frozenset[str]:
    """Return the names of the rules that apply.

    Raises:
        UnknownNameError: no rule has that name.
    """
    if isinstance(wanted, bool):
        return NAMES if wanted else frozenset()
    for name in sorted(wanted - NAMES):
        raise UnknownNameError("workspaces", name, nearest(name, NAMES), f"the rules are {', '.join(sorted(NAMES))}")
    return wanted


class Workspaces:
    """Records what the kernels of one virtual GPU take."""

    def __init__(self, machine: Machine, recorder: Recorder, names: frozenset[str]) -> None:
        """Apply the rules of those names."""
        self.machine, self.recorder, self.names = machine, recorder, names
        self.used: set[str] = set()
        """Names of the assumed rules that applied."""
        self._cublas = Cublas(machine)

    def table(self) -> dict[Any, Scratch]:
        """Return what to do after each overload of an operator."""
        found: dict[Any, Scratch] = {}
        for rule in RULES:
            if rule.name in self.names:
                found.update(dict.fromkeys(_overloads(rule.operators), self._applied(rule)))
        if CUBLAS in self.names:
            found.update(dict.fromkeys(self._cublas.products, self._product))
        return found

    def _applied(self, rule: Rule) -> Scratch:
        def apply(func: Any, args: tuple[Any, ...], out: Any) -> None:
            sizes = [size for size in rule.sizes(self.machine, args, out) if size > 0]
            if sizes:
                self.recorder.scratch(rule.name, sizes)
                if rule.assumed:
                    self.used.add(rule.name)

        return apply

    def _product(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        recorder = self.recorder
        kept, scratch = self._cublas.taken(func, backward=recorder.backward_depth > 0, stream=recorder.stream)
        if kept:
            recorder.keep(CUBLAS, kept)
        if scratch:
            recorder.scratch(CUBLAS, [scratch])


def _overloads(operators: Iterable[str]) -> Iterable[Any]:
    for name in operators:
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            yield getattr(packet, overload)
