"""``train``: one question about training, the whole answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vramfit.cli.knobs import NOT_FITTING, on_devices
from vramfit.cli.plan_option import parse_plan
from vramfit.cli.show import show
from vramfit.cli.training_knobs import training_options
from vramfit.errors import InvalidValueError, UnreadableFileError
from vramfit.report.rows import Row, Section, Tone
from vramfit.report.training import brief, sections
from vramfit.request import Given, field_names
from vramfit.result import Verdict
from vramfit.training import BucketsAsked, Training
from vramfit.training_answer import answer_training
from vramfit.training_files.combine import Combined, combine
from vramfit.training_files.key import count, truth
from vramfit.training_result import TrainingAnswer

if TYPE_CHECKING:
    from vramfit.training_files.training_file import TrainingFile

ADAPTER = {"rank": "rank", "alpha": "alpha", "targets": "targets", "adapter_format": "format",
           "modules_to_save": "modules_to_save", "adapter_dropout": "dropout"}  # fmt: skip
"""Our options -> fields of the adapter."""
OFFLOAD = ("parameters", "gradients", "optimizer", "activations")
LISTS = frozenset({"targets", "modules_to_save", "recompute_modules", "freeze"})
WORKLOAD = tuple(name for name in Training.__slots__ if name not in {"adapter", "offload", "buckets"})


@click.command()
@click.argument("model", required=False)
@training_options
@click.option("--plan", "plan_text", help="How it is cut: dp_shard=8,tp=2,pp=1 ...; torchtitan's names.")
@click.option(
    "--from",
    "files",
    multiple=True,
    help="Read a framework's own file, script or command line; may be repeated; - = stdin.",
)
@click.option("--gpu", help="Device, as in `vramfit devices`; `here` = the cards of this machine.")
@click.option("--gpus", "device_count", type=int, help="How many of them in all.")
@click.option("--gpu-memory", help="What this card really reports, e.g. 24564MiB.")
@click.option("--headroom", help="What to leave free on every device, e.g. 2GiB.")
@click.option("--config", "config_file", help="Read this config.json instead of looking the model up.")
@click.option("--hub", is_flag=True, help="Ask the Hub even if the catalogue knows the model.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON, version 1.")
@click.option("--brief", is_flag=True, help="Verdict, readings and sums only.")
@click.option("--check", is_flag=True, help="Exit with 1 when it does not fit; tight fits.")
def train(model: str | None, **given: Any) -> int:  # noqa: ANN401 - click's options, named in the decorators above
    """Say what training a model needs, phase by phase, and whether it fits.

    MODEL is a catalogue name, a Hub id (org/name[@revision]), or a path to a config.json or a model's folder.
    """
    files, combined = asked(model, given)
    request, note = combined.request, None
    if request.device == "here":
        from vramfit.cli.here import on_this_machine  # noqa: PLC0415 - only this machine's owner pays for it

        request, note = on_this_machine(request)
    answered = answer_training(request, hub=given["hub"])
    return finish(answered, given, files, combined, note)


def asked(model: str | None, given: dict[str, Any]) -> tuple[tuple[TrainingFile, ...], Combined]:
    """Return what files say, and the request that they and our own options make up."""
    files: tuple[TrainingFile, ...] = ()
    if given["files"]:
        from vramfit.cli.training_file import load  # noqa: PLC0415 - only files pay for their readers

        files = tuple(load(name) for name in given["files"])
    combined = combine(files, own_fields(model, given))
    request = combined.request
    if request.model is None and request.config is None:
        if not files:
            raise click.UsageError("missing MODEL: a name from `vramfit models`, a Hub id or a path; or --from FILE")
        raise InvalidValueError("--from", ", ".join(given["files"]), "a model in it", _advice(files))
    devices = on_devices(given)
    if devices["device_count"] is None:
        devices["device_count"] = request.device_count
    return files, replace(combined, request=replace(request, **devices))


def _advice(files: tuple[TrainingFile, ...]) -> str:
    """Say how to name the model that no file names."""
    advice = "or name it in front: vramfit train MODEL --from ..."
    if any(file.framework == "megatron-lm" for file in files):
        return f"{advice} (Megatron-LM's sizes suffice where --vocab-size stands among them and the layers are plain)"
    return advice


def own_fields(model: str | None, given: dict[str, Any]) -> Iterable[Given]:
    """Yield what was written on our own command line."""
    named = _model(model, given)
    if named is not None:
        yield Given(path="model", value=named, said=named)
    for name in WORKLOAD:
        if given.get(name) is not None:
            value = tuple(given[name].split(",")) if name in LISTS else given[name]
            yield Given(path=f"workload.{name}", value=value, said=f"--{name.replace('_', '-')}")
    for option, field in ADAPTER.items():
        if given[option] is not None:
            value = tuple(given[option].split(",")) if option in LISTS else given[option]
            yield Given(path=f"workload.adapter.{field}", value=value, said=f"--{option}")
    yield from _offloaded(given["offload"])
    yield from _buckets(given["buckets"])
    for name, value in parse_plan(given["plan_text"]).items():
        yield Given(path=f"plan.{name}", value=value, said="--plan")
    if given["device_count"] is not None:
        yield Given(path="device_count", value=given["device_count"], said="--gpus")


def _model(model: str | None, given: dict[str, Any]) -> str | None:
    """Return what names the model: the argument, or the file of ``--config``."""
    if given["config_file"] is None:
        return model
    path = Path(given["config_file"])
    if not path.is_file():
        raise UnreadableFileError(f"--config: {path}: no such file; expected a config.json")
    return str(path.absolute())


def _offloaded(text: str | None) -> Iterable[Given]:
    """Yield the parts of ``--offload optimizer,activations`` or ``optimizer=nvme``."""
    for part in (text or "").split(",") if text else ():
        name, _, place = part.strip().partition("=")
        if name not in OFFLOAD:
            raise InvalidValueError("--offload", text, f"parts of {', '.join(OFFLOAD)}, each with =cpu or =nvme")
        yield Given(path=f"workload.offload.{name}", value=place or "cpu", said="--offload")


def _buckets(text: str | None) -> Iterable[Given]:
    """Yield the parts of ``--buckets reduce=2e8,overlap=true``."""
    names = field_names(BucketsAsked)
    for part in (text or "").split(",") if text else ():
        name, _, value = (each.strip() for each in part.partition("="))
        if name not in names:
            raise InvalidValueError(
                "--buckets", part, f"sizes and switches such as reduce=2e8; names: {', '.join(names)}"
            )
        kind = truth if name in {"overlap", "by_hidden_size"} else count
        found = 0 if value == "0" else kind(f"--buckets {name}", value)
        yield Given(path=f"workload.buckets.{name}", value=found, said="--buckets")


def finish(
    answered: TrainingAnswer,
    given: dict[str, Any],
    files: tuple[TrainingFile, ...] = (),
    combined: Combined | None = None,
    note: str | None = None,
) -> int:
    """Print the answer, and what files were understood to say; return the exit code."""
    if given["as_json"]:
        _print_json(answered, files, combined)
    else:
        shown = brief(answered) if given.get("brief") else sections(answered)
        more: tuple[Section, ...] = ()
        if files and combined is not None:
            from vramfit.cli.training_file import understood  # noqa: PLC0415

            more = understood(files, combined)
        first = () if note is None else (Section("", (Row(note, tone=Tone.QUIET),)),)
        show((*first, *shown, *more))
    if given["check"] and answered.fit.verdict not in {Verdict.FITS, Verdict.TIGHT}:
        return NOT_FITTING
    return 0


def _print_json(answered: TrainingAnswer, files: tuple[TrainingFile, ...], combined: Combined | None) -> None:
    """Print the answer as JSON; what files say stands beside it under its own name."""
    import json  # noqa: PLC0415 - only JSON pays for it

    from vramfit.training_wire import training_answer_to_json  # noqa: PLC0415 - only JSON pays for msgspec

    text = training_answer_to_json(answered)
    if not files or combined is None:
        click.echo(text)
        return
    from vramfit.cli.show import show_json  # noqa: PLC0415
    from vramfit.cli.training_file import as_json  # noqa: PLC0415

    show_json(json.loads(text) | {"files": as_json(files, combined)})
