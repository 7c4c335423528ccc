"""``compare``: a pasted log beside its prediction."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from vramfit.cli.show import show, show_json
from vramfit.compare import compare
from vramfit.comparison import Comparison
from vramfit.errors import UnreadableFileError
from vramfit.logs.lines import LIMIT_BYTES
from vramfit.logs.read import read_log
from vramfit.report.comparison import sections
from vramfit.request import Given
from vramfit.units import parse_bytes

PATHS = {
    "model": "model", "engine": "workload.engine", "engine_version": "workload.engine_version",
    "context_tokens": "workload.context_tokens", "batch": "workload.batch", "weight_format": "workload.weight_format",
    "kv_format": "workload.kv_format", "memory_fraction": "workload.memory_fraction",
    "max_num_seqs": "workload.max_num_seqs", "max_num_batched_tokens": "workload.max_num_batched_tokens",
    "tp": "plan.tp", "pp": "plan.pp",
}  # fmt: skip
"""Options -> fields."""


@click.command("compare")
@click.argument("logfile")
@click.option("--model", help="What the log does not say, or says as a path: name it here.")
@click.option("--gpu", help="Device, as in `vramfit devices`.")
@click.option("--gpu-memory", help="What this card really reports, e.g. 24564MiB.")
@click.option("--engine", help="For an out-of-memory message alone: which program it came from.")
@click.option("--engine-version", help="Version of the engine.")
@click.option("--context", "context_tokens", type=int, help="Tokens of the longest sequence.")
@click.option("--batch", type=int, help="Sequences held at once.")
@click.option("--weights", "weight_format", help="Weight format, as in `vramfit explain formats`.")
@click.option("--kv-format", help="KV-cache format.")
@click.option("--fraction", "memory_fraction", type=float, help="Share of the device that the server may take.")
@click.option("--max-num-seqs", type=int, help="Most sequences at once.")
@click.option("--max-batched-tokens", "max_num_batched_tokens", type=int, help="Most tokens of one pass.")
@click.option("--tp", type=int, help="Tensor-parallel degree.")
@click.option("--pp", type=int, help="Pipeline-parallel degree.")
@click.option("--hub", is_flag=True, help="Ask the Hub even if the catalogue knows the model.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def compare_command(logfile: str, as_json: bool, hub: bool, **given: Any) -> None:  # noqa: ANN401 - click's options
    """Set the prediction beside what a start-up log printed, and name the knob that explains a difference.

    LOGFILE is the log of vLLM, SGLang, llama.cpp or ollama, or an out-of-memory message of torch; - = standard input.
    What you add by options wins over what the log says.
    """
    facts = read_log(_bytes(logfile), logfile)
    size = given["gpu_memory"]
    found = compare(
        facts,
        tuple(_said(given)),
        device=given["gpu"],
        memory_bytes=None if size is None else parse_bytes(size, "--gpu-memory"),
        hub=hub,
    )
    if as_json:
        show_json(as_mapping(found))
    else:
        show(sections(found))


def _bytes(logfile: str) -> bytes:
    """Return the log, one byte more than the limit at most."""
    if logfile == "-":
        return sys.stdin.buffer.read(LIMIT_BYTES + 1)
    try:
        with Path(logfile).open("rb") as file:
            return file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise UnreadableFileError(
            f"LOGFILE: {logfile}: {error.strerror}; expected a start-up log, or - for standard input"
        ) from error


def _said(given: dict[str, Any]) -> Iterator[Given]:
    for name, path in PATHS.items():
        if given[name] is not None:
            yield Given(path=path, value=given[name], said="your option")


def as_mapping(found: Comparison) -> dict[str, Any]:
    """Return the comparison for JSON."""
    failure, worst = found.facts.failure, found.worst
    return {
        "program": found.facts.program,
        "read": [{"field": g.path, "value": g.value, "said": g.said} for g in found.facts.given],
        "device_total_bytes": found.facts.device_total_bytes,
        "failure": None if failure is None else {n: getattr(failure, n) for n in failure.__slots__},
        "rows": [
            {
                "quantity": p.quantity.value,
                "scope": p.scope,
                "measured": p.measured,
                "predicted": p.predicted,
                "error_ratio": p.error_ratio,
                "low": p.low,
                "high": p.high,
                "inside": p.inside,
            }
            for p in found.parts
        ],
        "worst": None if worst is None else worst.quantity.value,
        "need": None if found.need is None else asdict(found.need),
        "explanations": [asdict(advice) for advice in found.explanations],
        "ways_out": [asdict(advice) for advice in found.ways_out],
        "assumptions": list(found.assumptions),
        "not_predicted": list(found.not_predicted),
    }
