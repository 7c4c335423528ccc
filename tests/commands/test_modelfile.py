"""Modelfiles, read."""

from __future__ import annotations

import pytest

from vramfit.commands.command_line import Effect
from vramfit.commands.ollama import is_modelfile
from vramfit.commands.read import read_command
from vramfit.errors import InvalidValueError

MODELFILE = '''# a comment
FROM ./x.gguf
PARAMETER num_ctx 4096
PARAMETER num_gpu 20
PARAMETER num_batch 256
PARAMETER temperature 1
PARAMETER unheard_of 1
ADAPTER ./lora.gguf
SYSTEM """You are
PARAMETER num_ctx 5
FROM nowhere
"""
NONSENSE here
'''


def test_a_modelfile_gives_the_fields_of_a_request() -> None:
    """FROM and three parameters count; what stands in a quoted text does not."""
    line = read_command(MODELFILE)
    assert {
        "workload.engine": "ollama", "model": "./x.gguf", "workload.context_tokens": 4096,
        "workload.gpu_layers": 20, "workload.batch_tokens": 256,
    } == {g.path: g.value for g in line.given}  # fmt: skip
    assert ["ADAPTER"] == [w.flag for w in line.flags(Effect.NOT_COUNTED)]
    assert ["PARAMETER unheard_of", "NONSENSE here"] == [w.flag for w in line.flags(Effect.UNKNOWN)]


def test_a_command_is_no_modelfile() -> None:
    """A Modelfile begins with an instruction and has a FROM."""
    assert is_modelfile("FROM x")
    assert not is_modelfile("vllm serve x")
    assert not is_modelfile("SYSTEM x")
    assert not is_modelfile("")


def test_a_wrong_parameter_is_one_clear_error() -> None:
    """The error names the parameter and its value."""
    with pytest.raises(InvalidValueError, match=r"PARAMETER num_ctx: 'long'"):
        read_command("FROM x\nPARAMETER num_ctx long")
