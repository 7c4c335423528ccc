"""How a checkpoint is stored: dtypes, methods, and the modules that stay plain."""

from __future__ import annotations

from typing import Any

import pytest

from published_configs import GEMMA_3_4B, LLAMA_3_1_8B, QWEN3_30B_A3B
from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.readers.hf_config import read_config
from vramfit.spec import ModelSpec, Tensor


def read(section: Any, base: Any = LLAMA_3_1_8B) -> ModelSpec:
    """Return a model with that ``quantization_config``."""
    return read_config({**base, "quantization_config": section}, "mine")


def tensor(spec: ModelSpec, name: str, layer: int = 0) -> Tensor:
    """Return a tensor of a layer by its name there."""
    return next(t for t in spec.layers[layer].tensors if t.name == name)


def format_in(spec: ModelSpec, name: str) -> str:
    """Return the format of a tensor of the first layer."""
    return spec.scheme.format_of(tensor(spec, name)).name


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"torch_dtype": "float16"}, "fp16"),
        ({"torch_dtype": "torch.bfloat16"}, "bf16"),
        ({"torch_dtype": None, "dtype": "float32"}, "fp32"),
    ],
)
def test_the_dtype_stands_under_either_name(values: dict[str, Any], expected: str) -> None:
    """Newer files say ``dtype``, older ones ``torch_dtype``."""
    scheme = read_config({**LLAMA_3_1_8B, **values}, "mine").scheme
    assert (expected, expected) == (scheme.plain.name, scheme.quantised.name)


def test_the_dtype_may_be_nested() -> None:
    """Some multimodal files name it for the text model only."""
    text = {**GEMMA_3_4B["text_config"], "torch_dtype": "float16"}
    assert "fp16" == read_config({**GEMMA_3_4B, "torch_dtype": None, "text_config": text}, "mine").scheme.plain.name


@pytest.mark.parametrize("dtype", ["auto", "float64", "int8", ""])
def test_an_unknown_dtype_is_refused(dtype: str) -> None:
    """It decides every byte."""
    with pytest.raises(InvalidValueError, match=r"torch_dtype.*float32, float16, bfloat16"):
        read_config({**LLAMA_3_1_8B, "torch_dtype": dtype}, "mine")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq-int4"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 32}, "gptq-int8"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "awq-int4"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, "awq-int4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
        ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, "nf4-dq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}, "int8"),
    ],
)
def test_a_method_is_a_format(section: dict[str, Any], expected: str) -> None:
    """Matrices of blocks have it, or experts alone for mxfp4; the rest stays in the plain dtype."""
    spec = read(section)
    assert expected == spec.scheme.quantised.name
    assert "bf16" == spec.scheme.plain.name == spec.scheme.format_of(spec.embeddings[0]).name
    assert "bf16" == spec.scheme.format_of(spec.head[-1]).name
    assert "bf16" == format_in(spec, "input_layernorm.weight")
    assert ("bf16" if expected == "mxfp4" else expected) == format_in(spec, "mlp.gate_proj.weight")


def test_group_sizes_are_taken_over() -> None:
    """-1 is one group per row; 4096 columns in groups of 32 are 128 scales of 2 bytes per row."""
    assert -1 == read({"quant_method": "gptq", "bits": 4, "group_size": -1}).scheme.quantised.group_elements
    eight = read({"quant_method": "gptq", "bits": 8, "group_size": 32}).scheme.quantised
    # 8 x 4096 codes; 128 groups x (8 fp16 scales, 8 one-byte zeros); 4096 int32 group indices
    assert 8 * 4096 + 128 * (8 * 2 + 8) + 4 * 4096 == eight.tensor_size((8, 4096))


def test_an_expert_only_method_leaves_attention_plain() -> None:
    """mxfp4 as in gpt-oss: experts and nothing else."""
    spec = read({"quant_method": "mxfp4"}, QWEN3_30B_A3B)
    assert "mxfp4" == format_in(spec, "mlp.experts.{expert}.gate_proj.weight")
    assert "bf16" == format_in(spec, "self_attn.q_proj.weight")


