"""A pipeline of three small components, as mappings and as a folder on disk."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tiny.components import AUTOENCODERS, ENCODERS, JOINT
from vramfit.memory.weights import tensor_bytes
from vramfit.readers.diffusion.component import read_component
from vramfit.spec import Tensor, inventory

INDEX: dict[str, Any] = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": "0.42.1",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "image_encoder": [None, None],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "force_zeros_for_empty_prompt": True,
}
T5 = {**next(c.values for c in ENCODERS if c.cls == "T5EncoderModel"), "model_type": "t5", "torch_dtype": "float16"}
FLUX = {"_class_name": "FluxTransformer2DModel", **next(c.values for c in JOINT if "Flux" in c.cls)}
VAE = {"_class_name": "AutoencoderKL", **AUTOENCODERS[0].values}
CONFIGS: dict[str, Any] = {"text_encoder": T5, "transformer": FLUX, "vae": VAE}


def write_folder(folder: Path, *, headers: bool) -> Path:
    """Write the small pipeline as diffusers saves it; ``headers``: with the first bytes of files in bfloat16."""
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    for name, config in CONFIGS.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
        if headers:
            spec = read_component(config, name, component=name, class_name=INDEX[name][1])
            stem = "model" if INDEX[name][0] == "transformers" else "diffusion_pytorch_model"
            write_header(folder / name / f"{stem}.safetensors", list(inventory(spec)), old=name == "vae")
    return folder


def write_header(path: Path, tensors: list[Tensor], *, old: bool) -> None:
    """Write a file of zeros; ``old``: attention named as before diffusers 0.14."""
    offset, header = 0, {}
    for tensor in tensors:
        size = tensor_bytes(tensor, read_component(VAE, "x").scheme)
        name = tensor.name.replace(".to_q.", ".query.").replace(".to_out.0.", ".proj_attn.") if old else tensor.name
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))
