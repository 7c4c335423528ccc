"""Which profile answers for an engine and a version."""

from __future__ import annotations

import re
from importlib import import_module

from vramfit.engine import Engine, EngineProfile
from vramfit.errors import InvalidValueError, UnknownNameError
from vramfit.names import nearest
from vramfit.request import KNOBS, Inference

ENGINES = {
    "diffusers": "diffusers",
    "generic": "generic",
    "llama.cpp": "llama_cpp",
    "lmdeploy": "lmdeploy",
    "ollama": "ollama",
    "sglang": "sglang",
    "tensorrt-llm": "tensorrt_llm",
    "tgi": "tgi",
    "transformers": "transformers",
    "vllm": "vllm",
}
"""Name in requests -> module here that has its ``ENGINE``; imported when it is asked for."""


def find_engine(name: str) -> Engine:
    """Return the engine of that name.

    Raises:
        UnknownNameError: no engine of that name here.
    """
    if name not in ENGINES:
        raise UnknownNameError(
            "workload.engine", name, nearest(name, ENGINES), f"engines known here: {', '.join(ENGINES)}"
        )
    found: Engine = import_module(f"vramfit.engines.{ENGINES[name]}").ENGINE
    return found


def check_knobs(workload: Inference) -> None:
    """Refuse knobs that the engine does not have, rather than ignore them.

    Raises:
        InvalidValueError: the field, and which engines take it.
    """
    taken = find_engine(workload.engine).knobs
    for name in KNOBS:
        value = getattr(workload, name)
        if value is not None and name not in taken:
            others = ", ".join(other for other in ENGINES if name in find_engine(other).knobs) or "none yet"
            raise InvalidValueError(
                f"workload.{name}",
                value,
                f"it to be left out with engine {workload.engine}",
                f"engines with it: {others}",
            )


NO_END = (10**9,)
"""Of engines that count builds: they have no releases that one could be newer than."""


def find_profile(engine: str, version: str | None, weight_format: str = "auto") -> tuple[EngineProfile, str]:
    """Return the profile for that engine and version, and why it is this one.

    Without a version, a profile made for the weight format comes before the newest.

    Raises:
        UnknownNameError: no profile of that engine here.
        InvalidValueError: a version that is not numbers and dots.

    >>> find_profile("transformers", "4.44.2")[0].prompt_logits
    True
    >>> find_profile("vllm", "9.9")[1]
    '9.9 is newer than what was read here, so what changed since is not in it'
    """
    every = find_engine(engine).profiles
    profiles = tuple(p for p in every if p.weight_format is None)
    if version is None:
        for profile in every:
            if profile.weight_format == weight_format:
                return profile, f"no version named: as {profile.checked} runs {weight_format}"
        return profiles[-1], f"newest profile known ({profiles[-1].version})"
    wanted = _parts(version)
    suitable = [p for p in profiles if _parts(p.version) <= wanted]
    if not suitable:
        return profiles[0], f"{version} is older than every profile: nearest ({profiles[0].version})"
    found = suitable[-1]
    if found is profiles[-1] and wanted[:2] > _newest_read(found):
        return found, f"{version} is newer than what was read here, so what changed since is not in it"
    return found, f"facts of {found.version} and later"


def _newest_read(profile: EngineProfile) -> tuple[int, ...]:
    """Return the newest release that a profile was checked against, as major and minor; ``NO_END`` for builds."""
    read = [_parts(text)[:2] for text in (profile.version, *re.findall(r"\d+(?:\.\d+)+", profile.checked))]
    dotted = [parts for parts in read if len(parts) > 1]
    return max(dotted, default=NO_END)


def _parts(version: str) -> tuple[int, ...]:
    """Split ``"4.45.2"`` or ``"b8571"`` into numbers; a suffix such as ``rc1`` or ``.post1`` is left aside."""
    parts: list[int] = []
    for part in version[:40].removeprefix("b").split("."):
        if not part.isascii() or not part.isdigit():
            break
        parts.append(int(part))
    if not parts:
        raise InvalidValueError("workload.engine_version", version, 'a version such as "4.57.1"')
    return tuple(parts)
