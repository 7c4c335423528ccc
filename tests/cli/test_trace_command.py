"""``vramfit trace``: what can be pointed at, what is printed, and how mistakes are answered."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from vramfit.cli.trace import trace_command
from vramfit.cli.trace_target import hints_of
from vramfit.errors import VramfitError

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip
PARAMETERS = 2 * 512 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64
"""Embeddings and head, two layers of q, o, k, v, three matrices of the feed-forward and two norms, the last norm."""
PROGRAM = """
import sys, torch
print("arguments", sys.argv[1:])
model = torch.nn.Linear(1024, 1024).cuda()
optimizer = torch.optim.AdamW(model.parameters())
while True:
    model(torch.randn(8, 1024, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def run(*words: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(trace_command, ["--gpu", "rtx-4090-24gb", *map(str, words)], standalone_mode=False)


def as_json(*words: str | Path) -> dict[str, Any]:
    """Run the command and decode what it prints."""
    result = run(*words, "--json")
    assert result.exception is None, result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the file of a small model's configuration."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return the file of an endless training program."""
    path = tmp_path / "train.py"
    path.write_text(PROGRAM)
    return path


def test_script_is_reported_in_words(program: Path) -> None:
    """Verdict first, then peaks, phases, steps, whose memory it was, the largest tensors with their lines."""
    result = run(program, "--steps", "2")
    lines = result.stdout.splitlines()
    assert "arguments []" == lines[0]
    assert lines[1].startswith("Fits on rtx-4090-24gb: needs ")
    for said in ("stopped after 2 optimizer steps", "By step, GiB", "optimizer state weight", "train.py:4 in <module>"):
        assert said in " ".join(result.stdout.split())
    assert 0 == result.return_value


def test_script_gets_its_own_arguments(program: Path) -> None:
    """Unknown options and everything behind -- are the script's; what is ours must stand in front."""
    result = run(program, "--width", "3", "--steps", "1", "--", "--gpu", "mine")
    assert "arguments ['--width', '3', '--gpu', 'mine']" in result.stdout


def test_script_counts_what_it_must(program: Path) -> None:
    """AdamW of 1024 x 1025 fp32 parameters: weights, gradients, two states, each to the byte, in the JSON."""
    found = as_json(program, "--steps", "2")
    by_name = {share["name"]: share["num_bytes"] for share in found["categories"]}
    weights = 4 * (1024 * 1024 + 1024)
    assert (weights, weights, 2 * weights) == (by_name["parameter"], by_name["gradient"], by_name["optimizer_state"])
    assert ("steps", 2) == (found["ending"]["stop"], found["ending"]["num_steps"])
    assert found["fits"] is True


def test_model_by_name_has_its_parameters(config: Path) -> None:
    """A model built from its configuration holds two bytes per parameter for weights and for each state in bf16."""
    found = as_json(config, "--train", "--sequence", "64", "--batch", "2")
    by_name = {share["name"]: share["num_bytes"] for share in found["categories"]}
    assert 2 * PARAMETERS == by_name["parameter"]
    assert 4 * PARAMETERS == by_name["optimizer_state"]


def test_lora_on_four_bits_keeps_half_a_byte_per_weight(config: Path) -> None:
    """Frozen linear layers take half a byte per weight; the adapters of rank 4 alone have states."""
    found = as_json(config, "--sequence", "64", "--lora-rank", "4", "--base-format", "nf4", "--largest", "500")
    linear = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    packed = [t["num_bytes"] for t in found["largest"] if t["name"].endswith("packed")]
    assert linear // 2 == sum(packed), "every layer but the head, which stays in bf16"
    adapters = 2 * 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    states = {share["name"]: share["num_bytes"] for share in found["categories"]}["optimizer_state"]
    assert 2 * 4 * adapters == states, "two states of four bytes"


def test_generation_holds_a_cache(config: Path) -> None:
    """Longer prompts and larger batches leave more keys and values behind."""
    short = as_json(config, "--generate", "--sequence", "16", "--new-tokens", "2")
    long = as_json(config, "--generate", "--sequence", "64", "--new-tokens", "2", "--batch", "4")
    assert long["allocated_peak_bytes"] > short["allocated_peak_bytes"]


def test_factory_is_trained_on_inputs_of_its_shapes(tmp_path: Path) -> None:
    """A module from a file of one's own; its parameters are counted, its output needs no loss of its own."""
    path = tmp_path / "net.py"
    path.write_text("import torch\ndef make(): return torch.nn.Linear(32, 16)\nwrong = 3\n")
    found = as_json(f"{path}:make", "--input", "input=4x32", "--dtype", "fp32")
    by_name = {share["name"]: share["num_bytes"] for share in found["categories"]}
    assert 4 * (32 * 16 + 16) == by_name["parameter"]
    for words, expected in (
        ((f"{path}:make",), "--input"),
        ((f"{path}:wrong", "--input", "x=4"), "a function or class"),
        ((f"{path}:make", "--input", "x=4y"), "NAME=SHAPE"),
        ((f"{tmp_path}/none.py:make",), "no such file"),
    ):
        assert expected in str(run(*words).exception)


def test_what_does_not_fit_is_told_with_its_need(program: Path) -> None:
    """The program runs to its end; the verdict says how much it needs and where it would have been refused."""
    result = run(program, "--gpu-memory", "500MiB", "--check")
    assert "Does not fit" in result.stdout
    assert "CUDA out of memory. Tried to allocate" in result.stdout
    assert "stopped after 3 optimizer steps" in result.stdout
    assert 1 == result.return_value
    refused = run(program, "--gpu-memory", "500MiB", "--enforce")
    assert "ended after 0 optimizer steps: the card was full" in refused.stdout


def test_snapshot_is_one_that_pytorch_writes(program: Path, tmp_path: Path) -> None:
    """The file unpickles to segments and a trace whose last segments sum to what is reserved."""
    path = tmp_path / "out.pickle"
    run(program, "--steps", "2", "--snapshot", path)
    found = pickle.loads(path.read_bytes())  # noqa: S301 - our own file
    assert found["device_traces"][0]
    assert all(segment["total_size"] % 2**21 == 0 for segment in found["segments"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("no_such_file.py",), "no such file"),
        (("no-such-model",), "is not known"),
        (("llama-3.1-8b", "--sequnce", "3"), "nearest: --sequence"),
        (("llama-3.1-8b", "--without-weights"), "is for scripts"),
        (("llama-3.1-8b", "--steps", "few"), "a number of optimizer steps"),
        (("llama-3.1-8b", "--base-format", "fp3"), "one of nf4"),
        (("llama-3.1-8b", "--hint", "nonzero"), "NAME=NUMBER"),
        (("llama-3.1-8b", "--input", "x=3"), "file.py:factory"),
        (("stable-diffusion-v1-5/stable-diffusion-v1-5", "--generate"), "a language model"),
        (("-m", "no_such_module_here"), "no such module"),
    ],
)
def test_mistakes_get_one_clear_answer(words: tuple[str, ...], expected: str) -> None:
    """What was seen, what was expected, what to do next."""
    error = run(*words).exception
    assert expected in (error.format_message() if isinstance(error, click.ClickException) else str(error))


def test_model_options_are_refused_for_scripts(program: Path) -> None:
    """--batch of a script goes behind --, rather than being taken for ours in silence."""
    error = run(program, "--batch", "8").exception
    assert "goes behind --" in error.format_message()  # type: ignore[union-attr] # a usage error


def test_code_of_a_model_repository_is_never_run(tmp_path: Path) -> None:
    """A configuration that names code of its own is built by transformers or refused, never by that code."""
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    strange = {**CONFIG, "model_type": "evil-model", "auto_map": {"AutoModelForCausalLM": "evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(strange))
    error = run(tmp_path).exception
    assert isinstance(error, VramfitError)
    assert "code of model repositories is never run" in str(error)


def test_without_torch_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command names the extra to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'vramfit[trace]'" in str(run("llama-3.1-8b").exception)


def test_hints_are_numbers_and_truths() -> None:
    """A hint names an operator or a line; its value may be an integer, a float or a truth."""
    assert {"a.py:3": -1.5, "nonzero": 12} == hints_of(["a.py:3=-1.5", "nonzero=12"])


def test_help_imports_no_torch() -> None:
    """Asking for help stays quick: torch is imported when something is traced."""
    code = "import sys, vramfit.cli.trace; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False False" == done.stdout.strip()


def test_a_module_that_crashes_shows_its_own_lines(tmp_path: Path) -> None:
    """The traceback of a factory's module names the user's line and none of ours."""
    path = tmp_path / "net.py"
    path.write_text(
        "import torch\nclass Net(torch.nn.Linear):\n    def forward(self, x):\n        return 1 / 0\n"
        "def make(): return Net(4, 4)\n"
    )
    result = run(f"{path}:make", "--input", "x=2x4")
    assert 1 == result.return_value
    assert 'net.py", line 4, in forward' in result.stderr
    assert "vramfit/" not in result.stderr
