"""Reads one component of a diffusion pipeline into a ``ModelSpec`` whose parts are the component's stacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from vramfit.errors import UnsupportedModelError
from vramfit.formats import BF16
from vramfit.names import nearest
from vramfit.pipeline import Autoencoder, Component, Denoiser
from vramfit.readers.diffusion.block import Anatomy, Known, Stack
from vramfit.readers.diffusion.classes import CLASSES
from vramfit.readers.diffusion.encoder import ENCODERS, LANGUAGE_MODELS, language_model
from vramfit.readers.diffusion.on_meta import has_diffusers, on_meta
from vramfit.readers.fields import Fields
from vramfit.readers.quantization import DTYPES, read_plain, read_recipe
from vramfit.readers.quantizers.recipe import applied, scheme
from vramfit.spec import ModelSpec, Part, Scheme

PLAIN = Scheme(quantised=BF16, plain=BF16)
"""What a component without a dtype of its own is loaded as, unless the pipeline says otherwise."""
WITHOUT_DTYPE = (
    "no component says its dtype, and diffusers loads what torch_dtype asks for: bfloat16 was taken; "
    "file headers or --weights decide otherwise"
)


def read_component(
    config: Mapping[str, object], name: str, *, component: str = "model", class_name: str | None = None
) -> ModelSpec:
    """Return one component as a model of its own, without layers that generate.

    Args:
        config: content of the component's ``config.json``.
        name: what to call the model in reports.
        component: the folder's name in the pipeline.
        class_name: the class that the pipeline loads it with; None = what the config says.

    Raises:
        UnsupportedModelError: a class or a field that is not understood.
        InvalidValueError: a field of the wrong type, or out of bounds.
    """
    fields = Fields(config, component if component != "model" else "")
    chosen = class_name or _class_of(fields)
    if chosen in LANGUAGE_MODELS:
        return _from_language_model(fields, name, component, chosen)
    known = CLASSES.get(chosen) or ENCODERS.get(chosen)
    anatomy = None if known is None else _natively(fields, known, chosen)
    if anatomy is None:
        anatomy = _through_diffusers(fields, chosen)
    return _spec(fields, name, Component(name=component, class_name=chosen, facts=anatomy.facts), anatomy)


def _class_of(fields: Fields) -> str:
    named = fields.values.get("_class_name") or fields.values.get("architectures")
    found = named[0] if isinstance(named, list) and named else named
    if not isinstance(found, str):
        raise UnsupportedModelError(
            f"{fields.at('_class_name')}: {named!r:.100}: expected the name of a class of diffusers or transformers; "
            "take the component's complete config.json"
        )
    return found


def _natively(fields: Fields, known: Known, chosen: str) -> Anatomy | None:
    """Read with our own table; None when a field is out of its scope and diffusers is there to ask."""
    values = {**known.defaults, **{k: v for k, v in fields.values.items() if not k.startswith("_")}}
    try:
        _check_fixed(fields, known, chosen)
        anatomy = known.read(Fields(values, fields.path, fields.assumed))
    except UnsupportedModelError:
        if not has_diffusers():
            raise
        return None
    for name, value in known.defaults.items():
        if value and fields.absent(name):
            fields.assume(name, value, f"class default of {chosen}; the configuration has none")
    return anatomy


def _check_fixed(fields: Fields, known: Known, chosen: str) -> None:
    """Refuse fields that would change shapes in a way that is not read."""
    for name, only in known.fixed.items():
        value = fields.values.get(name, only)
        if _plainly(value) != _plainly(only):
            raise UnsupportedModelError(
                f"{fields.at(name)}: {value!r:.100}: expected {only!r}: {chosen} with another value is not read "
                "natively; install diffusers to have it read on its meta device"
            )


def _plainly(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _through_diffusers(fields: Fields, chosen: str) -> Anatomy:
    if not has_diffusers():
        close = nearest(chosen, (*CLASSES, *ENCODERS, *LANGUAGE_MODELS))
        hint = f"; nearest that are: {', '.join(close)}" if close else ""
        raise UnsupportedModelError(
            f"{fields.at('_class_name')}: {chosen!r:.100} is not read natively{hint}; install diffusers to have it "
            "read on its meta device"
        )
    anatomy, version = on_meta(fields, chosen)
    fields.assumed.append(f"{fields.at('_class_name')} = {chosen}: read through {version} on the meta device")
    return anatomy


def _says_how_stored(fields: Fields) -> bool:
    """Say whether the component's config names a dtype or a quantisation."""
    return any(fields.has(name) for name in ("quantization_config", "torch_dtype", "dtype"))


