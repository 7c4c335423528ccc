"""Quantised checkpoints against the tools' own modules: every byte of small models, and which modules lists mean."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.quantizers.quantizers_utils import should_convert_module  # noqa: E402

from vramfit.memory.weights import weight_bytes  # noqa: E402 - after the libraries are known to be there
from vramfit.readers.hf_config import read_config  # noqa: E402
from vramfit.readers.quantizers.names import transformers_names  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {
    "vocab_size": 99, "hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "tie_word_embeddings": False, "max_position_embeddings": 64,
}  # fmt: skip
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", **SMALL}
KEPT = ["lm_head", "model.layers.1.mlp", "model.layers.*.self_attn.v_proj", "k_proj"]


def on_meta() -> Any:
    """Return the small Llama without memory."""
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)).to(torch.bfloat16)


def stored_bytes(model: Any) -> int:
    """Bytes of a module's state, and of FBGEMM's upper bound, which files hold and modules make anew. [B]"""
    bounds = [b for name, b in model.named_buffers() if name.endswith("input_scale_ub")]
    return sum(t.numel() * t.element_size() for t in (*model.state_dict().values(), *bounds))


def replaced(method: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield sections and what transformers makes of the small model for them."""
    if method == "fp8":
        from transformers.integrations.finegrained_fp8 import replace_with_fp8_linear

        for tile in ((128, 128), (64, 64)):
            section = {"weight_block_size": list(tile), "modules_to_not_convert": KEPT}
            config = transformers.FineGrainedFP8Config(**section)
            yield section, replace_with_fp8_linear(on_meta(), KEPT, quantization_config=config, pre_quantized=True)
    elif method == "bitnet":
        from transformers.integrations.bitnet import replace_with_bitnet_linear

        yield {"modules_to_not_convert": KEPT}, replace_with_bitnet_linear(on_meta(), KEPT)
    else:
        from transformers.integrations.fbgemm_fp8 import FbgemmFp8Linear

        model = on_meta()
        for name, module in list(model.named_modules()):
            if isinstance(module, torch.nn.Linear) and should_convert_module(name, KEPT):
                with torch.device("meta"):
                    new = FbgemmFp8Linear(module.in_features, module.out_features, bias=False)
                model.set_submodule(name, new)
        yield {"modules_to_not_convert": KEPT}, model


@pytest.mark.parametrize("method", ["fp8", "bitnet", "fbgemm_fp8"])
def test_transformers_own_modules_take_the_same_bytes(method: str) -> None:
    """Weights, scales, and what stays plain by name, in one layer or in all."""
    for section, model in replaced(method):
        spec = read_config({**CONFIG, "quantization_config": {"quant_method": method, **section}}, "small")
        assert stored_bytes(model) == weight_bytes(spec)


ENTRIES = [
    "model.layers.1",
    "model.layers.*.mlp.gate",
    "self_attn.k_proj",
    "lm_head",
    "down_proj",
    "model.layers.2.mlp.up",
]
NAMES = [
    "lm_head",
    *(
        f"model.layers.{i}.{m}"
        for i in (1, 2, 11)
        for m in ("mlp.gate", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    ),
    *(f"model.layers.{i}.self_attn.{m}_proj" for i in (1, 2, 11) for m in "qk"),
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_lists_mean_what_they_mean_to_transformers(entry: str) -> None:
    """Names, beginnings, endings and patterns, module by module."""
    ours = transformers_names([entry], "list")
    layer = {name: int(name.split(".")[2]) if "layers" in name else None for name in NAMES}
    assert [not should_convert_module(n, [entry]) for n in NAMES] == [ours.has(n, layer[n]) for n in NAMES]


def weights(bits: int, kind: str, strategy: str, **more: Any) -> dict[str, Any]:
    """Return the weights of a group of compressed-tensors."""
    return {"num_bits": bits, "type": kind, "strategy": strategy, "symmetric": True, "dynamic": False, **more}


TOKEN = {"num_bits": 8, "strategy": "token", "dynamic": True, "symmetric": True}
LOCAL = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "dynamic": "local"}
TENSOR = {"num_bits": 8, "strategy": "tensor", "dynamic": False}
GROUPS: dict[str, dict[str, Any]] = {
    "w4a16": {"weights": weights(4, "int", "group", group_size=128)},
    "w4a16-asymmetric": {"weights": weights(4, "int", "group", group_size=64, symmetric=False)},
    "w4a16-channel": {"weights": weights(4, "int", "channel", symmetric=False)},
    "w2a16": {"weights": weights(2, "int", "group", group_size=32)},
    "w3a16": {"weights": weights(3, "int", "group", group_size=128)},
    "w6a16": {"weights": weights(6, "int", "group", group_size=32, symmetric=False)},
    "w8a16": {"weights": weights(8, "int", "channel")},
    "w8a8": {"weights": weights(8, "int", "channel"), "input_activations": {**TOKEN, "type": "int"}},
    "w8a8-static": {
        "weights": weights(8, "int", "channel", symmetric=False),
        "input_activations": {**TENSOR, "type": "int", "symmetric": False},
    },
    "fp8-dynamic": {"weights": weights(8, "float", "channel"), "input_activations": {**TOKEN, "type": "float"}},
    "fp8-static": {"weights": weights(8, "float", "tensor"), "input_activations": {**TENSOR, "type": "float"}},
    "fp8-block": {"weights": weights(8, "float", "block", block_structure=[128, 128])},
    "nvfp4": {"weights": weights(4, "float", "tensor_group", group_size=16), "input_activations": LOCAL},
    "nvfp4a16": {"weights": weights(4, "float", "tensor_group", group_size=16)},
    "mxfp4": {"weights": weights(4, "float", "group", group_size=32, scale_dtype="torch.uint8")},
}
IGNORED = ["lm_head", r"re:.*layers\.1\.mlp\.down_proj", "model.layers.2.self_attn.k_proj"]


@pytest.mark.parametrize("cache", [None, {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}])
@pytest.mark.parametrize("name", GROUPS)
def test_compressed_tensors_packs_to_the_same_bytes(name: str, cache: dict[str, Any] | None) -> None:
    """Every tensor of every module after the library's own compression, ignored modules and cache scales too."""
    quantization = pytest.importorskip("compressed_tensors.quantization")
    compressors = pytest.importorskip("compressed_tensors.compressors")
    formats = pytest.importorskip("compressed_tensors.compressors.format")
    section: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], **GROUPS[name]}},
        "ignore": IGNORED,
        **({"kv_cache_scheme": cache} if cache else {}),
    }
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)).to(torch.bfloat16)
    applied = quantization.QuantizationConfig(**copy.deepcopy(section), quantization_status="initialized")
    quantization.apply_quantization_config(model, applied)
    total = 0
    for module in model.modules():
        state = {k: v for k, v in module._parameters.items() if v is not None}
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is not None and "weight" in state and scheme.weights is not None:
            layout = formats.infer_module_format(type(module), scheme)
            section["format"] = layout.value
            packer = compressors.BaseCompressor.get_value_from_registry(layout.value)
            ones = {k: torch.ones_like(v) if "scale" in k else v.data for k, v in state.items()}
            state = packer.compress(ones, scheme)
        total += sum(t.numel() * t.element_size() for t in state.values())
    assert total == weight_bytes(read_config({**CONFIG, "quantization_config": section}, "small"))
