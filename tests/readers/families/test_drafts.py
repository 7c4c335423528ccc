"""Draft heads: counts that their publishers print, names in their files, what they take from the model beside them."""

from __future__ import annotations

from typing import Any

import pytest

from hybrid_configs import DEEPSEEK_V3
from published_configs import LLAMA_1_7B, LLAMA_3_1_8B, LLAMA_3_1_70B
from vramfit.errors import VramfitError
from vramfit.estimate import estimate
from vramfit.memory.kv_cache import model_bytes_per_token
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference
from vramfit.spec import inventory

ONE: dict[str, Any] = {"num_hidden_layers": 1}
EAGLE = {**LLAMA_1_7B, **ONE, "architectures": ["LlamaForCausalLMEagle"]}
EAGLE_70B = {**LLAMA_3_1_70B, **ONE, "architectures": ["LlamaForCausalLMEagle"], "bias": False}
EAGLE_3 = {**LLAMA_3_1_8B, **ONE, "architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 32000}
MEDUSA = {"architectures": ["MedusaModel"], "hidden_size": 4096, "vocab_size": 32000, "torch_dtype": "bfloat16"}
WORK = Inference(context_tokens=128, prompt_tokens=64, kv_format_k="bf16", kv_format_v="bf16")


def test_published_sizes_of_eagle() -> None:
    """0.24 billion for a 7B and 0.99 for a 70B model (SafeAILab/EAGLE, README, table of weights)."""
    small, large = read_config(EAGLE, "7B"), read_config(EAGLE_70B, "70B")
    block = 4 * 4096 * 4096 + 3 * 4096 * 11008 + 4096
    assert small.num_parameters == block + 2 * 4096 * 4096 + 4096
    assert round(small.num_parameters / 1e9, 2) == 0.24
    assert round(large.num_parameters / 1e9, 2) == 0.99


def test_eagle_has_no_first_norm_and_takes_the_embedding() -> None:
    """Names as in its file; what it shares is recorded."""
    spec = read_config(EAGLE, "7B")
    names = {t.name for t in inventory(spec)}
    assert names == {
        "fc.weight", "fc.bias", "layers.0.post_attention_layernorm.weight",
        *(f"layers.0.self_attn.{m}_proj.weight" for m in "qkvo"),
        *(f"layers.0.mlp.{m}_proj.weight" for m in ("gate", "up", "down")),
    }  # fmt: skip
    assert any("embed_tokens" in line for line in spec.assumptions)
    assert model_bytes_per_token(spec, WORK) == 2 * 32 * 128 * 2


def test_eagle_3_reads_twice_the_width() -> None:
    """Three hidden states joined, a block that reads 8,192 elements, 32,000 words: 850 MB in 16 bit with its tables."""
    spec = read_config(EAGLE_3, "8B")
    h, kv = 4096, 1024
    block = 2 * h * (h + 2 * kv) + h * h + 3 * h * 14336 + 3 * h
    assert spec.num_parameters == block + 3 * h * h + h + 32000 * h
    shapes = {t.name: t.shape for t in inventory(spec)}
    assert shapes["midlayer.self_attn.q_proj.weight"] == (4096, 8192)
    assert shapes["d2t"] == (32000,)
    assert shapes["t2d"] == (128256,)
    assert estimate(spec, WORK).weights_bytes == 2 * spec.num_parameters + 8 * 32000 + 128256


def test_medusa_in_both_forms() -> None:
    """Five heads of one matrix and one projection; the first form has biases, and neither keeps tokens."""
    first = read_config({**MEDUSA, "medusa_num_heads": 5, "medusa_num_layers": 1}, "m")
    second = read_config({**MEDUSA, "model_type": "medusa", "num_heads": 5, "num_hidden_layers": 1}, "m")
    assert first.num_parameters == 5 * (4096 * 4096 + 4096 + 32000 * 4096)
    assert second.num_parameters == 5 * (4096 * 4096 + 32000 * 4096)
    assert {"0.0.linear.weight", "0.0.linear.bias", "4.1.weight"} <= {t.name for t in inventory(first)}
    assert {"blocks.0.layers.0.weight", "lm_heads.4.weight"} <= {t.name for t in inventory(second)}
    assert model_bytes_per_token(first, WORK) == 0
    assert estimate(first, WORK).kv_bytes_per_token == 0


def test_medusa_without_a_width_is_refused() -> None:
    """The first published files name the model they draft for and nothing of its shape."""
    with pytest.raises(VramfitError, match="hidden_size: missing"):
        read_config({"architectures": ["MedusaModel"], "medusa_num_heads": 5}, "m")


def test_next_n_is_the_prediction_layer_as_layer_0() -> None:
    """As many parameters as the part that DeepSeek V3's file holds behind its last layer."""
    whole = read_config(DEEPSEEK_V3, "V3")
    draft = read_config({**DEEPSEEK_V3, "architectures": ["DeepseekV3ForCausalLMNextN"], "num_hidden_layers": 1}, "n")
    assert draft.num_parameters == whole.parts[0].num_parameters
    theirs = {t.name.replace("model.layers.61.", "model.layers.0.") for t in inventory(whole) if "layers.61." in t.name}
    assert {t.name for t in inventory(draft)} == theirs


def test_a_draft_is_estimated_like_a_model() -> None:
    """Every head passes through the whole estimate."""
    for config in (EAGLE, EAGLE_3, {**MEDUSA, "medusa_num_heads": 3}):
        assert estimate(read_config(config, "x"), WORK).worst.peak().expected_bytes > 0
