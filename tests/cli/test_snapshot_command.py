"""``snapshot`` as a person types it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

import command_run
from recordings import busy_recording
from vramfit.trace.allocator_config import parse_config
from vramfit.trace.recording import Recording
from vramfit.trace.replay import Replay
from vramfit.trace.snapshot_writer import write_snapshot
from vramfit.units import MIB


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Run `vramfit snapshot`: exit code, output, errors."""
    return command_run.run(capsys, "snapshot", *args)


def written(path: Path, recording: Recording, text: str = "") -> str:
    """Write the snapshot of a recording; return its path."""
    write_snapshot(path, [Replay(recording, parse_config(text), keep_trace=True).catch_up()])
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return the path of a snapshot."""
    return written(tmp_path / "run.pickle", busy_recording())


def test_peaks_are_those_of_the_program(capsys: pytest.CaptureFixture[str], file: str) -> None:
    """Reserved comes from the segments, what was asked for from the requests; the simulation agrees with both."""
    peaks = Replay(busy_recording()).catch_up().peaks
    code, out, _ = run(capsys, file, "--json")
    found = json.loads(out)
    assert 0 == code
    assert peaks.reserved_bytes == found["reserved_peak_bytes"] == found["check"]["peaks"]["reserved_bytes"]
    assert peaks.requested_bytes == found["requested_peak_bytes"]
    assert peaks.allocated_bytes == found["check"]["peaks"]["allocated_bytes"]
    assert found["check"]["num_events"] == found["check"]["num_equal"] > 0
    assert peaks.requested_bytes == sum(g["requested_bytes"] * g["count"] for g in found["at_peak"])


def test_free_memory_is_told_apart(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Whole cached segments could go back; free blocks beside live ones are stuck."""
    recording = Recording()
    recording.allocate(4 * MIB)
    recording.free(recording.allocate(5 * MIB))
    recording.free(recording.allocate(30 * MIB))
    found = json.loads(run(capsys, written(tmp_path / "s.pickle", recording), "--json")[1])
    assert (30 * MIB, 16 * MIB, 4 * MIB) == (found["returnable_bytes"], found["stuck_bytes"], found["active_bytes"])


def test_report_names_lines_and_categories(capsys: pytest.CaptureFixture[str], file: str) -> None:
    """The largest tensors carry the user's line."""
    code, out, _ = run(capsys, file)
    assert 0 == code
    assert "activation train.py:12 in forward" in out
    assert "reproduces all" in out


def test_what_if_with_another_configuration(capsys: pytest.CaptureFixture[str], file: str) -> None:
    """Each named configuration is replayed beside the one that ran."""
    args = (file, "--alloc-conf", "expandable_segments:True", "--alloc-conf", "roundup_power2_divisions:2")
    found = json.loads(run(capsys, *args, "--json")[1])["what_if"]
    texts = ["", "expandable_segments:True", "roundup_power2_divisions:2"]
    assert texts == [one["alloc_conf"] for one in found]
    expected = [Replay(busy_recording(), parse_config(text)).catch_up().peaks.allocated_bytes for text in texts]
    assert expected == [one["allocated_bytes"] for one in found]
    assert "With another configuration" in run(capsys, *args)[1]


def test_beside_a_prediction(capsys: pytest.CaptureFixture[str], file: str, tmp_path: Path) -> None:
    """A size that only the real run has is named with how often and where."""
    more = busy_recording()
    more.allocate(77 * MIB)
    real = written(tmp_path / "real.pickle", more)
    found = json.loads(run(capsys, real, "--beside", file, "--json")[1])["beside"]
    first = found["differences"][0]
    assert (77 * MIB, 1, 0) == (first["requested"], first["num_real"], first["num_predicted"])
    assert found["equal_bytes"] <= min(found["real_bytes"], found["predicted_bytes"])
    assert "real 1, predicted 0 of 80,740,352 B" in run(capsys, real, "--beside", file)[1]
    same = json.loads(run(capsys, file, "--beside", file, "--json")[1])["beside"]
    assert [] == same["differences"]


def test_page_is_written(capsys: pytest.CaptureFixture[str], file: str, tmp_path: Path) -> None:
    """The page shows the snapshot's program over time."""
    code, _, _ = run(capsys, file, "--html", str(tmp_path / "page.html"))
    assert 0 == code
    assert "run.pickle" in (tmp_path / "page.html").read_text("utf-8")


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        """Name the command."""
        return (print, ("executed",))


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], file: str, tmp_path: Path) -> None:
    """What is wrong is said in one line, with exit code 2; nothing of a hostile file is executed."""
    (tmp_path / "evil.pickle").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "text.pickle").write_text("no pickle at all")
    (tmp_path / "empty.pickle").write_bytes(pickle.dumps({"segments": []}, protocol=4))
    cases = [
        ((str(tmp_path / "none.pickle"),), "No such file"),
        ((str(tmp_path / "evil.pickle"),), "makes more than plain data"),
        ((str(tmp_path / "text.pickle"),), "no pickle of plain data"),
        ((str(tmp_path / "empty.pickle"),), "expected a snapshot with memory in it"),
        ((file, "--alloc-conf", "expandable_segment:True"), "nearest: expandable_segments"),
        ((file, "--alloc-conf", "large_segment_size_mb:64", "--torch-version", "2.8.0"), "came with torch 2.11"),
        ((file, "--torch-version", "new"), "expected a version"),
        ((file, "--device", "3"), "expected one of 0"),
        ((file, "--html", str(tmp_path / "no" / "page.html")), "No such file"),
        ((file, "--beside", str(tmp_path / "evil.pickle")), "makes more than plain data"),
    ]
    for args, said in cases:
        code, out, err = run(capsys, *args)
        assert (2, "") == (code, out)
        assert said in err
        assert 1 == err.strip().count("\n") + 1
