"""``vramfit infer`` on a diffusion pipeline: weights by component, what is not counted, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from command_run import run
from small_pipeline import write_folder


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Return a small pipeline on disk."""
    return str(write_folder(tmp_path, headers=False))


def answered(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    """Run with --json and decode."""
    code, out, err = run(capsys, *args, "--json")
    assert (0, "") == (code, err)
    return json.loads(out)


def test_weights_are_listed_by_component(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each component has its row, the rows add up to the weights, and no context or batch is promised."""
    answer = answered(capsys, "infer", folder, "--gpu", "l4")
    rows = {i["name"]: i["bytes"] for i in answer["breakdowns"][0]["items"] if i["name"].startswith("weights/")}
    assert {"weights/text_encoder", "weights/transformer", "weights/vae"} == set(rows)
    assert answer["weights_bytes"] == sum(rows.values())
    assert (None, None, 0) == (answer["longest_context"], answer["largest_batch"], answer["kv_bytes_per_token"])
    assert ["load"] == list(answer["breakdowns"][0]["phases"])


def test_what_is_not_counted_is_named(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Denoising and decoding have no zero: they are listed, with the facts they will grow by."""
    left = answered(capsys, "infer", folder)["not_counted"]
    assert any(text.startswith("transformer: activations of a denoising step (5 latent channels") for text in left)
    assert any(text.startswith("vae: the peak of decoding latents to pixels") for text in left)
    assert not any("inputs other than text" in text for text in left)


def test_weights_that_fit_are_not_called_enough(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict stays short of fits, since the rest of the memory is not counted."""
    assert "tight" == answered(capsys, "infer", folder, "--gpu", "l4")["verdict"]["verdict"]
    code, out, _ = run(capsys, "infer", folder, "--gpu", "l4")
    assert 0 == code
    assert out.startswith("Weights fit on l4")
    assert "the rest is not counted" in out


@pytest.mark.parametrize("option", ["--context", "--prompt", "--new-tokens"])
def test_a_context_is_refused(option: str, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipeline keeps no cache: lengths are refused by name rather than ignored."""
    code, _, err = run(capsys, "infer", folder, option, "64")
    assert 0 != code
    assert "a diffusion pipeline has no context and no cache" in err


@pytest.mark.parametrize("options", [("--tp", "2"), ("--pp", "2"), ("--gpus", "2")])
def test_a_division_is_refused(options: tuple[str, ...], folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """This version copies pipelines and does not divide them, and says so."""
    code, _, err = run(capsys, "infer", folder, "--gpu", "l4", *options)
    assert 0 != code
    assert "does not divide diffusion pipelines" in err


def test_copies_are_counted_per_device(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Replicas hold the whole pipeline each."""
    one, two = answered(capsys, "infer", folder), answered(capsys, "infer", folder, "--dp", "2")
    assert one["weights_bytes"] == two["weights_bytes"]
    assert 2 == two["breakdowns"][0]["num_ranks"]


def test_another_format_shrinks_every_component(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Quantisation reaches the linear layers of all components; convolutions and norms stay."""
    plain, nf4 = answered(capsys, "infer", folder), answered(capsys, "infer", folder, "--weights", "nf4")
    names = {i["name"] for i in nf4["breakdowns"][0]["items"]}
    assert nf4["weights_bytes"] < plain["weights_bytes"]
    assert "load/quantisation_staging" in names
