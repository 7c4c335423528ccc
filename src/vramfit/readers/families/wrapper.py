"""Reads a language model with towers beside it: which text family, which towers, what joins them, where all stand.

``multimodal.py`` holds one row of these facts per kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType

from vramfit.formats import Role
from vramfit.readers.families import FAMILIES
from vramfit.readers.families.decoder import Named
from vramfit.readers.families.joints import Joint, nothing
from vramfit.readers.fields import Fields
from vramfit.spec import Layer, ModelSpec, Part, Tensor

Tower = Callable[[Fields, str], Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapper:
    """One kind of multimodal model."""

    classes: tuple[str, ...]
    """Names in ``architectures`` that are read."""
    text: str
    """Text family where ``text_config`` does not say."""
    towers: Mapping[str, tuple[Tower, str]]
    """``model_type`` of the tower's section -> its reader and its prefix; the first one is the default."""
    text_section: str = "text_config"
    section: str = "vision_config"
    beside: tuple[tuple[str, Tower, str], ...] = ()
    """Further towers: section, reader, prefix."""
    prefix: str
    """Before the language model's tensors, in place of ``model.``"""
    head: str = "lm_head"
    tied: bool = False
    """Class default of the outer ``tie_word_embeddings``."""
    tied_inside: bool = False
    """True: only the text section's own ``tie_word_embeddings`` counts, with its family's class default."""
    joint: Joint = nothing
    renamed: tuple[tuple[str, str], ...] = ()
    """Text ``model_type`` here -> family that reads it."""
    defaults: tuple[tuple[str, object], ...] = ()
    """Class defaults of the text section where they are not the family's own."""
    finish: Callable[[ModelSpec, Fields], ModelSpec] | None = None
    """What else the language model has here."""

    @property
    def sections(self) -> tuple[str, ...]:
        """Nested sections that are read."""
        return (self.text_section, self.section, *(section for section, _, _ in self.beside))


def read_wrapper(fields: Fields, named: Named, wrapper: Wrapper) -> ModelSpec:
    """Read a configuration of a kind with these facts."""
    spec = _language_model(fields, named, wrapper)
    spec = replace(
        spec,
        embeddings=tuple(_moved(t, wrapper) for t in spec.embeddings),
        head=tuple(_moved(t, wrapper) for t in spec.head),
        layer_prefix=_moved_name(spec.layer_prefix, wrapper),
        parts=tuple(_moved_part(part, wrapper) for part in spec.parts),
    )
    if not fields.has(wrapper.section):
        fields.assumed.append(f"{wrapper.section} is null or missing: no tower; only the language model is counted")
        return spec
    section = fields.section(wrapper.section)
    tower = _tower(fields, section, wrapper)
    joint = wrapper.joint(fields, section, _width(tower), spec.hidden_size)
    more = tuple(reader(fields.section(name), prefix) for name, reader, prefix in wrapper.beside)
    spec = replace(spec, parts=(*spec.parts, replace(tower, tensors=(*tower.tensors, *joint)), *more))
    return spec if wrapper.finish is None else wrapper.finish(spec, fields)


def _tower(fields: Fields, section: Fields, wrapper: Wrapper) -> Part:
    """Read the first tower, by the name in its section where several may stand there."""
    named = section.text("model_type") or ""
    if "" not in wrapper.towers and named and named not in wrapper.towers:
        section.refuse("model_type", f"a tower that {fields.text('model_type')} is not read with")
    reader, prefix = wrapper.towers.get(named) or next(iter(wrapper.towers.values()))
    return reader(section, prefix)


def _language_model(fields: Fields, named: Named, wrapper: Wrapper) -> ModelSpec:
    """Read the language model by its own family; older files hold its fields at the top."""
    name = wrapper.text_section
    section = fields.section(name) if fields.has(name) else fields
    own = section.text("model_type") if section is not fields else None
    text = dict(wrapper.renamed).get(own or "", own or wrapper.text)
    if text not in FAMILIES or text in getattr(_family(text), "SECTIONS", {}):
        section.refuse("model_type", "a language model that is not read in this place")
    inner = section.filled(**dict(wrapper.defaults))
    values = {**inner.values, "model_type": text}
    if not wrapper.tied_inside:
        values["tie_word_embeddings"] = _is_tied(fields, section, default=wrapper.tied)
    inner = Fields(values, inner.path, inner.assumed)
    spec: ModelSpec = _family(text).read(inner, named)
    if not spec.generates:
        section.refuse("model_type", "a language model that writes nothing")
    return spec


def _is_tied(fields: Fields, section: Fields, *, default: bool) -> bool:
    """Say whether the output projection is the embedding: the outer field counts, then the text section's."""
    for part in (fields, section):
        if part.has("tie_word_embeddings"):
            return part.flag("tie_word_embeddings", default=default)
    fields.assume("tie_word_embeddings", default)
    return default


def _family(text: str) -> ModuleType:
    return import_module(f"vramfit.readers.families.{FAMILIES[text]}")


def _moved_part(part: Part, wrapper: Wrapper) -> Part:
    """Return a part of the language model, such as its encoder; what a load leaves on disk keeps its name."""
    if not part.resident:
        return part
    tensors = tuple(_moved(t, wrapper) for t in part.tensors)
    return replace(part, tensors=tensors, layer_prefix=_moved_name(part.layer_prefix, wrapper))


def _moved(tensor: Tensor, wrapper: Wrapper) -> Tensor:
    """Return a tensor of the language model under its name in the whole file."""
    return replace(tensor, name=_moved_name(tensor.name, wrapper))


def _moved_name(name: str, wrapper: Wrapper) -> str:
    if name.startswith("model."):
        return wrapper.prefix + name.removeprefix("model.")
    return wrapper.head.removesuffix("lm_head") + name  # beside the model, as the output projection is


def each_layer(spec: ModelSpec, change: Callable[[Layer], Layer]) -> ModelSpec:
    """Return the model with every kind of layer changed; equal layers stay one object."""
    kinds: dict[int, Layer] = {}
    for layer in spec.layers:
        if id(layer) not in kinds:
            kinds[id(layer)] = change(layer)
    return replace(spec, layers=tuple(kinds[id(layer)] for layer in spec.layers))


def _width(tower: Part) -> int:
    """Return the width at which the tower's blocks read and write; 0 where it has none."""
    if not tower.layers:
        return 0
    return next(t.shape[-1] for t in tower.layers[0].tensors if t.role is Role.LINEAR)