def _spec(fields: Fields, name: str, component: Component, anatomy: Anatomy) -> ModelSpec:
    told = _says_how_stored(fields)
    plain = read_plain(fields) if told else PLAIN.plain
    recipe = read_recipe(fields, plain)
    notes = (*fields.assumed, *(() if told else (WITHOUT_DTYPE,)))
    parts = _parts(component.name, anatomy)
    width = getattr(anatomy.facts, "hidden_size", 0)
    spec = of_components(name, component.class_name, (component,), parts, scheme(recipe, plain), notes)
    return applied(recipe, replace(spec, hidden_size=width))


def of_components(
    name: str,
    family: str,
    components: tuple[Component, ...],
    parts: tuple[Part, ...],
    held: Scheme,
    notes: Iterable[str],
) -> ModelSpec:
    """Return a model that is parts only, without layers of a language model."""
    return ModelSpec(
        name=name,
        family=family,
        hidden_size=0,
        vocab_size=0,
        max_position_embeddings=None,
        embeddings=(),
        layers=(),
        head=(),
        tied=False,
        layer_prefix="",
        scheme=held,
        parts=parts,
        components=components,
        generates=False,
        not_counted=not_counted(components),
        assumptions=tuple(dict.fromkeys(notes)),
    )


def _parts(component: str, anatomy: Anatomy) -> tuple[Part, ...]:
    """Return one part per stack; the first holds what stands outside all of them."""
    first, *others = anatomy.stacks or (Stack(prefix="", layers=()),)
    outside = Part(
        name=component,
        layers=first.layers,
        layer_prefix=first.prefix,
        tensors=anatomy.tensors,
        resident=True,
        component=component,
    )
    rest = (
        Part(
            name=f"{component}/{stack.prefix.split('.{layer}')[0]}",
            layers=stack.layers,
            layer_prefix=stack.prefix,
            resident=True,
            component=component,
        )
        for stack in others
    )
    return (outside, *rest)


def _from_language_model(fields: Fields, name: str, component: str, chosen: str) -> ModelSpec:
    """Return a language model that serves as a text encoder."""
    spec, facts = language_model(fields, name, chosen)
    made = Component(name=component, class_name=chosen, facts=facts)
    parts = (
        Part(
            name=component,
            layers=spec.layers,
            layer_prefix=spec.layer_prefix,
            tensors=(*spec.embeddings, *spec.head),
            resident=True,
            component=component,
        ),
        *(replace(p, name=f"{component}/{p.name}", component=component) for p in spec.parts),
    )
    return replace(
        spec,
        family=chosen,
        layers=(),
        embeddings=(),
        head=(),
        layer_prefix="",
        vocab_size=0,
        max_position_embeddings=None,
        tied=False,
        parts=parts,
        components=(made,),
        generates=False,
        not_counted=not_counted((made,)),
    )


def dtype_named(config: Mapping[str, Any]) -> str | None:
    """Return the dtype that a component's config names, if any."""
    value = config.get("torch_dtype") or config.get("dtype")
    return value if isinstance(value, str) and value.removeprefix("torch.") in DTYPES else None


def not_counted(components: tuple[Component, ...]) -> tuple[str, ...]:
    """Name what a pipeline holds while it runs and no formula here counts, one line per component."""
    found = []
    for component in components:
        match component.facts:
            case Denoiser() as facts:
                what = f"{facts.in_channels} latent channels, width {facts.hidden_size:,}"
                found.append(f"{component.name}: activations of a denoising step ({what}); they grow with the image")
            case Autoencoder() as facts:
                sizes = f"{facts.block_out_channels[0]} channels at full resolution"
                found.append(f"{component.name}: the peak of decoding latents to pixels ({sizes}), often the largest")
            case _:
                found.append(f"{component.name}: activations of one pass over its input")
    return tuple(found)
