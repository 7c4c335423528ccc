"""From a name on the Hub, or an address, to a ``ModelSpec``: which layout a repository has, and which files say what.

org/name[@revision]            transformers, diffusers, GGUF, sentence-transformers, an adapter, Mistral's own layout
org/name[@revision]:Q4_K_M     one of several GGUF models
org/name[@revision]/a.gguf     one file
https://host/path/a.gguf       one file elsewhere
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from vramfit.errors import HubError, UnsupportedModelError
from vramfit.memory.weights import weight_bytes
from vramfit.readers.adapter import read_adapter
from vramfit.readers.gguf_files import GgufChoice, choose, gguf_choices, projector_of, unnamed, usual_choice
from vramfit.readers.gguf_model import read_gguf, with_projector
from vramfit.readers.hub import CONFIG, fetch_array, fetch_checkpoint, fetch_json, no_config
from vramfit.readers.hub_gguf import fetch_gguf, fetch_gguf_url
from vramfit.readers.hub_listing import Listing, fetch_listing
from vramfit.readers.mistral_params import config_of, renamed
from vramfit.readers.quantization import with_quantization_file
from vramfit.readers.safetensors import Checkpoint
from vramfit.readers.sentence_transformers import Module, parse_modules, transformer_of, with_modules
from vramfit.readers.witness import attach
from vramfit.spec import ModelSpec
from vramfit.units import format_bytes

ReadConfig = Callable[[Mapping[str, object], str], ModelSpec]
"""``source.read_any``."""
ReadModel = Callable[[str], ModelSpec]
"""``source.read_base``, for the model that an adapter was trained on."""

_NAME = re.compile(
    r"(?P<repo>[^/@:]+/[^/@:]+)(?:@(?P<revision>[^:]+?))?(?:/(?P<file>[^:]+\.gguf)|:(?P<label>[\w.-]+))?", re.ASCII
)
QUANTIZATION_FILE = "hf_quant_config.json"
MODULES, ADAPTER, PIPELINE, PARAMS = "modules.json", "adapter_config.json", "model_index.json", "params.json"
BINARIES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")
PICKLE = re.compile(r"pytorch_model(?:-\d+-of-\d+)?\.bin")
PIPELINE_WEIGHTS = ("diffusion_pytorch_model", "model")
CLOSE = 0.01
"""Sizes closer than this are said to agree: pickles hold names and padding beside the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubName:
    """What is meant on the Hub."""

    repo_id: str
    revision: str | None = None
    file: str | None = None
    label: str | None = None

    def __str__(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id}@{self.revision}"


def hub_name(text: str) -> HubName:
    """Take a name apart.

    >>> hub_name("org/name@v1:Q4_K_M")
    HubName(repo_id='org/name', revision='v1', file=None, label='Q4_K_M')
    >>> hub_name("org/name/Q8_0/a.gguf").file
    'Q8_0/a.gguf'
    """
    match = _NAME.fullmatch(text)
    if match is None:
        repo_id, _, revision = text.partition("@")
        return HubName(repo_id=repo_id, revision=revision or None)
    return HubName(repo_id=match["repo"], revision=match["revision"], file=match["file"], label=match["label"])


def fetch_model(text: str, read_config: ReadConfig, read_base: ReadModel) -> ModelSpec:
    """Return the model that a name or an address stands for.

    Raises:
        HubError: no such repository, no access, no connection, or nothing in it that is a model.
        UnreadableFileError: a file that is damaged or hostile.
        UnsupportedModelError: a layout or architecture that is not understood.
    """
    if text.startswith(("https://", "http://")):
        return read_gguf(*fetch_gguf_url(_as_file(text)))
    name = hub_name(text)
    if name.file is not None:
        return read_gguf(*fetch_gguf(name.repo_id, name.file, name.revision))
    if name.label is not None:
        return _of_gguf(name, fetch_listing(name.repo_id, name.revision))
    config = fetch_json(name.repo_id, CONFIG, name.revision)
    if config is None or "model_type" not in config:
        return _of_other_layout(name, config, read_config, read_base)
    if "quantization_config" not in config:
        beside = fetch_json(name.repo_id, QUANTIZATION_FILE, name.revision)
        config = config if beside is None else with_quantization_file(config, beside)
    checkpoint = fetch_checkpoint(name.repo_id, name.revision)
    listing = _listing(name) if checkpoint is None else None
    if listing is not None and listing.ending(".gguf") and not any(map(PICKLE.fullmatch, listing.sizes)):
        return _of_gguf(name, listing)  # such repositories have a config.json too, and often half of one
    spec = _compared(read_config(config, name.repo_id), checkpoint, listing)
    modules = fetch_array(name.repo_id, MODULES, name.revision)
    return spec if modules is None else _embedding(spec, parse_modules(modules, f"{name}/{MODULES}"), name)


