"""What a checkpoint stores for one matrix, tensor for tensor, in every layout that is read.

Each list was derived from the packing code of the tool and, for compressed-tensors 0.20, fp8 and others of
transformers 5.23, compared with what that code makes of small models.
"""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from published_configs import LLAMA_3_1_8B
from vramfit.readers.hf_config import read_config
from vramfit.spec import ModelSpec

OUT, IN = 1024, 4096
"""``k_proj`` of Llama 3.1 8B: 8 heads of 128, from 4,096."""
I32, I64, F32, F16, ONE = 4, 8, 4, 2, 1
"""Bytes of a number; f16 is also bf16; ONE is int8, uint8 or fp8."""


def ct(weights: dict[str, Any], layout: str | None, **other: Any) -> dict[str, Any]:
    """Return a section of compressed-tensors with one group for all linear layers."""
    group = {"targets": ["Linear"], "weights": weights, **other}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"g": group},
        "ignore": ["lm_head"],
    }


def w(bits: int, kind: str, strategy: str, **more: Any) -> dict[str, Any]:
    """Return the weights of such a group."""
    return {"num_bits": bits, "type": kind, "strategy": strategy, "symmetric": True, **more}


STATIC = {"input_activations": {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}}
NV_INPUTS = {"input_activations": {"num_bits": 4, "type": "float", "group_size": 16, "dynamic": "local"}}
GPTQ = {"quant_method": "gptq", "group_size": 128}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}

