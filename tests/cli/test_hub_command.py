"""The command through a Hub on the loopback: exact weights from headers, and clear words when the Hub says no."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gguf_bytes import gguf_file
from loopback_hub import GOOD_TOKEN, LoopbackHub, Repository, safetensors
from vramfit.catalogue.model import find_model
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory

ROW = find_model("Qwen/Qwen3-0.6B")
CONFIG = json.dumps(dict(ROW.config)).encode()
HEADER = safetensors({t.name: ("BF16", t.shape) for t in inventory(read_config(ROW.config, "m"))})


def run(hub: LoopbackHub, home: Path, *args: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own that knows only this Hub."""
    environment = {**os.environ, **hub.environment(home)}
    environment.pop("HF_TOKEN", None)
    if token is not None:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-m", "vramfit", "infer", *args, "--json"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.mark.slow
def test_a_model_from_the_hub_is_exact_without_its_weights(tmp_path: Path) -> None:
    """Header and inventory agree, every weight is exact, and fewer bytes than 1 % of the file were sent."""
    repository = Repository(files={"config.json": CONFIG, "model.safetensors": HEADER})
    with LoopbackHub({"somebody/a-model": repository}) as hub:
        done = run(hub, tmp_path, "somebody/a-model", "--gpu", "l4")
        sent = sum(request.num_bytes for request in hub.requests)
    assert "" == done.stderr
    answer = json.loads(done.stdout)
    assert 596_049_920 == answer["model"]["parameters"]
    assert "tensors of" in answer["model"]["evidence"]
    assert 2 * 596_049_920 == answer["weights_bytes"]
    weights = [i for i in answer["breakdowns"][0]["items"] if i["name"].startswith("weights/")]
    assert {"exact"} == {i["basis"] for i in weights}
    assert sent < HEADER.num_bytes // 100


@pytest.mark.slow
def test_the_catalogue_answers_first_unless_the_hub_is_asked_for(tmp_path: Path) -> None:
    """A catalogued name needs no network; --hub asks all the same."""
    with LoopbackHub({ROW.name: Repository(files={"config.json": CONFIG, "model.safetensors": HEADER})}) as hub:
        assert "config" == json.loads(run(hub, tmp_path, ROW.name).stdout)["model"]["evidence"]
        assert not hub.requests
        assert "config" != json.loads(run(hub, tmp_path, ROW.name, "--hub").stdout)["model"]["evidence"]


@pytest.mark.slow
def test_a_repository_of_gguf_files_is_answered_and_listed(tmp_path: Path) -> None:
    """The usual file is answered, all are listed with what fits, and a label chooses one."""
    pytest.importorskip("gguf")
    files = {f"m-{label}.gguf": gguf_file(tmp_path, label, label=kind) for label, kind in
             (("Q4_K_M", "F16"), ("Q8_0", "F32"))}  # fmt: skip
    with LoopbackHub({"org/gguf": Repository(files=files)}) as hub:
        environment = {**os.environ, **hub.environment(tmp_path), "COLUMNS": "110"}
        command = [sys.executable, "-m", "vramfit", "infer", "org/gguf", "--gpu", "l4"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=True)
        named = json.loads(run(hub, tmp_path, "org/gguf:Q8_0").stdout)
    assert "GGUF models there" in done.stdout
    assert "The largest that fits: vramfit infer org/gguf:Q8_0" in done.stdout
    assert "Q8_0" == named["model"]["name"]


@pytest.mark.slow
def test_gated_and_missing_repositories_are_said_so(tmp_path: Path) -> None:
    """Gated without a token, gated with one, and a name nobody has, with the nearest of the catalogue."""
    with LoopbackHub({"somebody/gated": Repository(files={"config.json": CONFIG}, gated=True)}) as hub:
        refused = run(hub, tmp_path, "somebody/gated")
        assert 2 == refused.returncode
        assert "gated" in refused.stderr
        assert "HF_TOKEN" in refused.stderr
        assert 0 == run(hub, tmp_path, "somebody/gated", token=GOOD_TOKEN).returncode
        missing = run(hub, tmp_path, "meta-llama/Llama-3.1-9B")
        assert 2 == missing.returncode
        assert "meta-llama/Llama-3.1-8B" in missing.stderr
        assert "Traceback" not in refused.stderr + missing.stderr
