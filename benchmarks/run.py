"""What vramfit costs, measured side by side in one run and printed as medians and ratios; nothing here fails on time.

Run with the Python that has vramfit and the test dependencies: ``.venv-test/bin/python benchmarks/run.py``.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from loopback_hub import LoopbackHub, Repository
from vramfit.catalogue.device import find_device
from vramfit.catalogue.model import all_models, find_model
from vramfit.estimate import estimate
from vramfit.meshes import MeshQuestion, rank_meshes
from vramfit.readers.hf_config import read_config
from vramfit.readers.safetensors import parse_header
from vramfit.request import Inference, Plan
from vramfit.spec import ModelSpec
from vramfit.training import Training
from vramfit.units import Size

HERE = Path(sys.executable).parent
MODEL = "meta-llama/Llama-3.1-8B-Instruct"
READING_GOAL_SECONDS = 1e-3
LARGE = "meta-llama/Llama-3.1-70B-Instruct"


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call, after one that warms up. [s]"""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def command(*arguments: str, **environment: str) -> Callable[[], object]:
    """Return a call that runs a whole process and insists that it succeeds."""

    def call() -> None:
        subprocess.run(
            arguments, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, check=True
        )

    return call


def processes() -> None:
    """Compare whole processes: bare Python, vramfit, accelerate against a Hub on the loopback."""
    python = median_seconds(command(sys.executable, "-c", "pass"), 15)
    ours = median_seconds(command(str(HERE / "vramfit"), "infer", "llama-3.1-8b", "--gpu", "l4"), 15)
    show("python -c pass", python)
    show("vramfit infer llama-3.1-8b --gpu l4", ours, f"{ours / python:.1f} x bare Python (goal: at most 10)")
    with loopback_hub() as hub, tempfile.TemporaryDirectory() as cache:
        environment = hub.environment(Path(cache))
        asked = ("estimate-memory", MODEL, "--library_name", "transformers")
        theirs = median_seconds(command(str(HERE / "accelerate"), *asked, **environment), 3)
    show("accelerate estimate-memory", theirs, f"{theirs / ours:.1f} x vramfit infer (goal: at least 20)")


def loopback_hub() -> LoopbackHub:
    """Return a Hub on this machine that has the catalogue's configuration of ``MODEL``."""
    config = json.dumps(dict(find_model(MODEL).config)).encode()
    return LoopbackHub({MODEL: Repository(files={"config.json": config})})


def library() -> None:
    """Measure the library once everything is imported: reading, one estimate, a grid of a million."""
    config = find_model(LARGE).config
    spec = read_config(config, LARGE)
    asked, plan = Inference(context_tokens=8192, batch=4), Plan()
    show("read_config of a 70B model", median_seconds(lambda: read_config(config, LARGE), 200), "goal: at most 1 ms")
    show("estimate of a 70B model", median_seconds(lambda: estimate(spec, asked, plan), 500), "goal: at most 200 us")

    readings()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = median_seconds(lambda: grid(spec), 3)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    note = f"peak memory of the process grew by {grown / 1e6:.0f} MB (goals: at most 1 s, 500 MB)"
    show("a million batches and contexts", seconds, note)


def readings() -> None:
    """Read every configuration of the catalogue, and the header of a file with a thousand tensors."""
    rows = [row for row in all_models() if "model_type" in row.config]
    times = {row.name: median_seconds(partial(read_config, row.config, row.name), 5) for row in rows}
    slowest = max(times, key=lambda name: times[name])
    late = sum(seconds > READING_GOAL_SECONDS for seconds in times.values())
    note = f"of {len(rows)}; {late} above the goal of 1 ms; slowest {1e3 * times[slowest]:.1f} ms, {slowest}"
    show("read_config, median of the catalogue", statistics.median(times.values()), note)
    entries = {
        f"model.layers.{i}.mlp.up_proj.weight": {
            "dtype": "BF16",
            "shape": [64, 8],
            "data_offsets": [1024 * i, 1024 * i + 1024],
        }
        for i in range(1000)
    }
    header = json.dumps(entries).encode()
    show("a header of 1,000 tensors", median_seconds(lambda: parse_header(header, "file"), 50), "goal: at most 20 ms")


def mesh_search() -> None:
    """Search meshes for 512 H100 once, everything counted afresh: candidates per second."""
    spec = read_config(find_model(LARGE).config, LARGE)
    asked = MeshQuestion(
        model=spec,
        workload=Training(framework="torchtitan", sequence_tokens=8192),
        device=find_device("h100-sxm-80gb"),
        num_devices=512,
    )
    start = time.perf_counter()
    answer = rank_meshes(asked)
    seconds = time.perf_counter() - start
    rate = f"{answer.num_candidates / seconds:,.0f} a second (goal: at least 20,000)"
    show(f"meshes of 512: {answer.num_candidates:,} candidates", seconds, rate)


def grid(spec: ModelSpec) -> Size:
    """Peak bytes at a thousand batches times a thousand contexts."""
    batch = np.arange(1, 1001, dtype=np.int64)[:, None]
    context = 128 * np.arange(1, 1001, dtype=np.int64)[None, :]
    answer = estimate(spec, Inference(context_tokens=context, batch=batch), Plan())
    peak = answer.breakdowns[0].peak().expected_bytes
    assert peak.shape == (1000, 1000), "a grid gives a grid"
    return peak


def show(what: str, seconds: float, note: str = "") -> None:
    """Print one line: what, how long, compared with what."""
    unit, factor = next((u, f) for u, f in (("s", 1), ("ms", 1e3), ("us", 1e6)) if seconds * f >= 1 or u == "us")
    print(f"{what:38} {seconds * factor:8.1f} {unit:2}   {note}")


if __name__ == "__main__":
    library()
    mesh_search()
    processes()
