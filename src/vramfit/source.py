"""From a name, a path or a mapping to a ``ModelSpec``: which reader answers for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vramfit.catalogue.model import find_model
from vramfit.errors import (
    HubError,
    UnknownKindError,
    UnknownNameError,
    UnreadableFileError,
    UnsupportedModelError,
)
from vramfit.readers.hf_config import read_config
from vramfit.readers.quantization import with_quantization_file
from vramfit.spec import ModelSpec

if TYPE_CHECKING:
    from vramfit.readers.gguf_files import GgufChoice

CONFIG_LIMIT_BYTES = 16 * 2**20
"""Largest ``config.json`` that is read; published ones are below 1 MiB."""
QUANTIZATION_FILE = "hf_quant_config.json"
"""ModelOpt's own file beside ``config.json``, which older exports do not repeat there."""
HUB_FILE_DEPTH = 2
"""Slashes from which a name that ends in .gguf and is no file here is one on the Hub: org/name/file.gguf."""


def read_model(source: str | Path | Mapping[str, object], *, name: str | None = None, hub: bool = False) -> ModelSpec:
    """Return the model that a name, a path or the content of a ``config.json`` stands for.

    Args:
        source: a mapping; a path to a ``config.json``, a model's directory, a ``*.safetensors`` file or its index
            (with ``config.json`` beside it); a ``*.gguf`` file or a folder of them (``folder:LABEL``); a catalogue name
            or Hub id, ``org/name[@revision]``, also ``org/name:LABEL`` and ``org/name/file.gguf``; or the address of a
            GGUF file.
        name: what to call a model that comes as a mapping.
        hub: True = ask the Hub even when the catalogue knows the name, and compare with the file headers.

    Raises:
        UnknownNameError: neither a path nor a name that is known here, and no Hub id either.
        HubError: the Hub has no such repository, refuses it, or cannot be reached.
        UnreadableFileError: a file that is missing, damaged or hostile.
        UnsupportedModelError: an architecture that is not understood.
    """
    if isinstance(source, Mapping):
        return read_any(source, name or "config")
    text = str(source)
    folder, label = _labelled_folder(text)
    if folder is not None:
        return _load_gguf(folder, label)
    if isinstance(source, Path) or _looks_like_path(text):
        return load_model(Path(text))
    if hub or text.startswith(("https://", "http://")):
        return _fetch_model(text, None)
    try:
        row = find_model(text)
    except UnknownNameError as unknown:
        if "/" not in text:
            raise
        return _fetch_model(text, unknown)
    return read_any(row.config, row.name)


def read_base(text: str) -> ModelSpec:
    """Return the model that an adapter was trained on: from the catalogue or the Hub, and no adapter itself.

    Raises:
        UnsupportedModelError: an adapter on an adapter, which may lead back to itself.
    """
    from vramfit.hub_source import fetch_model  # noqa: PLC0415 - the network is the slow path

    def refuse(named: str) -> ModelSpec:
        raise UnsupportedModelError(f"{text}: an adapter on {named}: expected a model; name the first one's base")

    try:
        row = find_model(text)
    except UnknownNameError:
        return fetch_model(text, read_any, refuse)
    return read_any(row.config, row.name)


def read_any(config: Mapping[str, object], name: str) -> ModelSpec:
    """Return the model of a configuration of transformers or diffusers: by our readers, else as built by transformers.

    Raises:
        UnsupportedModelError: neither reads it; says what each of them misses.
    """
    if "_class_name" in config and "model_type" not in config:
        from vramfit.readers.diffusion.pipeline import as_any  # noqa: PLC0415 - only paid for by pipelines

        return as_any(config, name)
    try:
        return read_config(config, name)
    except UnknownKindError as unknown:
        from vramfit.readers.on_meta import read_on_meta  # noqa: PLC0415 - seconds to import, and rarely wanted

        try:
            return read_on_meta(config, name)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{unknown}; {error}") from None


def _looks_like_path(text: str) -> bool:
    """Say whether a text can only be meant as a path: it exists, or starts or ends like one."""
    if Path(text).exists() or text.startswith(("/", "./", "../", "~")):
        return True
    return text.endswith((".json", ".safetensors")) or (text.endswith(".gguf") and text.count("/") < HUB_FILE_DEPTH)


def _labelled_folder(text: str) -> tuple[Path | None, str]:
    """Return the folder and the label of ``folder:LABEL``; None = this is no such thing."""
    folder, _, label = text.rpartition(":")
    path = Path(folder).expanduser()
    return (path, label) if folder and not Path(text).exists() and path.is_dir() else (None, "")


