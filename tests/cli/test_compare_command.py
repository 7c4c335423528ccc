"""``compare`` as a person types it."""

from __future__ import annotations

import io
import json
import sys
import types
from pathlib import Path

import pytest

import command_run
from logs.public_logs import LLAMA_70B_W8A8


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Run `vramfit compare`: exit code, output, errors."""
    return command_run.run(capsys, "compare", *args)


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Return the path of a public log."""
    path = tmp_path / "vllm.log"
    path.write_text(LLAMA_70B_W8A8.lines)
    return str(path)


def test_a_log_is_compared(capsys: pytest.CaptureFixture[str], log: str) -> None:
    """The report and JSON carry the same figures."""
    args = (log, "--model", LLAMA_70B_W8A8.model, "--weights", "w8a8-int8")
    code, out, _ = run(capsys, *args)
    assert 0 == code
    assert "printed 67.72 GiB" in out
    found = json.loads(run(capsys, *args, "--json")[1])
    assert "vllm" == found["program"]
    weights = next(row for row in found["rows"] if row["quantity"] == "weights")
    assert weights["measured"] == pytest.approx(67.7229 * 2**30)
    assert abs(weights["error_ratio"]) < 0.01
    assert found["worst"] in {row["quantity"] for row in found["rows"]}


def test_standard_input_is_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash reads the pasted text; without a model the log's facts are shown and the model asked for."""
    pasted = io.BytesIO(LLAMA_70B_W8A8.lines.encode())
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=pasted))
    code, out, _ = run(capsys, "-")
    assert 0 == code
    assert "add it with --model" in out
    assert "2048" in out


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (("no-such.log",), ("no-such.log", "start-up log")),
        (("LOG", "--model", "llama-3.1-71b"), ("'llama-3.1-71b'", "nearest")),
        (("LOG", "--model", "llama-3.1-70b", "--gpu", "h101"), ("device", "'h101'")),
        (("LOG", "--model", "llama-3.1-70b", "--tp", "3"), ("plan.tp", "3")),
        ((__file__,), ("expected the start-up log of vLLM",)),
    ],
)
def test_wrong_input_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], log: str, args: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    """A file that is not there, a model or card nobody knows, a plan that cannot be, another program's text."""
    code, out, err = run(capsys, *(log if arg == "LOG" else arg for arg in args))
    assert (2, "") == (code, out)
    assert "Traceback" not in err
    for part in parts:
        assert part in err
