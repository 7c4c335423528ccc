"""``trace``: run a program, a module or a model on a GPU that is not there, and say what it would take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vramfit.cli.trace_target import MODEL_OPTIONS, Target, hints_of, target_of
from vramfit.errors import UnsupportedModelError
from vramfit.names import nearest
from vramfit.workload import IMPLEMENTATIONS, OPTIMIZERS, PRECISIONS, RECOMPUTES

if TYPE_CHECKING:
    from vramfit.trace.session import Traced

NOT_FITTING = 1
"""Exit code of ``--check`` when the card does not hold it."""
STEPS = 3
LARGEST = 20
LIKE_EACH_OTHER = 100
"""Layers whose equal tensors the report lists as one."""
BETWEEN_PROGRESS = 500
"""Operators between two lines of progress."""
NO_TORCH = "tracing runs PyTorch code and torch is not installed: expected any build of it, one for the CPU is enough"
HOW_TO = "pip install 'vramfit[trace]'"


@click.command("trace", context_settings={"ignore_unknown_options": True})
@click.argument("target")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--gpu", required=True, help="Device, as in `vramfit devices`; `here` = the smallest card of this machine."
)
@click.option("--gpu-memory", help="What this card really reports, e.g. 24564MiB.")
@click.option("-m", "--module", "as_module", is_flag=True, help="TARGET is a module to run, as in `python -m`.")
@click.option("--steps", default=str(STEPS), show_default=True, help="Optimizer steps after which to stop; all = none.")
@click.option("--max-seconds", type=float, help="Time after which to stop.")
@click.option("--train", "task", flag_value="train", help="Models by name: train (the default).")
@click.option("--infer", "task", flag_value="infer", help="Models by name: one forward pass.")
@click.option("--generate", "task", flag_value="generate", help="Models by name: append tokens, with a cache.")
@click.option("--batch", type=click.IntRange(min=1), default=1, help="Samples of one pass.")
@click.option("--sequence", "sequence_tokens", type=click.IntRange(min=1), help="Tokens of one sample.")
@click.option("--new-tokens", type=click.IntRange(min=1), help="Tokens that --generate appends.")
@click.option(
    "--dtype", "precision", type=click.Choice(PRECISIONS), default="bf16", help="Of weights; -mixed: autocast."
)
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="adamw", show_default=True)
@click.option("--optimizer-implementation", type=click.Choice(IMPLEMENTATIONS), help="Default: PyTorch's own choice.")
@click.option("--recompute", type=click.Choice(RECOMPUTES), default="none", help="Activations recomputed in backward.")
@click.option("--lora-rank", type=click.IntRange(min=1), help="Train LoRA adapters of this rank instead (peft).")
@click.option("--lora-targets", help="Modules that get one, e.g. q_proj,v_proj; default: all linear layers.")
@click.option("--base-format", help="Storage of the frozen base: nf4.")
@click.option("--attention", type=click.Choice(("sdpa", "eager")), default="sdpa", help="As transformers calls it.")
@click.option("--accumulate", type=click.IntRange(min=1), default=1, help="Passes per optimizer step.")
@click.option("--clip-norm", type=float, help="Clip gradients to this norm.")
@click.option("--image", type=click.IntRange(min=8), help="Pixels of a side.")
@click.option("--input", "inputs", multiple=True, help="For file.py:factory: NAME=SHAPE[:FORMAT], e.g. x=4x3x224x224.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Read this config.json instead.")
@click.option("--hub", is_flag=True, help="Ask the Hub even if the catalogue knows the model.")
@click.option(
    "--without-weights", is_flag=True, help="Scripts: from_pretrained builds models from their configuration."
)
@click.option("--hint", "hints", multiple=True, help="A value that depends on data: nonzero=128, train.py:31=0.5.")
@click.option("--alloc-conf", help="PYTORCH_CUDA_ALLOC_CONF; default: as the environment says.")
@click.option("--torch-version", help="Whose CUDA build is meant; default: the one installed.")
@click.option("--enforce", is_flag=True, help="Refuse what does not fit with an error, as the card would.")
@click.option(
    "--largest", type=click.IntRange(min=0), default=LARGEST, show_default=True, help="Largest tensors listed."
)
@click.option("--snapshot", type=click.Path(path_type=Path), help="Write what torch.cuda.memory._dump_snapshot would.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with the timeline of memory.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.option("--brief", is_flag=True, help="Verdict and peaks only.")
@click.option("--check", is_flag=True, help="Exit with 1 when it does not fit.")
@click.pass_context
def trace_command(context: click.Context, /, target: str, arguments: tuple[str, ...], **given: Any) -> int:  # noqa: ANN401
    """Run TARGET on a GPU that is not there and say what it would take: no GPU, no weights.

    TARGET is a script (train.py; its own arguments behind it, or behind --), with -m a module, file.py:factory for a
    module of your own, or a model: a Hub id, a catalogue name, a config.json, timm/NAME or torchvision/NAME.
    A script runs unchanged, with your rights, as `python` would run it.
    """
    _need_torch()
    explicit = {p.name for p in context.command.params if _written(context, str(p.name))}
    work = target_of(target, arguments, given)
    _check_options(work, explicit, arguments)
    if given["as_json"]:
        work = work.quiet()
    traced = _traced(work, given)
    return _finish(work, traced, given)


def _written(context: click.Context, name: str) -> bool:
    """Say whether an option was written on the command line."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _need_torch() -> None:
    from importlib.util import find_spec  # noqa: PLC0415 - beside its use

    if find_spec("torch") is None:
        raise UnsupportedModelError(f"{NO_TORCH}: {HOW_TO}")


