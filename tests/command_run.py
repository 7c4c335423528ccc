"""Runs the command in this process, as a shell would see it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vramfit.cli import main


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Run the command: exit code, output, errors."""
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    caught = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, caught.out, caught.err


def run_json(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    """Run with --json, which must succeed without a word on the error stream, and decode."""
    code, out, err = run(capsys, *args, "--json")
    assert (0, "") == (code, err)
    return json.loads(out)
