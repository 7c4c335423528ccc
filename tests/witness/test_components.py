"""Components of diffusion pipelines against diffusers' and transformers' own, on the meta device."""

from __future__ import annotations

from typing import Any

import pytest

import published_components
from published_components import Published
from tiny.components import ENCODERS, OF_DIFFUSERS, Small
from vramfit.catalogue.model import ModelRow, all_models
from vramfit.readers.diffusion.component import read_component
from vramfit.source import read_model
from vramfit.spec import ModelSpec, inventory
from witness_models import build_components, saved_components

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.witness, pytest.mark.filterwarnings("ignore::FutureWarning")]

Shapes = dict[str, tuple[int, ...]]


def of_diffusers(cls: str, values: dict[str, Any]) -> Any:
    """Return diffusers' component, on a device without memory."""
    with torch.device("meta"):
        return getattr(diffusers, cls)(**values)


def saved(model: Any) -> Shapes:
    """Return name and shape of every tensor that ``save_pretrained`` writes; a tied one is written once."""
    state = dict(model.state_dict())
    for name in getattr(model, "all_tied_weights_keys", None) or {}:
        state.pop(name, None)
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def implied(spec: ModelSpec) -> Shapes:
    """Return name and shape of every tensor of ours."""
    return {t.name: t.shape for t in inventory(spec)}


def parameters(model: Any) -> int:
    """Count as the libraries count."""
    return sum(p.numel() for p in model.parameters())


def ids(cases: tuple[Any, ...]) -> list[Any]:
    """Name the cases by number and class."""
    return [pytest.param(case, id=f"{i}-{case.cls}") for i, case in enumerate(cases)]


@pytest.mark.parametrize("case", ids(OF_DIFFUSERS))
def test_a_small_component_is_the_same(case: Small) -> None:
    """Same number of parameters, same names, same shapes as diffusers', read by our own table."""
    model, spec = of_diffusers(case.cls, case.values), read_component({"_class_name": case.cls, **case.values}, "tiny")
    assert spec.components[0].facts is not None, "read through diffusers, which proves nothing"
    assert saved(model) == implied(spec)
    assert parameters(model) == spec.num_parameters


@pytest.mark.parametrize("case", ids(ENCODERS))
def test_a_small_encoder_is_the_same(case: Small) -> None:
    """Same number of parameters, same names, same shapes as transformers'."""
    config = getattr(transformers, case.config_cls)(**case.values)
    with torch.device("meta"):
        model = getattr(transformers, case.cls)(config)
    values = {**case.values, "model_type": config.model_type, "architectures": [case.cls]}
    spec = read_component(values, "tiny", class_name=case.cls)
    theirs = saved(model)
    if case.cls in {"CLIPTextModel", "CLIPVisionModel"}:  # version 5 writes the old level only for models from a file
        tower = "text_model." if case.cls == "CLIPTextModel" else "vision_model."
        theirs = {tower + name: shape for name, shape in theirs.items()}
    assert theirs == implied(spec)
    assert parameters(model) == spec.num_parameters


def test_the_safety_checker_is_the_same() -> None:
    """Stable Diffusion's safety checker has the image tower, its projection and its lists of concepts."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    vision = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 14, "patch_size": 4, "projection_dim": 14}  # fmt: skip
    config = transformers.CLIPConfig(vision_config=vision, projection_dim=14)
    with torch.device("meta"):
        model = StableDiffusionSafetyChecker(config)
    values = {"model_type": "clip", "vision_config": vision, "projection_dim": 14}
    spec = read_component(values, "tiny", class_name="StableDiffusionSafetyChecker")
    assert parameters(model) == spec.num_parameters
    assert sorted(saved(model).values()) == sorted(implied(spec).values())


@pytest.mark.slow
@pytest.mark.parametrize("case", ids(published_components.ALL))
def test_a_published_component_is_the_same(case: Published) -> None:
    """The published configuration implies diffusers' own tensors and, where one was found, the published count."""
    model, spec = of_diffusers(case.cls, case.values), read_component({"_class_name": case.cls, **case.values}, "x")
    assert spec.components[0].facts is not None
    assert saved(model) == implied(spec)
    assert parameters(model) == spec.num_parameters
    assert case.parameters in {None, spec.num_parameters}, case.counted_by


OTHERS: dict[str, dict[str, Any]] = {
    "AutoencoderKLMochi": {},
    "LTX2VideoTransformer3DModel": {"num_layers": 1, "gated_attn": True},
    "Kandinsky3UNet": {},
}
"""Classes that no table of ours reads, and a field that none reads."""


PIPELINES = [pytest.param(row, id=row.name) for row in all_models() if "components" in row.config]


@pytest.mark.slow
@pytest.mark.parametrize("row", PIPELINES)
def test_a_catalogued_pipeline_is_the_same(row: ModelRow) -> None:
    """Every pipeline of the catalogue, component by component: counts, names and shapes."""
    models, spec = build_components(row.config), read_model(row.name)
    theirs = saved_components(models)
    assert theirs == implied(spec)
    assert sum(parameters(model) for model in models.values()) == spec.num_parameters
    assert all(component.facts is not None for component in spec.components)
    assert not any("class default" in text for text in spec.assumptions), "a row that leaves its shapes to a default"


@pytest.mark.parametrize("cls", OTHERS)
def test_other_classes_are_read_through_diffusers(cls: str) -> None:
    """A class that is in no table of ours is built on the meta device, and the assumptions say so."""
    model, spec = of_diffusers(cls, OTHERS[cls]), read_component({"_class_name": cls, **OTHERS[cls]}, "x")
    assert saved(model) == implied(spec)
    assert parameters(model) == spec.num_parameters
    assert any(f"{cls}: read through diffusers" in text for text in spec.assumptions)
