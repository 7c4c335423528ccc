"""Phi-4-mini-flash: one full attention whose cache the upper half reads."""

from __future__ import annotations

import pytest

from recurrent_configs import PHI_4_MINI_FLASH
from vramfit.errors import VramfitError
from vramfit.estimate import estimate
from vramfit.layer_kind import GroupedQuery, StateSpace
from vramfit.memory.weights import weight_bytes
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference
from vramfit.spec import inventory

LAMBDAS = " ".join(f"inner_cross_attn.{x}" for x in ("lambda_k1", "lambda_k2", "lambda_q1", "lambda_q2",
                                                    "subln.weight"))  # fmt: skip

LOW_RANK = "dt_proj.bias dt_proj.weight x_proj.weight"


def test_published_bytes() -> None:
    """7,706,608,640: total_size of model.safetensors.index.json, decays and lambdas in fp32, the rest in bf16."""
    spec = read_config(PHI_4_MINI_FLASH, "flash")
    assert 7_706_608_640 == weight_bytes(spec)
    assert 3_852_562_944 == spec.num_parameters


@pytest.mark.parametrize(
    ("layer", "mixer"),
    [
        (16, f"A_log D conv1d.bias conv1d.weight {LOW_RANK} in_proj.weight out_proj.weight"),
        (17, f"Wqkv.bias Wqkv.weight {LAMBDAS} out_proj.bias out_proj.weight"),
        (18, "in_proj.weight out_proj.weight"),
        (19, f"Wqkv.bias Wqkv.weight {LAMBDAS} out_proj.bias out_proj.weight"),
    ],
)  # fmt: skip
def test_published_names(layer: int, mixer: str) -> None:
    """As in model.safetensors.index.json: one layer of each kind."""
    prefix = f"model.layers.{layer}."
    found = {t.name.removeprefix(prefix) for t in inventory(read_config(PHI_4_MINI_FLASH, "flash"))
             if t.name.startswith(prefix)}  # fmt: skip
    norms = {
        f"{name}.{kind}" for name in ("input_layernorm", "post_attention_layernorm") for kind in ("weight", "bias")
    }
    assert norms | {"mlp.fc1.weight", "mlp.fc2.weight"} | {f"attn.{name}" for name in mixer.split()} == found


def test_what_each_layer_keeps() -> None:
    """Mamba in 0, 2, ... 16; windows of 512 in 1, 3, ... 15; all tokens in 17; nothing above."""
    layers = read_config(PHI_4_MINI_FLASH, "flash").layers
    assert list(range(0, 17, 2)) == [i for i, layer in enumerate(layers) if isinstance(layer.attention, StateSpace)]
    attends = {i: layer.attention for i, layer in enumerate(layers) if isinstance(layer.attention, GroupedQuery)}
    assert dict.fromkeys(range(1, 16, 2), 512) == {i: a.window_tokens for i, a in attends.items() if a.window_tokens}
    assert list(range(19, 32, 2)) == [i for i, a in attends.items() if a.shares_cache]


def test_a_long_context_costs_one_layer() -> None:
    """2 x 20 heads x 64 x 2 B = 5,120 B per token: 32,768 in layer 17, 512 in eight others."""
    need = estimate(read_config(PHI_4_MINI_FLASH, "flash"), Inference(context_tokens=32_768, batch=1))
    kept = sum(i.bytes for i in need.breakdowns[0].items if i.name in {"kv_cache/full_attention",
                                                                      "kv_cache/sliding_window"})  # fmt: skip
    assert 5_120 * (32_768 + 8 * 512) == kept


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_hidden_layers": 30}, "num_hidden_layers: 30: expected a multiple of 4"),
        ({"mb_per_layer": 4}, "mb_per_layer: 4: expected 2"),
        ({"lm_head_bias": True}, "lm_head_bias: True"),
    ],
)
def test_refusals(change: dict[str, object], complaint: str) -> None:
    """Halves that are not equal, another rhythm, biases."""
    with pytest.raises(VramfitError, match=complaint):
        read_config({**PHI_4_MINI_FLASH, **change}, "flash")
