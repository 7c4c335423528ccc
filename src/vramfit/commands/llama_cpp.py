"""``llama-server`` and ``llama-cli``.

Source of names and meanings: ggml-org/llama.cpp:common/arg.cpp.
"""

from __future__ import annotations

from vramfit.commands.flag import TEXT, TRUTH, Flag, Kind, Nested, Switch, chosen, whole
from vramfit.commands.program import Program
from vramfit.errors import InvalidValueError
from vramfit.request import Given

CACHE = chosen({
    "f32": "fp32", "f16": "fp16", "bf16": "bf16", "q8_0": "q8_0", "q4_0": "q4_0", "q4_1": "q4_1", "q5_0": "q5_0",
    "q5_1": "q5_1", "iq4_nl": "iq4_nl",
})  # fmt: skip
"""Source: common/arg.cpp, kv_cache_types."""


def layers(name: str, text: str) -> int | None:
    """Read layers on the devices; ``auto``, ``all`` and -1 mean as many as there are."""
    return None if text in {"auto", "all", "-1", "-2"} else whole(name, text)


def context(name: str, text: str) -> int | None:
    """Read the context; 0 means as long as the model was made for, which is left open."""
    return None if text == "0" else whole(name, text)


def split(name: str, text: str) -> tuple[Given, ...]:
    """Read ``--tensor-split 3,1``: shares of the devices; how many there are is the number of stages."""
    parts = text.replace("/", ",").split(",")
    try:
        shares = [float(part) for part in parts]
    except ValueError:
        raise InvalidValueError(name, text, "shares such as 3,1") from None
    used = sum(part > 0 for part in shares)
    return (Given(path="plan.pp", value=max(1, used), said=f"{name} {text}"),)


FLAGS: tuple[Flag | Switch | Nested, ...] = (
    Flag(names=("-m", "--model"), path="model", kind=TEXT),
    Flag(names=("-hf", "-hfr", "--hf-repo"), path="model", kind=TEXT),
    Flag(names=("-c", "--ctx-size"), path="workload.context_tokens", kind=Kind(read=context, write=str)),
    Flag(
        names=("-ngl", "--gpu-layers", "--n-gpu-layers"), path="workload.gpu_layers", kind=Kind(read=layers, write=str)
    ),
    Flag(names=("-fa", "--flash-attn"), path="workload.flash_attention", kind=TRUTH),
    Flag(names=("-ctk", "--cache-type-k"), path="workload.kv_format_k", kind=CACHE),
    Flag(names=("-ctv", "--cache-type-v"), path="workload.kv_format_v", kind=CACHE),
    Flag(names=("-ub", "--ubatch-size"), path="workload.ubatch_tokens"),
    Flag(names=("-b", "--batch-size"), path="workload.batch_tokens"),
    Flag(names=("-np", "--parallel"), path="workload.slots"),
    Flag(names=("-md", "--model-draft", "--spec-draft-model"), path="workload.draft_model", kind=TEXT),
    Flag(names=("--draft-max", "--draft", "--spec-draft-n-max"), path="workload.speculative_tokens"),
    Nested(names=("-ts", "--tensor-split"), read=split),
    Switch(names=("--swa-full",), path="workload.swa_full", value=True),
)

PROGRAM = Program(
    engine="llama.cpp",
    starts=(("llama-server",), ("llama-cli",), ("llama-server.exe",), ("llama-cli.exe",), ("llama", "serve")),
    images=("ggml-org/llama.cpp", "ggerganov/llama.cpp"),
    table="llama_cpp",
    positional_model=False,
    flags=FLAGS,
)
