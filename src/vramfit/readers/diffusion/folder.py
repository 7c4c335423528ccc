"""Reads a pipeline from a folder on disk, as diffusers saves it."""

from __future__ import annotations

from pathlib import Path

from vramfit.errors import UnreadableFileError
from vramfit.readers.diffusion.pipeline import components_of, read_pipeline
from vramfit.readers.json_text import load_json_object
from vramfit.readers.safetensors import load_checkpoint
from vramfit.spec import ModelSpec

INDEX = "model_index.json"
WEIGHTS = (
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "model.safetensors.index.json",
    "model.safetensors",
)
"""Names of a component's weights, the sharded ones first; half-precision variants have other names."""
CONFIG_LIMIT_BYTES = 16 * 2**20


def load_pipeline(folder: Path) -> ModelSpec:
    """Read ``model_index.json``, each component's ``config.json``, and file headers where they are there.

    Raises:
        UnreadableFileError: a file that is missing, damaged or hostile.
        UnsupportedModelError: a component that is not understood.
    """
    index = load_json_object(folder / INDEX, CONFIG_LIMIT_BYTES)
    configs, checkpoints = {}, {}
    for named in components_of(index):
        if not named.folder.isidentifier():
            raise UnreadableFileError(
                f"{folder / INDEX}: {named.folder!r:.100}: expected the name of a folder beside it; letters only"
            )
        path = folder / named.folder / "config.json"
        if not path.exists():
            raise UnreadableFileError(
                f"{path}: no such file; expected the configuration of {named.class_name}, which {INDEX} names; "
                "download the component's config.json, its weights are not needed"
            )
        configs[named.folder] = load_json_object(path, CONFIG_LIMIT_BYTES)
        weights = weights_in(folder / named.folder)
        if weights is not None:
            checkpoints[named.folder] = load_checkpoint(weights)
    return read_pipeline(index, configs, folder.resolve().name, checkpoints)


def weights_in(folder: Path) -> Path | None:
    """Return the index or the single file of a component's weights, if there is one."""
    return next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