def load_model(path: Path) -> ModelSpec:
    """Read a model from disk: its configuration, and its file headers when they are there.

    Raises:
        UnreadableFileError: no such file, or no ``config.json`` beside a ``*.safetensors`` file.
    """
    from vramfit.readers.json_text import load_json_object  # noqa: PLC0415 - only paid for when a file is read

    path = path.expanduser()
    if not path.exists():
        raise UnreadableFileError(f"{path}: no such file or directory; expected a config.json or a model's directory")
    if path.suffix == ".gguf":
        from vramfit.readers.gguf import load_gguf  # noqa: PLC0415
        from vramfit.readers.gguf_model import read_gguf  # noqa: PLC0415

        return read_gguf(*load_gguf(path))
    folder = path if path.is_dir() else path.parent
    if path.name == "model_index.json" or (path.is_dir() and (path / "model_index.json").exists()):
        from vramfit.readers.diffusion.folder import load_pipeline  # noqa: PLC0415

        return load_pipeline(folder)
    weights = path if path.suffix == ".safetensors" or path.name.endswith(".index.json") else _weights_in(folder)
    config = path if path.is_file() and path != weights else folder / "config.json"
    if not config.exists():
        if path.is_dir() and any(path.glob("*.gguf")):
            return _load_gguf(path, None)
        raise UnreadableFileError(
            f"{folder}: no config.json there: expected one beside the weights; a header names tensors but not layers"
        )
    content = load_json_object(config, CONFIG_LIMIT_BYTES)
    beside = folder / QUANTIZATION_FILE
    if config == folder / "config.json" and beside.exists():
        content = with_quantization_file(content, load_json_object(beside, CONFIG_LIMIT_BYTES))
    spec = read_any(content, folder.resolve().name or str(path))
    if weights is None:
        return spec
    from vramfit.readers.safetensors import load_checkpoint  # noqa: PLC0415
    from vramfit.readers.witness import attach  # noqa: PLC0415

    return attach(spec, load_checkpoint(weights))


def _weights_in(folder: Path) -> Path | None:
    """Return the index or the single file of weights in a folder, if there is one."""
    stems = ("model", "diffusion_pytorch_model")
    names = (f"{stem}.safetensors{ending}" for stem in stems for ending in (".index.json", ""))
    return next((folder / name for name in names if (folder / name).exists()), None)


def _fetch_model(text: str, unknown: UnknownNameError | None) -> ModelSpec:
    """Ask the Hub; when it cannot help, say what the catalogue would have offered."""
    from vramfit.hub_source import fetch_model  # noqa: PLC0415 - the network is the slow path

    try:
        return fetch_model(text, read_any, read_base)
    except HubError as error:
        if unknown is None or not unknown.nearest:
            raise
        raise HubError(f"{error}; not in the catalogue either, nearest there: {', '.join(unknown.nearest)}") from error


def gguf_menu(text: str) -> tuple[GgufChoice, ...]:
    """Return the GGUF models among which a name or a folder leaves the choice, projectors last.

    Raises:
        VramfitError: what does not answer, or has no such files.
    """
    from vramfit.hub_source import gguf_files  # noqa: PLC0415
    from vramfit.readers.gguf_files import gguf_choices  # noqa: PLC0415

    folder, _ = _labelled_folder(text)
    folder = Path(text).expanduser() if folder is None else folder
    if folder.is_dir():
        return gguf_choices({path.name: path.stat().st_size for path in folder.glob("*.gguf")})
    return gguf_files(text)


def _load_gguf(folder: Path, label: str | None) -> ModelSpec:
    """Read one of the GGUF models of a folder, with its projector: the one of a label, else the usual one."""
    from vramfit.readers.gguf import load_gguf  # noqa: PLC0415
    from vramfit.readers.gguf_files import choose, gguf_choices, projector_of, unnamed, usual_choice  # noqa: PLC0415
    from vramfit.readers.gguf_model import read_gguf, with_projector  # noqa: PLC0415

    choices = gguf_choices({path.name: path.stat().st_size for path in folder.glob("*.gguf")})
    chosen = usual_choice(choices, str(folder)) if label is None else choose(choices, label, str(folder))
    spec, projector = read_gguf(*load_gguf(folder / chosen.files[0])), projector_of(choices)
    if projector is not None:
        spec = with_projector(spec, *load_gguf(folder / projector.files[0]))
    if label is not None or len(choices) == 1:
        return spec
    return replace(spec, assumptions=(unnamed(chosen, choices, str(folder)), *spec.assumptions))


def config_of(text: str, *, hub: bool = False) -> Mapping[str, object]:
    """Return the configuration of a model by name, as published: from the catalogue, else from the Hub.

    Raises:
        UnknownNameError: the catalogue does not know it and it is no Hub id.
        HubError: the Hub has no such repository or no ``config.json`` in it, or cannot be reached.
    """
    if not hub:
        try:
            return find_model(text).config
        except UnknownNameError as unknown:
            if "/" not in text:
                raise
            return _fetched_config(text, unknown)
    return _fetched_config(text, None)


def _fetched_config(text: str, unknown: UnknownNameError | None) -> Mapping[str, object]:
    from vramfit.hub_source import hub_name  # noqa: PLC0415 - the network is the slow path
    from vramfit.readers.hub import fetch_config  # noqa: PLC0415

    name = hub_name(text)
    try:
        return fetch_config(name.repo_id, name.revision)
    except HubError as error:
        if unknown is None or not unknown.nearest:
            raise
        raise HubError(f"{error}; not in the catalogue either, nearest there: {', '.join(unknown.nearest)}") from error
