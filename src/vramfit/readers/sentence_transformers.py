"""Models of sentence-transformers: a transformer, a pooling step, and sometimes projections behind it.

Source: UKPLab/sentence-transformers:sentence_transformers/models/Dense.py and Pooling.py; ``modules.json`` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.readers.families.decoder import linear
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, ModelSpec, Part

WEIGHTLESS = frozenset({"Pooling", "Normalize", "Dropout"})
MOST_MODULES = 32


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of ``modules.json``."""

    kind: str
    """Last part of the class's name: ``"Transformer"``, ``"Pooling"``, ``"Dense"``."""
    path: str
    """Folder in the repository; empty = its root."""


def parse_modules(modules: object, where: str) -> tuple[Module, ...]:
    """Return the entries of a ``modules.json``, which is an array.

    Raises:
        InvalidValueError: another kind of value.
    """
    if not isinstance(modules, list) or len(modules) > MOST_MODULES:
        raise InvalidValueError(where, modules, f"an array of at most {MOST_MODULES} modules")
    found = []
    for i, entry in enumerate(modules):
        kind, path = (entry.get("type"), entry.get("path")) if isinstance(entry, Mapping) else (None, None)
        if not isinstance(kind, str) or not isinstance(path, str) or ".." in path or path.startswith("/"):
            raise InvalidValueError(f"{where}[{i}]", entry, 'an object such as {"path": "1_Pooling", "type": "..."}')
        found.append(Module(kind.rpartition(".")[2], path))
    return tuple(found)


def transformer_of(modules: tuple[Module, ...], where: str) -> str:
    """Return the folder of the transformer.

    Raises:
        UnsupportedModelError: there is none, or another kind of module reads the text.
    """
    first = modules[0] if modules else Module("nothing", "")
    if first.kind != "Transformer":
        raise UnsupportedModelError(
            f"{where}[0]: {first.kind!r:.100}: expected a Transformer first; others are not read in this version"
        )
    return first.path


def with_modules(
    spec: ModelSpec, modules: tuple[Module, ...], configs: Mapping[str, Mapping[str, object]], where: str
) -> ModelSpec:
    """Return an embedding model: no next token, and the projections behind it as parts.

    Args:
        spec: the transformer.
        modules: entries of ``modules.json``.
        configs: folder -> ``config.json`` of each Dense module.
        where: the file, for messages.

    Raises:
        UnsupportedModelError: a module that is not understood.
    """
    parts = []
    for i, module in enumerate(modules[1:], start=1):
        if module.kind == "Dense":
            parts.append(_dense(module, Fields(configs[module.path], f"{module.path}/config.json")))
        elif module.kind not in WEIGHTLESS:
            raise UnsupportedModelError(
                f"{where}[{i}]: {module.kind!r:.100}: expected one of Dense, {', '.join(sorted(WEIGHTLESS))}; "
                "others are not read in this version, so no number is given"
            )
    note = "read as sentence-transformers runs it: one embedding per text, no next token, no cache"
    return replace(spec, parts=(*spec.parts, *parts), generates=False, assumptions=(*spec.assumptions, note))


def _dense(module: Module, fields: Fields) -> Part:
    """Return a projection of the pooled embedding."""
    inputs, outputs = fields.integer("in_features"), fields.integer("out_features")
    name = f"{module.path}.linear"
    tensors = linear(name, outputs, inputs, Cut.WHOLE, bias=fields.flag("bias", default=True))
    return Part(name=module.path, layers=(), layer_prefix=f"{module.path}.", tensors=tensors, resident=True)
