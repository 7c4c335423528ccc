"""Which modules of a base model an ``adapter_config.json`` means, by the rules of peft.

Source: huggingface/peft:src/peft/tuners/tuners_utils.py, check_target_module_exists and
_maybe_include_all_linear_layers; src/peft/utils/other.py, _set_trainable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.readers.quantizers.names import check_pattern
from vramfit.spec import ModelSpec, Tensor

ALL_LINEAR = "all-linear"
MATRICES = frozenset({Role.LINEAR, Role.EXPERT, Role.ROUTER, Role.EMBEDDING, Role.HEAD})
INPUTS_FIRST = frozenset({"gpt2"})
"""Families whose matrices lie ``[inputs, outputs]`` (Conv1D)."""
LAYER = re.compile(r".*?\.[^.]*\.(?P<index>[0-9]+)\.")
MOST_NAMES = 100_000
SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A matrix of the base model as a module: ``copies`` experts of the same kind count as one."""

    name: str
    inputs: int
    outputs: int
    role: Role
    copies: int = 1
    bias: bool = False
    fused: int = 0
    """Experts in one tensor; 0 = an ordinary matrix."""

    @property
    def key(self) -> str:
        """The name by which targets are matched: the first expert stands for all."""
        return self.name.replace("{expert}", "0")


def modules(base: ModelSpec) -> tuple[Module, ...]:
    """Return the matrices of a model and its resident parts, a tied output projection too."""
    found = list(_modules(base))
    if base.tied and base.generates:
        table = next(m for m in found if m.role is Role.EMBEDDING)
        found.append(Module(name="lm_head", inputs=table.outputs, outputs=table.inputs, role=Role.HEAD))
    return tuple(found)


def all_tensors(base: ModelSpec) -> Iterator[Tensor]:
    """Yield every tensor by its full name, experts together."""
    yield from base.embeddings
    yield from base.head
    stacks = [(base.layers, base.layer_prefix, 0)]
    for part in base.parts:
        if part.resident:
            yield from part.tensors
            stacks.append((part.layers, part.layer_prefix, part.first_layer))
    for layers, prefix, first in stacks:
        for number, layer in enumerate(layers, start=first):
            before = prefix.replace("{layer}", str(number))
            for t in layer.tensors:
                yield Tensor(
                    name=before + t.name, shape=t.shape, role=t.role, copies=t.copies, experts=t.experts,
                    stored=t.stored, buffer=t.buffer,
                )  # fmt: skip


def _modules(base: ModelSpec) -> Iterator[Module]:
    tensors = list(all_tensors(base))
    biases = {t.name.removesuffix(".bias") for t in tensors if t.name.endswith(".bias")}
    for t in tensors:
        if t.role not in MATRICES or len(t.shape) < 2:
            continue
        name = t.name.removesuffix(".weight")
        outputs, inputs = t.shape[-2:]
        if t.role is Role.EMBEDDING or (base.family in INPUTS_FIRST and t.role is not Role.HEAD):
            outputs, inputs = inputs, outputs
        fused = t.experts if len(t.shape) == 3 else 0
        yield Module(
            name=name, inputs=inputs, outputs=outputs, role=t.role, copies=t.copies, bias=name in biases, fused=fused
        )


def targets(config: Fields, found: tuple[Module, ...]) -> tuple[Module, ...]:
    """Return the modules that ``target_modules`` and the fields beside it mean.

    Raises:
        InvalidValueError: nothing has such a name; the message lists the names that exist.
    """
    wanted = config.values.get("target_modules")
    if not wanted and (config.has("target_parameters") or config.has("trainable_token_indices")):
        return ()
    chosen = tuple(m for m in found if not m.fused and _is_target(config, wanted, m))
    if not chosen:
        raise InvalidValueError(
            config.at("target_modules"), wanted, f"modules of the base model, which has {_listed(found)}"
        )
    return chosen


def _listed(found: tuple[Module, ...]) -> str:
    last = sorted({m.key.rpartition(".")[2] for m in found if not m.fused})
    more = f" and {len(last) - SHOWN} more" if len(last) > SHOWN else ""
    return ", ".join(last[:SHOWN]) + more


def _is_target(config: Fields, wanted: object, module: Module) -> bool:
    key = module.key
    if _is_excluded(config, key):
        return False
    if isinstance(wanted, str):
        if wanted.lower() == ALL_LINEAR:
            return module.role in {Role.LINEAR, Role.ROUTER}
        return fullmatch(wanted, key, config.at("target_modules"))
    names = texts(config, "target_modules")
    if key in names:
        return True
    return key.endswith(tuple(f".{name}" for name in names)) and _in_layers(config, key)


def _is_excluded(config: Fields, key: str) -> bool:
    excluded = config.values.get("exclude_modules")
    if isinstance(excluded, str):
        if fullmatch(excluded, key, config.at("exclude_modules")):
            return True
    elif excluded:
        names = texts(config, "exclude_modules")
        if key in names or key.endswith(tuple(f".{name}" for name in names)):
            return True
    saved = texts(config, "modules_to_save")
    return any(f".{name}." in f".{key}." for name in saved)


def _in_layers(config: Fields, key: str) -> bool:
    """Say whether ``layers_to_transform`` has the number of the module's layer."""
    wanted = config.values.get("layers_to_transform")
    if wanted is None or wanted == []:
        return True
    numbers = {wanted} if isinstance(wanted, int) else config.integers("layers_to_transform", LARGEST_LAYERS)
    beginnings = texts(config, "layers_pattern")
    if not beginnings:
        match = LAYER.match(key)
        return match is not None and int(match["index"]) in numbers
    for name in beginnings:
        found = re.match(rf"(?:^|.*?\.){re.escape(name)}\.(?P<index>[0-9]+)\.", key)
        if found is not None:
            return int(found["index"]) in numbers
    return False


def texts(config: Fields, name: str) -> tuple[str, ...]:
    """Return a list of texts, or the one text that stands for it; absent = empty."""
    value = config.values.get(name)
    if value is None or isinstance(value, str):
        return (value,) if value else ()
    if not isinstance(value, list) or len(value) > MOST_NAMES or not all(isinstance(v, str) for v in value):
        raise InvalidValueError(config.at(name), value, f"a list of at most {MOST_NAMES:,} names")
    return tuple(value)


def fullmatch(pattern: str, key: str, path: str) -> bool:
    """Say whether a regular expression of the input is the whole of a name.

    Raises:
        InvalidValueError: not a regular expression, or one whose match could take for ever.
    """
    check_pattern(pattern, path)
    try:
        return re.fullmatch(pattern, key) is not None
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidValueError(path, pattern, f"a regular expression ({error})") from error


def by_pattern(config: Fields, name: str, key: str) -> object:
    """Return the value whose key, a name or a pattern, is the end of a module's name; None = none is.

    Source: huggingface/peft:src/peft/utils/other.py, get_pattern_key.
    """
    if not config.has(name):
        return None
    table = config.section(name)
    for pattern, value in table.values.items():
        if fullmatch(rf"(?:.*\.)?(?:{pattern})", key, table.path):
            return value
    return None