def _listing(name: HubName) -> Listing | None:
    """Return the list of files; None = it is not in reach, as offline."""
    try:
        return fetch_listing(name.repo_id, name.revision)
    except HubError:
        return None


def _as_file(address: str) -> str:
    """Return the address of a file's content where that of its page on the Hub was given."""
    return re.sub(r"^(https?://[^/]+/[^/]+/[^/]+)/blob/", r"\1/resolve/", address)


def gguf_files(text: str) -> tuple[GgufChoice, ...]:
    """Return the GGUF models of a repository, the smallest first, projectors last."""
    name = hub_name(text)
    return gguf_choices(fetch_listing(name.repo_id, name.revision).ending(".gguf"))


def _of_other_layout(
    name: HubName, config: dict[str, object] | None, read_config: ReadConfig, read_base: ReadModel
) -> ModelSpec:
    """Read a repository without the ``config.json`` of a transformers model: its files show what it is."""
    listing = _listing(name)
    if listing is None:
        raise HubError(no_config(name.repo_id, name.revision))
    if PIPELINE in listing.sizes:
        return _of_pipeline(name, listing)
    if ADAPTER in listing.sizes:
        return _of_adapter(name, read_base)
    if PARAMS in listing.sizes and listing.ending("consolidated.safetensors", "consolidated.safetensors.index.json"):
        return _of_params(name, read_config)
    if MODULES in listing.sizes:
        return _of_modules(name, read_config)
    if listing.ending(".gguf"):
        return _of_gguf(name, listing)
    if config is not None:  # one component of a pipeline
        checkpoint = fetch_checkpoint(name.repo_id, name.revision, PIPELINE_WEIGHTS[0])
        return _compared(read_config(config, name.repo_id), checkpoint, None)
    held = sorted(listing.ending(".safetensors", *BINARIES), key=listing.sizes.__getitem__)
    seen = f"it holds {', '.join(held[-3:])}" if held else "it holds no weights"
    raise HubError(f"{no_config(name.repo_id, name.revision)}; {seen}")


def _of_gguf(name: HubName, listing: Listing) -> ModelSpec:
    """Read one of the GGUF models of a repository, with its projector."""
    choices = gguf_choices(listing.ending(".gguf"))
    where = str(name)
    choice = usual_choice(choices, where) if name.label is None else choose(choices, name.label, where)
    spec = read_gguf(*fetch_gguf(name.repo_id, choice.files[0], name.revision))
    projector = projector_of(choices)
    if projector is not None:
        spec = with_projector(spec, *fetch_gguf(name.repo_id, projector.files[0], name.revision))
    if name.label is not None:
        return spec
    return replace(spec, assumptions=(unnamed(choice, choices, where), *spec.assumptions))


def _compared(spec: ModelSpec, checkpoint: Checkpoint | None, listing: Listing | None) -> ModelSpec:
    """Compare with the headers of the repository's weights, or, where it has only pickles, with their sizes."""
    if checkpoint is not None:
        return attach(spec, checkpoint)
    if listing is None:
        return spec
    held = sum(size for path, size in listing.sizes.items() if PICKLE.fullmatch(path))
    derived = weight_bytes(spec)
    if not held:
        return spec
    apart = abs(held - derived) / held
    verdict = "agree" if apart < CLOSE else f"differ by {apart:.1%}: is this another dtype, or more than the model?"
    note = (
        f"{listing.where} has pickles only, which are never opened: {format_bytes(held)} in the file list, "
        f"{format_bytes(derived)} derived from the configuration; they {verdict}"
    )
    return replace(spec, assumptions=(*spec.assumptions, note))


