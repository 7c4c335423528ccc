"""Recognises whose log it is and reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from vramfit.errors import UnreadableFileError
from vramfit.log_facts import LogFacts
from vramfit.logs import llama_cpp, sglang, torch, vllm
from vramfit.logs.lines import lines_of

READERS: tuple[tuple[Callable[[Iterable[str]], bool], Callable[[tuple[str, ...]], LogFacts]], ...] = (
    (vllm.is_log, vllm.read),
    (sglang.is_log, sglang.read),
    (llama_cpp.is_log, llama_cpp.read),
    (torch.is_log, torch.read),
)
"""In the order in which they are asked; torch last, since its message may end any of the others."""


def read_log(data: bytes, where: str = "log") -> LogFacts:
    """Return what a log says.

    Raises:
        UnreadableFileError: too long, no text, or the log of a program that is not known here.
    """
    lines = lines_of(data, where)
    for recognises, read in READERS:
        if recognises(lines):
            found = read(lines)
            last = torch.failure(lines)
            if last is None or found.failure is not None:
                return found
            total = found.device_total_bytes or last.total_bytes
            return replace(found, failure=last, device_total_bytes=total)
    shown = next((line.strip()[:80] for line in lines if line.strip()), "")
    raise UnreadableFileError(
        f"{where}: {shown!r} ...: expected the start-up log of vLLM, SGLang, llama.cpp or ollama, or an out-of-memory "
        "message of torch; paste the lines from the program's start until it serves"
    )