def _check_options(work: Target, explicit: set[str], arguments: tuple[str, ...]) -> None:
    """Refuse options that mean nothing for this target, rather than ignore them.

    Raises:
        click.UsageError: names the option, and what to do.
    """
    if work.takes_arguments:
        ours = sorted(explicit & MODEL_OPTIONS.keys())
        if ours:
            raise click.UsageError(
                f"{MODEL_OPTIONS[ours[0]]} is for models by name; an argument of the script's own goes behind --"
            )
        return
    if arguments:
        known = [option for param in click.get_current_context().command.params for option in param.opts]
        close = nearest(arguments[0], known)
        hint = f"; nearest: {', '.join(close)}" if close else ""
        raise click.UsageError(f"{arguments[0]!r} is no option of `vramfit trace`{hint}; only scripts take arguments")
    if "without_weights" in explicit:
        raise click.UsageError("--without-weights is for scripts; a model by name is built without weights anyway")


def _traced(work: Target, given: dict[str, Any]) -> Traced:
    """Run it."""
    from vramfit.trace.session import Card, trace  # noqa: PLC0415 - imports torch

    card = Card(
        device=work.device,
        alloc_conf=given["alloc_conf"],
        torch_version=given["torch_version"],
        hints=hints_of(given["hints"]),
        enforce=given["enforce"],
    )
    return trace(card, work.run(), given["largest"] * LIKE_EACH_OTHER, _progress())


def _progress() -> Callable[[int], None]:
    """Return what is told how many operators have run: it draws one line in a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda _: None

    def tell(count: int) -> None:
        if count % BETWEEN_PROGRESS == 0:
            click.echo(f"\r{count:,} operators\x1b[K", nl=False, err=True)

    return tell


def _finish(work: Target, traced: Traced, given: dict[str, Any]) -> int:
    """Print the report and write the files; return the exit code."""
    from vramfit.cli.show import show  # noqa: PLC0415
    from vramfit.report.traced import Told, brief, sections  # noqa: PLC0415

    report, ending = traced.report, traced.ending
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    if ending.traceback:
        click.echo(ending.traceback, err=True)
    told = Told(
        title=work.title,
        ended=ended(ending),
        changes=ending.changes,
        seconds=ending.seconds,
        num_largest=given["largest"],
    )
    _write(traced, given)
    if given["as_json"]:
        _print_json(work, traced, given["largest"])
    else:
        show((brief if given["brief"] else sections)(report, told))
    if given["check"] and not report.fits:
        return NOT_FITTING
    return ending.exit_code


def ended(ending: Any) -> str:  # noqa: ANN401 - an Ending, whose room is imported late
    """Say in words how a program ended; empty = as a run of ours ends."""
    steps = f"after {ending.num_steps} optimizer step" + ("" if ending.num_steps == 1 else "s")
    said = {
        "steps": f"stopped {steps}, which is enough (--steps); what comes later was not run",
        "time": f"stopped {steps} by --max-seconds: the figures hold up to there",
        "interrupt": f"stopped {steps} by Ctrl-C: the figures hold up to there",
        "memory": f"ended {steps}: the card was full",
        "crash": f"crashed {steps}, see its traceback: the figures hold up to there",
        "exit": f"left with exit code {ending.exit_code} {steps}" if ending.exit_code else "",
    }
    return said.get(ending.stop.value, "")


def _print_json(work: Target, traced: Traced, num_largest: int) -> None:
    from vramfit.cli.show import show_json  # noqa: PLC0415

    report = traced.report
    show_json(
        {
            "target": work.title,
            "fits": report.fits,
            "process_peak_bytes": report.process_peak_bytes,
            **asdict(replace(report, largest=report.largest[:num_largest])),
            "ending": asdict(traced.ending),
        }
    )


def _write(traced: Traced, given: dict[str, Any]) -> None:
    """Write the snapshot and the page that were asked for."""
    if given["snapshot"] is not None:
        from vramfit.trace.writing import write_snapshot  # noqa: PLC0415

        write_snapshot(traced, given["snapshot"])
    if given["html"] is not None:
        from vramfit.trace.writing import write_html  # noqa: PLC0415

        write_html(traced, given["html"])
