"""The command as a person types it: outputs, exit codes, errors, JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jsonschema
import pytest

from command_run import run, run_json
from vramfit.answer_wire import answer_schema

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16", "max_position_embeddings": 131072,
}  # fmt: skip


def test_the_main_job_prints_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    """Verdict, parts, phases, changes, limits, devices, choices, what is left out."""
    code, out, _ = run(
        capsys,
        "infer",
        "meta-llama/Llama-3.1-70B-Instruct",
        "--context",
        "8192",
        "--batch",
        "4",
        "--gpu",
        "a100-sxm-80gb",
    )
    assert 0 == code
    for title in (
        "Does not fit on a100-sxm-80gb", "What takes memory, GiB", "Over time, GiB", "What to change",
        "How far these devices go",
        "How many devices, and which others would do", "Decided for you", "Not counted",
    ):  # fmt: skip
        assert title in out


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--gpu", "a100-sxm-80gb", "--check"), 1),
        (("--gpu", "a100-sxm-80gb", "--gpus", "4", "--check"), 0),
        (("--gpu", "a100-sxm-80gb"), 0),
        (("--gpu-memory", "200GiB", "--check"), 0),
    ],
)
def test_check_speaks_through_the_exit_code(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], code: int
) -> None:
    """1 when it does not fit, 0 when it does or nobody asked."""
    assert code == run(capsys, "infer", "llama-3.1-70b", *args)[0]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (("infer", "llama-3.1-9b"), ("model", "'llama-3.1-9b'", "nearest", "vramfit models")),
        (("infer", "llama-3.1-8b", "--gpu", "a101"), ("device", "'a101'", "nearest")),
        (("infer", "llama-3.1-8b", "--context", "0"), ("workload.context_tokens", "0", "from 1")),
        (("infer", "llama-3.1-8b", "--batch", "-3"), ("workload.batch", "-3")),
        (("infer", "llama-3.1-8b", "--batch", "9" * 30), ("workload.batch",)),
        (("infer", "llama-3.1-8b", "--batch", "1.5"), ("--batch", "1.5")),
        (("infer", "llama-3.1-8b", "--tp", "3"), ("plan.tp", "3", "num_attention_heads (32)")),
        (("infer", "llama-3.1-8b", "--tp", "0"), ("plan.tp", "0")),
        (("infer", "llama-3.1-8b", "--pp", "64"), ("plan.pp", "at most 32")),
        (("infer", "llama-3.1-8b", "--gpu", "l4", "--tp", "2", "--gpus", "3"), ("device_count", "expected 2")),
        (("infer", "llama-3.1-8b", "--weights", "int3"), ("workload.weight_format", "'int3'", "nearest")),
        (("infer", "llama-3.1-8b", "--kv-format", "fp9"), ("workload.kv_format", "'fp9'", "fp8")),
        (("infer", "llama-3.1-8b", "--engine", "vlm"), ("workload.engine", "'vlm'", "vllm")),
        (("infer", "llama-3.1-8b", "--engine-version", "new"), ("workload.engine_version", "'new'")),
        (("infer", "llama-3.1-8b", "--attention", "magic"), ("workload.attention", "'magic'")),
        (("infer", "llama-3.1-8b", "--context", "10", "--prompt", "20"), ("workload.context_tokens", "10", "20")),
        (("infer", "llama-3.1-8b", "--headroom", "lots"), ("--headroom", "'lots'")),
        (("infer",), ("missing MODEL",)),
        (("infer", "./no-such.json"), ("no-such.json", "no such file")),
        (("infer", "--config", "no-such.json"), ("no-such.json", "no such file")),
        (("estimate", "--request", "no-such.json"), ("no-such.json",)),
        (("estimate",), ("missing --request", "--schema")),
        (("models", "zzzz-nothing"), ("SEARCH", "any Hub id")),
        (("devices", "zzzz-nothing"), ("SEARCH",)),
        (("explain", "zzzz-nothing"), ("TOPIC", "formats")),
        (("rough", "seventy"), ("PARAMETERS", "'seventy'", "70B")),
        (("rough", "70B", "--bits", "5"), ("--bits", "5", "4, 8, 16, 32")),
        (("infre", "x"), ("'infre'", "nearest: infer")),
        (("infer", "llama-3.1-8b", "--nonsense"), ("--nonsense",)),
    ],
)
def test_wrong_input_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    """Exit code 2, nothing on stdout, one message that shows the input and what was expected; never a traceback."""
    code, out, err = run(capsys, *args)
    assert (2, "") == (code, out)
    assert "Traceback" not in err
    for part in parts:
        assert part in err


def test_json_validates_against_the_shipped_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints an answer of version 1, with and without a device, whole and cut."""
    for args in ((), ("--gpu", "l4"), ("--gpu", "h100", "--gpus", "2"), ("--tp", "2", "--pp", "2", "--gpu", "l4")):
        found = run_json(capsys, "infer", "llama-3.1-8b", *args)
        jsonschema.validate(found, answer_schema())
        assert 16_060_522_496 == found["weights_bytes"]
        assert 131_072 == found["kv_bytes_per_token"]


