"""What FSDP2 gathers and reduces over a step is what the real one does on four ranks, the tape's part included."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from vramfit.readers.hf_config import read_config
from vramfit.request import Plan
from vramfit.result import Phase
from vramfit.timeline import Timeline
from vramfit.train import estimate_training
from vramfit.training import Training

pytestmark = pytest.mark.witness
PROGRAM = Path(__file__).parent.parent / "sharded.py"
FORMATS = {"bf16": "bfloat16", "fp32": "float32"}


def real(tokens: int, reduce: str) -> dict[str, int]:
    """Run the program."""
    command = [sys.executable, str(PROGRAM), str(tokens), FORMATS[reduce]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def sizes() -> dict[str, object]:
    """Return the sizes of the program's model, read from its text so that no torch is needed here."""
    tree = ast.parse(PROGRAM.read_text("utf-8"))
    (value,) = (
        n.value for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
        and n.targets[0].id == "SIZES"
    )  # fmt: skip
    found: dict[str, object] = ast.literal_eval(value)
    return found


def most(line: Timeline, *phases: Phase, backward: bool = False) -> int:
    """Return the fullest moment of some phases beyond what stands there, in the forward or the backward pass."""
    standing = next(m.total_bytes for m in line.moments if m.phase is Phase.SAVE)
    chosen = [m for m in line.moments if m.phase in phases and backward is m.label.startswith(("backward", "reducing"))]
    return max(m.total_bytes for m in chosen) - standing


@pytest.mark.parametrize(("tokens", "reduce"), [(32, "fp32"), (32, "bf16"), (512, "bf16")])
def test_a_step_of_fsdp(tokens: int, reduce: str) -> None:
    """Forward within 1 per cent, backward no less and at most 5 per cent more: we let the caller hold the logits."""
    model = read_config({"model_type": "llama", **sizes()}, "small")
    asked = Training(
        sequence_tokens=tokens, precision="bf16-mixed", reduce_format=reduce, optimizer_implementation="for-loop"
    )
    (line,) = estimate_training(model, asked, Plan(dp_shard=4)).timelines
    found = real(tokens, reduce)
    passes = (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD)
    assert found["forward"] == pytest.approx(most(line, *passes), rel=0.01)
    assert 0 <= most(line, *passes, backward=True) / found["backward"] - 1 <= 0.05
    step = next(m.total_bytes for m in line.moments if m.phase is Phase.OPTIMIZER)
    standing = next(m.total_bytes for m in line.moments if m.phase is Phase.SAVE)
    assert found["step"] == pytest.approx(step - standing, rel=0.01)