def test_gptq_may_quantise_the_output_projection() -> None:
    """``lm_head``: true says so."""
    spec = read({"quant_method": "gptq", "bits": 4, "group_size": 128, "lm_head": True})
    assert spec.scheme.roles is not None
    assert Role.HEAD in spec.scheme.roles
    assert "gptq-int4" == spec.scheme.format_of(spec.head[-1]).name


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({"quant_method": "gptq", "bits": 3}, "quantization_config.bits"),
        ({"quant_method": "awq", "bits": 8}, "quantization_config.bits"),
        ({"quant_method": "awq", "w_bit": 2}, "quantization_config.w_bit"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "quantization_config.group_size"),
        ({"quant_method": "fp8", "weight_block_size": [128, 64]}, "quantization_config.weight_block_size"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "quantization_config.weight_block_size"),
        ({"quant_method": "fp8", "weight_block_size": [0, 0]}, "quantization_config.weight_block_size"),
        ({"quant_method": "bitsandbytes"}, "quantization_config.load_in_4bit"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "quantization_config.load_in_4bit"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "int4"}, "quantization_config.bnb_4bit_quant_type"),
        ({"quant_method": "fp8", "modules_to_not_convert": "lm_head"}, "quantization_config.modules_to_not_convert"),
        ({"quant_method": "fp8", "ignored_layers": [1]}, "quantization_config.ignored_layers"),
        ("fp8", "quantization_config"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_path(section: Any, path: str) -> None:
    """Each setting decides bytes."""
    with pytest.raises(InvalidValueError) as caught:
        read(section)
    assert path == caught.value.path


@pytest.mark.parametrize("method", ["compressed-tensors", "modelopt", "quark", "fbgemm_fp8", None, ""])
def test_another_method_is_refused_by_name(method: str | None) -> None:
    """What we do not read we do not guess."""
    with pytest.raises(UnsupportedModelError, match=f"quant_method: {method!r}: expected one of fp8, mxfp4, gptq"):
        read({"quant_method": method})


@pytest.mark.parametrize("rule", ["dynamic", "config_groups", "quant_algo", "quantized_layers"])
def test_several_formats_in_one_model_are_refused(rule: str) -> None:
    """Such as ModelOpt's NVFP4 experts in a file that also says fp8."""
    with pytest.raises(UnsupportedModelError, match=f"quantization_config.{rule}"):
        read({"quant_method": "fp8", rule: {"a": 1}})


@pytest.mark.parametrize("field", ["modules_to_not_convert", "llm_int8_skip_modules", "ignored_layers"])
def test_a_module_of_every_layer_stays_plain(field: str) -> None:
    """A star or no number at all means every layer; the other matrices are quantised."""
    for entry in ("model.layers.*.self_attn", "self_attn"):
        spec = read({"quant_method": "fp8", field: ["lm_head", entry]})
        assert "bf16" == format_in(spec, "self_attn.q_proj.weight")
        assert "fp8" == format_in(spec, "mlp.up_proj.weight")


def test_a_name_ends_where_the_module_ends() -> None:
    """Keeping the router ``mlp.gate`` keeps no ``mlp.gate_proj``."""
    spec = read({"quant_method": "fp8", "modules_to_not_convert": ["mlp.gate", "model.layers.*.mlp.gate"]})
    assert "fp8" == format_in(spec, "mlp.gate_proj.weight")


def test_numbered_modules_that_are_plain_anyway_change_nothing() -> None:
    """Qwen's own fp8 files list router and norms of every layer, even where layers are missing from the list."""
    listed = [f"model.layers.{i}.{m}" for i in range(40) for m in ("mlp.gate", "input_layernorm")]
    spec = read({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", *listed]}, QWEN3_30B_A3B)
    assert "fp8" == format_in(spec, "mlp.experts.{expert}.up_proj.weight")
    assert "bf16" == format_in(spec, "mlp.gate.weight")


def test_numbered_modules_of_every_layer_hold_in_every_layer() -> None:
    """All 32 numbers together are the same as a star."""
    listed = [f"model.layers.{i}.mlp.down_proj" for i in range(32)]
    assert "bf16" == format_in(read({"quant_method": "fp8", "ignored_layers": listed}), "mlp.down_proj.weight")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["model.layers.1.mlp"], "in 1 of 32 layers"),
        ([f"model.layers.{i}.mlp.down_proj" for i in range(31)], "in 31 of 32 layers"),
        (["model.layers.32.self_attn"], "in 0 of 32 layers"),
        (["model.layers.0"], "as a whole"),
        (["model.layers.*"], "as a whole"),
        (["model"], "as a whole"),
        (["model.layers"], "as a whole"),
    ],
)
def test_exceptions_of_some_layers_are_refused(entries: list[str], words: str) -> None:
    """A scheme holds in every layer, so such a file would be counted wrongly."""
    with pytest.raises(UnsupportedModelError, match=f"stays plain {words}"):
        read({"load_in_4bit": True, "llm_int8_skip_modules": entries})


@pytest.mark.parametrize(
    "entry", ["vision_tower", "vision_tower.vision_model.encoder.layers.3.mlp", "model.vision_tower"]
)
def test_a_plain_vision_tower_beside_a_quantised_model_is_refused(entry: str) -> None:
    """One scheme holds for the whole model; without a tower the name means nothing."""
    with pytest.raises(UnsupportedModelError, match="in the vision tower"):
        read({"load_in_4bit": True, "llm_int8_skip_modules": [entry]}, GEMMA_3_4B)
    assert "nf4" == format_in(
        read({"load_in_4bit": True, "llm_int8_skip_modules": ["vision_tower"]}), "mlp.up_proj.weight"
    )