def test_schemas_are_printed_without_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    """`estimate --schema` prints what ships."""
    code, out, _ = run(capsys, "estimate", "--schema")
    assert 0 == code
    assert answer_schema() == json.loads(out)["answer"]


def test_the_request_comes_back_as_understood(capsys: pytest.CaptureFixture[str]) -> None:
    """What was left open is filled in, and choices say why."""
    found = run_json(capsys, "infer", "llama-3.1-8b", "--gpu", "l4", "--kv-format-k", "q8_0")
    workload = found["request"]["workload"]
    assert ("1", "bf16", "q8_0", "bf16") == tuple(
        workload[n] for n in ("engine_version", "kv_format", "kv_format_k", "kv_format_v")
    )
    assert (8192, 8192, 0, "flash") == tuple(
        workload[n] for n in ("context_tokens", "prompt_tokens", "new_tokens", "attention")
    )
    assert {"engine_version", "kv_format", "context_tokens", "attention"} <= {c["field"] for c in found["choices"]}


def test_json_items_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    """The items alive in a phase sum to that phase; the peak is the largest phase."""
    found = run_json(capsys, "infer", "deepseek-ai/DeepSeek-V3", "--gpu", "h200", "--gpus", "8")
    for rank in found["breakdowns"]:
        for phase, total in rank["phases"].items():
            assert total["expected_bytes"] == sum(i["bytes"] for i in rank["items"] if phase in i["phases"])
        assert rank["peak_bytes"] == max(t["expected_bytes"] for t in rank["phases"].values())


def test_printed_columns_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    """The printed groups add up to the printed sum within rounding (0.005 a row)."""
    _, out, _ = run(capsys, "infer", "llama-3.1-8b", "--gpu", "l4", "--brief")
    rows = out.split("What takes memory, GiB\n")[1].split("\n\n")[0].splitlines()
    numbers = [float(next(w for w in row.split("  ") if w.strip().replace(".", "").isdigit())) for row in rows]
    assert numbers[-1] == pytest.approx(sum(numbers[:-1]), abs=0.005 * len(numbers))


def test_a_request_file_and_standard_input_give_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`estimate --request FILE` equals `--request -` and the same question asked by options."""
    text = json.dumps({"model": "llama-3.1-8b", "workload": {"kind": "serve", "context_tokens": 4096}, "device": "L4"})
    path = tmp_path / "request.json"
    path.write_text(text)
    from_file = run_json(capsys, "estimate", "--request", str(path))
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    assert from_file == run_json(capsys, "estimate", "--request", "-")
    assert from_file == run_json(capsys, "infer", "llama-3.1-8b", "--context", "4096", "--gpu", "L4")


def test_a_local_config_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By path, by folder and by --config."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    for args in ((str(path),), (str(tmp_path),), ("--config", str(path))):
        assert 8_030_261_248 == run_json(capsys, "infer", *args)["model"]["parameters"]


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff\xfe", b'{"model_type": NaN}', b"[" * 100_000, b'{"a":' * 50_000, b"", b"\x00" * 100]
)
def test_broken_json_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    """Damaged or hostile files: one error that names the file."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    code, _, err = run(capsys, "infer", str(path))
    assert 2 == code
    assert "config.json" in err
    assert "Traceback" not in err


def test_lists_and_explanations(capsys: pytest.CaptureFixture[str]) -> None:
    """models, devices and explain print and speak JSON."""
    assert "meta-llama/Llama-3.1-8B-Instruct" in run(capsys, "models", "llama-3.1")[1]
    assert "79.15" in run(capsys, "devices", "a100-sxm-80gb")[1]
    assert len(run_json(capsys, "models")) >= 60
    assert len(run_json(capsys, "devices")) >= 125
    assert "num_key_value_heads * head_dim" in run(capsys, "explain", "kv_cache")[1]
    assert "mxfp4" in run(capsys, "explain", "formats")[1]
    explained = run(capsys, "explain", "llama-3.1-8b", "kv_cache", "--gpu", "l4")[1]
    assert "arXiv:2305.13245" in explained
    assert "weights/" not in explained
    assert run_json(capsys, "explain", "formats")
    assert "_VRAMFIT_COMPLETE" in run(capsys, "completion", "bash")[1]


