"""A checkpoint's quantisation as rules over module names, and what they make of the tensors of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vramfit.errors import UnsupportedModelError
from vramfit.formats import BLOCK_MATRICES, Role, StorageFormat
from vramfit.layer_kind import GroupedQuery, Latent
from vramfit.readers.quantizers.names import Names
from vramfit.spec import Cut, Layer, ModelSpec, Part, Scheme, Tensor

BEGINNINGS = (
    "model.layers.", "model.language_model.layers.", "language_model.model.layers.", "language_model.layers.",
    "backbone.layers.", "transformer.h.", "model.decoder.layers.", "layers.",
)  # fmt: skip
"""How published files begin the name of a module of the language model's layers."""
TWO_MATRICES = re.compile(r"gate_up|gate_and_up|input_linear")
"""Fused experts that quantised files hold as two matrices, each with its own scales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Modules of these names are held so."""

    names: Names
    held: StorageFormat | None
    """None = they stay plain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A scale of the cache that the file holds beside the weights of every attention layer."""

    name: str
    shape: tuple[int, ...]
    held: StorageFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which format every module has: that of the first rule that names it, else the default."""

    default: StorageFormat | None
    """None = what no rule names stays plain."""
    rules: tuple[Rule, ...] = ()
    roles: frozenset[Role] = BLOCK_MATRICES
    """What tensors are for that may be quantised at all."""
    towers: bool = True
    """True when stacks beside the language model are quantised too, unless a rule says otherwise."""
    kv_format: str | None = None
    kv_scales: tuple[Scale, ...] = ()

    def held(self, tensor: Tensor, spellings: tuple[str, ...], layer: int | None) -> StorageFormat | None:
        """Return the format of a tensor by its full name, which files spell in one way or another; None = plain.

        Raises:
            UnsupportedModelError: the experts of one layer differ.
        """
        if tensor.role not in self.roles or len(tensor.shape) < 2:
            return None
        modules = tuple(s.removesuffix(".weight") for s in spellings)
        if tensor.copies == 1 or not any(rule.names.by_expert for rule in self.rules):
            return _fused(self._of(tuple(m.replace("{expert}", "0") for m in modules), layer), tensor)
        found = {self._of(tuple(m.replace("{expert}", str(e)) for m in modules), layer) for e in range(tensor.copies)}
        if len(found) > 1:
            raise UnsupportedModelError(
                f"quantization_config: {modules[0]!r:.200}: experts of one layer in several formats: expected one for "
                "all; give weight_format for an estimate and leave quantization_config out"
            )
        return found.pop()

    def _of(self, modules: tuple[str, ...], layer: int | None) -> StorageFormat | None:
        for rule in self.rules:
            if any(rule.names.has(module, layer) for module in modules):
                return rule.held
        return self.default

    @property
    def main(self) -> StorageFormat | None:
        """The format to name when one is asked for."""
        return self.default or next((rule.held for rule in self.rules if rule.held), None)


def _fused(held: StorageFormat | None, tensor: Tensor) -> StorageFormat | None:
    """Return the format of experts that our inventory has in one tensor: inputs first, or two matrices in one."""
    if held is None or len(tensor.shape) < 3:
        return held
    two = TWO_MATRICES.search(tensor.name) is not None
    first = tensor.cut is (Cut.INPUTS if two else Cut.SECOND)
    times = 2 if two else 1
    return replace(
        held, inputs_first=first, tensor_bytes=times * held.tensor_bytes, column_bytes=times * held.column_bytes
    )


def applied(recipe: Recipe | None, spec: ModelSpec) -> ModelSpec:
    """Return the model with every tensor held as the recipe says; equal layers stay one object."""
    if recipe is None:
        return spec
    texts = tuple({text.partition(".layers.")[0]: text for rule in recipe.rules for text in rule.names.texts}.values())
    parts = tuple(_part(recipe, part, texts) for part in spec.parts) if recipe.towers else spec.parts
    before = _as_written(spec.layer_prefix.partition("{layer}")[0], texts)
    layers = _stack(recipe, spec.layers, before, 0)
    return replace(
        spec,
        embeddings=tuple(_outside(recipe, t) for t in spec.embeddings),
        layers=_with_scales(recipe, layers),
        head=tuple(_outside(recipe, t) for t in spec.head),
        parts=parts,
        scheme=replace(spec.scheme, by_tensor=True),
    )


def scheme(recipe: Recipe | None, plain: StorageFormat) -> Scheme:
    """Return the scheme of a checkpoint before its tensors are known."""
    if recipe is None:
        return Scheme(quantised=plain, plain=plain)
    return Scheme(quantised=recipe.main or plain, plain=plain, by_tensor=True, kv_format=recipe.kv_format)


def _part(recipe: Recipe, part: Part, texts: Iterable[str]) -> Part:
    before = _as_written(part.layer_prefix.partition("{layer}")[0], texts)
    layers = _stack(recipe, part.layers, before, part.first_layer)
    return replace(part, layers=layers, tensors=tuple(_outside(recipe, t) for t in part.tensors))


def _as_written(beginning: str, texts: Iterable[str]) -> str:
    """Return the beginning of names as the file's own lists spell it; ours when they do not tell."""
    others = BEGINNINGS if beginning in BEGINNINGS else ()
    spellings = (beginning, *others, beginning.removeprefix("model."), f"model.{beginning}")
    return next((s for s in spellings if any(_is_of(text, s) for text in texts)), beginning)


