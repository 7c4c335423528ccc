"""Reads the content of a Hugging Face ``config.json`` into a ``ModelSpec``, or refuses with the path of the field."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from vramfit.errors import InvalidValueError, UnknownKindError, UnsupportedModelError
from vramfit.names import nearest
from vramfit.readers.families import DRAFTS, FAMILIES, tops
from vramfit.readers.families.decoder import Named
from vramfit.readers.fields import Fields
from vramfit.readers.inputs import largest_image, rotary_tables
from vramfit.readers.quantization import read_plain, read_recipe
from vramfit.spec import ModelSpec, Scheme

if TYPE_CHECKING:
    from vramfit.formats import StorageFormat
    from vramfit.readers.quantizers.recipe import Recipe

NEEDED = (
    "hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size, "
    "vocab_size, tie_word_embeddings, and which layers slide, route to experts or keep a recurrent state"
)
OTHER_INPUTS = ("audio_config", "speech_config", "vision_config")
"""Sections of models that see more than text; refused where the family does not read them."""


def read_config(config: Mapping[str, object], name: str) -> ModelSpec:
    """Return the model that a configuration describes.

    Args:
        config: content of a ``config.json``; text facts may be nested in ``text_config``.
        name: what to call the model in reports.

    Raises:
        UnknownKindError: a ``model_type`` or a class that is not understood.
        UnsupportedModelError: a field that is not understood.
        InvalidValueError: a field of the wrong type, or zero, negative or absurdly large.
    """
    fields = Fields(config)
    kind = fields.text("model_type")
    draft = DRAFTS.get(_first_class(fields))
    if draft is not None:
        return _finished(fields, import_module(f"vramfit.readers.families.{draft}"), name)
    if kind is None:
        raise UnsupportedModelError(
            f"{name}: model_type: missing: expected one of {len(FAMILIES)} names that are understood, such as bert, "
            "llama, qwen3_moe or vit; take the model's complete config.json"
        )
    if kind not in FAMILIES:
        close = nearest(kind, FAMILIES)
        hint = f"; nearest that are: {', '.join(close)}" if close else ""
        raise UnknownKindError(
            f"{name}: model_type: {kind!r:.100} is not understood{hint}; to add it we would need {NEEDED}"
        )
    family = import_module(f"vramfit.readers.families.{FAMILIES[kind]}")
    _refuse_other_inputs(fields, kind, getattr(family, "SECTIONS", {}).get(kind, ()))
    _refuse_other_classes(fields, kind, getattr(family, "CLASSES", {}).get(kind))
    return _finished(fields, family, name)


def _finished(fields: Fields, family: ModuleType, name: str) -> ModelSpec:
    """Read by a family's file, then hold every tensor as the checkpoint's recipe says."""
    plain = read_plain(fields)
    recipe = read_recipe(fields, plain)
    if hasattr(family, "stored"):
        recipe = family.stored(fields, recipe)
    scheme, hold = _storage(recipe, plain)
    spec: ModelSpec = family.read(fields, Named(name=name, scheme=scheme))
    kind = fields.text("model_type") or _first_class(fields)
    top = _class_named(fields)
    if top is not None and not (top in DRAFTS or kind in getattr(family, "CLASSES", {}) or tops.generates(top)):
        spec = tops.without_projection(fields, spec, top)
    positions, ratio = rotary_tables(fields, kind, spec.max_position_embeddings)
    spec = replace(spec, rotary_positions=positions, rotary_ratio=ratio, image=largest_image(fields, kind))
    return replace(hold(spec), family=kind, assumptions=tuple(dict.fromkeys(fields.assumed)))


def _storage(recipe: Recipe | None, plain: StorageFormat) -> tuple[Scheme, Callable[[ModelSpec], ModelSpec]]:
    """Return the scheme to read a model with, and what then holds each of its tensors as the recipe says."""
    if recipe is None:
        return Scheme(quantised=plain, plain=plain), lambda spec: spec
    from vramfit.readers.quantizers.recipe import applied, scheme  # noqa: PLC0415 - plain checkpoints do without

    return scheme(recipe, plain), partial(applied, recipe)


def _first_class(fields: Fields) -> str:
    """Return the first of ``architectures``; empty when there is none."""
    named = fields.values.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""


def _refuse_other_inputs(fields: Fields, kind: str, read: Collection[str]) -> None:
    """Refuse sections that the family does not name in its ``SECTIONS``."""
    for section in OTHER_INPUTS:
        if section not in read:
            fields.refuse(section, f"{kind} with inputs other than text")
    if "text_config" not in read and fields.has("text_config"):
        raise InvalidValueError("text_config", "an object", f"none: {kind} has its fields at the top level")


def _refuse_other_classes(fields: Fields, kind: str, read: Collection[str] | None) -> None:
    """Refuse classes that the family does not name in its ``CLASSES``; None = those of decoders."""
    top = _class_named(fields)
    if top is None:
        return
    if read is None and not tops.understood(top):
        raise UnknownKindError(
            f"architectures[0]: {top!r:.100}: expected a class that generates text (name ends with "
            f"{', '.join(tops.GENERATING)}), embeds ({tops.BARE}), scores ({tops.SCORING}) or labels "
            f"({tops.LABELLING}); others are not read for {kind} yet: leave architectures out to count it as one"
        )
    if read is not None and top not in read:
        raise UnknownKindError(
            f"architectures[0]: {top!r:.100}: expected one of {', '.join(read)}; others are not read yet"
        )


def _class_named(fields: Fields) -> str | None:
    """Return the class that the file was saved from; None = none is named."""
    named = fields.values.get("architectures")
    if named is None or named == []:
        return None
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise InvalidValueError("architectures", named, "a list of class names")
    return named[0]
