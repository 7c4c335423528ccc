"""llama.cpp's start-up log, and ollama's, which holds it.

Wording: ggml-org/llama.cpp, src/llama-model.cpp, llama-kv-cache.cpp, llama-memory-recurrent.cpp, llama-context.cpp and
their names before 2025 (llm_load_tensors, llama_kv_cache_init, llama_new_context_with_model).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from vramfit.log_facts import LogFacts, OutOfMemory
from vramfit.logs.lines import NUMBER, sized
from vramfit.measured import Measurement
from vramfit.request import Given
from vramfit.result import Quantity
from vramfit.units import MIB

SIZE = rf"size\s{{0,9}}=\s{{0,12}}{NUMBER} MiB"
MODEL = re.compile(rf"load_tensors:\s{{1,20}}(\w{{1,40}})(?: model)? buffer {SIZE}")
CACHE = re.compile(rf"llama_kv_cache\w{{0,40}}:\s{{1,20}}(\w{{1,40}}) KV buffer {SIZE}")
STATE = re.compile(
    rf"(?:llama_memory_recurrent|llama_kv_cache_recurrent)\w{{0,40}}:\s{{1,20}}(\w{{1,40}}) (?:RS|KV) buffer {SIZE}"
)
COMPUTE = re.compile(
    r"(?:llama_context|llama_new_context_with_model|llama_init_from_model|reserve)\w{0,40}:\s{1,20}(\w{1,40})"
    rf" compute buffer {SIZE}"
)
BUILD = re.compile(r"\bbuild(?:_info)?: (?:b)?(\d{3,6})\b")
FAILED = re.compile(rf"allocating {NUMBER} MiB on device (\d{{1,3}}): cudaMalloc failed: out of memory")
OLLAMA = re.compile(r"\bOLLAMA_[A-Z_]{1,40}:|msg=\"starting (?:llama|go) runner|ollama (?:runner|serve)")
SETTINGS = (
    (re.compile(r"llama\w{1,40}: n_ctx\s{1,20}= (\d{1,12})"), "workload.context_tokens"),
    (re.compile(r"llama\w{1,40}: n_batch\s{1,20}= (\d{1,9})"), "workload.batch_tokens"),
    (re.compile(r"llama\w{1,40}: n_ubatch\s{1,20}= (\d{1,9})"), "workload.ubatch_tokens"),
    (re.compile(r"llama\w{1,40}: n_seq_max\s{1,20}= (\d{1,6})"), "workload.slots"),
)
FLASH = re.compile(r"llama\w{1,40}: flash_attn\s{1,20}= (\w{1,10})")
OFFLOADED = re.compile(r"offloaded (\d{1,5})/(\d{1,5}) layers to GPU")
TYPES = re.compile(r"K \((\w{1,12})\):.{1,40}V \((\w{1,12})\):")
FILE = re.compile(r"loading model '([^'\n]{1,400})'|loaded meta data with .{1,100} from (\S{1,400}) \(version")
NAME = re.compile(r"general\.name\s{1,40}(?:str\s{1,20})?= (.{1,120})")
DEVICE = re.compile(r"Device \d{1,3}: ([^,]{1,80}), compute capability|using device CUDA\d{1,3} \(([^)]{1,80})\)")
FORMATS = {"f16": "fp16", "f32": "fp32", "bf16": "bf16"}
ON_DEVICE = re.compile(r"(?:CUDA|ROCm|Vulkan|SYCL|Metal|HIP)\w{0,4}(?<!_Host)|Metal_Mapped")
MARKS = (MODEL, CACHE, COMPUTE, FAILED)


def is_log(lines: Iterable[str]) -> bool:
    """Say whether any line is llama.cpp's."""
    return any(mark.search(line) for line in lines for mark in MARKS)


