"""Command lines written back with a field changed."""

from __future__ import annotations

import pytest

from vramfit.commands.read import read_command
from vramfit.commands.write import rewritten, text_lines
from vramfit.request import Given


def changed(text: str, path: str, value: object) -> str | None:
    """Return the command with one field changed, as one text."""
    line = rewritten(read_command(text), (Given(path=path, value=value, said="test"),))
    return None if line is None else "\n".join(text_lines(line))


@pytest.mark.parametrize(
    ("text", "path", "value", "expected"),
    [
        (
            "vllm serve a/b --max-model-len 32768 --port 1",
            "workload.context_tokens", 1024,
            "vllm serve a/b --max-model-len 1024 --port 1",
        ),
        ("vllm serve a/b", "workload.kv_format", "fp8", "vllm serve a/b --kv-cache-dtype fp8"),
        ("vllm serve a/b --kv-cache-dtype auto", "workload.kv_format", "fp8", "vllm serve a/b --kv-cache-dtype fp8"),
        ("vllm serve a/b", "workload.weight_format", "fp8", "vllm serve a/b --quantization fp8"),
        ("vllm serve a/b", "workload.weight_format", "int8", None),
        (
            "vllm serve a/b --gpu-memory-utilization=0.9",
            "workload.memory_fraction", 0.95,
            "vllm serve a/b --gpu-memory-utilization 0.95",
        ),
        ("llama-server -m x.gguf -c 0", "workload.context_tokens", 4096, "llama-server -m x.gguf -c 4096"),
        ("llama-server -m x.gguf", "workload.kv_format_k", "q8_0", "llama-server -m x.gguf -ctk q8_0"),
        (
            "python -m sglang.launch_server --model-path a/b --tp 2", "plan.tp", 4,
            "python -m sglang.launch_server --model-path a/b --tp-size 4",
        ),
        ("trtllm-serve a/b", "plan.tp", 4, "trtllm-serve a/b --tp_size 4"),
        ("FROM x\nPARAMETER num_ctx 9\nSYSTEM hi", "workload.context_tokens", 5, "FROM x\nPARAMETER num_ctx 5"),
        ("ollama run x:8b", "workload.context_tokens", 5, "FROM x:8b\nPARAMETER num_ctx 5"),
    ],
)  # fmt: skip
def test_one_field_is_changed_and_all_else_stays(text: str, path: str, value: object, expected: str | None) -> None:
    """The flag is replaced where it stands or added at the end; what a program cannot say is None."""
    assert expected == changed(text, path, value)


def test_what_is_written_reads_back() -> None:
    """Reading the new command gives the old fields and the new one."""
    text = "vllm serve a/b --tensor-parallel-size 2 --max-model-len 32768 --served-model-name 'x y' --port 8000"
    again = read_command((changed(text, "workload.context_tokens", 4096) or "").replace("\\\n", " "))
    before = {g.path: g.value for g in read_command(text).given}
    assert before | {"workload.context_tokens": 4096} == {g.path: g.value for g in again.given}


def test_a_long_command_is_continued_over_lines() -> None:
    """Each flag on a line of its own, every line but the last ending in a backslash."""
    lines = (changed("vllm serve a/b --port 8000 --host 0.0.0.0 --seed 1 --dtype half --max-num-seqs 256 "
                     "--served-model-name somebody", "plan.tp", 2) or "").splitlines()  # fmt: skip
    assert "vllm serve a/b \\" == lines[0]
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert "  --tensor-parallel-size 2" == lines[-1]