def _is_of(text: str, spelling: str) -> bool:
    """Say whether an entry names something below that beginning, or a module around it."""
    return text.startswith(spelling) or (len(text) > 1 and spelling.startswith(text))


def _outside(recipe: Recipe, tensor: Tensor) -> Tensor:
    """Return a tensor outside the layers as it is held; lists spell such names with a prefix, or without."""
    short = tensor.name.removeprefix("model.").removeprefix("language_model.")
    spellings = (tensor.name, *(p + short for p in ("", "model.", "language_model.", "model.language_model.")))
    held = recipe.held(tensor, spellings, None)
    return tensor if held is None else replace(tensor, held=held)


def _stack(recipe: Recipe, layers: tuple[Layer, ...], before: str, first: int) -> tuple[Layer, ...]:
    """Return the layers of a stack as they are held."""
    kinds: dict[object, Layer] = {}
    seen: dict[object, Layer] = {}
    found = []
    for number, layer in enumerate(layers, start=first):
        key = (id(layer), *(rule.names.key(number) for rule in recipe.rules))
        if key not in seen:
            held = tuple(recipe.held(t, (f"{before}{number}.{t.name}",), number) for t in layer.tensors)
            kind = (id(layer), held)
            if kind not in kinds:
                kinds[kind] = replace(layer, tensors=_held(layer.tensors, held))
            seen[key] = kinds[kind]
        found.append(seen[key])
    return tuple(found)


def _held(tensors: tuple[Tensor, ...], held: tuple[StorageFormat | None, ...]) -> tuple[Tensor, ...]:
    return tuple(t if h is None else replace(t, held=h) for t, h in zip(tensors, held, strict=True))


def _with_scales(recipe: Recipe, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return the layers with the scales of their caches, where the file has such."""
    if not recipe.kv_scales:
        return layers
    scales = tuple(
        Tensor(name=s.name, shape=s.shape, role=Role.BIAS, stored=s.held, buffer=True) for s in recipe.kv_scales
    )
    kinds = {id(layer): layer for layer in layers}
    with_scales = {
        key: replace(layer, tensors=(*layer.tensors, *scales))
        if isinstance(layer.attention, GroupedQuery | Latent)
        else layer
        for key, layer in kinds.items()
    }
    return tuple(with_scales[id(layer)] for layer in layers)