def _of_params(name: HubName, read_config: ReadConfig) -> ModelSpec:
    """Read Mistral's own layout."""
    params = fetch_json(name.repo_id, PARAMS, name.revision) or {}
    spec = read_config(config_of(params, str(name)), name.repo_id)
    checkpoint = fetch_checkpoint(name.repo_id, name.revision, "consolidated")
    return _compared(spec, None if checkpoint is None else renamed(checkpoint), None)


def _of_modules(name: HubName, read_config: ReadConfig) -> ModelSpec:
    """Read a model of sentence-transformers whose transformer lies in a folder."""
    where = f"{name}/{MODULES}"
    modules = parse_modules(fetch_array(name.repo_id, MODULES, name.revision), where)
    folder = transformer_of(modules, where)
    config = fetch_json(name.repo_id, f"{folder}/{CONFIG}", name.revision)
    if config is None:
        raise HubError(f"{where}: names {folder!r:.100}, which has no {CONFIG}; expected a transformer there")
    checkpoint = fetch_checkpoint(name.repo_id, name.revision, f"{folder}/model")
    return _embedding(_compared(read_config(config, name.repo_id), checkpoint, None), modules, name)


def _embedding(spec: ModelSpec, modules: tuple[Module, ...], name: HubName) -> ModelSpec:
    """Put the modules behind the transformer beside it."""
    where = f"{name}/{MODULES}"
    transformer_of(modules, where)
    configs = {}
    for module in modules:
        if module.kind == "Dense":
            found = fetch_json(name.repo_id, f"{module.path}/{CONFIG}", name.revision)
            if found is None:
                raise HubError(f"{where}: names {module.path!r:.100}, which has no {CONFIG}; expected one there")
            configs[module.path] = found
    return with_modules(spec, modules, configs, where)


def _of_adapter(name: HubName, read_base: ReadModel) -> ModelSpec:
    """Read an adapter on the model that it was trained on, which the catalogue or the Hub knows."""
    config = fetch_json(name.repo_id, ADAPTER, name.revision) or {}
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(named, str) or not named:
        raise UnsupportedModelError(
            f"{name}/{ADAPTER}: base_model_name_or_path: {named!r:.100}: expected the name of the model it was trained "
            "on; name that model instead"
        )
    if named.startswith(("/", ".", "~")) or named.count("/") != 1:
        raise UnsupportedModelError(
            f"{name}/{ADAPTER}: base_model_name_or_path: {named!r:.100}: expected org/name; it is a folder of "
            "somebody's machine: name the model it was trained on instead"
        )
    base = read_base(f"{named}@{revision}" if isinstance(revision, str) and revision else named)
    adapter = read_adapter(config, base, name.repo_id)
    return replace(base, adapters=(adapter,), assumptions=(*base.assumptions, *adapter.assumptions))


def _of_pipeline(name: HubName, listing: Listing) -> ModelSpec:
    """Read a pipeline of diffusers: every component's configuration and file headers."""
    from vramfit.readers.diffusion.pipeline import components_of, read_pipeline  # noqa: PLC0415 - only for pipelines

    index = fetch_json(name.repo_id, PIPELINE, name.revision) or {}
    configs, checkpoints = {}, {}
    for component in components_of(index):
        folder = str(component.folder)
        config = fetch_json(name.repo_id, f"{folder}/{CONFIG}", name.revision)
        if config is None:
            raise HubError(f"{name}/{PIPELINE}: names {folder!r:.100}, which has no {CONFIG}; expected one there")
        configs[folder] = config
        stems = [f"{folder}/{stem}" for stem in PIPELINE_WEIGHTS]
        there = [s for s in stems if {f"{s}.safetensors", f"{s}.safetensors.index.json"} & set(listing.sizes)]
        found = fetch_checkpoint(name.repo_id, name.revision, there[0]) if there else None
        if found is not None:
            checkpoints[folder] = found
    return read_pipeline(index, configs, name.repo_id, checkpoints)