Stored = list[tuple[tuple[int, ...], int]]
LAYOUTS: list[tuple[str, dict[str, Any], Stored]] = [
    ("gptq 4 (qweight, qzeros, scales, g_idx)", {**GPTQ, "bits": 4},
     [((IN // 8, OUT), I32), ((32, OUT // 8), I32), ((32, OUT), F16), ((IN,), I32)]),
    ("gptq 3", {**GPTQ, "bits": 3},
     [((IN // 32 * 3, OUT), I32), ((32, OUT // 32 * 3), I32), ((32, OUT), F16), ((IN,), I32)]),
    ("gptq 2", {**GPTQ, "bits": 2}, [((IN // 16, OUT), I32), ((32, OUT // 16), I32), ((32, OUT), F16), ((IN,), I32)]),
    ("gptq 8", {**GPTQ, "bits": 8, "desc_act": True, "sym": False, "checkpoint_format": "gptq_v2"},
     [((IN // 4, OUT), I32), ((32, OUT // 4), I32), ((32, OUT), F16), ((IN,), I32)]),
    ("gptq per column", {**GPTQ, "bits": 4, "group_size": -1},
     [((IN // 8, OUT), I32), ((1, OUT // 8), I32), ((1, OUT), F16), ((IN,), I32)]),
    ("marlin (B, s)", {**GPTQ, "bits": 4, "checkpoint_format": "marlin"},
     [((IN // 16, 2 * OUT), I32), ((32, OUT), F16)]),
    ("awq gemm (qweight, qzeros, scales)", {**AWQ, "version": "gemm"},
     [((IN, OUT // 8), I32), ((32, OUT // 8), I32), ((32, OUT), F16)]),
    ("awq gemv, groups of 64: 64 groups are 8 words", {**AWQ, "group_size": 64, "version": "gemv"},
     [((OUT, IN // 8), I32), ((OUT, 8), I32), ((OUT, 64), F16)]),
    ("auto-round (no g_idx)", {"quant_method": "auto-round", "bits": 4, "group_size": 128,
                               "packing_format": "auto_round:auto_gptq"},
     [((IN // 8, OUT), I32), ((32, OUT // 8), I32), ((32, OUT), F16)]),
    ("auto-round as awq", {"quant_method": "intel/auto-round", "bits": 4, "group_size": 128,
                           "packing_format": "auto_round:auto_awq"},
     [((IN, OUT // 8), I32), ((32, OUT // 8), I32), ((32, OUT), F16)]),
    ("nf4 (weight, absmax, quant_map)", {"load_in_4bit": True},
     [((OUT * IN // 2, 1), ONE), ((OUT * IN // 64,), F32), ((16,), F32)]),
    ("nf4 nested (weight, absmax, quant_map, nested_absmax, nested_quant_map, offset)",
     {"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
     [((OUT * IN // 2, 1), ONE), ((OUT * IN // 64,), ONE), ((16,), F32), ((OUT * IN // 64 // 256,), F32),
      ((256,), F32), ((), F32)]),
    ("llm.int8 (weight, SCB)", {"load_in_8bit": True}, [((OUT, IN), ONE), ((OUT,), F32)]),
    ("fp8 tiles (weight, weight_scale_inv)", {"quant_method": "fp8", "weight_block_size": [128, 128]},
     [((OUT, IN), ONE), ((OUT // 128, IN // 128), F32)]),
    ("fp8 per tensor, static", {"quant_method": "fp8", "activation_scheme": "static"},
     [((OUT, IN), ONE), ((), F32), ((), F32)]),
    ("fbgemm (weight, weight_scale, input_scale_ub)", {"quant_method": "fbgemm_fp8"},
     [((OUT, IN), ONE), ((OUT, 1), F32), ((1,), F32)]),
    ("eetq", {"quant_method": "eetq"}, [((IN, OUT), ONE), ((OUT,), F16)]),
    ("bitnet", {"quant_method": "bitnet"}, [((OUT // 4, IN), ONE), ((1,), F16)]),
    ("aqlm 1x16 (codes, codebooks, scales)", {"quant_method": "aqlm", "in_group_size": 8, "nbits_per_codebook": 16},
     [((OUT, IN // 8, 1), 2), ((1, 2**16, 1, 8), F16), ((OUT, 1, 1, 1), F16)]),
    ("hqq 4 (W_q, scale, zero)",
     {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}}},
     [((OUT * IN // 2,), ONE), ((OUT * IN // 64,), F16), ((OUT * IN // 64,), F16)]),
    ("exl3 (trellis, suh, svh)", {"quant_method": "exl3", "bits": 3, "head_bits": 6},
     [((IN // 16, OUT // 16, 48), 2), ((IN,), F16), ((OUT,), F16)]),
    ("torchao int8, first version (int_data, scale, zero_point)",
     {"quant_method": "torchao", "quant_type": "int8_weight_only"},
     [((OUT, IN), ONE), ((OUT,), F16), ((OUT,), I64)]),
    ("torchao int8, second version (qdata, scale, zero_point)",
     {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2}}},
     [((OUT, IN), ONE), ((OUT, 1), F32), ((OUT, 1), ONE)]),
    ("quanto int8 (_data, _scale, input_scale, output_scale)", {"quant_method": "quanto", "weights": "int8"},
     [((OUT, IN), ONE), ((OUT, 1), F16), ((), F16), ((), F16)]),
    ("quanto int4 (_data, _scale, _shift, input_scale, output_scale)", {"quant_method": "quanto", "weights": "int4"},
     [((OUT * IN // 256, 128), ONE), ((OUT * IN // 128, 1), F16), ((OUT * IN // 128, 1), F16), ((), F16), ((), F16)]),
    ("hqq 3: ten groups of 64 a row of words",
     {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 3, "group_size": 64, "axis": 1}}},
     [((6554, 64), I32), ((OUT * IN // 64, 1), F16), ((OUT * IN // 64, 1), F16)]),
    ("torchao int4",
     {"quant_method": "torchao",
      "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 128}}}},
     [((OUT, IN // 2), ONE), ((32, OUT, 2), F16)]),
    ("torchao float8", {"quant_method": "torchao", "quant_type": "float8_weight_only"},
     [((OUT, IN), ONE), ((OUT, 1), F32)]),
    ("quark fp8", {"quant_method": "quark", "global_quant_config": {
        "weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}, "input_tensors": {"is_dynamic": False}}},
     [((OUT, IN), ONE), ((), F32), ((), F32)]),
    ("quark mxfp4", {"quant_method": "quark", "global_quant_config": {
        "weight": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32}}},
     [((OUT, IN // 2), ONE), ((OUT, IN // 32), ONE)]),
    ("modelopt FP8 (weight, weight_scale, input_scale)", {"quant_method": "modelopt", "quant_algo": "FP8"},
     [((OUT, IN), ONE), ((), F32), ((), F32)]),
    ("modelopt NVFP4 (weight, weight_scale, weight_scale_2, input_scale)",
     {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16},
     [((OUT, IN // 2), ONE), ((OUT, IN // 16), ONE), ((), F32), ((), F32)]),
    ("w4a16", ct(w(4, "int", "group", group_size=128), "pack-quantized"),
     [((OUT, IN // 8), I32), ((OUT, 32), F16), ((2,), I64)]),
    ("w4a16 asymmetric", ct(w(4, "int", "group", group_size=128, symmetric=False), "pack-quantized"),
     [((OUT, IN // 8), I32), ((OUT, 32), F16), ((OUT // 8, 32), I32), ((2,), I64)]),
    ("w4a16 by activation order", ct(w(4, "int", "group", group_size=128, actorder="group"), "pack-quantized"),
     [((OUT, IN // 8), I32), ((OUT, 32), F16), ((2,), I64), ((IN,), I32)]),
    ("w8a16", ct(w(8, "int", "channel"), "pack-quantized"), [((OUT, IN // 4), I32), ((OUT, 1), F16), ((2,), I64)]),
    ("w3a16", ct(w(3, "int", "group", group_size=128), "pack-quantized"),
     [((OUT, IN * 3 // 32), I32), ((OUT, 32), F16), ((2,), I64)]),
    ("w8a8", ct(w(8, "int", "channel"), "int-quantized"), [((OUT, IN), ONE), ((OUT, 1), F16)]),
    ("fp8 dynamic", ct(w(8, "float", "channel"), "float-quantized"), [((OUT, IN), ONE), ((OUT, 1), F16)]),
    ("fp8 static", ct(w(8, "float", "tensor"), "float-quantized", **STATIC),
     [((OUT, IN), ONE), ((1,), F16), ((1,), F16)]),
    ("fp8 block", ct(w(8, "float", "block", block_structure=[128, 128]), "float-quantized"),
     [((OUT, IN), ONE), ((8, 32), F16)]),
    ("nvfp4", ct(w(4, "float", "tensor_group", group_size=16), "nvfp4-pack-quantized", **NV_INPUTS),
     [((OUT, IN // 2), ONE), ((OUT, IN // 16), ONE), ((1,), F32), ((1,), F32)]),
    ("nvfp4a16", ct(w(4, "float", "tensor_group", group_size=16), None),
     [((OUT, IN // 2), ONE), ((OUT, IN // 16), ONE), ((1,), F32)]),
    ("mxfp4", ct(w(4, "float", "group", group_size=32), "mxfp4-pack-quantized"),
     [((OUT, IN // 2), ONE), ((OUT, IN // 32), ONE)]),
    ("mxfp8", ct(w(8, "float", "group", group_size=32), "mxfp8-quantized"), [((OUT, IN), ONE), ((OUT, IN // 32), ONE)]),
    ("sparse 2:4 in fp8 (compressed, bitmask, shape, weight_scale)",
     {**ct(w(8, "float", "channel"), "float-quantized"), "sparsity_config": {"format": "sparse-24-bitmask"}},
     [((OUT, IN // 2), ONE), ((OUT, IN // 8), ONE), ((2,), I64), ((OUT, 1), F16)]),
]  # fmt: skip


def model(section: dict[str, Any]) -> ModelSpec:
    """Return Llama 3.1 8B with that section."""
    return read_config({**LLAMA_3_1_8B, "quantization_config": section}, "mine")


@pytest.mark.parametrize(("section", "stored"), [c[1:] for c in LAYOUTS], ids=[c[0] for c in LAYOUTS])
def test_a_matrix_takes_the_bytes_of_all_its_tensors(section: dict[str, Any], stored: Stored) -> None:
    """Codes, scales, zeros, indexes, shapes and tables, to the byte."""
    spec = model(section)
    matrix = next(t for t in spec.layers[0].tensors if t.name == "self_attn.k_proj.weight")
    assert sum(prod(shape) * size for shape, size in stored) == spec.scheme.format_of(matrix).tensor_size(matrix.shape)


KV = [
    ({**ct(w(8, "float", "channel"), "float-quantized"), "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
     ["self_attn.k_scale", "self_attn.v_scale"], 2),
    ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
     ["self_attn.k_proj.k_scale", "self_attn.v_proj.v_scale"], 4),
]  # fmt: skip


@pytest.mark.parametrize(("section", "names", "size"), KV, ids=["compressed-tensors", "modelopt"])
def test_a_declared_cache_format_brings_its_scales(section: dict[str, Any], names: list[str], size: int) -> None:
    """One scale for keys and one for values in every layer: tensors, but no parameters."""
    spec = model(section)
    found = [t for t in spec.layers[31].tensors if "_scale" in t.name]
    assert names == [t.name for t in found]
    assert [size, size] == [spec.scheme.format_of(t).tensor_size(t.shape) for t in found]
    assert "fp8" == spec.scheme.kv_format
    assert 8_030_261_248 == spec.num_parameters


def test_groups_of_targets_have_formats_of_their_own() -> None:
    """Names before patterns before classes; what ``ignore`` names is never quantised."""
    section = {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "config_groups": {
            "rest": {"targets": ["Linear"], "weights": w(4, "int", "group", group_size=128)},
            "down": {"targets": ["re:.*down_proj"], "weights": w(8, "float", "channel"), "format": "float-quantized"},
            "one": {"targets": ["model.layers.2.mlp.down_proj"], "weights": w(8, "int", "channel")},
        },
        "ignore": ["lm_head", "re:.*layers\\.3\\..*"],
    }
    spec = model(section)

    def formats(layer: int) -> list[str]:
        names = ("mlp.up_proj.weight", "mlp.down_proj.weight")
        return [spec.scheme.format_of(t).name for n in names for t in spec.layers[layer].tensors if t.name == n]

    assert ["int4", "fp8-channel"] == formats(1)
    assert ["int4", "int8-channel"] == formats(2)
    assert ["bf16", "bf16"] == formats(3)
    assert 3 == len(spec.groups)


def test_rules_of_gptqmodel_change_width_or_leave_plain() -> None:
    """``-:`` leaves plain; the first pattern that fits decides."""
    dynamic = {r"-:.*\.layers\.0\..*": {}, r"+:.*down_proj": {"bits": 8, "group_size": 32}, ".*up_proj": {"bits": 3}}
    spec = model({**GPTQ, "bits": 4, "dynamic": dynamic})
    found = {
        (i, t.name.split(".")[1]): spec.scheme.format_of(t).name
        for i in (0, 1)
        for t in spec.layers[i].tensors
        if t.name.startswith("mlp.")
    }
    assert {"bf16"} == {found[0, name] for name in ("gate_proj", "up_proj", "down_proj")}
    assert ["gptq-int4", "gptq-int3", "gptq-int8"] == [found[1, n] for n in ("gate_proj", "up_proj", "down_proj")]


def test_auto_round_names_modules_that_differ() -> None:
    """16 bits mean plain; others have their own width."""
    differing = {"model.layers.0.mlp.up_proj": {"bits": 8}, "model.layers.1.mlp": {"bits": 16}}
    section = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "ex" + "tra_config": differing}
    spec = model(section)
    names = [[spec.scheme.format_of(t).name for t in spec.layers[i].tensors if "up_proj" in t.name] for i in range(3)]
    assert [["gptq-int8"], ["bf16"], ["gptq-int4"]] == names


def test_auto_round_lists_the_blocks_that_it_quantises() -> None:
    """As a text, a list, or a list of lists; what is inside no block stays plain."""
    section = {"quant_method": "auto-round", "bits": 4, "group_size": 128}
    for blocks in (
        "model.layers.1, model.layers.2",
        ["model.layers.1", "model.layers.2"],
        [["model.layers.1"], ["model.layers.2"]],
    ):
        spec = model({**section, "to_quant_block_names": blocks})
        assert ["bf16", "gptq-int4", "gptq-int4", "bf16"] == [_format_of_up(spec, i) for i in range(4)]
        assert "bf16" == spec.scheme.format_of(spec.head[-1]).name


def test_gptq_may_name_the_only_modules_that_it_quantises() -> None:
    """Lists of lists, one per step of the calibration."""
    inside = [["self_attn.q_proj", "self_attn.k_proj"], ["mlp.up_proj"]]
    spec = model({**GPTQ, "bits": 4, "modules_in_block_to_quantize": inside})
    found = {t.name for t in spec.layers[7].tensors if not spec.scheme.format_of(t).is_plain}
    assert {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "mlp.up_proj.weight"} == found


def _format_of_up(spec: ModelSpec, layer: int) -> str:
    return next(spec.scheme.format_of(t).name for t in spec.layers[layer].tensors if t.name == "mlp.up_proj.weight")


def test_quark_has_rules_by_name() -> None:
    """Exceptions first, then formats by name, then the one for all."""
    fp8, fp4 = ({"weight": {"dtype": d, "qscheme": q}} for d, q in (("fp8_e4m3", "per_tensor"), ("fp4", "per_group")))
    section = {
        "global_quant_config": fp4,
        "layer_quant_config": {"*layers*self*att*n*": fp8},
        "exclude": ["lm_head", "*.1.mlp.*"],
    }
    spec = model({"quant_method": "quark", **section, "kv_cache_quant_config": {"*k_proj": fp8}})
    assert ["mxfp4", "bf16"] == [_format_of_up(spec, i) for i in (0, 1)]
    assert "fp8" == next(spec.scheme.format_of(t).name for t in spec.layers[1].tensors if "q_proj" in t.name)
    assert "fp8" == spec.scheme.kv_format


def test_torchao_may_name_a_configuration_per_module() -> None:
    """``_default`` for the others; null leaves plain."""
    per = {"_default": {"_type": "Int8WeightOnlyConfig", "_version": 2}, "model.layers.0.mlp": None, "lm_head": None}
    kind = {"default": {"_type": "ModuleFqnToConfig", "_data": {"module_fqn_to_config": per}}}
    spec = model({"quant_method": "torchao", "quant_type": kind})
    assert ["bf16", "int8-channel"] == [_format_of_up(spec, i) for i in (0, 1)]


def test_modelopt_may_name_a_format_per_module() -> None:
    """``quantized_layers`` says all; what it does not name is plain."""
    layers = {
        "model.layers.0.self_attn.q_proj": {"quant_algo": "FP8"},
        "model.layers.0.mlp": {"quant_algo": "NVFP4", "group_size": 16},
    }
    spec = model({"quant_algo": "MIXED_PRECISION", "quantized_layers": layers, "kv_cache_quant_algo": None})
    first = {t.name: spec.scheme.format_of(t).name for t in spec.layers[0].tensors}
    assert ("fp8", "bf16", "nvfp4") == (
        first["self_attn.q_proj.weight"], first["self_attn.k_proj.weight"], first["mlp.up_proj.weight"]
    )  # fmt: skip
    assert {"bf16"} == {spec.scheme.format_of(t).name for t in spec.layers[1].tensors}


def test_exl2_takes_the_average_that_it_declares() -> None:
    """4.25 bits of 6,979,321,856 block parameters are 3,707,764,736 B; the head has 6 bits; an assumption says so."""
    spec = model({"quant_method": "exl2", "bits": 4.25, "head_bits": 6})
    block = sum(t.num_parameters for layer in spec.layers for t in layer.tensors if len(t.shape) > 1)
    assert 6_979_321_856 == block
    held = sum(
        spec.scheme.format_of(t).tensor_size(t.shape)
        for layer in spec.layers
        for t in layer.tensors
        if len(t.shape) > 1
    )
    assert 3_707_764_736 == held
    assert 128_256 * 4_096 * 6 // 8 == spec.scheme.format_of(spec.head[-1]).tensor_size(spec.head[-1].shape)
    assert any("average" in note for note in spec.assumptions)
