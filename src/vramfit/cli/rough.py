"""``rough``: the widely quoted rules from a parameter count, what they ignore, and the derived answer beside them."""

from __future__ import annotations

from typing import Any

import click

from vramfit.answer import answer
from vramfit.catalogue.device import find_device
from vramfit.cli.show import show, show_json
from vramfit.device import Device
from vramfit.report.rules import sections
from vramfit.request import Inference, Request
from vramfit.result import Answer
from vramfit.rule import Rule
from vramfit.rule_of_thumb import OPTIMIZERS, all_rules, batch_rule, cards_needed
from vramfit.units import GB, parse_bytes, parse_count

WIDTHS = {4: "int4", 8: "int8", 16: "bf16", 32: "fp32"}
"""Format that stands for a bit width when the derived answer is asked for."""


@click.command()
@click.argument("parameters")
@click.option("--bits", type=int, default=16, show_default=True, help="Bits per parameter: 4, 8, 16 or 32.")
@click.option("--gpu", help="Device to count in, as in `vramfit devices`.")
@click.option("--training", is_flag=True, help="The rules for training instead of serving.")
@click.option("--optimizer", default="adamw", show_default=True, help=f"One of {', '.join(OPTIMIZERS)}.")
@click.option("--trainable", help="Trainable parameters of LoRA, e.g. 20M; default: a 400th.")
@click.option("--per-sample", help="Memory that one sample of the batch takes, e.g. 50MB.")
@click.option("--samples", type=int, default=1, show_default=True, help="Samples in a batch.")
@click.option("--model", help="A model to derive the real answer for, as in `vramfit infer`.")
@click.option("--context", "context_tokens", type=int, help="Tokens of a sequence, for the derived answer.")
@click.option("--batch", type=int, default=1, show_default=True, help="Sequences, for the derived answer.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def rough(parameters: str, **given: Any) -> None:  # noqa: ANN401 - click's options, named in the decorators above
    """Work through the rules that every page quotes, for PARAMETERS such as 70B.

    Each step is shown, and beside each rule what it ignores; known mistakes are shown to be explained.
    """
    count = parse_count(parameters, "PARAMETERS")
    trainable = None if given["trainable"] is None else parse_count(given["trainable"], "--trainable")
    rules = list(
        all_rules(count, given["bits"], training=given["training"], optimizer=given["optimizer"], trainable=trainable)
    )
    if given["per_sample"] is not None:
        rules.append(batch_rule(parse_bytes(given["per_sample"], "--per-sample"), given["samples"]))
    device = None if given["gpu"] is None else find_device(given["gpu"], "--gpu")
    derived = _derived(given, device)
    if given["as_json"]:
        show_json({"rules": [_wire(rule, device) for rule in rules], "derived": _derived_wire(derived)})
        return
    show(sections(tuple(rules), device, derived))


def _derived(given: dict[str, Any], device: Device | None) -> Answer | None:
    """Return the derived answer for the named model in the asked width, if a model was named."""
    if given["model"] is None or given["training"]:
        return None
    workload = Inference(
        weight_format=WIDTHS[given["bits"]], context_tokens=given["context_tokens"], batch=given["batch"]
    )
    return answer(Request(model=given["model"], workload=workload, device=None if device is None else device.name))


def _wire(rule: Rule, device: Device | None) -> dict[str, object]:
    cards = None
    if device is not None:
        cards = {"by_driver_bytes": cards_needed(rule.result_bytes, device.capacity_bytes)}
        if device.marketing_gb:
            cards["by_marketing_size"] = cards_needed(rule.result_bytes, device.marketing_gb * GB)
    return {
        "name": rule.name,
        "steps": [{"label": s.label, "formula": s.formula, "bytes": s.bytes} for s in rule.steps],
        "result_bytes": rule.result_bytes,
        "cards": cards,
        "source": rule.source,
        "ignores": rule.ignores,
        "mistake": rule.mistake,
    }


def _derived_wire(derived: Answer | None) -> dict[str, object] | None:
    if derived is None:
        return None
    peak = derived.estimate.worst.peak()
    option = derived.device_options[0] if derived.device_options else None
    return {
        "model": derived.estimate.model.name,
        "expected_bytes": peak.expected_bytes,
        "low_bytes": peak.low_bytes,
        "high_bytes": peak.high_bytes,
        "devices": None if option is None else option.count,
    }
