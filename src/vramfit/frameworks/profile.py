"""Which profile answers for a framework and a version."""

from __future__ import annotations

import re
from importlib import import_module

from vramfit.errors import InvalidValueError, UnknownNameError
from vramfit.framework import Framework
from vramfit.names import nearest

FRAMEWORKS = {
    "pytorch": "pytorch",
    "transformers": "transformers",
    "trl": "trl",
    "peft": "peft",
    "torchtune": "torchtune",
    "torchtitan": "torchtitan",
    "deepspeed": "deepspeed",
    "megatron-lm": "megatron_lm",
    "megatron-bridge": "megatron_bridge",
    "litgpt": "litgpt",
    "ms-swift": "ms_swift",
    "unsloth": "unsloth",
    "axolotl": "axolotl",
    "llama-factory": "llama_factory",
}
"""Name in requests -> module here that has its ``PROFILES``; imported when it is asked for."""
SPOKEN_OF = {"megatron-lm": (("bridge", "megatron-bridge"),)}
"""Framework -> first words of a version and the framework that they mean."""
IMAGES = {"diffusers": "training on images and video is not derived here: trace the script with vramfit trace"}
"""Frameworks whose models are not made of the layers that are known here, and what to do instead."""


def profiles_of(name: str) -> tuple[Framework, ...]:
    """Return every profile of a framework, oldest first.

    Raises:
        UnknownNameError: no framework of that name here.
    """
    if name in IMAGES:
        raise InvalidValueError("workload.framework", name, "a framework that trains language models", IMAGES[name])
    if name not in FRAMEWORKS:
        raise UnknownNameError(
            "workload.framework", name, nearest(name, FRAMEWORKS), f"frameworks known here: {', '.join(FRAMEWORKS)}"
        )
    found: tuple[Framework, ...] = import_module(f"vramfit.frameworks.{FRAMEWORKS[name]}").PROFILES
    return found


def find_framework(name: str, version: str | None = None) -> tuple[Framework, str]:
    """Return the profile for that framework and version, and why it is this one.

    A version that does not begin with numbers is known by its date (``83c879f18 2024-03-28``), else taken as the
    newest; one that begins with another name (``Bridge 0.3``) is a version of that framework.

    Raises:
        UnknownNameError: no framework of that name here.

    >>> find_framework("pytorch")[0].optimizer
    'adamw'
    """
    other = next((own for word, own in SPOKEN_OF.get(name, ()) if version and version.lower().startswith(word)), name)
    profiles = profiles_of(other)
    if version is None:
        return profiles[-1], f"newest profile known ({profiles[-1].version})"
    wanted = _parts(version)
    date = re.search(r"\b20\d\d-[01]\d(-[0-3]\d)?", version[:80])
    if wanted is None and date is not None:
        suitable = [p for p in profiles if p.month <= date.group()] or [profiles[0]]
        return suitable[-1], f"facts of {suitable[-1].checked}, by the date in {version}"
    if wanted is None:
        return profiles[-1], f"{version} is no release number: as the newest profile known ({profiles[-1].version})"
    suitable = [p for p in profiles if (_parts(p.version) or ()) <= wanted]
    if not suitable:
        return profiles[0], f"{version} is older than every profile: nearest ({profiles[0].version})"
    return suitable[-1], f"facts of {suitable[-1].version} and later, read from {suitable[-1].checked}"


def _parts(version: str) -> tuple[int, ...] | None:
    """Return the numbers of a release such as ``2.13.0``; None when it does not begin with any."""
    if not version:
        raise InvalidValueError("workload.framework_version", version, 'a version such as "2.13.0"')
    match = re.match(r"v?(\d+(?:\.\d+)+)", version[:40])
    return tuple(int(part) for part in match.group(1).split(".")) if match else None