def read(lines: tuple[str, ...]) -> LogFacts:
    """Return what llama.cpp's log says."""
    program = "ollama" if any(OLLAMA.search(line) for line in lines) else "llama.cpp"
    given = {"workload.engine": Given(path="workload.engine", value=program, said=f"{program}'s log")}
    for each in _facts(lines):
        given.setdefault(each.path, each)
    measured = tuple(_figures(lines))
    devices = {m.scope for m in measured if m.quantity is Quantity.MODEL_BUFFER}
    if len(devices) > 1:
        given.setdefault(
            "plan.pp", Given(path="plan.pp", value=len(devices), said=f"buffers on {len(devices)} devices")
        )
    return LogFacts(
        program=program, given=tuple(given.values()), measured=measured, failure=_failure(lines), notes=_notes(lines)
    )


def _facts(lines: Iterable[str]) -> Iterator[Given]:
    for line in lines:
        for mark, path in SETTINGS:
            match = mark.search(line)
            if match:
                yield Given(path=path, value=int(match.group(1)), said=match.group(0)[-60:])
        build, flash, layers, types = BUILD.search(line), FLASH.search(line), OFFLOADED.search(line), TYPES.search(line)
        if build:
            yield Given(path="workload.engine_version", value=build.group(1), said=build.group(0))
        if flash and flash.group(1) in {"0", "1", "enabled", "disabled"}:
            on = flash.group(1) in {"1", "enabled"}
            yield Given(path="workload.flash_attention", value=on, said=flash.group(0)[-40:])
        if layers and int(layers.group(1)) < int(layers.group(2)):
            yield Given(path="workload.gpu_layers", value=int(layers.group(1)), said=layers.group(0))
        if types:
            for path, kind in zip(("workload.kv_format_k", "workload.kv_format_v"), types.groups(), strict=True):
                yield Given(path=path, value=FORMATS.get(kind, kind), said=f"cache in {kind}")


def _figures(lines: Iterable[str]) -> Iterator[Measurement]:
    """Yield the buffers, summed per device: caches of windows and of full layers are printed apart."""
    sums: dict[tuple[Quantity, str], tuple[float, str]] = {}
    marks = (
        (STATE, Quantity.RECURRENT_STATE, None),
        (CACHE, Quantity.KV_BUFFER, None),
        (MODEL, Quantity.MODEL_BUFFER, Quantity.HOST_MODEL_BUFFER),
        (COMPUTE, Quantity.COMPUTE_BUFFER, Quantity.HOST_COMPUTE_BUFFER),
    )
    for line in lines:
        for mark, there, host in marks:
            match = mark.search(line)
            if match:
                where = ON_DEVICE.fullmatch(match.group(1))
                quantity = there if where else host
                if quantity is not None:
                    key = (quantity, match.group(1) if where else "")
                    before = 0.0 if mark is COMPUTE else sums.get(key, (0.0, ""))[0]
                    sums[key] = (before + float(match.group(2)), match.group(2))
                break
    numbers: dict[str, int] = {}
    for (quantity, name), (total, text) in sums.items():
        number = numbers.setdefault(name, len(numbers)) if name else 0
        decimals = len(text.partition(".")[2])
        yield sized(quantity, f"{total:.{decimals}f}", MIB, f"device:{number}" if name else "device")


def _failure(lines: Iterable[str]) -> OutOfMemory | None:
    for line in lines:
        match = FAILED.search(line)
        if match:
            return OutOfMemory(
                what=f"a buffer on device {match.group(2)}", needed_bytes=int(float(match.group(1)) * MIB), free_bytes=0
            )
    return None


def _notes(lines: Iterable[str]) -> tuple[str, ...]:
    """Return what the log calls the model and the cards: neither is a name that can be looked up as it stands."""
    found: dict[str, str] = {}
    for line in lines:
        file, name, device = FILE.search(line), NAME.search(line), DEVICE.search(line)
        if file:
            found.setdefault("file", file.group(1) or file.group(2))
        if name:
            found.setdefault("model", name.group(1).strip())
        if device:
            found.setdefault("card", device.group(1) or device.group(2))
    return tuple(f"the log's {what}: {text}" for what, text in found.items())
