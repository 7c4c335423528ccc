"""Options that say what a training run is: every field of its workload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from vramfit.frameworks.profile import FRAMEWORKS
from vramfit.training import (
    IMPLEMENTATIONS,
    LOSSES,
    METHODS,
    OBJECTIVES,
    OPTIMIZERS,
    PRECISIONS,
    RECOMPUTES,
    TRAINING_ATTENTIONS,
)


def _names(names: tuple[str, ...] | dict[str, str]) -> str:
    return f"One of {', '.join(names)}."


OPTIONS = (
    click.option("--framework", help=f"{_names(FRAMEWORKS)} Default: pytorch."),
    click.option("--framework-version", help="Version of the framework; default: the newest known."),
    click.option("--method", help=_names(METHODS)),
    click.option("--objective", help=_names(OBJECTIVES)),
    click.option("--batch", "micro_batch", type=int, help="Sequences of one forward pass on one rank."),
    click.option("--sequence", "sequence_tokens", type=int, help="Tokens of one sequence."),
    click.option("--accumulate", "gradient_accumulation_steps", type=int, help="Micro-batches of one step."),
    click.option("--precision", help=_names(PRECISIONS)),
    click.option("--optimizer", help=_names(OPTIMIZERS)),
    click.option("--optimizer-impl", "optimizer_implementation", help=_names(IMPLEMENTATIONS)),
    click.option(
        "--optimizer-in-backward/--no-optimizer-in-backward", default=None, help="Update as gradients appear."
    ),
    click.option("--recompute", help=_names(RECOMPUTES)),
    click.option("--recompute-modules", help="With selective: modules, with commas between them."),
    click.option("--attention", help=_names(TRAINING_ATTENTIONS)),
    click.option("--loss", help=_names(LOSSES)),
    click.option("--loss-chunk", "loss_chunk_tokens", type=int, help="Tokens of one chunk of a chunked loss."),
    click.option("--compile/--no-compile", "compile", default=None, help="With or without torch.compile."),
    click.option("--rank", type=int, help="Adapters: rank."),
    click.option("--alpha", type=float, help="Adapters: scale."),
    click.option("--targets", help="Adapters: modules, with commas between them; all-linear = every linear layer."),
    click.option("--adapter-format", help="Adapters: format of their weights."),
    click.option("--adapter-dropout", type=float, help="Adapters: share of the input that is dropped."),
    click.option("--modules-to-save", help="Adapters: modules that train whole beside them."),
    click.option("--base-format", help="Storage of the frozen base: nf4-dq, int8, gptq-int4 ..."),
    click.option("--offload", help="What waits on the host: parameters, gradients, optimizer, activations[=nvme]."),
    click.option(
        "--buckets", help="DeepSpeed's, in elements: reduce=2e8,prefetch=...,overlap=true,by_hidden_size=true."
    ),
    click.option("--freeze", help="Patterns of module names that do not train, with commas between them."),
    click.option("--parameter-format", help="Storage of the trained weights."),
    click.option("--gradient-format", help="Storage of their gradients."),
    click.option("--master-format", help="Second copy of the weights for the optimizer; none = no such copy."),
    click.option("--optimizer-state-format", help="Storage of the optimizer's moments."),
    click.option("--reduce-format", help="Format in which gradients are summed over ranks."),
)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options above to a command, in this order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
