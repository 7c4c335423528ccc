"""Scripts: words as a shell would see them, nothing executed, nothing that grows without end."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramfit.errors import InvalidValueError, VramfitError
from vramfit.training_files.command import find
from vramfit.training_files.script import LONGEST, statements


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python a.py --x 1 # no --y", [("python", "a.py", "--x", "1")]),
        ("a \\\n  b\nc; d && e", [("a", "b"), ("c",), ("d",), ("e",)]),
        ("N=4\nrun --n $N --m ${N} --k ${M:-7}", [("run", "--n", "4", "--m", "4", "--k", "7")]),
        ("A=(--x 1\n  # why\n  --y '2 3')\nrun ${A[@]}", [("run", "--x", "1", "--y", "2", "3")]),
        ('A=(--x)\nA+=(--y)\nrun "${A[@]}"', [("run", "--x", "--y")]),
        ('O="\n --x 1 \\\n --y 2"\nrun $O', [("run", "--x", "1", "--y", "2")]),
        ("export A=1\nexport B=$A$A\nrun $B", [("run", "11")]),
        ("N=$(nproc)\nrun --n $N", [("run", "--n", "$(nproc)")]),
        ("run --model 'a b' --x=\"$Q\"", [("run", "--model", "a b", "--x=$Q")]),
        ("run a#b", [("run", "a#b")]),
    ],
)  # fmt: skip
def test_words_are_those_of_a_shell(text: str, expected: list[tuple[str, ...]]) -> None:
    """Comments, continued lines, variables with defaults, arrays, texts of flags; a substitution stays as written."""
    assert tuple(expected) == statements(text, "x.sh")


def test_variables_that_double_are_refused() -> None:
    """Forty lines that would stand for a terabyte are one error."""
    lines = ["A0=xxxxxxxx", *(f"A{n + 1}=$A{n}$A{n}" for n in range(40)), "run $A40"]
    with pytest.raises(InvalidValueError, match="at most 65,536 characters"):
        statements("\n".join(lines), "bomb.sh")


@pytest.mark.parametrize("line", ["${\n", "$(\n", "# x\n", "'\"\n", "a=( b\n", "${${", "x" * 200 + "\\\n"])
def test_long_hostile_scripts_take_no_long_time(line: str) -> None:
    """A quarter of a mebibyte of brackets that never close, comments or quotes is read in one pass."""
    text = (line * (LONGEST // len(line)))[:LONGEST]
    with contextlib.suppress(VramfitError):
        statements(text, "x")


def test_arrays_that_double_are_refused() -> None:
    """The same with arrays that take themselves in."""
    lines = ["A=(xxxxxxxx)", *["A+=(${A[@]} ${A[@]})"] * 40, "run ${A[@]}"]
    with pytest.raises(InvalidValueError, match="at most 65,536 characters"):
        statements("\n".join(lines), "bomb.sh")


def test_a_script_that_is_too_long_is_refused() -> None:
    """A quarter of a mebibyte is enough for any script."""
    with pytest.raises(InvalidValueError, match="at most 262,144 characters"):
        statements("a " * 200_000, "long.sh")


DGX = {"per_node": "8", "nodes": "2"}


@pytest.mark.parametrize(
    ("text", "program", "launched"),
    [
        ("torchrun --nproc_per_node=8 --nnodes 2 x/pretrain_gpt.py --seq-length 8", "megatron", DGX),
        ("--num-attention-heads 8 --micro-batch-size 1", "megatron", {}),
        ("accelerate launch --num_processes 4 run_sft.py --model_name_or_path x", "trainer", {"all": "4"}),
        ("deepspeed --num_gpus=2 train.py --model_name_or_path x", "trainer", {"per_node": "2"}),
        ("trl dpo --model_name_or_path x", "trainer", {}),
        ("NPROC_PER_NODE=2 swift rlhf --rlhf_type dpo --model x", "ms_swift", {"per_node": "2"}),
        ("llamafactory-cli train --stage sft", "llama_factory", {}),
        ("torchrun -m torchtitan.train --training.seq_len 8192", "torchtitan", {}),
    ],
)  # fmt: skip
def test_the_command_that_trains_is_found(text: str, program: str, launched: dict[str, str]) -> None:
    """Among launchers and other commands, with what the launcher says of devices."""
    found = find(f"cd x\n{text}\n", "run.sh")
    assert (program, launched) == (found.program, found.launched)


def test_flags_take_their_values() -> None:
    """One, several, or none; what follows an equals sign belongs to it; negative numbers are values."""
    flags = find("pretrain_gpt.py --seq-length=8 --bf16 --recompute-modules a b --init -0.5", "x").flags
    assert {"seq-length": "8", "bf16": True, "recompute-modules": ["a", "b"], "init": "-0.5"} == flags


@given(st.text(alphabet="A$={}()[]@'\"\\\n #;&|-x1:", max_size=80))
def test_any_text_ends_in_words_or_our_error(text: str) -> None:
    """Quotes that do not close, brackets that do not match: words or one error."""
    try:
        statements(text, "x")
    except VramfitError:
        return
