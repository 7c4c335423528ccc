"""Reads a whole pipeline: ``model_index.json`` and the ``config.json`` of every component that holds weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.pipeline import Denoiser
from vramfit.readers.diffusion.component import PLAIN, WITHOUT_DTYPE, dtype_named, of_components, read_component
from vramfit.readers.quantization import DTYPES
from vramfit.readers.safetensors import Checkpoint
from vramfit.readers.witness import attach
from vramfit.spec import Layer, ModelSpec, Part, Scheme, Tensor

WEIGHTLESS = ("Tokenizer", "TokenizerFast", "Scheduler", "Processor", "FeatureExtractor")
"""Ends of the names of classes without weights."""
OLD_ATTENTION = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))
"""Names that autoencoders were saved with before diffusers 0.14, which a load still translates.
Source: huggingface/diffusers@v0.42.1:src/diffusers/models/modeling_utils.py, _convert_deprecated_attention_blocks."""
MOST_COMPONENTS = 64


@dataclass(frozen=True, slots=True)
class Named:
    """One entry of a ``model_index.json``: a folder and what it is loaded with."""

    folder: str
    library: str
    class_name: str

    @property
    def weightless(self) -> bool:
        """True for tokenizers, schedulers and processors."""
        return self.class_name.endswith(WEIGHTLESS)


def is_pipeline(config: Mapping[str, object]) -> bool:
    """Say whether this is the content of a ``model_index.json``, with or without the components' configs inside."""
    name = config.get("_class_name")
    return "model_type" not in config and isinstance(name, str) and name.endswith("Pipeline")


def components_of(index: Mapping[str, object]) -> tuple[Named, ...]:
    """Return the folders of a pipeline that hold weights, in the order of ``model_index.json``.

    Raises:
        InvalidValueError: an entry that is no pair of library and class.
        UnsupportedModelError: nothing in it holds weights.
    """
    found = []
    for folder, entry in index.items():
        if folder.startswith("_") or not isinstance(entry, list):
            continue
        if len(entry) != 2 or not all(isinstance(part, str) or part is None for part in entry):
            if folder == "components" or not entry or not isinstance(entry[0], str):
                continue  # a plain setting of the pipeline that happens to be a list
            raise InvalidValueError(folder, entry, 'a pair such as ["diffusers", "AutoencoderKL"]')
        library, class_name = entry
        if library is not None and class_name is not None:
            found.append(Named(folder, library, class_name))
    held = tuple(named for named in found if not named.weightless)
    if not held or len(held) > MOST_COMPONENTS:
        raise UnsupportedModelError(
            f"model_index.json: {len(held)} components with weights: expected 1 to {MOST_COMPONENTS} entries such as "
            '"vae": ["diffusers", "AutoencoderKL"]; take the pipeline\'s complete model_index.json'
        )
    return held


def read_pipeline(
    index: Mapping[str, object],
    configs: Mapping[str, Mapping[str, object]],
    name: str,
    checkpoints: Mapping[str, Checkpoint] | None = None,
) -> ModelSpec:
    """Return a pipeline as one model whose parts are the components' stacks.

    Args:
        index: content of ``model_index.json``.
        configs: folder -> content of its ``config.json``, for every folder that ``components_of`` names.
        name: what to call the pipeline in reports.
        checkpoints: folder -> file headers, where they could be read.

    Raises:
        UnsupportedModelError: a component without config, or one that is not understood; the message names it.
        InvalidValueError: a field of the wrong type, or out of bounds.
    """
    named = components_of(index)
    read = []
    for each in named:
        if each.folder not in configs:
            raise UnsupportedModelError(
                f"{name}: {each.folder}/config.json: missing: expected the configuration of {each.class_name}; "
                f"model_index.json names it as a component with weights"
            )
        spec = read_component(configs[each.folder], name, component=each.folder, class_name=each.class_name)
        checkpoint = (checkpoints or {}).get(each.folder)
        read.append(spec if checkpoint is None else attach(spec, _as_named_now(checkpoint, each.class_name)))
    return _together(str(index.get("_class_name", "")), name, tuple(read), _scheme(configs))


