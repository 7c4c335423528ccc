"""How a checkpoint is stored: dtypes, methods, and the modules that stay plain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from published_configs import GEMMA_3_4B, LLAMA_3_1_8B, QWEN3_30B_A3B
from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.estimate import estimate
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference
from vramfit.source import read_model
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
    assert "gptq-int4" == spec.scheme.format_of(spec.head[-1]).name


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({"quant_method": "gptq", "bits": 9}, "quantization_config.bits"),
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


@pytest.mark.parametrize("method", ["higgs", "vptq", "spqr", "sinq", "fp_quant", None, ""])
def test_another_method_is_refused_by_name(method: str | None) -> None:
    """What we do not read we do not guess; sizes of these depend on the weights."""
    with pytest.raises(UnsupportedModelError, match=f"quant_method: {method!r}: expected one of aqlm, auto-round, awq"):
        read({"quant_method": method})


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


def test_exceptions_hold_in_their_own_layers() -> None:
    """Layer 1 as a whole and one matrix of layer 3; equal layers stay one object."""
    entries = ["lm_head", "model.layers.1", "model.layers.3.mlp.down_proj"]
    spec = read({"load_in_4bit": True, "llm_int8_skip_modules": entries})
    formats = [spec.scheme.format_of(tensor(spec, "mlp.down_proj.weight", i)).name for i in range(5)]
    assert ["nf4", "bf16", "nf4", "bf16", "nf4"] == formats
    assert "bf16" == spec.scheme.format_of(tensor(spec, "self_attn.q_proj.weight", 1)).name
    assert "nf4" == spec.scheme.format_of(tensor(spec, "self_attn.q_proj.weight", 3)).name
    assert 3 == len({id(layer) for layer in spec.layers}) == len(spec.groups)
    assert [1, 1, 30] == sorted(times for _, times in spec.groups)


def test_a_number_is_a_whole_number() -> None:
    """Layer 1 is not layer 11, unless a star follows it directly."""
    spec = read({"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["lm_head", "model.layers.1.*"]})
    assert [1] == _plain_layers(spec)
    spec = read({"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["lm_head", "model.layers.1*"]})
    assert [1, *range(10, 20)] == _plain_layers(spec)


def _plain_layers(spec: ModelSpec) -> list[int]:
    """Return the layers whose query projection is not quantised."""
    layers = range(len(spec.layers))
    return [i for i in layers if spec.scheme.format_of(tensor(spec, "self_attn.q_proj.weight", i)).is_plain]


def test_a_list_that_covers_the_head_decides_about_it() -> None:
    """Bitsandbytes keeps the head plain by itself, but a list of one's own that lacks it does not."""
    assert "bf16" == _head({"load_in_4bit": True})
    assert "bf16" == _head({"load_in_4bit": True, "llm_int8_skip_modules": ["lm_head"]})
    assert "nf4" == _head({"load_in_4bit": True, "llm_int8_skip_modules": ["self_attn"]})


def _head(section: Any) -> str:
    spec = read(section)
    return spec.scheme.format_of(spec.head[-1]).name


@pytest.mark.parametrize("entry", ["vision_tower", "model.vision_tower", "re"])
def test_a_vision_tower_stays_plain_when_it_is_listed(entry: str) -> None:
    """Bitsandbytes quantises every linear layer, towers too, unless a list says otherwise."""
    listed = {"load_in_4bit": True, "llm_int8_skip_modules": [entry, "lm_head"]}
    tower = read(listed, GEMMA_3_4B).parts[0]
    spec = read(listed, GEMMA_3_4B)
    found = {spec.scheme.format_of(t).name for t in tower.layers[0].tensors if len(t.shape) > 1}
    assert {"nf4" if entry == "re" else "bf16"} == found
    assert "nf4" == format_in(spec, "mlp.up_proj.weight")


def test_a_format_that_is_asked_for_replaces_the_checkpoints() -> None:
    """Someone who asks for bf16 wants the matrices in bf16, whatever the file holds."""
    spec = read({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "ignore": ["*.1.mlp*"]})
    need = estimate(spec, Inference(weight_format="bf16", context_tokens=1))
    assert estimate(read_config(LLAMA_3_1_8B, "mine"), Inference(context_tokens=1)).weights_bytes == need.weights_bytes


def test_experts_of_one_layer_in_several_formats_are_refused() -> None:
    """Our inventory has one entry for all experts of a kind."""
    entries = ["lm_head", "model.layers.3.mlp.experts.7.up_proj"]
    with pytest.raises(UnsupportedModelError, match="experts of one layer in several formats"):
        read({"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": entries}, QWEN3_30B_A3B)


@pytest.mark.parametrize(
    "pattern", ["re:(a+)+b", "re:" + "a*" * 9, "re:[", "re:" + "a" * 3000, "re:(?P<a>x)(?P<a>y)", "re:a{99999999999}"]
)
def test_patterns_that_could_take_for_ever_are_refused(pattern: str) -> None:
    """Patterns are the input's, and the input is nobody's friend."""
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "tensor"}}
    with pytest.raises(InvalidValueError, match=r"quantization_config\.ignore"):
        read({"quant_method": "compressed-tensors", "config_groups": {"a": group}, "ignore": ["lm_head", pattern]})


def test_a_section_in_the_text_configuration_is_read() -> None:
    """Kimi K2.5 has it there."""
    text = {**GEMMA_3_4B["text_config"], "quantization_config": {"quant_method": "fp8"}}
    assert "fp8" == format_in(read_config({**GEMMA_3_4B, "text_config": text}, "mine"), "mlp.up_proj.weight")


def test_modelopts_own_file_is_read_beside_the_configuration(tmp_path: Path) -> None:
    """Older exports say it nowhere else; what config.json says itself goes first."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_3_1_8B))
    beside = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside))
    spec = read_model(tmp_path)
    assert ("fp8", "fp8") == (format_in(spec, "mlp.up_proj.weight"), spec.scheme.kv_format)
    (tmp_path / "config.json").write_text(
        json.dumps({**LLAMA_3_1_8B, "quantization_config": {"quant_method": "mxfp4"}})
    )
    assert "mxfp4" == read_model(tmp_path).scheme.quantised.name