def test_rough_shows_steps_mistakes_and_the_derived_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """70B at 16 bit: 168 GB, three cards by the rule, and the model's own answer beside it."""
    _, out, _ = run(capsys, "rough", "70B", "--bits", "16", "--gpu", "a100-80gb", "--model", "llama-3.1-70b")
    assert "168 GB" in out
    assert "Derived from the model" in out
    found = run_json(capsys, "rough", "70B", "--bits", "8", "--gpu", "a100-80gb")
    serving = next(r for r in found["rules"] if r["name"] == "serving")
    assert 84 * 10**9 == serving["result_bytes"]
    assert any(r["mistake"] for r in found["rules"])
    _, training, _ = run(
        capsys, "rough", "13B", "--bits", "32", "--training", "--per-sample", "50MB", "--samples", "32"
    )
    assert "436.8 GB" in training
    assert "1.6 GB" in training


def fake_nvml(monkeypatch: pytest.MonkeyPatch, cards: list[tuple[str, int]]) -> None:
    """Put a driver with these cards in place of NVML."""
    module = types.ModuleType("pynvml")

    class NVMLError(Exception):
        """As pynvml's."""

    def memory(handle: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(total=cards[handle][1], free=cards[handle][1] // 2)

    module.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetName=lambda i: cards[i][0],
        nvmlDeviceGetMemoryInfo=memory,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)


def test_prices_are_shown_with_provider_and_day(capsys: pytest.CaptureFixture[str]) -> None:
    """The list, the report and JSON give a price of as many devices as are needed, never without its day."""
    assert "0.80 USD/h (AWS, 2026-01-21)" in run(capsys, "devices", "l4-24gb")[1]
    asked = ("infer", "llama-3.1-8b", "--gpu", "l4", "--weights", "fp32")
    assert "1.61 USD/h (AWS, 2026-01-21)" in run(capsys, *asked)[1]
    named, *others = run_json(capsys, *asked)["device_options"]
    price = named["price"]
    assert (2, "l4-24gb") == (named["count"], named["device"])
    assert (1.6096, "AWS", "2026-01-21") == (price["usd_per_hour"], price["provider"], price["date"])
    assert None in [option["price"] for option in others]


def test_an_ambiguous_gpu_lists_the_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    """--gpu with a name that two cards share ends in one line that names both; --gpu here tells them by memory."""
    code, _, err = run(capsys, "infer", "llama-3.1-8b", "--gpu", "RTX 3060")
    assert 2 == code
    assert "rtx-3060-12gb, rtx-3060-8gb" in err


def test_gpu_here_takes_what_the_driver_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card's real total replaces the catalogue's; a card that the catalogue lacks is judged by its memory."""
    fake_nvml(monkeypatch, [("NVIDIA GeForce RTX 4090", 25_000_000_000), ("NVIDIA L4", 23_000_000_000)])
    verdict = run_json(capsys, "infer", "llama-3.1-8b", "--gpu", "here")["verdict"]
    assert ("l4-24gb", 23_000_000_000) == (verdict["device"], verdict["capacity_bytes"])
    fake_nvml(monkeypatch, [("NVIDIA GeForce RTX 3060", 8 * 2**30)])
    assert "rtx-3060-8gb" == run_json(capsys, "infer", "llama-3.1-8b", "--gpu", "here")["verdict"]["device"]
    fake_nvml(monkeypatch, [("NVIDIA Something New", 50_000_000_000)])
    assert 50_000_000_000 == run_json(capsys, "infer", "llama-3.1-8b", "--gpu", "here")["verdict"]["capacity_bytes"]


def test_gpu_here_without_cards_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No package, or no card: one error."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "[gpu]" in run(capsys, "infer", "llama-3.1-8b", "--gpu", "here")[2]
    fake_nvml(monkeypatch, [])
    assert "no NVIDIA card" in run(capsys, "infer", "llama-3.1-8b", "--gpu", "here")[2]


@pytest.mark.slow
def test_as_a_process_in_a_pipe() -> None:
    """A real process: plain text without control characters, the right width, and quiet when the reader leaves."""
    command = [sys.executable, "-m", "vramfit", "infer", "llama-3.1-8b", "--gpu", "l4"]
    for width in (60, 100):
        environment = {**os.environ, "COLUMNS": str(width), "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=True)
        assert "\x1b" not in done.stdout
        assert max(len(line) for line in done.stdout.splitlines()) <= width
    ascii_only = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=True
    )
    assert ascii_only.stdout.isascii()