def read_inline(config: Mapping[str, object], name: str) -> ModelSpec:
    """Return a pipeline whose ``model_index.json`` has the configs inside, under ``components``."""
    inside = config.get("components")
    if not isinstance(inside, Mapping) or not all(isinstance(v, Mapping) for v in inside.values()):
        raise InvalidValueError(
            "components", inside, "an object: folder -> content of its config.json", "or give the pipeline's folder"
        )
    return read_pipeline(config, inside, name)


def _as_named_now(checkpoint: Checkpoint, class_name: str) -> Checkpoint:
    """Return the headers with old names of an autoencoder's attention translated."""
    if not class_name.startswith("AutoencoderKL"):
        return checkpoint

    def now(name: str) -> str:
        for old, new in OLD_ATTENTION:
            name = name.replace(old, new)
        return name

    return replace(checkpoint, tensors=tuple(replace(t, name=now(t.name)) for t in checkpoint.tensors))


def _scheme(configs: Mapping[str, Mapping[str, object]]) -> Scheme | None:
    """Return the dtype that the first component to name one has: the text encoder's, in practice."""
    for config in configs.values():
        dtype = dtype_named(config)
        if dtype is not None:
            plain = DTYPES[dtype.removeprefix("torch.")]
            return Scheme(quantised=plain, plain=plain)
    return None


def _together(family: str, name: str, read: tuple[ModelSpec, ...], scheme: Scheme | None) -> ModelSpec:
    """Put the components together under one scheme; those stored otherwise keep their own format per tensor."""
    common = scheme or PLAIN
    silent = [spec.components[0].name for spec in read if WITHOUT_DTYPE in spec.assumptions]
    notes = [n for spec in read for n in spec.assumptions if n != WITHOUT_DTYPE]
    from_headers = [spec.components[0].name for spec in read if spec.evidence != "config"]
    silent = [folder for folder in silent if folder not in from_headers]
    if silent and scheme is None:
        notes.append(WITHOUT_DTYPE)
    elif silent:
        notes.append(
            f"{', '.join(silent)}: no dtype in the config, {common.plain.name} taken, as another component names; "
            "diffusers loads what torch_dtype asks for"
        )
    parts = tuple(part for spec in read for part in _stored(spec, common, silent=spec.components[0].name in silent))
    components = tuple(c for spec in read for c in spec.components)
    headers = len(from_headers) == len(read)
    if from_headers and not headers:
        notes.append(f"compared with file headers: {', '.join(from_headers)} only")
    width = next((c.facts.hidden_size for c in components if isinstance(c.facts, Denoiser)), 0)
    whole = of_components(name, family, components, parts, common, notes)
    evidence = "; ".join(spec.evidence for spec in read) if headers else whole.evidence
    return replace(whole, hidden_size=width, evidence=evidence)


def _stored(spec: ModelSpec, common: Scheme, *, silent: bool) -> tuple[Part, ...]:
    """Return the parts of one component; where its own formats differ from the pipeline's, each tensor says so."""
    if silent or (spec.scheme == common and spec.evidence == "config"):
        return spec.parts
    kinds: dict[int, Layer] = {}

    def own(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        formats = [(t, spec.scheme.format_of(t)) for t in tensors]
        return tuple(t if f == common.format_of(t) else replace(t, stored=f) for t, f in formats)

    def layer_of(layer: Layer) -> Layer:
        if id(layer) not in kinds:
            kinds[id(layer)] = replace(layer, tensors=own(layer.tensors))
        return kinds[id(layer)]

    return tuple(
        replace(part, tensors=own(part.tensors), layers=tuple(layer_of(layer) for layer in part.layers))
        for part in spec.parts
    )


def as_any(config: Mapping[str, object], name: str) -> ModelSpec:
    """Return a pipeline or a single component, whichever a mapping with ``_class_name`` is."""
    values: Mapping[str, Any] = config
    return read_inline(values, name) if is_pipeline(values) else read_component(values, name)
