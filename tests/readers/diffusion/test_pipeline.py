"""Pipelines: which folders hold weights, one spec of all components, formats per component, the folder on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from small_pipeline import CONFIGS, FLUX, INDEX, T5, write_folder
from vramfit.errors import InvalidValueError, UnreadableFileError, UnsupportedModelError
from vramfit.formats import BF16, FP16, FP32, NF4
from vramfit.memory.weights import weight_bytes
from vramfit.pipeline import Autoencoder, Denoiser, Encoder
from vramfit.readers.diffusion.component import read_component
from vramfit.readers.diffusion.pipeline import components_of, is_pipeline, read_inline, read_pipeline
from vramfit.source import read_model
from vramfit.spec import ModelSpec, inventory


def pipeline(**more: Any) -> ModelSpec:
    """Return the small pipeline; a component's config may be another."""
    return read_pipeline(INDEX, {**CONFIGS, **more}, "small")


def parameters_of(spec: ModelSpec, component: str) -> int:
    """Count the parameters of one component."""
    return sum(part.num_parameters for part in spec.parts if part.component == component)


def test_folders_with_weights_are_found() -> None:
    """Tokenizers, schedulers, processors and empty entries hold no weights; settings are no components."""
    assert ["text_encoder", "transformer", "vae"] == [named.folder for named in components_of(INDEX)]


def test_a_pipeline_is_the_sum_of_its_components() -> None:
    """The spec has the parameters of all components, each under its folder's name."""
    spec = pipeline()
    singles = {name: read_component(config, "x", component=name, class_name=INDEX[name][1])
               for name, config in CONFIGS.items()}  # fmt: skip
    assert sum(single.num_parameters for single in singles.values()) == spec.num_parameters
    assert {n: s.num_parameters for n, s in singles.items()} == {n: parameters_of(spec, n) for n in singles}
    assert "FluxPipeline" == spec.family
    assert not spec.generates


def test_facts_say_how_images_become_tokens() -> None:
    """FLUX folds four latents into one token; the autoencoder halves once; T5 has no limit of its own."""
    facts = {component.name: component.facts for component in pipeline().components}
    denoiser, autoencoder, encoder = facts["transformer"], facts["vae"], facts["text_encoder"]
    assert isinstance(denoiser, Denoiser)
    assert (5, (1, 2, 2), 48, 3, 16, 34) == (
        denoiser.in_channels, denoiser.patch_size, denoiser.hidden_size, denoiser.num_attention_heads,
        denoiser.head_dim, denoiser.text_width,
    )  # fmt: skip
    assert isinstance(autoencoder, Autoencoder)
    assert (5, 2, 1, (16, 24)) == (
        autoencoder.latent_channels, autoencoder.spatial_ratio, autoencoder.temporal_ratio,
        autoencoder.block_out_channels,
    )  # fmt: skip
    assert Encoder(hidden_size=24, max_tokens=None) == encoder


def test_a_single_stream_block_of_flux_by_hand() -> None:
    """Width 48, heads 16 wide: modulation, network, attention without output, two norms.

    norm 3 x 48 x 48 + 3 x 48 = 7,056; proj_mlp 192 x 48 + 192 = 9,408; proj_out 48 x 240 + 48 = 11,568;
    q, k, v 3 x (48 x 48 + 48) = 7,056; norms 2 x 16 = 32.
    """
    stacks = {part.name: part for part in pipeline().parts}
    single = stacks["transformer/single_transformer_blocks"]
    assert 7056 + 9408 + 11568 + 7056 + 32 == single.layers[0].num_parameters
    assert 3 == len(single.layers)


def test_what_names_no_dtype_takes_another_components() -> None:
    """The text encoder's float16 goes for all, and the assumption names those that said nothing."""
    spec = pipeline()
    assert FP16 == spec.scheme.plain
    assert any(text.startswith("transformer, vae: no dtype") for text in spec.assumptions)
    assert 2 * sum(t.num_parameters for t in inventory(spec)) == weight_bytes(spec)


def test_without_any_dtype_bfloat16_is_assumed_and_said() -> None:
    """Nothing in the configs decides; the result says what was taken."""
    silent = {name: value for name, value in T5.items() if name != "torch_dtype"}
    spec = pipeline(text_encoder=silent)
    assert BF16 == spec.scheme.plain
    assert any("bfloat16 was taken" in text for text in spec.assumptions)


def test_a_quantised_component_keeps_its_format() -> None:
    """A transformer in NF4 beside float16: matrices of linear layers are quantised, in that component alone."""
    quantised = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"}
    spec = pipeline(transformer={**FLUX, "quantization_config": quantised})
    layers = {part.component: part.layers[0] for part in spec.parts if part.layers}
    assert {NF4} == {t.stored for t in layers["transformer"].tensors if t.name == "attn.to_q.weight"}
    assert {None} == {t.stored for t in layers["text_encoder"].tensors}
    assert weight_bytes(spec) < weight_bytes(pipeline())


def test_a_pipeline_with_its_configs_inside_is_the_same() -> None:
    """The catalogue's form, the index with ``components``, reads as the folder does."""
    inline = {**INDEX, "components": CONFIGS}
    assert is_pipeline(inline)
    assert pipeline() == read_inline(inline, "small")
    assert pipeline() == read_model(inline, name="small")


