"""``infer --command``, ``--as-log`` and the options for servers, as a person types them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command_run import run
from vramfit.answer import answer
from vramfit.cli.command import fitting, read
from vramfit.request import Inference, Plan, Request
from vramfit.result import Change, Verdict

COMMAND = (
    "vllm serve meta-llama/Llama-3.1-8B-Instruct --max-model-len 36000 --port 8000 --frob 1 --limit-mm-per-prompt x"
)


def test_a_command_is_answered_and_ends_with_one_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    """The report names each flag's effect; the last lines are a command, read again it fits."""
    code, out, _ = run(capsys, "infer", "--command", COMMAND, "--gpu", "l4")
    assert 0 == code
    assert "Does not fit on l4-24gb" in out
    said = out.split("The command line as understood\n")[1]
    for part in ("--frob", "not understood", "--limit-mm-per-prompt", "not counted", "--port"):
        assert part in said
    fits = " ".join(line.strip().removesuffix("\\") for line in out.split("A command that fits\n")[1].splitlines()[:-1])
    assert "changed: --context" in out
    again = json.loads(run(capsys, "infer", "--command", fits, "--gpu", "l4", "--json")[1])
    assert "fits" == again["verdict"]["verdict"]
    assert (fits.split(), None) == (again["command"]["fitting"].replace("\\", "").split(), again["command"]["changed"])


def test_our_own_options_win_over_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """What is written on our command line replaces what the engine's says."""
    found = answered(capsys, "--command", COMMAND, "--gpu", "h100", "--context", "4096")
    assert 4096 == found["request"]["workload"]["context_tokens"]
    assert "vllm" == found["request"]["workload"]["engine"]


def answered(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    """Run infer with --json and decode."""
    code, out, err = run(capsys, "infer", *args, "--json")
    assert (0, "") == (code, err)
    return json.loads(out)


def test_a_server_without_a_context_takes_the_models_own(capsys: pytest.CaptureFixture[str]) -> None:
    """VLLM without --max-model-len serves 131,072 tokens of Llama 3.1; the command is kept in JSON."""
    found = answered(capsys, "--command", "vllm serve meta-llama/Llama-3.1-8B-Instruct", "--gpu", "l4")
    assert 131_072 == found["request"]["workload"]["context_tokens"]
    assert found["command"]["fitting"].startswith("vllm serve meta-llama/Llama-3.1-8B-Instruct --max-model-len ")


def test_more_devices_are_written_as_whole_plans(capsys: pytest.CaptureFixture[str]) -> None:
    """Where only more devices help, the command names tensor and pipeline degree, whatever it said before."""
    command = "vllm serve meta-llama/Llama-3.1-405B-Instruct -pp 3 -tp 1 --max-model-len 8192"
    fitting = answered(capsys, "--command", command, "--gpu", "h100")["command"]["fitting"]
    assert "--tensor-parallel-size 8" in fitting
    assert "--pipeline-parallel-size 2" in fitting
    assert "-pp 3" not in fitting


def test_a_degree_that_a_plan_does_not_name_is_one() -> None:
    """Three stages in place of two tensor ranks: the command's -tp 2 becomes 1, or it would take six devices."""
    request = Request(model="llama-3.1-8b", workload=Inference(engine="vllm"), plan=Plan(tp=2), device="l4")
    short = answer(replace(request, workload=Inference(engine="vllm", context_tokens=131072)))
    change = Change(flags="--gpus 3 --pp 3", saves_bytes=1, verdict=Verdict.FITS, margin_bytes=1, note="")
    judged = replace(short, changes=(change,), fit=replace(short.fit, verdict=Verdict.DOES_NOT_FIT))
    found = fitting(read("vllm serve x/y -tp 2", None), judged)
    assert found is not None
    assert {"plan.tp": 1, "plan.pp": 3} == {g.path: g.value for g in found[0].given if g.path.startswith("plan.")}


def test_a_file_with_a_command_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path in place of a command is opened."""
    path = tmp_path / "serve.sh"
    path.write_text("vllm serve meta-llama/Llama-3.1-8B-Instruct \\\n  --max-model-len 4096\n")
    assert 4096 == answered(capsys, "--command", str(path))["request"]["workload"]["context_tokens"]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (("infer", "--command", "rm -rf /"), ("--command", "vllm serve")),
        (("infer", "--command", "vllm serve"), ("--command", "a model in it")),
        (("infer", "--command", "vllm serve x/y --tensor-parallel-size two"), ("--tensor-parallel-size", "'two'")),
        (("infer", "--command", COMMAND, "--engine-version", "newest"), ("newest",)),
        (("infer", "llama-3.1-8b", "--lengths", "2000"), ("device",)),
        (("infer", "llama-3.1-8b", "--gpu", "l4", "--lengths", "2000"), ("--lengths", "2000,9000")),
        (("infer", "llama-3.1-8b", "--gpu", "l4", "--requests", "4"), ("workload.engine", "'generic'", "vllm")),
        (("infer", "llama-3.1-8b", "--engine", "vllm", "--gpu", "l4", "--beside", "no-such"), ("'no-such'",)),
    ],
)
def test_wrong_input_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    """Exit code 2, one message that shows the input and what was expected."""
    code, _, err = run(capsys, *args)
    assert 2 == code
    assert "Traceback" not in err
    for part in parts:
        assert part in err


def test_the_log_is_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """--as-log prints the engine's lines and nothing else; with --json they stand beside the answer."""
    args = ("llama-3.1-8b", "--engine", "vllm", "--gpu", "h100", "--context", "8192", "--as-log")
    code, out, _ = run(capsys, "infer", *args)
    assert 0 == code
    assert out.startswith("Model loading took ")
    assert out.splitlines() == answered(capsys, *args)["log"]


def test_what_a_server_carries_is_in_report_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Requests at once, the smallest fraction, and ranked plans where there are several devices."""
    args = ("llama-3.1-8b", "--engine", "vllm", "--gpu", "h100", "--gpus", "2", "--context", "8192",
            "--lengths", "2000,9000", "--shared-prefix", "500", "--requests", "10")  # fmt: skip
    _, out, _ = run(capsys, "infer", *args)
    for title in ("Requests of 2,000 tokens (median) to 9,000 (95th), 500 of them shared", "Smallest fraction",
                  "Plans over these devices"):  # fmt: skip
        assert title in out
    found = answered(capsys, *args)["capacity"]
    assert found["requests"]["expected"] > 0
    assert 0 < found["fraction"]["fraction"] < 1
    assert {2} == {c["plan"]["tp"] * c["plan"]["pp"] * c["plan"]["dp_replicate"] for c in found["plans"]}
    pair = answered(capsys, *args[:5], "--context", "8192", "--beside", "llama-3.2-1b")["capacity"]["pair"]
    assert [1, 2] == [share["order"] for share in pair["shares"]]
