"""Variables in front of a command: which of them say something about memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files

from vramfit.commands.command_line import Effect, Word
from vramfit.commands.flag import COUNT, TRUTH, Flag, chosen
from vramfit.commands.llama_cpp import CACHE
from vramfit.commands.vllm import ATTENTION
from vramfit.request import Given

FIELDS = {
    "vllm": {
        "VLLM_ATTENTION_BACKEND": Flag(names=("VLLM_ATTENTION_BACKEND",), path="workload.attention", kind=ATTENTION),
    },
    "ollama": {
        "OLLAMA_CONTEXT_LENGTH": Flag(names=("OLLAMA_CONTEXT_LENGTH",), path="workload.context_tokens", kind=COUNT),
        "OLLAMA_NUM_PARALLEL": Flag(names=("OLLAMA_NUM_PARALLEL",), path="workload.slots", kind=COUNT),
        "OLLAMA_FLASH_ATTENTION": Flag(names=("OLLAMA_FLASH_ATTENTION",), path="workload.flash_attention", kind=TRUTH),
        "OLLAMA_KV_CACHE_TYPE": Flag(
            names=("OLLAMA_KV_CACHE_TYPE",),
            path="workload.kv_format",
            kind=chosen({"f16": "fp16", "q8_0": "q8_0", "q4_0": "q4_0", "": None}),
        ),
    },
    "llama.cpp": {
        "LLAMA_ARG_CTX_SIZE": Flag(names=("LLAMA_ARG_CTX_SIZE",), path="workload.context_tokens", kind=COUNT),
        "LLAMA_ARG_N_GPU_LAYERS": Flag(names=("LLAMA_ARG_N_GPU_LAYERS",), path="workload.gpu_layers", kind=COUNT),
        "LLAMA_ARG_CACHE_TYPE_K": Flag(names=("LLAMA_ARG_CACHE_TYPE_K",), path="workload.kv_format_k", kind=CACHE),
        "LLAMA_ARG_CACHE_TYPE_V": Flag(names=("LLAMA_ARG_CACHE_TYPE_V",), path="workload.kv_format_v", kind=CACHE),
    },
}
"""Engine -> variable -> what it stands for. Sources: vllm-project/vllm:vllm/envs.py;
ollama/ollama:envconfig/config.go; ggml-org/llama.cpp:common/arg.cpp (set_env)."""


@cache
def _uncounted() -> Mapping[str, str]:
    """Return variables that touch memory in a way that is not counted here, and how; read once."""
    text = files("vramfit.commands").joinpath("flags", "environment.json").read_text("utf-8")
    found: dict[str, str] = json.loads(text)["uncounted"]
    return found


def variables(engine: str, pairs: Iterable[tuple[str, str]]) -> Iterator[Word]:
    """Yield each variable as a word with what it does."""
    uncounted = _uncounted()
    for name, text in pairs:
        flag = FIELDS.get(engine, {}).get(name)
        if flag is not None:
            value = flag.kind.read(name, text)
            given = () if value is None else (Given(path=flag.path, value=value, said=f"{name}={text}"),)
            yield Word(flag=name, values=(text,), effect=Effect.COUNTED if given else Effect.NONE, given=given)
        elif name in uncounted:
            yield Word(flag=name, values=(text,), effect=Effect.NOT_COUNTED, why=uncounted[name])
        else:
            yield Word(flag=name, values=(text,), effect=Effect.NONE)
