"""``models``, ``devices``, ``explain`` and ``completion``."""

from __future__ import annotations

import click

from vramfit.catalogue.device import all_devices, find_device
from vramfit.catalogue.model import ModelRow, all_models
from vramfit.cli.show import show, show_json
from vramfit.errors import InvalidValueError, UnknownNameError, VramfitError
from vramfit.estimate import estimate
from vramfit.names import nearest, normalise
from vramfit.report.rows import Row, Section
from vramfit.report.tables import devices as device_table
from vramfit.report.tables import explanation, formats
from vramfit.report.tables import models as model_table
from vramfit.request import Inference
from vramfit.source import read_model
from vramfit.units import format_count

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("search", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def models(search: str, as_json: bool) -> None:
    """List the models of the catalogue whose name or alias contains SEARCH."""
    wanted = normalise(search)
    found = [row for row in all_models() if any(wanted in normalise(n) for n in (row.name, *row.aliases))]
    if not found:
        known = [n for row in all_models() for n in (row.name, *row.aliases)]
        raise UnknownNameError("SEARCH", search, nearest(search, known), "any Hub id works too: vramfit infer org/name")
    if as_json:
        show_json([{"name": r.name, "aliases": r.aliases, "parameters": read_model(r.config).num_parameters,
                    "family": _family(r), "source": r.source, "verified_by": r.verified_by, "date": r.date}
                   for r in found])  # fmt: skip
        return
    rows = []
    for row in found:
        doubt = "" if row.verified_by else "; unverified"
        count = format_count(read_model(row.config).num_parameters)
        rows.append((row.name, count, f"{_family(row)}; also {', '.join(row.aliases[-3:])}{doubt}"))
    show((model_table(rows),))


def _family(row: ModelRow) -> str:
    """Return the model's type, or the pipeline's class."""
    return str(row.config.get("model_type") or row.config.get("_class_name"))


@click.command()
@click.argument("search", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def devices(search: str, as_json: bool) -> None:
    """List the devices of the catalogue whose name or alias contains SEARCH."""
    wanted = normalise(search)
    found = [d for d in all_devices() if any(wanted in normalise(n) for n in (d.name, d.product, *d.aliases))]
    if not found:
        known = [n for d in all_devices() for n in (d.name, *d.aliases)]
        raise UnknownNameError(
            "SEARCH", search, nearest(search, known), "a card that is not there: infer --gpu-memory SIZE"
        )
    if as_json:
        import msgspec  # noqa: PLC0415 - only JSON pays for it

        show_json(msgspec.to_builtins(found))
        return
    show((device_table(found),))


@click.command()
@click.argument("topic")
@click.argument("item", required=False, default="")
@click.option("--context", "context_tokens", type=int, default=8192, show_default=True, help="Tokens of a sequence.")
@click.option("--batch", type=int, default=1, show_default=True, help="Sequences held at once.")
@click.option("--gpu", help="Device, for what CUDA takes.")
@click.option("--engine", default="generic", show_default=True, help="Engine.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def explain(topic: str, item: str, as_json: bool, gpu: str | None, **workload: object) -> None:
    r"""Explain TOPIC: a memory component, `formats`, or a model's items with its own numbers in the formulas.

    \b
    vramfit explain kv_cache
    vramfit explain formats
    vramfit explain llama-3.1-8b kv_cache --context 32768
    """
    from vramfit.components import component, names  # noqa: PLC0415

    if topic == "formats":
        parts = formats()
    elif topic in names():
        parts = (Section(topic, tuple(Row(line) for line in component(topic))),)
    else:
        try:
            model = read_model(topic)
        except VramfitError as error:
            raise InvalidValueError("TOPIC", topic, f"formats, {', '.join(names())}, or a model", str(error)) from error
        device = None if gpu is None else find_device(gpu, "--gpu")
        parts = (explanation(estimate(model, Inference(**workload), device=device), item),)  # type: ignore[arg-type]
    if as_json:
        import msgspec  # noqa: PLC0415

        show_json(msgspec.to_builtins(parts))
        return
    show(parts)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def completion(shell: str, as_json: bool) -> None:
    """Print the completion script of a shell: eval "$(vramfit completion bash)"."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    from vramfit.cli import build  # noqa: PLC0415

    found = get_completion_class(shell)
    assert found is not None
    script = found(build(), {}, "vramfit", "_VRAMFIT_COMPLETE").source()
    if as_json:
        show_json({"shell": shell, "script": script})
    else:
        click.echo(script)
