"""``plan``: which meshes over so many devices fit, and which of them first."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import click

from vramfit.answer import asked_device, asked_model
from vramfit.catalogue.link import links_of
from vramfit.cli.knobs import NOT_FITTING
from vramfit.cli.show import show, show_json
from vramfit.cli.train import asked, own_fields
from vramfit.cli.training_knobs import training_options
from vramfit.device import Device
from vramfit.errors import InvalidValueError
from vramfit.mesh import FORMULA, Candidate, Links, MeshAnswer, Ranked
from vramfit.meshes import SHOWN, MeshQuestion, rank_meshes
from vramfit.report.meshes import sections
from vramfit.units import parse_bytes


@click.command()
@click.argument("model", required=False)
@click.option("--gpus", "device_count", type=int, required=True, help="Devices in all; every mesh uses all of them.")
@click.option("--gpu", required=True, help="Device, as in `vramfit devices`; `here` = the cards of this machine.")
@click.option("--global-batch", type=int, help="Sequences of one step on all devices; default: 4 for each device.")
@click.option("--plan", "plan_text", help="What is given of the plan: tp=8,ep=1 ...; the rest is searched.")
@training_options
@click.option("--from", "files", multiple=True, help="Read the workload from a framework's own file; may be repeated.")
@click.option("--gpu-memory", help="What this card really reports, e.g. 24564MiB.")
@click.option("--headroom", help="What to leave free on every device, e.g. 2GiB.")
@click.option("--node", "node_devices", type=int, help="Devices of one node; default: as its data sheet says.")
@click.option("--inside-link", help="What a device sends to its node in a second, one way, e.g. 450GB.")
@click.option("--between-link", help="What a device sends to other nodes in a second, one way, e.g. 50GB.")
@click.option("--top", type=int, default=SHOWN, show_default=True, help="How many are shown.")
@click.option("--all", "every", is_flag=True, help="Rank every candidate, not only the best of each mesh.")
@click.option("--config", "config_file", help="Read this config.json instead of looking the model up.")
@click.option("--hub", is_flag=True, help="Ask the Hub even if the catalogue knows the model.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@click.option("--check", is_flag=True, help="Exit with 1 when no mesh fits; tight fits.")
def plan(model: str | None, **given: Any) -> int:  # noqa: ANN401 - click's options, named in the decorators above
    """Search meshes, micro-batches and recomputation for training on many devices.

    Every way to spread the devices over dp_replicate, dp_shard, tp, pp, cp and ep is counted with every micro-batch,
    schedule, division of states and recomputation that the framework has. --batch and --recompute, when given, are
    held fast, as is what --plan says. MODEL is a catalogue name, a Hub id or a path.
    """
    answer = rank_meshes(_question(model, given))
    if given["as_json"]:
        show_json(as_mapping(answer))
    else:
        show(sections(answer))
    return NOT_FITTING if given["check"] and not answer.ranked else 0


def _question(model: str | None, given: dict[str, Any]) -> MeshQuestion:
    """Return the question that the options make up.

    Raises:
        VramfitError: anything about it that cannot be.
    """
    _, combined = asked(model, given)
    own = {each.path: each.value for each in own_fields(model, given)}
    if "workload.gradient_accumulation_steps" in own:
        raise InvalidValueError(
            "--accumulate", given["gradient_accumulation_steps"], "it to be left out",
            "it is what --global-batch, the data-parallel ranks and the micro-batch leave: --global-batch says it",
        )  # fmt: skip
    request = combined.request
    if request.device == "here":
        from vramfit.cli.here import on_this_machine  # noqa: PLC0415 - only this machine's owner pays for it

        request, _ = on_this_machine(request)
    device = asked_device(request)
    assert device is not None, "--gpu is required"
    fixed = {path.partition(".")[2]: value for path, value in own.items() if path.startswith("plan.")}
    fixed |= {name: own[f"workload.{name}"] for name in ("micro_batch", "recompute") if f"workload.{name}" in own}
    return MeshQuestion(
        model=asked_model(request, hub=given["hub"]),
        workload=replace(request.workload, gradient_accumulation_steps=None),
        device=device,
        num_devices=given["device_count"],
        global_batch=given["global_batch"],
        headroom_bytes=request.headroom_bytes,
        links=_links(device, given),
        fixed=MappingProxyType(fixed),
        most=max(1, given["top"]),
        every=given["every"],
    )


def _links(device: Device, given: dict[str, Any]) -> Links | None:
    """Return the links of the device with what the options say of them; None = as the catalogue has them."""
    said = {
        "node_devices": given["node_devices"],
        "inside_bytes_per_second": _rate(given["inside_link"], "--inside-link"),
        "between_bytes_per_second": _rate(given["between_link"], "--between-link"),
    }
    known = {name: value for name, value in said.items() if value is not None}
    if not known:
        return None
    if given["node_devices"] is not None and given["node_devices"] < 1:
        raise InvalidValueError("--node", given["node_devices"], "at least 1")
    links = links_of(device)
    return replace(links, **known, source=f"{', '.join(known)} as given; {links.source}")


def _rate(text: str | None, path: str) -> int | None:
    if text is None:
        return None
    size = parse_bytes(text.removesuffix("/s"), path)
    if size < 1:
        raise InvalidValueError(path, text, "a rate above 0 such as 50GB")
    return size


def as_mapping(answer: MeshAnswer) -> dict[str, Any]:
    """Return the answer for JSON."""
    return {
        "schema": 1,
        **_fields(answer),
        "links": _fields(answer.links),
        "proxy": list(FORMULA),
        "ranked": [_ranked(each) for each in answer.ranked],
        "nearest": None if answer.nearest is None else _ranked(answer.nearest),
        "refusals": [_fields(each) for each in answer.refusals],
    }


def _ranked(ranked: Ranked) -> dict[str, Any]:
    cost = ranked.proxy
    return {
        **_fields(ranked),
        "candidate": _candidate(ranked.candidate),
        "proxy": {"cost": cost.cost, "exchange_ratio": cost.exchange_ratio, **_fields(cost)},
        "verdict": ranked.verdict.value,
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {**_fields(candidate), "plan": _fields(candidate.plan)}


def _fields(noun: Any) -> dict[str, Any]:  # noqa: ANN401 - any noun
    return {name: getattr(noun, name) for name in noun.__slots__}
