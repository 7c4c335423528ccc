"""``infer`` and ``estimate``: one question, the whole answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vramfit.answer import answer
from vramfit.cli.knobs import NOT_FITTING, engine_knobs, on_devices, serving_options
from vramfit.cli.show import show
from vramfit.engines.profile import ENGINES
from vramfit.errors import UnreadableFileError
from vramfit.report.answer import brief, sections
from vramfit.report.rows import Row, Section, Tone
from vramfit.request import ATTENTIONS, Inference, Plan, Request
from vramfit.result import Answer, Verdict

if TYPE_CHECKING:
    from vramfit.cli.command import Command


@click.command()
@click.argument("model", required=False)
@click.option("--context", "context_tokens", type=int, help="Tokens of the longest sequence: prompt and new ones.")
@click.option("--prompt", "prompt_tokens", type=int, help="Tokens of one prompt.")
@click.option("--new-tokens", "new_tokens", type=int, help="Tokens generated per sequence.")
@click.option("--batch", type=int, default=1, show_default=True, help="Sequences held at once.")
@click.option("--gpu", help="Device, as in `vramfit devices`; `here` = the cards of this machine.")
@click.option(
    "--gpus", "device_count", type=int, help="How many of them; without --tp or --pp the best plan is chosen."
)
@click.option("--gpu-memory", help="What this card really reports, e.g. 24564MiB.")
@click.option("--tp", type=int, default=1, help="Tensor-parallel degree.")
@click.option("--pp", type=int, default=1, help="Pipeline-parallel degree.")
@click.option("--dp", type=int, default=1, help="Replicas, each with its own batch.")
@click.option("--engine", default="generic", show_default=True, help=f"One of {', '.join(ENGINES)}.")
@click.option("--engine-version", help="Version of the engine; default: the newest known.")
@click.option("--weights", "weight_format", default="auto", help="Weight format, as in `vramfit explain formats`.")
@click.option("--group-size", type=int, help="Elements per scale of grouped weight formats; -1 = a whole row.")
@click.option("--kv-format", default="auto", help="KV-cache format: bf16, fp8, q8_0 ...")
@click.option("--kv-format-k", help="Format of the keys alone.")
@click.option("--kv-format-v", help="Format of the values alone.")
@click.option("--attention", help=f"One of {', '.join(ATTENTIONS)}; default: the engine's.")
@engine_knobs
@serving_options
@click.option(
    "--command",
    help="Read an engine's own command line, e.g. 'vllm serve ...', a Modelfile, or a file with one; - = stdin.",
)
@click.option("--as-log", is_flag=True, help="Print the start-up log of the engine instead, as it will read.")
@click.option("--headroom", help="What to leave free on every device, e.g. 2GiB.")
@click.option("--config", "config_file", help="Read this config.json instead of looking the model up.")
@click.option("--hub", is_flag=True, help="Ask the Hub even if the catalogue knows the model.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON, version 1.")
@click.option("--brief", is_flag=True, help="Verdict, sums and limits only.")
@click.option("--check", is_flag=True, help="Exit with 1 when it does not fit; tight fits.")
def infer(model: str | None, **given: Any) -> int:  # noqa: ANN401 - click's options, named in the decorators above
    """Say what a model needs to run, and on what it fits.

    MODEL is a catalogue name, a Hub id (org/name[@revision], org/name:Q4_K_M, org/name/file.gguf), the address of a
    GGUF file, or a path to a config.json, a model's folder, a safetensors or a GGUF file.
    """
    if given["command"] is not None:
        from vramfit.cli.command import asked_by_command  # noqa: PLC0415 - only this option pays for it

        request, command = asked_by_command(model, given)
    else:
        request, command = _asked(_with_files(model, given), given), None
    note = None
    if request.device == "here":
        from vramfit.cli.here import on_this_machine  # noqa: PLC0415 - only this machine's owner pays for it

        request, note = on_this_machine(request)
    answered = answer(request, hub=given["hub"])
    more = (*_other_files(answered, str(request.model), given), *_carried(given, request, answered))
    return _finish(answered, given, note, more, command)


def _carried(given: dict[str, Any], request: Request, answered: Answer) -> Iterable[Section]:
    """Return what a server carries, as far as it was asked; for JSON it is kept in the options."""
    wanted = given["lengths"] or given["requests"] or given["beside"] or given["shared_prefix"]
    if not wanted and ((request.device_count or 1) == 1 or given["brief"]):
        return ()
    from vramfit.cli.serving import as_mapping, capacity  # noqa: PLC0415 - only these questions pay for it
    from vramfit.report.capacity import sections as carried  # noqa: PLC0415

    found = capacity(given, request, answered)
    given["capacity"] = as_mapping(found)
    return tuple(carried(found))


def _asked(model: str, given: dict[str, Any]) -> Request:
    """Return the request that the options make up."""
    return Request(
        model=model,
        workload=Inference(**{name: given[name] for name in Inference.__slots__}),
        plan=Plan(tp=given["tp"], pp=given["pp"], dp_replicate=given["dp"]),
        **on_devices(given),
    )


def _other_files(answered: Answer, named: str, given: dict[str, Any]) -> Iterable[Section]:
    """Return the other GGUF models of a repository or folder from which none was named, and which of them fit."""
    if given["as_json"] or given["brief"] or ".gguf" not in answered.estimate.model.evidence:
        return ()
    from vramfit.cli.gguf_files import section  # noqa: PLC0415 - only where there is a choice
    from vramfit.readers.gguf_files import NOT_NAMED  # noqa: PLC0415
    from vramfit.source import gguf_menu  # noqa: PLC0415

    if not any(NOT_NAMED in text for text in answered.estimate.assumptions):
        return ()
    return (section(gguf_menu(named), answered, named),)


def _with_files(model: str | None, given: dict[str, Any]) -> str:
    """Return what names the model: the argument, or the file of ``--config``."""
    if given["config_file"] is not None:
        path = Path(given["config_file"])
        if not path.is_file():
            raise UnreadableFileError(f"--config: {path}: no such file; expected a config.json")
        return str(path.absolute())
    if model is None:
        raise click.UsageError("missing MODEL: a name from `vramfit models`, a Hub id or a path; or --config FILE")
    return model


def _finish(
    answered: Answer,
    given: dict[str, Any],
    note: str | None = None,
    more: Iterable[Section] = (),
    command: Command | None = None,
) -> int:
    """Print the answer, and more sections behind it; return the exit code."""
    if given["as_json"]:
        _print_json(answered, given, command)
    elif given.get("as_log"):
        from vramfit.report.startup_log import startup_log  # noqa: PLC0415

        click.echo("\n".join(startup_log(answered)))
    else:
        first = () if note is None else (Section("", (Row(note, tone=Tone.QUIET),)),)
        show((*first, *(brief(answered) if given.get("brief") else sections(answered)), *more))
        if command is not None:
            from vramfit.cli.command import sections as said  # noqa: PLC0415

            show((Section("", ()), *said(command, answered)))
    if given["check"] and answered.fit.verdict not in {Verdict.FITS, Verdict.TIGHT}:
        return NOT_FITTING
    return 0


def _print_json(answered: Answer, given: dict[str, Any], command: Command | None) -> None:
    """Print the answer as JSON; what only some options ask for stands beside it under its own name."""
    from vramfit.answer_wire import answer_to_json  # noqa: PLC0415 - only JSON pays for msgspec

    text = answer_to_json(answered)
    beside: dict[str, Any] = {}
    if given.get("as_log"):
        from vramfit.report.startup_log import startup_log  # noqa: PLC0415

        beside["log"] = list(startup_log(answered))
    if given.get("capacity"):
        beside["capacity"] = given["capacity"]
    if command is not None:
        from vramfit.cli.command import as_json  # noqa: PLC0415

        beside["command"] = as_json(command, answered)
    if not beside:
        click.echo(text)
        return
    from vramfit.cli.show import show_json  # noqa: PLC0415

    show_json(json.loads(text) | beside)


@click.command()
@click.option("--request", "source", help="File with a request in JSON, version 1; - = standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON, version 1.")
@click.option("--check", is_flag=True, help="Exit with 1 when it does not fit; tight fits.")
@click.option("--schema", is_flag=True, help="Print the JSON Schemas of request and answer instead.")
def estimate(source: str | None, **given: Any) -> int:  # noqa: ANN401 - click's options, named in the decorators above
    """Answer a request in JSON, as scripts and services ask it."""
    from vramfit.answer_wire import answer_schema  # noqa: PLC0415
    from vramfit.wire import REQUEST_LIMIT_BYTES, request_from_json, request_schema  # noqa: PLC0415

    if given["schema"]:
        from vramfit.cli.show import show_json  # noqa: PLC0415
        from vramfit.training_wire import training_answer_schema  # noqa: PLC0415

        schemas = (request_schema(), answer_schema(), training_answer_schema())
        show_json(dict(zip(("request", "answer", "training_answer"), schemas, strict=True)))
        return 0
    if source is None:
        raise click.UsageError("missing --request: a file with a request in JSON, or - for standard input; or --schema")
    if source == "-":
        text = sys.stdin.buffer.read(REQUEST_LIMIT_BYTES + 1)
    else:
        text = _read(Path(source), REQUEST_LIMIT_BYTES + 1)
    request = request_from_json(text, source)
    if isinstance(request, Request):
        return _finish(answer(request), given)
    from vramfit.cli.train import finish  # noqa: PLC0415 - serving does not pay for it
    from vramfit.training_answer import answer_training  # noqa: PLC0415

    return finish(answer_training(request), given)


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise UnreadableFileError(
            f"--request: {path}: {error.strerror}; expected a file with a request in JSON"
        ) from error