def test_two_transformers_are_two_components() -> None:
    """Wan 2.2 has one for early and one for late steps; both are counted."""
    index = {**INDEX, "transformer_2": ["diffusers", "FluxTransformer2DModel"]}
    spec = read_pipeline(index, {**CONFIGS, "transformer_2": FLUX}, "small")
    assert 2 * parameters_of(spec, "transformer") + parameters_of(spec, "vae") + parameters_of(
        spec, "text_encoder"
    ) == (spec.num_parameters)


def test_class_defaults_that_decide_shapes_are_recorded() -> None:
    """An old file that lacks a field gets the class's default, and the assumptions name it."""
    spec = read_component({"_class_name": "FluxTransformer2DModel", "num_layers": 1, "num_single_layers": 1}, "x")
    assert any(text.startswith("joint_attention_dim = 4096") for text in spec.assumptions)
    assert not any("num_layers" in text for text in spec.assumptions)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"num_layers": -1}, "transformer.num_layers"),
        ({"num_attention_heads": "many"}, "transformer.num_attention_heads"),
        ({"guidance_embeds": 3}, "transformer.guidance_embeds"),
    ],
)
def test_bad_values_name_their_path(change: dict[str, Any], path: str) -> None:
    """An impossible value ends in our exception with the component and the field."""
    with pytest.raises(InvalidValueError, match=path):
        pipeline(transformer={**FLUX, **change})


def test_a_missing_config_is_named() -> None:
    """A component with weights needs its configuration."""
    with pytest.raises(UnsupportedModelError, match=r"vae/config\.json: missing"):
        read_pipeline(INDEX, {"text_encoder": T5, "transformer": FLUX}, "small")


def test_an_unknown_class_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without diffusers a class that no table has is refused, with the nearest that are read."""
    monkeypatch.setattr("vramfit.readers.diffusion.component.has_diffusers", lambda: False)
    with pytest.raises(UnsupportedModelError, match=r"'FluxTransformer3DModel' is not read natively; nearest .*Flux"):
        read_component({"_class_name": "FluxTransformer3DModel"}, "x")


def test_a_field_out_of_scope_is_refused_without_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that changes shapes in a way our table does not know is never read as the usual one."""
    monkeypatch.setattr("vramfit.readers.diffusion.component.has_diffusers", lambda: False)
    unet = {"_class_name": "UNet2DConditionModel", "class_embed_type": "timestep"}
    with pytest.raises(UnsupportedModelError, match="class_embed_type"):
        read_component(unet, "x")


def test_endless_networks_are_refused() -> None:
    """Layers that are written out one by one are bounded in all."""
    unet = {"_class_name": "UNet2DConditionModel", "layers_per_block": 4000, "transformer_layers_per_block": 4000}
    with pytest.raises(InvalidValueError, match="all levels together"):
        read_component(unet, "x")


def test_a_folder_is_read_like_its_configs(tmp_path: Path) -> None:
    """The folder, and its index file, give what the configs give."""
    folder = write_folder(tmp_path, headers=False)
    assert pipeline().parts == read_model(folder).parts
    assert read_model(folder) == read_model(folder / "model_index.json")


def test_names_of_components_do_not_collide() -> None:
    """In a pipeline the folder stands before each name; a component alone has the names of its file."""
    spec = pipeline()
    names = [t.name for t in inventory(spec)]
    assert len(set(names)) == len(names)
    assert {"text_encoder", "transformer", "vae"} == {name.split("/")[0] for name in names}
    assert all("/" not in t.name for t in inventory(read_component(FLUX, "x")))


def test_a_component_alone_names_what_is_not_counted() -> None:
    """A transformer without its pipeline says that its steps are not counted."""
    (text,) = read_component(FLUX, "x").not_counted
    assert text.startswith("model: activations of a denoising step")


def test_headers_decide_the_formats_and_prove_the_names(tmp_path: Path) -> None:
    """With files beside the configs every tensor is exact, old names of attention included."""
    spec = read_model(write_folder(tmp_path, headers=True))
    assert "config" != spec.evidence
    assert not any("also holds" in text or "lacks" in text for text in spec.assumptions)
    assert 2 * spec.num_parameters == weight_bytes(spec)
    assert {"bf16"} == {spec.scheme.format_of(t).name for t in inventory(spec)}


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    """A component that the index names must have its config.json."""
    folder = write_folder(tmp_path, headers=False)
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(UnreadableFileError, match=r"vae/config.json: no such file"):
        read_model(folder)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    """A component's name is a name, not a path."""
    folder = write_folder(tmp_path, headers=False)
    (folder / "model_index.json").write_text(json.dumps({**INDEX, "../vae": INDEX["vae"]}))
    with pytest.raises(UnreadableFileError, match="letters only"):
        read_model(folder)


def test_one_component_is_a_source_of_its_own(tmp_path: Path) -> None:
    """A transformer's folder, or its mapping, reads without the pipeline around it."""
    folder = write_folder(tmp_path, headers=True)
    alone = read_model(folder / "transformer")
    assert parameters_of(pipeline(), "transformer") == alone.num_parameters == read_model(FLUX).num_parameters
    assert "config" != alone.evidence
    assert FP32 != alone.scheme.plain
